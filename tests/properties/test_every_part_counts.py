"""Nothing of a model is for nothing: every option changes something, every parameter learns, and the source counts.

What would change nothing is refused; a saved model that has such an option, or was trained when the last state left
out the top layer's normalisation, loads and answers as before.
"""

import inspect
import itertools
import json
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from tiny import PADDINGS, SIZES, padded_batch, padding_mask, random_ids, randomize, tiny_config, tiny_model
from torch import Tensor
from transformers import PreTrainedModel
from transformers.exporters.utils import is_multimodal
from transformers.generation import GenerationMixin

from hf_rnn_seq2seq import (
    RnnSeq2SeqConfig,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForSpeechSeq2Seq,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqModel,
)


CELLS = ("lstm", "gru", "rnn_tanh")
SMALL = {**SIZES, "embedding_size": 4, "encoder_hidden_size": 4, "decoder_hidden_size": 4}
# Values that an option may have here. The first is what it is when left out.
CHOICES: dict[str, tuple[Any, ...]] = {
    "attention_type": ("none", "additive", "dot", "hard_monotonic"),
    "alignment_order": (0, 1),
    "attention_query": ("new_state", "previous_state"),
    "input_feeding": (False, True),
    "feed_previous_token": (True, False),
    "readout_type": ("none", "tanh", "maxout"),
    "bridge_type": ("zeros", "copy", "linear"),
    "context_vector": ("last", "mean"),
    "context_feeding": ("initial_state", "every_step", "both"),
    "use_copy": (False, True),
    "coverage": (False, True),
    "layer_norm": (False, True),
    "residual": (False, True),
}


def config_of(options: dict[str, Any]) -> RnnSeq2SeqConfig | None:
    """The configuration, or None if it is refused."""
    try:
        return RnnSeq2SeqConfig(**{**SMALL, **options})
    except StrictDataclassError:
        return None


def accepted(count: int) -> Iterator[dict[str, Any]]:
    """So many of the combinations that are accepted, drawn from all; with every cell and one or two layers."""
    rng = random.Random(0)
    combinations = [dict(zip(CHOICES, values)) for values in itertools.product(*CHOICES.values())]
    rng.shuffle(combinations)
    for options in combinations:
        layers = rng.choice((1, 2))
        options |= {"rnn_type": rng.choice(CELLS), "encoder_layers": layers, "decoder_layers": layers}
        if config_of(options) is not None:
            yield options
            count -= 1
        if count == 0:
            return


def built(options: dict[str, Any]) -> RnnSeq2SeqForConditionalGeneration:
    """A model with large random weights, in double precision."""
    model = RnnSeq2SeqForConditionalGeneration(RnnSeq2SeqConfig(**{**SMALL, **options}))
    randomize(model)
    return model.double().eval()


SOURCE, OTHER, TARGET = random_ids(2, 5), random_ids(2, 5, seed=3), random_ids(2, 4, seed=2)


def without_gradient(model: torch.nn.Module, loss: Tensor) -> list[str]:
    """The parameters that the loss gives no gradient, or only zeros."""
    loss.backward()
    sized = [(name, p) for name, p in model.named_parameters() if p.numel()]
    return [name for name, p in sized if p.grad is None or not p.grad.any()]


def test_in_every_accepted_model_the_source_counts_and_all_parameters_learn() -> None:
    for options in accepted(120):
        model = built(options)
        with torch.no_grad():
            logits, others = (model(source, decoder_input_ids=TARGET).logits for source in (SOURCE, OTHER))
        assert not torch.allclose(logits, others, atol=1e-9), options
        assert not without_gradient(model, model.train()(SOURCE, labels=TARGET).loss), options


@torch.no_grad()
def test_every_option_that_is_given_changes_something() -> None:
    for options in accepted(50):
        model = built(options)
        shapes = {name: p.shape for name, p in model.named_parameters()}
        logits = model(SOURCE, decoder_input_ids=TARGET).logits
        for name, (default, *_) in CHOICES.items():
            left_out = {**options, name: default}
            if options[name] == default or config_of(left_out) is None:
                continue
            other = built(left_out)
            same = shapes == {name: p.shape for name, p in other.named_parameters()}
            assert not same or not torch.equal(other(SOURCE, decoder_input_ids=TARGET).logits, logits), (name, options)


