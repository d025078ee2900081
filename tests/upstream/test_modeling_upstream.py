"""transformers' own model tests on all classes of this project.

Counts of passed, failed and skipped, and the reason of every skip:

    OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests/upstream -q -rs

With the suites of `generate()` and of the exporters, from a checkout of transformers of the installed version:

    TRANSFORMERS_CHECKOUT=../transformers RUN_SLOW=1 OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests/upstream -q -rs

What is not run as upstream has it is listed in `harness.DEVIATIONS`.
"""

import inspect
import unittest
from typing import Any

import pytest

from hf_rnn_seq2seq import RnnSeq2SeqForSequenceClassification, RnnSeq2SeqForTokenClassification

from . import harness, stand_ins
from .harness import UpstreamClassifierTests, UpstreamSpeechTests, UpstreamTests, UpstreamTextTests


class LstmGeneralAttentionTest(UpstreamTextTests, unittest.TestCase):
    options = {"rnn_type": "lstm", "attention_type": "general"}


class GruAdditivePreviousStateTest(UpstreamTextTests, unittest.TestCase):
    options = {"rnn_type": "gru", "attention_type": "additive", "attention_query": "previous_state"}


class LstmEveryStepTest(UpstreamTextTests, unittest.TestCase):
    options = {"rnn_type": "lstm", "attention_type": "none", "context_feeding": "every_step"}


class RnnTanhLayerNormTest(UpstreamTextTests, unittest.TestCase):
    options = {"rnn_type": "rnn_tanh", "attention_type": "none", "layer_norm": True, "residual": True}


class GruCrfTokenClassificationTest(UpstreamClassifierTests, unittest.TestCase):
    all_model_classes = (RnnSeq2SeqForTokenClassification,)
    options = {"rnn_type": "gru", "use_crf": True}


class LstmLayerNormSequenceClassificationTest(UpstreamClassifierTests, unittest.TestCase):
    all_model_classes = (RnnSeq2SeqForSequenceClassification,)
    options = {"rnn_type": "lstm", "layer_norm": True, "residual": True}


class LstmSpeechTest(UpstreamSpeechTests, unittest.TestCase):
    options = {"rnn_type": "lstm", "input_feature_size": 64, "ctc_weight": 0.3}


# Attributes that every test class of transformers has to give: no deviations.
GIVEN = {"all_model_classes", "is_encoder_decoder", "model_tester", "options", "test_config"}


def test_what_deviates_from_upstream_is_what_the_list_says() -> None:
    # Neither may the list outlive what it excuses, nor may anything be changed that it does not say.
    listed = set(harness.DEVIATIONS)
    if stand_ins.checkout() is not None:
        listed |= set(harness.DEVIATIONS_OF_SUITES)
    changed = set()
    for cls in vars(harness).values():
        if isinstance(cls, type) and issubclass(cls, UpstreamTests):
            for name in set(vars(cls)) - GIVEN:
                kept = [getattr(base, name) for base in (*cls.__bases__, unittest.TestCase) if hasattr(base, name)]
                if kept and not name.startswith(("__", "_abc")) and differs(vars(cls)[name], kept[0]):
                    changed.add((cls.__name__, name))
    assert changed == listed


def differs(ours: Any, theirs: Any) -> bool:
    """Whether an attribute is not upstream's, which puts its tests anew into each class, wrapped."""
    if callable(ours) and callable(theirs):
        return getattr(inspect.unwrap(ours), "__globals__", None) is vars(harness)
    return bool(ours != theirs)


def test_every_class_is_run() -> None:
    suites = [cls for cls in globals().values() if isinstance(cls, type) and issubclass(cls, UpstreamTests)]
    runs = [suite for suite in suites if issubclass(suite, unittest.TestCase)]
    assert {model for suite in runs for model in suite.all_model_classes} == set(harness.TABLES.values())


def test_the_suites_of_a_checkout_are_run() -> None:
    if stand_ins.checkout() is None:
        pytest.skip(f"{stand_ins.CHECKOUT} is not set: {'; '.join(harness.NOT_RUN)} are not run")
    for name in harness.NOT_RUN:
        suites = {base for base in LstmSpeechTest.__mro__ if base.__name__ == name}
        assert len(suites) == 1 and any(test.startswith("test_") for test in vars(suites.pop())), name
