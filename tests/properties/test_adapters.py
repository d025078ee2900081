"""Adapters on the recurrence (PEFT) and quantised weights (torchao): trained, generated with, equal to plain ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from several_kinds import GENERATING, KINDS, OTHERS, answers, assert_same, inputs_of, model_of, with_weights_of
from torch import Tensor, nn
from torchao.quantization import FqnToConfig, Int8WeightOnlyConfig, quantize_
from transformers import TorchAoConfig


TASKS = {"tagger": "TOKEN_CLS", "crf": "TOKEN_CLS", "values": "TOKEN_CLS", "classifier": "SEQ_CLS"}
TARGETS = {
    "hidden": ["rnn.weight_hh_l0"],
    "both": ["rnn.weight_hh_l0", "rnn.weight_ih_l0"],
    "one_side": ["encoder.rnn.weight_hh_l0"],
}


def step(model: nn.Module, kind: str, optimizer: torch.optim.Optimizer) -> float:
    loss = model.train()(**inputs_of(kind)).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    model.eval()
    return float(loss)


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_on_the_recurrence_is_trained_and_used(kind: str, targets: list[str]) -> None:
    torch.manual_seed(0)
    model, before = model_of(kind), answers(model_of(kind), kind)
    config = LoraConfig(
        task_type=TASKS.get(kind, "SEQ_2_SEQ_LM"), target_parameters=targets, target_modules=[], r=2, lora_alpha=8
    )
    adapted = get_peft_model(model, config).eval()
    assert_same(answers(model, kind), before)
    learned = {name: parameter for name, parameter in adapted.named_parameters() if ".lora_" in name}
    optimizer = torch.optim.SGD(learned.values(), lr=0.5)
    losses = [step(adapted, kind, optimizer) for _ in range(3)]
    for name, parameter in learned.items():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert len(set(losses)) == 3
    found = answers(model, kind)
    if kind in GENERATING or kind == "speech":
        request = {name: value for name, value in inputs_of(kind).items() if name != "labels"}
        generated = adapted.generate(**request, num_beams=3, max_new_tokens=6, do_sample=False)
        assert torch.equal(generated, found["beams 3"])
    assert abs(found["loss False"] - before["loss False"]) > 1e-6
    assert_same(found, answers(adapted.merge_and_unload(), kind), 1e-4)


def quantised(kind: str, recurrence: bool) -> Any:
    """All matrices of the linear layers, or those of the recurrences, as tensors of torchao."""
    model = model_of(kind)
    if recurrence:
        quantize_(model, FqnToConfig({r"re:.*weight_(ih|hh)_l\d.*": Int8WeightOnlyConfig()}), filter_fn=None)
    else:
        quantize_(model, Int8WeightOnlyConfig())
    assert any(type(parameter) is not nn.Parameter for parameter in model.parameters())
    return model


def trained(model: Any, kind: str) -> dict[str, Tensor]:
    loss = model.train()(**inputs_of(kind)).loss
    loss.backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {"loss": loss.detach(), **grads}


@pytest.mark.parametrize("recurrence", [False, True], ids=["linear", "recurrence"])
@pytest.mark.parametrize("kind", KINDS)
def test_quantised_weights_give_what_their_values_give(kind: str, recurrence: bool) -> None:
    model = quantised(kind, recurrence)
    if kind in OTHERS and not recurrence and kind != "speech":
        assert type(model.classifier.weight) is not nn.Parameter
    plain = with_weights_of(kind, model)
    assert_same(answers(model, kind), answers(plain, kind))
    found, wanted = trained(model, kind), trained(plain, kind)
    if kind in ("everything", "coverage"):  # one table for all, whose gradient is the sum of all
        found = {name: value for name, value in found.items() if "embed" not in name}
    assert len(found) > 3
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_quantised_while_it_is_loaded(kind: str, tmp_path: Path) -> None:
    model = model_of(kind)
    model.save_pretrained(tmp_path)
    config = TorchAoConfig(Int8WeightOnlyConfig(), include_input_output_embeddings=False)
    loaded = type(model).from_pretrained(tmp_path, quantization_config=config)
    found, wanted = answers(loaded, kind), answers(model, kind)
    torch.testing.assert_close(found["loss False"], wanted["loss False"], atol=0.1, rtol=0.1)
    loaded.train()(**inputs_of(kind)).loss.backward()
