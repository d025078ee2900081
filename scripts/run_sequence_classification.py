#!/usr/bin/env python
"""`run.py` for recipes of one task alone, one label per text, and for older ones, which do not say their task."""

from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.task_labels import SequenceClassificationTask


if __name__ == "__main__":
    main(SequenceClassificationTask, __doc__)
