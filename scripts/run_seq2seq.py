#!/usr/bin/env python
"""Text to text: train, evaluate and predict as a recipe says.

    python scripts/run_seq2seq.py scripts/recipes/toy_reverse.yaml
    python scripts/run_seq2seq.py scripts/recipes/g2p_cmudict.yaml --data_dir DIR --set training.seed=2 --resume

The recipe is a YAML file; the keys are explained in `scripts/recipes/*.yaml`. What it computes is in the recipe alone.
"""

from __future__ import annotations

from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.task_text import Seq2SeqTask


if __name__ == "__main__":
    main(Seq2SeqTask, __doc__)
