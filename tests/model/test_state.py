"""The cache layers that hold the decoder's state: what they keep, how they go back, what reorders with a beam."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import ALL, padded_batch, random_ids, tiny_config, tiny_model
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, StaticCache
from transformers.cache_utils import DynamicLayer

from hf_rnn_seq2seq.model.checks import state_layers
from hf_rnn_seq2seq.model.state import (
    DecoderState,
    RecurrentStateLayer,
    SourceMemory,
    StaticRecurrentStateLayer,
    check_cache_layers,
    is_recording,
    load_source,
    load_state,
    new_cache,
    save_source,
    save_states,
)


def tensors_of(cache: EncoderDecoderCache) -> list[Tensor]:
    layers = [*cache.self_attention_cache.layers, *cache.cross_attention_cache.layers]
    return [getattr(layer, name) for layer in layers if layer.is_initialized for name in layer.tensor_names]


def states_of(steps: int, cell: bool = True, feed: bool = True, batch: int = 3) -> list[DecoderState]:
    def layer() -> tuple[Tensor, ...]:
        return tuple(torch.randn(batch, 4) for _ in range(1 + cell))

    return [DecoderState((layer(), layer()), torch.randn(batch, 5) if feed else None) for _ in range(steps)]


def static_cache(config: Any) -> EncoderDecoderCache:
    return EncoderDecoderCache(StaticCache(config, max_cache_len=16), StaticCache(config, max_cache_len=16))


def config_of(cell: bool = True) -> Any:
    """The configuration of a decoder whose states `states_of` makes."""
    return tiny_config(rnn_type="lstm" if cell else "gru", decoder_hidden_size=4)


def assert_equal_states(got: DecoderState | None, wanted: DecoderState) -> None:
    assert got is not None and len(got.layers) == len(wanted.layers)
    for got_layer, wanted_layer in zip(got.layers, wanted.layers, strict=True):
        for got_part, wanted_part in zip(got_layer, wanted_layer, strict=True):
            torch.testing.assert_close(got_part, wanted_part, rtol=0, atol=0)
    assert (got.feed is None) == (wanted.feed is None)
    if wanted.feed is not None:
        torch.testing.assert_close(got.feed, wanted.feed, rtol=0, atol=0)


@pytest.mark.parametrize("cell", [True, False], ids=["lstm", "gru"])
@pytest.mark.parametrize("feed", [True, False], ids=["fed", "not_fed"])
@pytest.mark.parametrize("make", [new_cache, static_cache], ids=["dynamic", "static"])
def test_a_state_comes_back_as_it_was_saved(cell: bool, feed: bool, make: Any) -> None:
    cache = make(tiny_config())
    assert load_state(cache, config_of(cell)) is None and cache.get_seq_length() == 0
    for steps in (1, 3):
        states = states_of(steps, cell, feed)
        save_states(cache, states, steps=steps)
        assert_equal_states(load_state(cache, config_of(cell)), states[-1])
    assert int(cache.get_seq_length()) == 4


@pytest.mark.parametrize("make", [new_cache, static_cache], ids=["dynamic", "static"])
def test_generate_builds_these_layers_by_itself(make: Any) -> None:
    cache = make(tiny_config(decoder_layers=3))
    wanted = RecurrentStateLayer if make is new_cache else StaticRecurrentStateLayer
    assert [type(layer) for layer in state_layers(cache)] == [wanted] * 3
    assert isinstance(DynamicCache(config=tiny_config()).layers[0], RecurrentStateLayer)


def test_recorded_states_can_be_undone() -> None:
    cache = new_cache(tiny_config())
    states = states_of(7)
    save_states(cache, states[:2], steps=2)
    assert not is_recording(cache)
    cache.self_attention_cache.activate_past_recording()
    assert is_recording(cache)
    save_states(cache, states[2:6], steps=4)
    cache.crop(-3)
    assert cache.get_seq_length() == 3
    assert_equal_states(load_state(cache, config_of()), states[2])
    save_states(cache, states[3:5], steps=2)
    cache.crop(0)
    assert cache.get_seq_length() == 5
    assert_equal_states(load_state(cache, config_of()), states[4])
    assert all(layer.keys.shape[-2] == 1 for layer in state_layers(cache))


def test_undoing_every_step_gives_an_empty_cache() -> None:
    cache = new_cache(tiny_config())
    cache.self_attention_cache.activate_past_recording()
    save_states(cache, states_of(3), steps=3)
    cache.crop(-3)
    assert cache.get_seq_length() == 0 and load_state(cache, config_of()) is None


def test_crop_refuses_what_it_cannot_do() -> None:
    layer = RecurrentStateLayer()
    layer.crop(-1)  # nothing there, nothing to undo
    layer.update(torch.randn(2, 1, 1, 4), torch.randn(2, 1, 1, 4))
    with pytest.raises(RuntimeError, match="activate_past_recording"):
        layer.crop(-1)
    with pytest.raises(ValueError, match="tokens_to_remove"):
        layer.crop(1)
    layer.activate_past_recording()
    layer.update(torch.randn(2, 1, 2, 4), torch.randn(2, 1, 2, 4))
    with pytest.raises(ValueError, match="tokens_to_remove=-4"):
        layer.crop(-4)


@pytest.mark.parametrize("make", [new_cache, static_cache], ids=["dynamic", "static"])
@pytest.mark.parametrize("structure", ALL)
def test_beams_reorder_all_that_a_step_reads(structure: str, make: Any) -> None:
    model = tiny_model(structure)
    batch = padded_batch("right", [5, 3, 6], 6)
    prompt, step = random_ids(3, 3), random_ids(3, 1, seed=2)
    rows = torch.tensor([2, 0, 0])
    logits = []
    for order in (rows, None):
        cache = make(model.config)
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        model(**inputs, decoder_input_ids=prompt, past_key_values=cache)
        if order is None:
            now = step[rows]
            everything = model(**{k: v[rows] for k, v in inputs.items()}, past_key_values=make(model.config),
                               decoder_input_ids=torch.cat([prompt[rows], now], dim=1))  # fmt: skip
            logits.append(everything.logits[:, -1:])
        else:
            cache.reorder_cache(order)
            inputs = {k: v[order] for k, v in inputs.items()}
            encoder_outputs = model.get_encoder()(**inputs)
            encoder_outputs.last_hidden_state = torch.full_like(encoder_outputs.last_hidden_state, float("nan"))
            out = model(attention_mask=inputs["attention_mask"], encoder_outputs=encoder_outputs,
                        decoder_input_ids=step[order], past_key_values=cache)  # fmt: skip
            logits.append(out.logits)
    torch.testing.assert_close(*logits, atol=1e-10, rtol=1e-10)


def test_rows_can_be_repeated_and_selected() -> None:
    cache, (state,) = new_cache(tiny_config()), states_of(1)
    save_states(cache, [state], steps=1)
    cache.batch_repeat_interleave(2)
    assert all(tensor.shape[0] == 6 for tensor in tensors_of(cache))
    cache.batch_select_indices(torch.tensor([5, 0]))
    wanted = DecoderState(tuple(tuple(p[[2, 0]] for p in layer) for layer in state.layers), state.feed[[2, 0]])
    assert_equal_states(load_state(cache, config_of()), wanted)


@pytest.mark.parametrize("attends", [True, False], ids=["attention", "context_only"])
def test_the_source_is_kept_for_the_steps_to_come(attends: bool) -> None:
    cache, context, mask = new_cache(tiny_config()), torch.randn(2, 4), torch.ones(2, 3) > 0
    assert load_source(cache, mask) is None and load_source(None, mask) is None
    keys, memory = (torch.randn(2, 3, 5), torch.randn(2, 3, 4)) if attends else (None, None)
    save_source(cache, SourceMemory(keys, memory, mask, context))
    source = load_source(cache, mask)
    assert source is not None and source.mask is mask
    torch.testing.assert_close(source.context, context, rtol=0, atol=0)
    if attends:
        torch.testing.assert_close(source.keys, keys, rtol=0, atol=0)
        torch.testing.assert_close(source.memory, memory, rtol=0, atol=0)


@pytest.mark.parametrize("structure", ALL)
@pytest.mark.parametrize("make", [new_cache, static_cache], ids=["dynamic", "static"])
def test_memory_does_not_grow_with_the_length(structure: str, make: Any) -> None:
    model = tiny_model(structure)
    cache, ids = make(model.config), random_ids(1, 5)
    encoder_outputs = model.get_encoder()(ids)
    sizes = {}
    with torch.inference_mode():
        # One symbol at a time, then many in one call, to be quick.
        for steps in [1] * 10 + [988, 1, 1]:
            symbols = 4 + torch.arange(steps)[None] % 8
            model(encoder_outputs=encoder_outputs, decoder_input_ids=symbols, past_key_values=cache)
            sizes[int(cache.get_seq_length())] = sum(t.numel() * t.element_size() for t in tensors_of(cache))
    assert sizes[10] == sizes[1000] > 0


def test_a_reset_cache_starts_from_the_bridge_again() -> None:
    model, ids, target = tiny_model("luong"), random_ids(2, 5), random_ids(2, 3, seed=2)
    for make in (new_cache, static_cache):
        cache = make(model.config)
        first = model(ids, decoder_input_ids=target, past_key_values=cache).logits
        cache.reset()
        again = model(ids, decoder_input_ids=target, past_key_values=cache).logits
        torch.testing.assert_close(again, first)


def test_a_cache_of_other_layers_or_of_another_number_is_refused() -> None:
    config = tiny_config(decoder_layers=2)
    check_cache_layers(new_cache(config), 2)
    with pytest.raises(ValueError, match="cache has 2 layers, wanted 3 of RecurrentStateLayer"):
        check_cache_layers(new_cache(config), 3)
    foreign = DynamicCache()
    foreign.layers.extend([DynamicLayer(), DynamicLayer()])
    with pytest.raises(ValueError, match="cache has 2 layers of DynamicLayer, wanted 2 of RecurrentStateLayer"):
        check_cache_layers(foreign, 2)
