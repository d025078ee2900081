"""transformers' own model tests on three kinds of this project's models.

Counts of passed, failed and skipped, and the reason of every skip:

    OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests/upstream -q -rs

What is not run as upstream has it is listed in `harness.DEVIATIONS`.
"""

import unittest

from .harness import DEVIATIONS, UpstreamTests


class LstmGeneralAttentionTest(UpstreamTests, unittest.TestCase):
    options = {"rnn_type": "lstm", "attention_type": "general"}


class GruAdditivePreviousStateTest(UpstreamTests, unittest.TestCase):
    options = {"rnn_type": "gru", "attention_type": "additive", "attention_query": "previous_state"}


class LstmEveryStepTest(UpstreamTests, unittest.TestCase):
    options = {"rnn_type": "lstm", "attention_type": "none", "context_feeding": "every_step"}


def test_every_deviation_is_of_something_that_upstream_has() -> None:
    # So that the list does not outlive what it excuses.
    for name in DEVIATIONS:
        assert any(hasattr(base, name) for base in (*UpstreamTests.__bases__, unittest.TestCase)), name
