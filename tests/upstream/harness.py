"""Runs transformers' own model tests on this project's models.

`DEVIATIONS` is the whole list of what is not run as it is upstream. Everything else of `ModelTesterMixin` and
`ConfigTester` runs on every class, of `TrainingTesterMixin` on those from text to text, and where a checkout of
transformers is at hand (see `stand_ins.py`) of `GenerationTesterMixin` and `ExportTesterMixin`; a test that does not
concern a model (rotary embeddings, images, a GPU) skips itself, with upstream's reason.
"""

import sys
import unittest
from typing import Any, ClassVar
from unittest import mock

import torch
from torch import Tensor
from transformers.cache_utils import EncoderDecoderCache
from transformers.models.auto import modeling_auto

from hf_rnn_seq2seq import (
    RnnSeq2SeqConfig,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqModel,
)

from . import stand_ins
from .fetch import fetch


sys.path.insert(0, str(fetch()))
stand_ins.install()

from transformers_tests.generation.test_utils import GenerationTesterMixin  # noqa: E402
from transformers_tests.test_configuration_common import ConfigTester  # noqa: E402
from transformers_tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor  # noqa: E402
from transformers_tests.test_training_mixin import TrainingTesterMixin  # noqa: E402


# Class here, test or attribute of upstream's classes -> why it is not taken as it is.
DEVIATIONS: dict[tuple[str, str], str] = {
    ("UpstreamTests", "has_attentions"): (
        "False: upstream means by it the self-attentions of encoder and decoder in every layer. The cross attentions "
        "have tests of their own in this project."
    ),
    ("UpstreamTests", "test_can_init_all_missing_weights_before_2023"): (
        "True: stricter. Without it the test skips a file whose first lines name no year after 2022."
    ),
    ("UpstreamTests", "setUp"): (
        "Puts the models into the tables of models inside transformers: by these upstream tells a base model from one "
        "with a loss, and what its labels are, and would otherwise skip its tests of encoder-decoders."
    ),
    ("UpstreamTextTests", "test_inputs_embeds_matches_input_ids"): (
        "Run with share_embeddings=True: it embeds the decoder's input with the encoder's table."
    ),
    ("UpstreamTextTests", "_create_text_training_batch"): (
        "Upstream's batch is for decoder-only models, which continue their input. The test later calls `generate()` "
        "with the first symbol alone, so that is all that the encoder may see in training; the target goes on from it."
    ),
    ("UpstreamTextTests", "training_overfit_seq_length"): (
        "8, not 64: the time of a decoder that runs step by step grows with the length, and the suite is to be quick."
    ),
    ("UpstreamClassifierTests", "test_hidden_states_output"): (
        "Run with a configuration that says is_encoder_decoder=False: a classifier has the encoder's states, but "
        "upstream asks the configuration, which is that of the whole model, whether there are a decoder's too."
    ),
    ("UpstreamClassifierTests", "test_retain_grad_hidden_states_attentions"): "Likewise.",
    ("UpstreamSpeechTests", "_prepare_for_class"): (
        "Adds labels, which upstream makes for no speech model, and takes out the ids (see the next lines)."
    ),
    ("UpstreamSpeechTests", "test_resize_tokens_embeddings"): (
        "Run on a batch that has ids beside the vectors: it writes the new ids into input_ids."
    ),
    ("UpstreamSpeechTests", "test_resize_embeddings_untied"): "Likewise.",
    ("UpstreamSpeechTests", "_prepare_config_and_inputs_for_retain_grad_hidden_states_attentions"): (
        "The vectors want a gradient: they are the encoder's first hidden state, of which the test asks it."
    ),
    ("UpstreamSpeechTests", "test_encoder_decoder_loss_no_double_shift"): (
        "Run with ctc_weight=0: it compares the loss with the cross entropy alone."
    ),
}
# The same of the suites that only a checkout has.
DEVIATIONS_OF_SUITES: dict[tuple[str, str], str] = {
    ("UpstreamGenerationTests", "_check_past_key_values_for_generate"): (
        "Upstream knows the shapes of keys and values, and of its own recurrent layers. Ours hold a state."
    ),
    ("UpstreamSpeechTests", "input_name"): "It is input_features.",
    ("UpstreamSpeechTests", "test_generate_without_input_ids"): (
        "Left out: without an input `generate()` makes symbols, and the model reads vectors."
    ),
    ("UpstreamSpeechTests", "test_forward_with_logits_to_keep"): (
        "Left out: it reads the shape of input_ids. The text models, which have the same method, run it."
    ),
}
# What is not run at all, and when.
NOT_RUN: dict[str, str] = {
    "GenerationTesterMixin": "Not in the source archive: without a checkout its tests of `generate()` do not run.",
    "ExportTesterMixin": (
        "Likewise, and its tests are slow ones: with a checkout they run if RUN_SLOW=1 is set too, those of ONNX and "
        "ExecuTorch where onnxscript and executorch are installed."
    ),
}

