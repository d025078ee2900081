"""Inputs that are rows of a table: values and gradients of the plain product, in double precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import STRUCTURES, gradients, padded_batch, random_ids, tiny_model
from torch import Tensor, nn

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.model import fast_recurrence
from hf_rnn_seq2seq.model.fast import lookup, plain
from hf_rnn_seq2seq.model.fast_recurrence import Lookup, lookup_of
from hf_rnn_seq2seq.model.recurrence import RecurrentStack


pytestmark = pytest.mark.fast_path


Model = RnnSeq2SeqForConditionalGeneration
TIGHT: dict[str, Any] = {"atol": 1e-11, "rtol": 1e-9}
# Vectors far longer than there are symbols; no more layers than it takes.
WIDE: dict[str, Any] = {"embedding_size": 40, "encoder_layers": 1, "decoder_layers": 1}
MODELS: dict[str, dict[str, Any]] = {
    "at_once": {},
    "gru": {"rnn_type": "gru"},
    "input_feeding": {"input_feeding": True},
    "context": {**STRUCTURES["cho"], "rnn_type": "lstm", "readout_type": "tanh"},
    "one_table": {"share_embeddings": True, "decoder_hidden_size": 40, "tie_word_embeddings": True},
    "two_layers": {"encoder_layers": 2, "decoder_layers": 2, "residual": True},
    "maxout": {"readout_type": "maxout", "readout_size": 5},
}


def trained(model: Model, **inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(3)
    result = model.train()(**inputs).loss
    result.backward()
    return result.detach(), gradients(model)


def inputs_of(padding: str, target_lengths: list[int]) -> dict[str, Tensor]:
    lengths = [7, 7, 6, 7, 5, 7, 7, 7, 7, 1, 7, 7] if padding != "none" else [7] * 12
    batch = padded_batch("right" if padding == "none" else padding, lengths, 7)
    labels = random_ids(12, 6)
    for row, length in zip(labels, target_lengths, strict=True):
        row[length:] = -100
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[Lookup | None]:
    """What the recurrences were given, in order."""
    given: list[Lookup | None] = []

    def watched(*arguments: Any) -> Lookup | None:
        given.append(lookup_of(*arguments))
        return given[-1]

    monkeypatch.setattr(fast_recurrence, "lookup_of", watched)
    return given


@pytest.mark.parametrize("padding", ["none", "interior"])
@pytest.mark.parametrize(
    "targets", [[6] * 12, [6, 5, 6, 4, 6, 6, 5, 6, 6, 6, 2, 6], [1, 6] * 6], ids=["full", "some", "half"]
)
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_a_looked_up_product_equals_the_plain_one(
    options: dict[str, Any], targets: list[int], padding: str, lookups: Any
) -> None:
    model, inputs = tiny_model(**{**WIDE, **options}), inputs_of(padding, targets)
    got = trained(model, **inputs)
    # The encoder's and the decoder's; a loop of steps that wait for each other does not look up.
    count = 1 if options.get("input_feeding") else 2
    assert len(lookups) == count and all(lookup is not None for lookup in lookups)
    with plain("lookup"):
        wanted = trained(model, **inputs, skip_logits=False)
    assert len(lookups) == count
    torch.testing.assert_close(got[0], wanted[0], **TIGHT)
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(got[1][name], gradient, **TIGHT, msg=lambda text, name=name: f"{name}: {text}")


def test_in_mixed_precision_it_is_nearly_the_same(lookups: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = tiny_model(dtype=torch.float32, **WIDE), inputs_of("none", [6] * 12)
    wanted = trained(model, **inputs)
    with torch.autocast("cpu", torch.bfloat16):
        got = trained(model, **inputs)
    assert all(lookup is not None for lookup in lookups)
    torch.testing.assert_close(got[0], wanted[0], atol=0, rtol=0.05)
    for name, gradient in wanted[1].items():
        assert got[1][name].dtype == torch.float32
        assert (got[1][name] - gradient).norm() <= 0.1 * gradient.norm(), name


@pytest.mark.parametrize(
    "embedding",
    [
        nn.Embedding(12, 40, padding_idx=1),
        nn.Embedding(12, 40, max_norm=1.0),
        nn.Embedding(12, 40, scale_grad_by_freq=True),
        nn.Embedding(12, 40).half(),
        nn.Embedding(60, 40),
        nn.Sequential(nn.Embedding(12, 40)),
    ],
    ids=["padding", "norm", "frequency", "half", "many_rows", "other"],
)
def test_what_is_more_than_a_small_table_is_not_looked_up(embedding: nn.Module) -> None:
    ids, stack = torch.zeros(12, 6, dtype=torch.long), RecurrentStack("gru", 40, 4, 1)
    assert lookup(stack, nn.Embedding(12, 40), ids, 0.0) is not None
    assert lookup(stack, embedding, ids, 0.0) is None
    assert lookup(stack, nn.Embedding(12, 40), ids[:1, :2], 0.0) is None  # fewer positions than rows


def test_a_hook_sees_and_may_change_what_is_embedded() -> None:
    model, inputs = tiny_model(**WIDE), inputs_of("none", [6] * 12)
    plain = trained(model, **inputs)[0]
    model.model.encoder.embed_tokens.register_forward_hook(lambda module, arguments, output: 2 * output)
    changed = trained(model, **inputs)[0]
    assert abs(changed - plain) > 1e-3
    torch.testing.assert_close(trained(model, **inputs, skip_logits=False)[0], changed, **TIGHT)


@pytest.mark.parametrize("options", [{"embedding_dropout": 0.1}, {"recurrent_dropout": 0.0}], ids=["dropout", "none"])
def test_only_training_without_dropout_of_the_inputs_looks_up(options: dict[str, Any], lookups: Any) -> None:
    model, inputs = tiny_model(**WIDE, **options), inputs_of("none", [6] * 12)
    model.eval()(**inputs)
    assert not lookups
    trained(model, **inputs)
    assert bool(lookups) == ("recurrent_dropout" in options)
    lookups.clear()
    model.gradient_checkpointing_enable()
    trained(model, **inputs)
    assert not lookups
