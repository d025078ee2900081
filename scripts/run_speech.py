#!/usr/bin/env python
"""`run.py` for recipes of one task alone, speech to text, and for older ones, which do not say their task."""

from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.task_speech import SpeechTask


if __name__ == "__main__":
    main(SpeechTask, __doc__)
