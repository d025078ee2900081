#!/usr/bin/env bash
# The example scripts of transformers, unchanged, on folders of ours: with the package and in processes that cannot
# import it (--trust_remote_code). Each trains to a metric that only right inputs reach, and its result is loaded again.
#
#     TRANSFORMERS_CHECKOUT=FOLDER bash scripts/test_examples.sh [PYTEST ARGUMENTS]
#
# The scripts are never committed: they come from FOLDER/examples/pytorch, or, without that variable, from the repository
# of transformers at the installed version (its released archives have no examples). Some minutes; prints a table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup_venv.sh dev
export OMP_NUM_THREADS=1
.venv/bin/python -m pytest -q -s -p no:cacheprovider tests/examples/unchanged_scripts.py "$@"
