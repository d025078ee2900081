#!/usr/bin/env bash
# What `pip install` of a wheel gives, without this checkout: the wheel is built, installed into an empty environment, each
# extra when it is needed, and its commands train, predict, export, serve and answer. Then the page docs/index.md is run to
# its last line, and timed.
#
#     bash scripts/test_wheel.sh [WORK_DIR]      runs/test_wheel by default; what is there is deleted
#
# Some minutes, most of them the installation. Needs nothing but a registry of packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -x .venv/bin/python ] || bash scripts/setup_venv.sh demo # an interpreter that is new enough, found once
root=$PWD work=${1:-runs/test_wheel}
rm -rf "$work"
mkdir -p "$work/source" "$work/empty"
work=$(cd "$work" && pwd)
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH

# From a copy: an old build/ in the checkout would go into the wheel.
git ls-files -z | xargs -0 cp --parents -t "$work/source"
.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir "$work" "$work/source"
wheel=$(echo "$work"/*.whl)
started=$SECONDS
.venv/bin/python -m venv "$work/venv"
python=$work/venv/bin/python command=$work/venv/bin/hf-rnn-seq2seq
install() { "$python" -m pip install --quiet --constraint "$root/scripts/constraints.txt" "$@" </dev/null; }
fail() { echo "test_wheel.sh: $*" >&2; exit 1; }
says() { printf '%s\n' "$1" | grep --quiet --extended-regexp -- "$2" || fail "got '$1', wanted $2"; }

cd "$work/empty"
install "$wheel"
"$python" -c 'import hf_rnn_seq2seq as h, sys; assert sys.prefix in h.__file__, h.__file__'
"$command" recipes copy toy_reverse .
says "$("$command" run toy_reverse.yaml 2>&1 || true)" "hf_rnn_seq2seq\[(train|metrics)"
install "$wheel[train,metrics]"
"$command" run toy_reverse.yaml --set training.num_train_epochs=6 >metrics.txt 2>run.log || { cat run.log >&2; fail "the recipe failed"; }
says "$(cat metrics.txt)" '^exact_match = (9[5-9]|100)\.'
says "$("$command" predict runs/toy_reverse abcdef)" 'fedcba'
says "$("$command" export runs/toy_reverse exported 2>&1 || true)" 'hf_rnn_seq2seq\[export\]'
install "$wheel[export]"
"$command" export runs/toy_reverse exported >export.log
says "$("$python" exported/rnn_seq2seq_runtime.py abcdef)" 'fedcba'
says "$("$command" serve exported 2>&1 || true)" 'hf_rnn_seq2seq\[serve\]'
install "$wheel[serve]"
"$command" serve exported --port 0 >serve.log &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
until grep --quiet http:// serve.log; do
  kill -0 "$server" 2>/dev/null || fail "the server ended: $(cat serve.log)"
  sleep 0.2
done
says "$("$python" - "$(grep --only-matching 'http://.*' serve.log)" <<'PY'
import sys, urllib.request
headers, body = {"Content-Type": "application/json"}, b'{"text": "abcdef", "num_beams": 4}'
print(urllib.request.urlopen(urllib.request.Request(f"{sys.argv[1]}/generate", body, headers)).read().decode())
PY
)" '"text": ?"fedcba"'
kill "$server"
wait "$server" || [ $? -eq 143 ] || fail "the server ended with an error: $(cat serve.log)"
echo "test_wheel.sh: recipe copied, trained, predicted, exported, served: $((SECONDS - started)) s with the installation"

# The page of the site that a newcomer reads, in an environment that is empty but for the test's own needs.
rm -rf "$work/venv"
started=$SECONDS
"$root/.venv/bin/python" -m venv "$work/venv"
install "$wheel[demo]"
echo "test_wheel.sh: docs/index.md: installed in $((SECONDS - started)) s"
install pytest pytest-timeout
started=$SECONDS
"$python" -m pytest -q -p no:cacheprovider -c /dev/null "$root/tests/test_docs.py" -k "index.md and results"
echo "test_wheel.sh: docs/index.md: trained, translated, used from Python in $((SECONDS - started)) s"
