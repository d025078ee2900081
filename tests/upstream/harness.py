"""Runs transformers' own model tests on this project's models.

`DEVIATIONS` is the whole list of what is not run as it is upstream. Everything else of `ModelTesterMixin`,
`ConfigTester` and `TrainingTesterMixin` runs; a test that does not concern a model (rotary embeddings, images, a GPU)
skips itself, with upstream's reason.
"""

import sys
import unittest
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor
from transformers.models.auto import modeling_auto

from hf_rnn_seq2seq import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration, RnnSeq2SeqModel

from . import stand_ins
from .fetch import fetch


sys.path.insert(0, str(fetch()))
stand_ins.install()

from transformers_tests.test_configuration_common import ConfigTester  # noqa: E402
from transformers_tests.test_modeling_common import ModelTesterMixin, ids_tensor  # noqa: E402
from transformers_tests.test_training_mixin import TrainingTesterMixin  # noqa: E402


# Test or attribute of upstream's classes -> why `UpstreamTests` does not take it as it is.
DEVIATIONS: dict[str, str] = {
    "has_attentions": (
        "False: upstream means by it the self-attentions of encoder and decoder in every layer. The cross attentions "
        "have tests of their own in this project."
    ),
    "test_can_init_all_missing_weights_before_2023": (
        "True: stricter. Without it the test skips a file whose first lines name no year after 2022."
    ),
    "setUp": (
        "Puts the two models into the tables of models inside transformers: by these upstream tells a base model from "
        "one with a loss, and would otherwise skip its tests of encoder-decoders."
    ),
    "test_generation_tester_mixin_inheritance": (
        "Left out: asks for GenerationTesterMixin, which the source archive does not contain."
    ),
    "test_inputs_embeds_matches_input_ids": (
        "Run with share_embeddings=True: it embeds the decoder's input with the encoder's table."
    ),
    "_create_text_training_batch": (
        "Upstream's batch is for decoder-only models, which continue their input. The test later calls `generate()` "
        "with the first symbol alone, so that is all that the encoder may see in training; the target goes on from it."
    ),
    "training_overfit_seq_length": (
        "12, not 64: the time of a decoder that runs step by step grows with the length, and the suite is to be quick."
    ),
}


class RnnSeq2SeqModelTester:
    """Small configurations and inputs, under the attribute names that upstream's tests look for."""

    batch_size = 3
    seq_length = 7
    encoder_seq_length = 7
    decoder_seq_length = 7
    is_training = True
    vocab_size = 37
    # One width everywhere: upstream compares every hidden state, embeddings included, with `hidden_size`.
    hidden_size = 64
    num_hidden_layers = 2
    causal_lm_class = RnnSeq2SeqForConditionalGeneration  # the class that the overfitting test trains

    def __init__(self, parent: unittest.TestCase, options: dict[str, Any]):
        self.parent = parent
        self.options = options

    def get_config(self) -> RnnSeq2SeqConfig:
        """The configuration under test."""
        sizes = {
            "vocab_size": self.vocab_size,
            "embedding_size": self.hidden_size,
            "encoder_hidden_size": self.hidden_size,
            "decoder_hidden_size": self.hidden_size,
            "encoder_layers": self.num_hidden_layers,
            "decoder_layers": self.num_hidden_layers,
            # The overfitting test makes sequences of the ids from 1 on, and takes 0 for the end.
            "pad_token_id": 0,
            "decoder_start_token_id": 1,
        }
        return RnnSeq2SeqConfig(**{**sizes, **self.options})

    def prepare_config_and_inputs_for_common(self) -> tuple[RnnSeq2SeqConfig, dict[str, Tensor]]:
        """A configuration and a batch without padding, as upstream's testers make it."""
        config = self.get_config()
        first = 4  # the ids before it are special
        source = ids_tensor([self.batch_size, self.encoder_seq_length], self.vocab_size - first) + first
        target = ids_tensor([self.batch_size, self.decoder_seq_length], self.vocab_size - first) + first
        return config, {
            "input_ids": source,
            "attention_mask": torch.ones_like(source),
            "decoder_input_ids": target,
            "decoder_attention_mask": torch.ones_like(target),
        }


class UpstreamTests(ModelTesterMixin, TrainingTesterMixin):
    """The tests, for one set of options; `unittest.TestCase` is added by the classes that run."""

    options: ClassVar[dict[str, Any]] = {}

    all_model_classes = (RnnSeq2SeqModel, RnnSeq2SeqForConditionalGeneration)
    is_encoder_decoder = True
    has_attentions = False
    test_can_init_all_missing_weights_before_2023 = True
    model_tester: Any = None  # an abstract property in TrainingTesterMixin
    training_overfit_seq_length = 12
    test_generation_tester_mixin_inheritance = None

    def setUp(self) -> None:
        self.model_tester = RnnSeq2SeqModelTester(self, self.options)
        properties = ["hidden_size", "num_hidden_layers"]
        self.config_tester = ConfigTester(self, config_class=RnnSeq2SeqConfig, common_properties=properties)
        for table, model_class in (
            (modeling_auto.MODEL_MAPPING_NAMES, RnnSeq2SeqModel),
            (modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, RnnSeq2SeqForConditionalGeneration),
        ):
            patch = mock.patch.dict(table, {RnnSeq2SeqConfig.model_type: model_class.__name__})
            patch.start()
            self.addCleanup(patch.stop)

    def test_config(self) -> None:
        self.config_tester.run_common_tests()

    def test_inputs_embeds_matches_input_ids(self) -> None:
        self.model_tester.options = {**self.options, "share_embeddings": True}
        super().test_inputs_embeds_matches_input_ids()

    def _create_text_training_batch(self, batch_size: int, seq_length: int, vocab_size: int) -> dict[str, Tensor]:
        batch = super()._create_text_training_batch(batch_size, seq_length, vocab_size)
        first_only = torch.zeros_like(batch["input_ids"])
        first_only[:, 0] = 1
        return {"input_ids": batch["input_ids"], "attention_mask": first_only, "labels": batch["labels"][:, 1:]}