# Where transformers lists its own classes by task, and ours for each.
TABLES: dict[str, type] = {
    "MODEL_MAPPING_NAMES": RnnSeq2SeqModel,
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES": RnnSeq2SeqForConditionalGeneration,
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES": RnnSeq2SeqForTokenClassification,
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": RnnSeq2SeqForSequenceClassification,
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES": RnnSeq2SeqForSpeechSeq2Seq,
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

    def __init__(self, parent: unittest.TestCase, options: dict[str, Any], decodes: bool = True):
        self.parent = parent
        self.options = options
        self.decodes = decodes  # whether the inputs have a target
        self.says_encoder = False  # whether the configuration says that the model is no encoder-decoder
        self.also_ids = False  # whether a batch of vectors has ids too

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
        config = RnnSeq2SeqConfig(**{**sizes, **self.options})
        config.is_encoder_decoder = not self.says_encoder
        return config

    def prepare_config_and_inputs_for_common(self) -> tuple[RnnSeq2SeqConfig, dict[str, Tensor]]:
        """A configuration and a batch without padding, as upstream's testers make it."""
        config = self.get_config()
        first = 4  # the ids before it are special
        source = ids_tensor([self.batch_size, self.encoder_seq_length], self.vocab_size - first) + first
        target = ids_tensor([self.batch_size, self.decoder_seq_length], self.vocab_size - first) + first
        inputs = {"input_ids": source, "attention_mask": torch.ones_like(source)}
        if config.input_feature_size is not None:
            features = floats_tensor([*source.shape, config.input_feature_size])
            inputs = {"input_features": features, "attention_mask": torch.ones_like(source)}
            inputs |= {"input_ids": source} if self.also_ids else {}
        if self.decodes:
            inputs |= {"decoder_input_ids": target, "decoder_attention_mask": torch.ones_like(target)}
        return config, inputs


class UpstreamTests(ModelTesterMixin):
    """The tests, for one set of options; `unittest.TestCase` is added by the classes that run."""

    options: ClassVar[dict[str, Any]] = {}

    has_attentions = False
    test_can_init_all_missing_weights_before_2023 = True
    model_tester: Any = None  # an abstract property in TrainingTesterMixin

    def setUp(self) -> None:
        self.model_tester = RnnSeq2SeqModelTester(self, self.options, decodes=self.is_encoder_decoder)
        properties = ["hidden_size", "num_hidden_layers"]
        self.config_tester = ConfigTester(self, config_class=RnnSeq2SeqConfig, common_properties=properties)
        for table, model_class in TABLES.items():
            names = {RnnSeq2SeqConfig.model_type: model_class.__name__}
            patch = mock.patch.dict(getattr(modeling_auto, table), names)
            patch.start()
            self.addCleanup(patch.stop)

    def test_config(self) -> None:
        self.config_tester.run_common_tests()


class UpstreamGenerationTests(UpstreamTests, GenerationTesterMixin):
    """The same of the models that generate."""

    is_encoder_decoder = True

    def _check_past_key_values_for_generate(
        self, batch_size: int, past_key_values: EncoderDecoderCache, seq_length: int, config: RnnSeq2SeqConfig
    ) -> None:
        layers: Any = past_key_values.self_attention_cache.layers
        self.assertEqual(len(layers), config.decoder_layers)
        for layer in layers:
            self.assertEqual(layer.get_seq_length(), seq_length)
            batch, heads, steps, size = layer.keys.shape
            self.assertEqual((batch, heads, size), (batch_size, 1, config.decoder_hidden_size))
            self.assertIn(steps, range(1, 1 + (seq_length if getattr(layer, "record_past", False) else 1)))


class UpstreamTextTests(UpstreamGenerationTests, TrainingTesterMixin):
    """The same of text to text."""

    all_model_classes = (RnnSeq2SeqModel, RnnSeq2SeqForConditionalGeneration)
    training_overfit_seq_length = 8

    def test_inputs_embeds_matches_input_ids(self) -> None:
        self.model_tester.options = {**self.options, "share_embeddings": True}
        super().test_inputs_embeds_matches_input_ids()

    def _create_text_training_batch(self, batch_size: int, seq_length: int, vocab_size: int) -> dict[str, Tensor]:
        batch = super()._create_text_training_batch(batch_size, seq_length, vocab_size)
        first_only = torch.zeros_like(batch["input_ids"])
        first_only[:, 0] = 1
        return {"input_ids": batch["input_ids"], "attention_mask": first_only, "labels": batch["labels"][:, 1:]}


class UpstreamClassifierTests(UpstreamTests):
    """The same of a classifier, which is the encoder and an output layer."""

    is_encoder_decoder = False

    def test_hidden_states_output(self) -> None:
        self.model_tester.says_encoder = True
        super().test_hidden_states_output()

    def test_retain_grad_hidden_states_attentions(self) -> None:
        self.model_tester.says_encoder = True
        super().test_retain_grad_hidden_states_attentions()


class UpstreamSpeechTests(UpstreamGenerationTests):
    """The same of speech to text."""

    all_model_classes = (RnnSeq2SeqForSpeechSeq2Seq,)
    input_name = "input_features"
    test_generate_without_input_ids = None
    test_forward_with_logits_to_keep = None

    def _prepare_for_class(
        self, inputs_dict: dict[str, Tensor], model_class: type, return_labels: bool = False
    ) -> dict[str, Tensor]:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        inputs.pop("input_ids", None)
        return {**inputs, "labels": inputs["decoder_input_ids"]} if return_labels else inputs

    def _prepare_config_and_inputs_for_retain_grad_hidden_states_attentions(
        self,
    ) -> tuple[RnnSeq2SeqConfig, dict[str, Tensor]]:
        config, inputs = super()._prepare_config_and_inputs_for_retain_grad_hidden_states_attentions()
        return config, {**inputs, "input_features": inputs["input_features"].requires_grad_()}

    def test_resize_tokens_embeddings(self) -> None:
        self.model_tester.also_ids = True
        super().test_resize_tokens_embeddings()

    def test_resize_embeddings_untied(self) -> None:
        self.model_tester.also_ids = True
        super().test_resize_embeddings_untied()

    def test_encoder_decoder_loss_no_double_shift(self) -> None:
        self.model_tester.options = {**self.options, "ctc_weight": 0}
        super().test_encoder_decoder_loss_no_double_shift()
