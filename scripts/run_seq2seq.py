#!/usr/bin/env python
"""`run.py` for recipes of one task alone, text to text, and for older ones, which do not say their task."""

from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.task_text import Seq2SeqTask


if __name__ == "__main__":
    main(Seq2SeqTask, __doc__)
