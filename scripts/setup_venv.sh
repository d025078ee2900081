#!/usr/bin/env bash
# Makes .venv in the repository's root and installs the package into it, editable, with the pinned versions.
#
#     bash scripts/setup_venv.sh [EXTRA]      EXTRA: an extra of pyproject.toml, `demo` by default, `dev` for the tests
#
# Does nothing when neither the pins, the package's metadata nor the folder changed since the last time.
# PYTHON=/path/to/python chooses the interpreter of a new .venv. Which build of torch is installed (CPU, CUDA) is
# pip's own choice among the builds of the pinned version: set pip's usual options or variables to change it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extra=${1:-demo}

supported() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

if ! [ -x .venv/bin/python ] || ! supported .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  python=
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if supported "$candidate"; then python=$candidate; break; fi
  done
  if [ -z "$python" ]; then
    echo "setup_venv.sh: no Python >= 3.11 found; install one, or set PYTHON to it" >&2
    exit 1
  fi
  echo "setup_venv.sh: making .venv with $("$python" --version)"
  if ! "$python" -m venv --clear .venv; then
    echo "setup_venv.sh: '$python -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv, and run this again" >&2
    exit 1
  fi
fi

# What the installation depends on. The path is part of it: an editable install points at this folder.
state=$(.venv/bin/python - "$extra" <<'PY'
import hashlib, os, pathlib, sys
files = ("pyproject.toml", "setup.cfg", "scripts/constraints.txt", "scripts/setup_venv.sh")
parts = [sys.argv[1], sys.version, os.getcwd(), *(pathlib.Path(name).read_text(encoding="utf-8") for name in files)]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest())
PY
)
stamp=.venv/hf_rnn_seq2seq.$extra.sha256
if [ "$(cat "$stamp" 2>/dev/null)" != "$state" ]; then
  echo "setup_venv.sh: installing hf_rnn_seq2seq[$extra] into .venv (some minutes the first time)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint scripts/constraints.txt \
    --editable ".[$extra]" </dev/null
  printf '%s\n' "$state" >"$stamp"
fi
