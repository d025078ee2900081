#!/usr/bin/env python
"""Speech to text: train, evaluate and predict as a recipe says.

    python scripts/run_speech.py scripts/recipes/an4.yaml --data_dir DIR
    python scripts/run_speech.py scripts/recipes/fsdd_digits.yaml --data_dir DIR --set training.seed=2 --resume

The recipe is a YAML file; the keys are explained in `scripts/recipes/*.yaml`. What it computes is in the recipe alone.
"""

from __future__ import annotations

from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.task_speech import SpeechTask


if __name__ == "__main__":
    main(SpeechTask, __doc__)
