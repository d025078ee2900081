#!/usr/bin/env bash
# What `pip install` of a wheel gives, without this checkout: the wheel is built, installed into an empty environment, each
# extra when it is needed, and its commands train, predict, export, serve, answer, hear, speak, show a page and build the
# site. Then the page docs/index.md is run to its last line, and timed.
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

# Tones of two pitches, heard and spoken.
"$python" - <<'PY'
import array, math, wave
from pathlib import Path

Path("wav").mkdir()
lines = ["id\tfile\ttranscript\tsplit"]
for number in range(24):
    word, hertz, length = ("low", 300, 1600) if number % 2 else ("high", 1500, 2400)
    with wave.open(f"wav/{number}.wav", "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        wanted = (9000 * math.sin(math.tau * (hertz + number) * n / 8000) for n in range(length + 40 * number))
        sound.writeframes(array.array("h", map(int, wanted)))
    lines.append(f"{number}\t{number}.wav\t{word}\t{'train' if number < 16 else 'dev'}")
Path("tones.tsv").write_text("\n".join(lines) + "\n")
recipe = """
data: {manifest: tones.tsv, audio: wav, audio_column: file, id_column: id, transcript_column: transcript,
  split_column: split, train: train, validation: dev, test: null}
features: {sampling_rate: 8000, num_mel_bins: 16}
tokenizer: {type: word}
model: {rnn_type: gru, embedding_size: 16, encoder_hidden_size: 16, encoder_layers: 1, decoder_hidden_size: 16,
  decoder_layers: 1}
training: {max_steps: 60, per_device_train_batch_size: 8, learning_rate: 0.02, report_to: none}
"""
for task, more in ("speech", "evaluation: {metrics: [wer]}\n"), ("speak", ""):
    Path(f"{task}.yaml").write_text(f"task: {task}\n{recipe}{more}")
PY
says "$("$command" run speech.yaml 2>&1 || true)" 'hf_rnn_seq2seq\[audio\]'
install "$wheel[audio]"
"$command" run speech.yaml >speech.txt 2>run.log || { cat run.log >&2; fail "the model of speech failed"; }
says "$("$command" predict runs/speech wav/22.wav wav/23.wav | tr '\n' ' ')" 'high.*low'
says "$("$command" run speak.yaml 2>&1 || true)" 'hf_rnn_seq2seq\[speak\]'
install "$wheel[speak]"
"$command" run speak.yaml >speak.txt 2>run.log || { cat run.log >&2; fail "the model that speaks failed"; }
"$command" predict runs/speak low --sound said >speak.txt
says "$(head -c 4 said/low-*.wav)" RIFF
says "$("$command" demo runs/toy_reverse --no_browser 2>&1 || true)" 'hf_rnn_seq2seq\[demo\]'
install "$wheel[demo]"
"$command" demo runs/toy_reverse --space space
says "$(cat space/requirements.txt)" 'hf_rnn_seq2seq\[demo\]=='
install "$wheel[docs]"
(cd "$work/source" && "$python" -m mkdocs build --strict --quiet --site-dir "$work/site")
says "$(cat "$work/site/index.html")" 'hf-rnn-seq2seq'
echo "test_wheel.sh: heard, spoken, shown, the site built: $((SECONDS - started)) s with the installation"

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
