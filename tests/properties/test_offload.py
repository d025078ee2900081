"""Weights that are not where a module keeps them: offloaded, pruned, normalised, parametrised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model, infer_auto_device_map
from several_kinds import GENERATING, KINDS, answers, assert_same, inputs_of, model_of, with_weights_of
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from hf_rnn_seq2seq.model.fast import plain


def blocks(model: nn.Module, place: Callable[[str], str]) -> dict[str, str]:
    """A device map of the encoder, the bridge, the decoder and the output layers."""
    names = [name for name, _ in model.named_children() if name != "model"]
    names += [f"model.{name}" for name, _ in model.get_submodule("model").named_children()]
    return {name: place(name) for name in names}


def _cpu(model: nn.Module, folder: Path) -> nn.Module:
    return cpu_offload(model)


def _disk(model: nn.Module, folder: Path) -> nn.Module:
    return disk_offload(model, folder)


def _map(model: nn.Module, folder: Path) -> nn.Module:
    devices = blocks(model, lambda name: "cpu" if name.endswith("encoder") else "disk")
    return dispatch_model(model, devices, main_device="cpu", offload_dir=folder, force_hooks=True)


def _reversed_map(model: nn.Module, folder: Path) -> nn.Module:
    devices = blocks(model, lambda name: "disk" if name.endswith("encoder") else "cpu")
    return dispatch_model(model, devices, main_device="cpu", offload_dir=folder, force_hooks=True)


def _auto(model: nn.Module, folder: Path) -> nn.Module:
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    kept = model._no_split_modules
    devices = infer_auto_device_map(model, {"cpu": size * 9 // 10, "disk": 10**9}, no_split_module_classes=kept)
    assert set(devices.values()) == {"cpu", "disk"}
    return dispatch_model(model, devices, main_device="cpu", offload_dir=folder, force_hooks=True)


@pytest.mark.parametrize("offload", [_cpu, _disk, _map, _reversed_map], ids=lambda offload: offload.__name__)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")  # of accelerate, about tied weights
def test_an_offloaded_model_answers_as_before(kind: str, offload: Callable[..., nn.Module], tmp_path: Path) -> None:
    assert_same(answers(offload(model_of(kind), tmp_path), kind), answers(model_of(kind), kind))


@pytest.mark.parametrize("kind", GENERATING)
def test_a_model_is_split_where_it_may_be(kind: str, tmp_path: Path) -> None:
    assert_same(answers(_auto(model_of(kind), tmp_path), kind), answers(model_of(kind), kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_may_lie_on_the_disk(kind: str, tmp_path: Path) -> None:
    model = model_of(kind)
    model.save_pretrained(tmp_path / "model")
    # transformers cannot load tied weights of which one lies on the disk and the other does not, BART's neither.
    near = () if model.config.share_embeddings else ("model.encoder",)
    devices = blocks(model, lambda name: "cpu" if name in near else "disk")
    loaded = type(model).from_pretrained(tmp_path / "model", device_map=devices, offload_folder=tmp_path / "weights")
    assert any(parameter.is_meta for parameter in loaded.parameters())
    assert_same(answers(loaded, kind), answers(model, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_parameters_of_its_own_and_parts_stays_in_one_place(kind: str) -> None:
    model = model_of(kind)
    for name, module in model.named_modules():
        if len(module._parameters) and len(module._modules):
            assert type(module).__name__ in model._no_split_modules, name


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def _prune(module: nn.Module, name: str) -> None:
    prune.random_unstructured(module, name, amount=0.3)


def _weight_norm(module: nn.Module, name: str) -> None:
    if getattr(module, name).dim() > 1:
        weight_norm(module, name)


def _new_weight_norm(module: nn.Module, name: str) -> None:
    if getattr(module, name).dim() > 1:
        parametrizations.weight_norm(module, name)


def _twice(module: nn.Module, name: str) -> None:
    parametrize.register_parametrization(module, name, Twice())


def steps(model: nn.Module, kind: str, count: int) -> list[float]:
    """The losses of some steps of gradient descent."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(count):
        loss = model.train()(**inputs_of(kind)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


MADE = [_prune, _weight_norm, _new_weight_norm, _twice]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's, of its old weight_norm
@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_made_of_others_are_made_anew_for_each_call(
    kind: str, make: Callable[[nn.Module, str], Any]
) -> None:
    def made() -> Any:
        torch.manual_seed(0)
        model = model_of(kind)
        for module in list(model.modules()):
            for name in [name for name, _ in module.named_parameters(recurse=False)]:
                make(module, name)
        return model

    model, other = made(), made()
    losses = steps(model, kind, 3)
    with plain():
        assert losses == pytest.approx(steps(other, kind, 3), abs=1e-4)
    assert len(set(losses)) == 3
    assert_same(answers(model, kind), answers(with_weights_of(kind, model), kind))


@pytest.mark.parametrize("kind", GENERATING)
def test_pruning_only_the_recurrence_or_the_output_is_seen(kind: str) -> None:
    for part, name in (("model.decoder.rnn", "weight_hh_l0"), ("lm_head", "weight")):
        model, before = model_of(kind), answers(model_of(kind), kind)
        prune.l1_unstructured(model.get_submodule(part), name, amount=0.9)
        with torch.no_grad():
            getattr(model.get_submodule(part), f"{name}_orig").mul_(3)  # after the attribute was set
        found = answers(model, kind)
        assert_same(found, answers(with_weights_of(kind, model), kind))
        assert abs(found["loss False"] - before["loss False"]) > 1e-4
