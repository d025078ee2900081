"""Requests to `generate()` like an earlier one: not prepared anew, answered the same; and what makes them others."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import STRUCTURES, padded_batch, tiny_model
from transformers import GenerationConfig, GenerationMixin

from hf_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.generation_request import _REMEMBERED, RequestMemory


Model = RnnSeq2SeqForConditionalGeneration
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1, "max_new_tokens": 7},
    "greedy_no_shorter": {"num_beams": 1, "max_new_tokens": 9, "min_new_tokens": 4},
    "beams": {"num_beams": 3, "max_new_tokens": 8, "length_penalty": 0.5},
    "n_best": {"num_beams": 4, "max_new_tokens": 6, "num_return_sequences": 3, "early_stopping": True},
}


def sources(lengths: list[int], seed: int = 0, kind: str = "right") -> dict[str, Any]:
    torch.manual_seed(seed)
    batch = padded_batch(kind, lengths, max(lengths))
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests transformers has prepared, as the length of a list."""
    counted: list[int] = []
    stock = GenerationMixin._prepare_generation_config

    def prepare(*args: Any, **kwargs: Any) -> Any:
        counted.append(1)
        return stock(*args, **kwargs)

    monkeypatch.setattr(GenerationMixin, "_prepare_generation_config", prepare)
    return counted


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("structure", [*STRUCTURES, "copying"])
def test_a_request_like_another_is_answered_as_by_transformers(
    structure: str, options: dict[str, Any], prepared: list[int]
) -> None:
    model = tiny_model("luong", use_copy=True) if structure == "copying" else tiny_model(structure)
    batches = [sources([4, 6, 2]), sources([3], seed=1), sources([5, 1], seed=2, kind="left"), sources([7, 7], seed=3)]
    found = [model.generate(**batch, **options) for batch in batches]
    assert len(prepared) == 1
    model.use_fast_generation = False
    for batch, sequences in zip(batches, found, strict=True):
        assert torch.equal(sequences, model.generate(**batch, **options))


def test_without_a_mask_and_by_position(prepared: list[int]) -> None:
    model = tiny_model("luong")
    ids = sources([5, 5])["input_ids"]
    found = [model.generate(ids, max_new_tokens=5), model.generate(input_ids=ids, max_new_tokens=5)]
    found.append(model.generate(inputs=ids, max_new_tokens=5))
    assert len(prepared) == 1 and torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def _generation_config(model: Model, request: dict[str, Any]) -> None:
    model.generation_config.max_new_tokens = 3


def _list_within_it(model: Model, request: dict[str, Any]) -> None:
    model.generation_config.eos_token_id.append(4)


def _other_value(model: Model, request: dict[str, Any]) -> None:
    request["num_beams"] = 2


def _equal_value_of_another_type(model: Model, request: dict[str, Any]) -> None:
    request["early_stopping"] = 0


def _no_mask(model: Model, request: dict[str, Any]) -> None:
    del request["attention_mask"]


def _given_configuration(model: Model, request: dict[str, Any]) -> None:
    request["generation_config"] = GenerationConfig(num_beams=2)


def _processor(model: Model, request: dict[str, Any]) -> None:
    request["no_repeat_ngram_size"] = 2


def _prompt(model: Model, request: dict[str, Any]) -> None:
    request["decoder_input_ids"] = torch.full((3, 2), 5)


def _dictionary(model: Model, request: dict[str, Any]) -> None:
    request["return_dict_in_generate"] = True


def _sampling(model: Model, request: dict[str, Any]) -> None:
    request["do_sample"] = True


def _hook(model: Model, request: dict[str, Any]) -> None:
    model.model.decoder.register_forward_hook(lambda *args: None)


def _training(model: Model, request: dict[str, Any]) -> None:
    model.train()


@pytest.mark.parametrize(
    "change",
    [
        *(_generation_config, _list_within_it, _other_value, _equal_value_of_another_type, _no_mask),
        *(_given_configuration, _processor, _prompt, _dictionary, _sampling, _hook, _training),
    ],
)
def test_what_changes_the_request_is_noticed(
    change: Callable[[Model, dict[str, Any]], None], prepared: list[int]
) -> None:
    model = tiny_model("luong")
    model.generation_config.eos_token_id = [3]
    request: dict[str, Any] = {**sources([4, 6, 2]), "early_stopping": False}
    for _ in range(2):
        model.generate(**request)
    assert len(prepared) == 1
    change(model, request)
    torch.manual_seed(0)
    found = model.generate(**request)
    assert len(prepared) == 2
    other = copy.deepcopy(model)
    other.use_fast_generation = False
    torch.manual_seed(0)
    expected = other.generate(**request)
    if change is _dictionary:
        found, expected = found.sequences, expected.sequences
    assert torch.equal(found, expected)


def test_a_given_configuration_is_compared_too(prepared: list[int]) -> None:
    model = tiny_model("luong")
    model.generation_config.eos_token_id = None
    config = GenerationConfig(max_new_tokens=4)
    lengths = [model.generate(**sources([4, 6]), generation_config=config).shape[1] for _ in range(2)]
    assert lengths == [5, 5] and len(prepared) == 1
    config.max_new_tokens = 6
    assert model.generate(**sources([4, 6]), generation_config=config).shape[1] == 7
    assert model.generate(**sources([4, 6]), max_new_tokens=2).shape[1] == 3
    assert len(prepared) == 3


def test_configurations_that_hold_tensors_are_not_compared(prepared: list[int]) -> None:
    model, request = tiny_model("luong"), sources([4, 6])
    expected = model.generate(**request, max_new_tokens=5, eos_token_id=[3, 5])
    model.generation_config.max_new_tokens = 5
    for ends in ([3, 5], torch.tensor([3, 5]), torch.tensor([3, 5])):
        model.generation_config.eos_token_id = ends
        assert torch.equal(model.generate(**request), expected)
    assert len(prepared) == 4


def test_errors_stay_errors(prepared: list[int]) -> None:
    model = tiny_model("luong")
    ids = sources([4])["input_ids"]
    for _ in range(2):
        with pytest.raises(ValueError, match="num_return_sequences"):
            model.generate(ids, num_return_sequences=2, num_beams=1, do_sample=False)
        with pytest.raises(ValueError, match="not_an_option"):
            model.generate(ids, not_an_option=1)
    model.generate(ids)
    model.config.num_beams = 3  # what transformers no longer takes from there
    with pytest.raises(ValueError, match="modified the pretrained model configuration"):
        model.generate(ids)
    assert len(prepared) == 6


def test_other_weights_are_used_at_once() -> None:
    model, other = (tiny_model("luong", seed=seed) for seed in (0, 1))
    request = {**sources([4, 6, 2]), "max_new_tokens": 8}
    model.generate(**request)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model.generate(**request), other.generate(**request))


def test_few_requests_are_remembered_and_copies_begin_anew() -> None:
    model = tiny_model("luong")
    for number in range(_REMEMBERED + 3):
        model.generate(**sources([4]), max_new_tokens=number + 1)
    memory = vars(model)["_request_memory"]
    assert len(memory.requests) == _REMEMBERED
    for made in (copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))):
        assert isinstance(made, RequestMemory) and not made.requests
