#!/usr/bin/env bash
# What `pip install .` gives at both ends of the declared range: an environment with the oldest transformers and torch that
# pyproject.toml admits, and one with the newest that the registry has. Neither uses the pins of constraints.txt.
#
#     bash scripts/test_ends.sh [--suite] [oldest] [newest]      both ends by default
#
# Each end has an environment of its own (.venv-oldest, .venv-newest, several GB where pip chooses a CUDA build of torch).
# First there is nothing in it but the package and pytest, which run tests/properties/test_two_ends.py: `generate()`
# equals uncached search, the fast search was taken, saved code runs without the package, and every private name of
# transformers that we rely on is there. With --suite the extras of the tests are added then, and the whole suite runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup_venv.sh dev # an interpreter that is new enough, found once
tests=tests/properties/test_two_ends.py

suite=
if [ "${1:-}" = --suite ]; then suite=1; shift; fi
if [ $# -eq 0 ]; then set -- oldest newest; fi
for end in "$@"; do
  environment=.venv-$end
  case $end in
    # transformers imports torchao where it is, whose newest cannot be imported beside an old torch.
    oldest) requirements=(-r scripts/requirements-oldest.txt) extras=(torchao==0.15.0) ;;
    newest) requirements=(--upgrade -r scripts/requirements-newest.txt) extras=() ;;
    *) echo "test_ends.sh: unknown end '$end', wanted oldest or newest" >&2; exit 2 ;;
  esac
  if ! "$environment/bin/python" -m pip --version >/dev/null 2>&1; then
    .venv/bin/python -m venv --clear "$environment"
  fi
  echo "test_ends.sh: $end: installing into $environment (some minutes the first time)"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check "${requirements[@]}" . pytest </dev/null
  "$environment/bin/python" -c \
    'import torch, transformers; print(f"transformers {transformers.__version__}, torch {torch.__version__}")'
  # Not from this folder, whose own copy of the package would be imported in place of the installed one.
  (cd "$environment" && OMP_NUM_THREADS=1 bin/python -m pytest -q -p no:cacheprovider -c /dev/null "../$tests")
  if [ -z "$suite" ]; then continue; fi
  echo "test_ends.sh: $end: the whole suite"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check "${requirements[@]}" ".[dev]" \
    ${extras[@]+"${extras[@]}"} </dev/null
  OMP_NUM_THREADS=1 "$environment/bin/python" -m pytest -q -n logical --maxprocesses 4 --dist worksteal \
    -m "not slow and not chaos"
done
