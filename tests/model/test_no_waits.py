"""A training step away from the CPU waits for no value: tensors without values stand for those of an accelerator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import ALL, gradients, padded_batch, random_ids, randomize, tiny_config, tiny_model
from torch import Tensor

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration, RnnSeq2SeqForTokenClassification
from hf_rnn_seq2seq.model import crf, fast_loss, modeling_rnn_seq2seq


STEPS: dict[str, dict[str, Any]] = {
    **{name: options for name, options in ALL.items() if options["attention_type"] != "hard_monotonic"},
    "copying": {"use_copy": True, "coverage": True, "input_feeding": True},
    "dropouts": {"input_feeding": True, "embedding_dropout": 0.2, "hidden_dropout": 0.3, "recurrent_dropout": 0.2},
}
# Attributes of the model that say what its training steps read, and how their loss is smoothed.
WAYS: dict[str, dict[str, Any]] = {
    "taught": {},
    "smoothed": {"label_smoothing": 0.1},
    "sampling": {"teacher_forcing_ratio": 0.5},
    "sampling sequences": {"teacher_forcing_ratio": 0.5, "teacher_forcing_unit": "sequence"},
    "sampling never": {"teacher_forcing_ratio": 1 - 1e-12},
}


def batch_of(padding: str = "interior") -> dict[str, Tensor]:
    batch = padded_batch(padding, [5, 2, 7], 7)
    labels = random_ids(3, 6)
    labels[0, 2:] = -100
    labels[2, 1] = -100
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}


def train(model: Any, inputs: dict[str, Tensor], **attributes: Any) -> tuple[Tensor, dict[str, Tensor]]:
    for name, value in attributes.items():
        assert hasattr(model, name) or hasattr(model.config, name), name
        setattr(model if hasattr(model, name) else model.config, name, value)
    torch.manual_seed(0)
    loss = model.train()(**inputs).loss
    loss.backward()
    return loss.detach(), gradients(model)


def token_classifier(dtype: torch.dtype = torch.float64) -> RnnSeq2SeqForTokenClassification:
    model = RnnSeq2SeqForTokenClassification(tiny_config(use_crf=True, num_labels=4))
    randomize(model)
    return model.to(dtype)


@pytest.fixture(autouse=True)
def meta_has_no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch knows no autocast of the meta device, and refuses to be asked about it."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device="cpu": False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "luong" else pytest.mark.slow) for n in STEPS])
def test_a_training_step_looks_at_no_value(name: str, way: str) -> None:
    model: RnnSeq2SeqForConditionalGeneration = tiny_model(dtype=torch.float32, **STEPS[name]).to("meta")
    train(model, {key: tensor.to("meta") for key, tensor in batch_of().items()}, **WAYS[way])


def test_a_training_step_of_a_crf_looks_at_no_value() -> None:
    inputs = {key: tensor.to("meta") for key, tensor in batch_of().items() if key != "labels"}
    train(token_classifier().to("meta"), {**inputs, "labels": torch.zeros_like(inputs["input_ids"])})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["luong", "copying"])
def test_without_looking_the_loss_and_its_gradients_are_the_same(
    name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for free in (True, False):
        for module in (fast_loss, modeling_rnn_seq2seq):
            monkeypatch.setattr(module, "looking_is_free", lambda x, free=free: free)
        found.append(train(tiny_model(**STEPS[name]), batch_of(), **WAYS[way]))
    torch.testing.assert_close(found[1], found[0], atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("unknown", [False, True])
def test_without_looking_a_crf_s_loss_is_the_same(unknown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = batch_of()
    inputs["labels"] = torch.arange(21).view(3, 7) % 4
    if unknown:
        inputs["labels"][1, 2:5] = -100
    found = []
    for free in (True, False):
        monkeypatch.setattr(crf, "looking_is_free", lambda x, free=free: free)
        found.append(train(token_classifier(), inputs))
    torch.testing.assert_close(found[1], found[0], atol=1e-10, rtol=1e-9)
