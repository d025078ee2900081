#!/usr/bin/env bash
# All checks, from nothing: .venv, the pinned versions, ruff, mypy and the tests.
#
#     bash scripts/test.sh [--slow] [--plain] [PYTEST ARGUMENTS]
#
# --slow runs the tests marked `slow` too; --plain switches every fast path off, and leaves out the tests of those. Other
# arguments go to pytest: `bash scripts/test.sh -k padding`. Tests marked `chaos` are run by name: pytest -m chaos.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

slow=
arguments=()
for argument in "$@"; do
  case $argument in
    --slow) slow=1 ;;
    --plain) export HF_RNN_SEQ2SEQ_PLAIN=1 ;;
    *) arguments+=("$argument") ;;
  esac
done

markers="not chaos"
if [ -z "$slow" ]; then markers="$markers and not slow"; fi
if [ "${HF_RNN_SEQ2SEQ_PLAIN:-0}" != 0 ]; then markers="$markers and not fast_path"; fi

bash scripts/setup_venv.sh dev

.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m mypy

# One thread a process: the models of the tests are small, and two processes with two threads each on two cores spend
# their time waiting for each other.
export OMP_NUM_THREADS=1
.venv/bin/python -m pytest -n logical --maxprocesses 4 --dist worksteal -m "$markers" ${arguments[@]+"${arguments[@]}"}