USELESS: list[tuple[str, dict[str, Any]]] = [
    ("readout_type='none'", {"attention_type": "general", "readout_type": "none"}),
    ("readout_type='none'", {"attention_type": "additive", "readout_type": "none", "bridge_type": "zeros"}),
    ("readout_type='none'", {"attention_type": "dot", "readout_type": "none", "coverage": True}),
    ("readout_type='none'", {"attention_type": "dot", "readout_type": "none", "context_feeding": "every_step"}),
    ("context_vector='mean'", {"attention_type": "general", "bridge_type": "zeros", "context_vector": "mean"}),
    ("residual=True", {"residual": True, "encoder_layers": 1, "decoder_layers": 1}),
    ("residual=True", {"residual": True, "decoder_layers": 1, "input_feature_size": 3, "time_reduction": 2}),
]


@pytest.mark.parametrize("rnn_type", CELLS)
@pytest.mark.parametrize(("what", "options"), USELESS)
def test_an_option_without_effect_is_refused_but_loads_from_a_saved_model(
    what: str, options: dict[str, Any], rnn_type: str, tmp_path: Path
) -> None:
    with pytest.raises(StrictDataclassError, match=what):
        tiny_config(rnn_type=rnn_type, **options)
    with pytest.warns(UserWarning, match=what):
        saved_once = tiny_config(rnn_type=rnn_type, transformers_version="5.0.0", **options)
    model = RnnSeq2SeqForConditionalGeneration(saved_once).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=what):
        loaded = RnnSeq2SeqForConditionalGeneration.from_pretrained(tmp_path).eval()
    vectors = {"input_features": torch.randn(2, 5, 3)}
    source = {"input_ids": SOURCE} if saved_once.input_feature_size is None else vectors
    logits = [m(**source, decoder_input_ids=TARGET).logits for m in (model, loaded)]
    assert torch.equal(*logits)


NORMED = [{"layer_norm": True}, {"residual": True}, {"layer_norm": True, "residual": True}]


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("options", NORMED)
@pytest.mark.parametrize("rnn_type", CELLS)
@pytest.mark.parametrize("padding", PADDINGS)
@torch.no_grad()
def test_the_last_state_that_the_decoder_reads_is_the_last_output(
    padding: str, rnn_type: str, options: dict[str, Any], bidirectional: bool
) -> None:
    options = {**options, "attention_type": "none", "context_feeding": "both"}
    model = tiny_model(rnn_type=rnn_type, bidirectional_encoder=bidirectional, **options)
    batch = padded_batch(padding, [5, 1, 3], 5)
    encoded = model.get_encoder()(batch.input_ids, batch.attention_mask)
    context = model.model._read_source(encoded, encoded.mask, batch.input_ids, needs_state=True)[1].context
    for row, mask, got in zip(encoded.last_hidden_state, batch.attention_mask.bool(), context):
        real = row[mask]
        wanted = torch.cat([real[-1, :4], real[0, 4:]]) if bidirectional else real[-1]
        assert torch.equal(got, wanted)
    # The decoder's recurrence goes on from the encoder's, without norm and residual.
    state, _ = model.model._read_source(encoded, encoded.mask, batch.input_ids, needs_state=True)
    assert torch.equal(state.layers[-1][0], encoded.final_hidden[:, -1])


@pytest.mark.parametrize("options", [{}, *NORMED])
@pytest.mark.parametrize("rnn_type", CELLS)
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
def test_all_of_a_classifier_learns(pooling: str, rnn_type: str, options: dict[str, Any]) -> None:
    config = tiny_config(rnn_type=rnn_type, classifier_pooling=pooling, num_labels=3, **options)
    model = RnnSeq2SeqForSequenceClassification(config)
    randomize(model)
    mask = padding_mask("right", [5, 3], 5)
    assert not without_gradient(model, model(SOURCE, mask, labels=torch.tensor([0, 2])).loss)
    tagger = RnnSeq2SeqForTokenClassification(config)
    randomize(tagger)
    assert not without_gradient(tagger, tagger(SOURCE, mask, labels=SOURCE % 3).loss)


