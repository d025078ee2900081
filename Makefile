# Short names for the commands of the README; `make` alone runs the tests.
.PHONY: test slow plain examples format quickstart clean

test:
	bash scripts/test.sh

slow:
	bash scripts/test.sh --slow

plain:
	bash scripts/test.sh --plain

examples:
	bash scripts/test_examples.sh

format:
	bash scripts/setup_venv.sh dev
	.venv/bin/python -m ruff check --fix .
	.venv/bin/python -m ruff format .

quickstart:
	bash scripts/quickstart.sh

clean:
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
