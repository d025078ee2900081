#!/usr/bin/env python
"""One label per word (tagging, named entities): train, evaluate and predict as a recipe says.

    python scripts/run_token_classification.py scripts/recipes/ud_ewt_pos.yaml --data_dir DIR

The recipe is a YAML file; the keys are explained in `scripts/recipes/*.yaml`. What it computes is in the recipe alone.
"""

from __future__ import annotations

from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.task_token_labels import TokenClassificationTask


if __name__ == "__main__":
    main(TokenClassificationTask, __doc__)
