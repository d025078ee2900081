#!/usr/bin/env python
"""One label per text (sentiment, intent, kind of question): train, evaluate and predict as a recipe says.

    python scripts/run_sequence_classification.py scripts/recipes/trec6.yaml --data_dir DIR

The recipe is a YAML file; the keys are explained in `scripts/recipes/*.yaml`. What it computes is in the recipe alone.
"""

from __future__ import annotations

from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.task_sequence_labels import SequenceClassificationTask


if __name__ == "__main__":
    main(SequenceClassificationTask, __doc__)
