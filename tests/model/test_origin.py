"""A cache answers for the source that its state began with, and for no other: however it was filled and changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny import LIVELY, padded_batch, random_ids, tiny_model
from torch import Tensor
from transformers import TextStreamer
from transformers.cache_utils import DynamicCache

from hf_rnn_seq2seq.evaluation import RnnSeq2SeqEnsemble
from hf_rnn_seq2seq.model.state import new_cache


Inputs = dict[str, Tensor]
ATTENTIONS: dict[str, dict[str, Any]] = {
    "structure_1": {"attention_type": "none"},
    "structure_2": {"attention_type": "none", "context_feeding": "every_step"},
    "additive": {"attention_type": "additive"},
    "dot": {"attention_type": "dot"},
    "general": {"attention_type": "general", "input_feeding": True},
    "copying": {"attention_type": "general", "use_copy": True},
    "hard_monotonic": {"attention_type": "hard_monotonic"},
}
NAMED = "cache|attention_mask|encoder_outputs|decoder_input_ids"
OTHER = "cache: row {} has the state of another source than the one given"


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def model_of(attention: str = "general", rnn_type: str = "gru", **options: Any) -> Any:
    """A model that reads in one direction: only its last state knows the last symbol of a source."""
    options = {"bidirectional_encoder": False, **ATTENTIONS[attention], **options}
    return tiny_model(None, rnn_type=rnn_type, eos_token_id=None, **options)


def two_sources() -> tuple[Inputs, Inputs]:
    """A batch of three, and one in which a single symbol differs: the last one of row 1."""
    batch = padded_batch("right", [5, 3, 6], 6)
    changed = batch.input_ids.clone()
    changed[1, 2] = 4 + (changed[1, 2] - 3) % 8
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}, {
        "input_ids": changed, "attention_mask": batch.attention_mask}  # fmt: skip


def each_given(model: Any, inputs: Inputs) -> list[dict[str, Any]]:
    """A source in all the ways in which a forward takes it."""
    mask, encoder = {"attention_mask": inputs["attention_mask"]}, model.get_encoder()
    ways: list[dict[str, Any]] = [inputs, {"encoder_outputs": encoder(**inputs), **mask}]
    if not model.config.use_copy:
        ways.append({"inputs_embeds": encoder.embed_tokens(inputs["input_ids"]), **mask})
    return ways


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("rnn_type", ["lstm", "gru", "rnn_tanh"])
def test_a_state_is_not_read_for_another_source(rnn_type: str, attention: str, beams: int) -> None:
    model, (inputs, changed) = model_of(attention, rnn_type), two_sources()
    rows, other = ({name: x.repeat_interleave(beams, 0) for name, x in one.items()} for one in (inputs, changed))
    options = {**LIVELY, "num_beams": beams, "num_return_sequences": beams, "return_dict_in_generate": True}
    step, wanted, origins = random_ids(3 * beams, 1), None, []
    for fast in (True, False):
        model.use_fast_generation = fast
        out = model.generate(**inputs, **options, max_new_tokens=3)
        origins.append(out.past_key_values.self_attention_cache.layers[0].origin)
        for own, wrong in zip(each_given(model, rows), each_given(model, other), strict=True):
            cache = copy.deepcopy(out.past_key_values)
            with pytest.raises(ValueError, match=OTHER.format(beams)):
                model(**wrong, decoder_input_ids=step, past_key_values=cache)
            logits = model(**own, decoder_input_ids=step, past_key_values=cache).logits
            wanted = logits if wanted is None else wanted
            torch.testing.assert_close(logits, wanted)
            for given in each_given(model, other):
                with pytest.raises(ValueError, match=OTHER.format(beams)):
                    model(**given, decoder_input_ids=step, past_key_values=cache)
        if beams == 1:
            state = {"decoder_input_ids": out.sequences, "past_key_values": out.past_key_values}
            with pytest.raises(ValueError, match=OTHER.format(1)):
                model.generate(**changed, **options, **copy.deepcopy(state), max_new_tokens=2)
            longer = model.generate(**inputs, **options, **state, max_new_tokens=2)
            assert torch.equal(longer.sequences, model.generate(**inputs, **options, max_new_tokens=5).sequences)
    torch.testing.assert_close(*origins, equal_nan=True)
    assert len(origins[0]) == 3 * beams


@pytest.mark.parametrize("attention", ["structure_1", "structure_2", "general"])
def test_what_changes_the_rows_of_a_cache_changes_its_sources(attention: str) -> None:
    model, (inputs, _) = model_of(attention), two_sources()
    for change, order in (
        (lambda cache: cache.reorder_cache(torch.tensor([2, 0, 0])), [2, 0, 0]),
        (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
        (lambda cache: cache.batch_select_indices(torch.tensor([1, 2])), [1, 2]),
    ):
        cache = new_cache(model.config)
        model(**inputs, decoder_input_ids=random_ids(3, 2), past_key_values=cache)
        change(cache)
        step = random_ids(len(order), 1)
        rows = [{name: x[place] for name, x in inputs.items()} for place in (order, [*order[1:], order[0]])]
        for own, wrong in zip(*(each_given(model, one) for one in rows), strict=True):
            with pytest.raises(ValueError, match="has the state of another source"):
                model(**wrong, decoder_input_ids=step, past_key_values=copy.deepcopy(cache))
            model(**own, decoder_input_ids=step, past_key_values=copy.deepcopy(cache))


def test_a_state_that_went_back_is_still_that_of_its_source() -> None:
    model, (inputs, changed) = model_of(), two_sources()
    cache = new_cache(model.config)
    cache.self_attention_cache.activate_past_recording()
    model(**inputs, decoder_input_ids=random_ids(3, 3), past_key_values=cache)
    cache.self_attention_cache.crop(-1)
    with pytest.raises(ValueError, match=OTHER.format(1)):
        model(**changed, decoder_input_ids=random_ids(3, 1), past_key_values=cache)
    cache.reset()
    fresh = model(**changed, decoder_input_ids=random_ids(3, 1)).logits
    torch.testing.assert_close(
        model(**changed, decoder_input_ids=random_ids(3, 1), past_key_values=cache).logits, fresh
    )


@pytest.mark.parametrize("way", ["streamer", "prompt_lookup", "assistant", "sampling", "static", "stateless"])
def test_every_way_of_generating_says_whose_state_it_is(way: str) -> None:
    model, source = model_of(), random_ids(1, 6)
    ways: dict[str, dict[str, Any]] = {
        "streamer": {"streamer": TextStreamer.__new__(Silent)},
        "prompt_lookup": {"prompt_lookup_num_tokens": 2},
        "assistant": {"assistant_model": model_of("structure_1")},
        "sampling": {"do_sample": True},
        "static": {"cache_implementation": "static", "disable_compile": True},
        "stateless": {"past_key_values": DynamicCache()},
    }
    out = model.generate(source, **{**LIVELY, **ways[way]}, max_new_tokens=5, return_dict_in_generate=True)
    step = {"decoder_input_ids": out.sequences[:, -1:], "past_key_values": out.past_key_values}
    with pytest.raises(ValueError, match=OTHER.format(0)):
        model(torch.cat([source[:, :-1], 4 + (source[:, -1:] - 3) % 8], 1), **step)
    assert model(source, **step).logits.isfinite().all()


class Silent(TextStreamer):
    def put(self, value: Tensor) -> None: ...
    def end(self) -> None: ...


def test_a_state_of_another_batch_or_model_is_refused() -> None:
    (inputs, _), step = two_sources(), random_ids(3, 1)
    for attention in ATTENTIONS:
        model = model_of(attention)
        cache = model.generate(**inputs, **LIVELY, max_new_tokens=2, return_dict_in_generate=True).past_key_values
        for given in each_given(model, {name: x[:2] for name, x in inputs.items()}):
            for mask in (given["attention_mask"], None):
                request = {**given, "attention_mask": mask, "past_key_values": copy.deepcopy(cache)}
                with pytest.raises(ValueError, match=NAMED):
                    model(**request, decoder_input_ids=step)
                with pytest.raises(ValueError, match=NAMED):
                    model.generate(**request, decoder_input_ids=step, **LIVELY, max_new_tokens=2)
        with pytest.raises(ValueError, match="or of another model"):
            model_of(attention, seed=1).generate(
                **inputs, past_key_values=cache, decoder_input_ids=random_ids(3, 4), **LIVELY, max_new_tokens=2
            )


def test_one_symbol_of_many_tells_sources_apart() -> None:
    """Sums with whole numbers for weights, or compared as numbers with a tolerance, are the same for some."""
    model = model_of(vocab_size=3000)
    source, step = torch.full((1, 40), 2900), random_ids(1, 1)
    for places, values in (
        ([39], [2901]),
        ([0, 1], [2904, 2899]),
        ([0, 3], [2902, 2899]),
        ([0, 1, 2], [2901, 2898, 2901]),
    ):
        cache, changed = new_cache(model.config), source.clone()
        changed[0, places] = torch.tensor(values)
        model(source, decoder_input_ids=step, past_key_values=cache)
        with pytest.raises(ValueError, match=OTHER.format(0)):
            model(changed, decoder_input_ids=step, past_key_values=cache)


def test_vectors_and_characters_are_sources_too() -> None:
    step = random_ids(2, 1)
    features = torch.randn(2, 5, 4, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    reads_vectors = model_of(input_feature_size=4)
    reads_characters = model_of(character_vocab_size=9)
    words, characters = random_ids(2, 5), random_ids(2, 15, 9).view(2, 5, 3)
    for model, inputs, name in (
        (reads_vectors, {"input_features": features}, "input_features"),
        (reads_characters, {"input_ids": words, "character_ids": characters}, "character_ids"),
    ):
        cache = model(**inputs, decoder_input_ids=step, use_cache=True).past_key_values
        model(**inputs, decoder_input_ids=step, past_key_values=cache)
        changed = inputs[name].clone()
        changed[1, 4] = changed[1, 4].flip(0)
        with pytest.raises(ValueError, match=OTHER.format(1)):
            model(**{**inputs, name: changed}, decoder_input_ids=step, past_key_values=cache)


def test_the_encoder_only_runs_where_nothing_else_can_tell() -> None:
    model, (inputs, _) = model_of(), two_sources()
    runs: list[int] = []
    model.get_encoder().register_forward_hook(lambda *_: runs.append(1))
    step = {"decoder_input_ids": random_ids(3, 1)}
    cache = new_cache(model.config)
    for _ in range(3):
        model(**inputs, **step, past_key_values=cache)
    assert len(runs) == 1
    cache = model.generate(**inputs, **LIVELY, max_new_tokens=2, return_dict_in_generate=True).past_key_values
    assert len(runs) == 2
    for _ in range(3):  # once, to compare what `generate()` knows
        model(**inputs, **step, past_key_values=cache)
    assert len(runs) == 3


def test_an_ensemble_asks_its_members() -> None:
    models, (inputs, changed) = [model_of(), model_of("structure_1", "lstm")], two_sources()
    ensemble = RnnSeq2SeqEnsemble(models)
    out = ensemble.generate(**inputs, **LIVELY, max_new_tokens=2, return_dict_in_generate=True)
    state = {"past_key_values": out.past_key_values, "decoder_input_ids": out.sequences}
    with pytest.raises(ValueError, match=OTHER.format(1)):
        ensemble.generate(**changed, **state, **LIVELY, max_new_tokens=2)