@pytest.mark.parametrize("options", NORMED)
@torch.no_grad()
def test_a_classifier_that_knows_no_raw_last_state_answers_as_when_it_was_trained(
    options: dict[str, Any], tmp_path: Path
) -> None:
    model = RnnSeq2SeqForSequenceClassification(tiny_config(num_labels=3, **options)).eval()
    randomize(model)
    batch = padded_batch("interior", [5, 2], 5)
    encoded = model.get_encoder()(batch.input_ids, batch.attention_mask)
    before = model.classifier(encoded.final_hidden[:, -1])  # what such models computed
    now = model(batch.input_ids, batch.attention_mask).logits
    assert not torch.allclose(before, now)
    model.save_pretrained(tmp_path)
    assert torch.equal(loaded_logits(tmp_path, batch.input_ids, batch.attention_mask), now)
    forget(tmp_path, "raw_last_state")
    assert torch.equal(loaded_logits(tmp_path, batch.input_ids, batch.attention_mask), before)
    # It stays so when the model is saved again.
    RnnSeq2SeqForSequenceClassification.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert torch.equal(loaded_logits(tmp_path, batch.input_ids, batch.attention_mask), before)


def loaded_logits(folder: Path, *inputs: Tensor) -> Tensor:
    """What the saved classifier gives."""
    return RnnSeq2SeqForSequenceClassification.from_pretrained(folder).eval()(*inputs).logits


def forget(folder: Path, option: str) -> None:
    """Take an option out of a saved configuration, as if it had been saved before there was one."""
    path = folder / "config.json"
    options = json.loads(path.read_text())
    del options[option]
    path.write_text(json.dumps(options))


@torch.no_grad()
def test_a_model_whose_encoder_has_a_norm_that_nothing_read_loads_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model("sutskever", dtype=torch.float32, layer_norm=True)
    assert "model.encoder.rnn.norms.1.weight" not in model.state_dict()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    extra = {f"model.encoder.rnn.norms.1.{name}": torch.ones(8) for name in ("weight", "bias")}
    save_file({**weights, **extra}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    forget(tmp_path, "raw_last_state")
    loaded, told = RnnSeq2SeqForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values())
    logits = [m.eval()(SOURCE, decoder_input_ids=TARGET).logits for m in (model, loaded)]
    assert torch.equal(*logits)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("rnn_type", CELLS)
@torch.no_grad()
def test_search_with_normed_context_equals_search_without_a_cache(rnn_type: str, beams: int) -> None:
    options = {"layer_norm": True, "residual": True, "attention_type": "none", "context_feeding": "every_step"}
    model = tiny_model(rnn_type=rnn_type, **options)
    batch = padded_batch("left", [5, 2, 4], 5)
    request = {"num_beams": beams, "max_new_tokens": 6, "do_sample": False}
    got = model.generate(batch.input_ids, attention_mask=batch.attention_mask, **request)
    wanted = model.generate(batch.input_ids, attention_mask=batch.attention_mask, use_cache=False, **request)
    np.testing.assert_array_equal(got.numpy(), wanted.numpy())


MODELS: list[type[PreTrainedModel]] = [
    RnnSeq2SeqModel,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForTokenClassification,
    RnnSeq2SeqForSequenceClassification,
    RnnSeq2SeqForSpeechSeq2Seq,
]


@pytest.mark.parametrize("model_class", MODELS)
def test_transformers_takes_no_model_for_multimodal(model_class: type[PreTrainedModel]) -> None:
    features = {"input_feature_size": 3} if model_class is RnnSeq2SeqForSpeechSeq2Seq else {}
    model = model_class(tiny_config(**features))
    assert model.get_encoder() is getattr(model, "model", model).encoder
    assert model.get_encoder("image") is model.get_encoder("audio") is model
    assert not is_multimodal(model)


def test_the_speech_model_begins_with_its_input_and_inherits_generate_directly() -> None:
    names = list(inspect.signature(RnnSeq2SeqForSpeechSeq2Seq.forward).parameters)
    assert names[1] == RnnSeq2SeqForSpeechSeq2Seq.main_input_name
    assert GenerationMixin in RnnSeq2SeqForSpeechSeq2Seq.__bases__
    model = RnnSeq2SeqForSpeechSeq2Seq(tiny_config(input_feature_size=3)).eval()
    features, mask = torch.randn(2, 5, 3), torch.ones(2, 5)
    by_place = model(features, mask, TARGET).logits
    by_name = model(input_features=features, attention_mask=mask, decoder_input_ids=TARGET).logits
    assert torch.equal(by_place, by_name)
