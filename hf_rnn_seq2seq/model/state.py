"""The decoder's state between calls, as a layer type of transformers' caches.

`generate()` reads `config.layer_types` and builds an `EncoderDecoderCache` of these layers by itself. One layer of the
self-attention cache holds one decoder layer's recurrent state; the first layer of the cross-attention cache holds what
the decoder reads of the source, so beam search reorders both. Memory does not grow with the length.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, EncoderDecoderCache, StaticLayer

from .checks import state_layers
from .fast import is_traced
from .recurrence import LayerState


class SourceMemory(NamedTuple):
    """The part of the source that every decoder step may read; made once a source sequence."""

    keys: Tensor | None = None  # (B, S, K) attention keys
    memory: Tensor | None = None  # (B, S, D) the encoder's top states
    mask: Tensor | None = None  # (B, S) bool, True at real positions; None: no padding
    context: Tensor | None = None  # (B, D) C, where it is fed at every step
    symbols: Tensor | None = None  # (B, 2, S) of `copying.source_symbols()`, where they can be copied


class DecoderState(NamedTuple):
    """The decoder's state between two steps."""

    layers: tuple[LayerState, ...]  # (B, H) tensors
    feed: Tensor | None  # (B, R) the readout vector that is fed back; of hard alignments h_t (B, H)
    # (B, S) sum of the attention so far, or log p(a_t | y_<t) of hard alignments; in single precision at least
    coverage: Tensor | None = None


class _RecurrentState(CacheLayerMixin):
    """
    Shared by the dynamic and the static layer.

    `keys` is h, (B, 1, n, H); `values` is what else the layer carries, (B, 1, n, *): the cell, and in the top layer
    the vector fed back and the coverage. n is 1, or more while past states are recorded. The first layer's `origin`
    tells which source the state began with. In the cross-attention cache `keys` and `values` are the attention's
    (B, 1, S, *), `context` is C, (B, D), and `symbols` is (B, 2, S).
    """

    context: Tensor | None = None
    symbols: Tensor | None = None
    origin: Tensor | None = None  # (B, 3) of `keep_origin`
    device: torch.device
    supports_early_init = False
    cumulative_length: Any  # steps so far: a number, or a tensor that stays where it is

    @property
    def tensor_names(self) -> list[str]:
        return [name for name in ("keys", "values", "context", "symbols", "origin") if getattr(self, name) is not None]

    def _apply(self, function: Callable[[Tensor], Tensor]) -> None:
        if self.is_initialized:
            for name in self.tensor_names:
                setattr(self, name, function(getattr(self, name)))

    def offload(self) -> None:
        self._apply(lambda x: x.to("cpu", non_blocking=True))

    def prefetch(self) -> None:
        self._apply(lambda x: x.to(self.device, non_blocking=True))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes row beam_idx[i], in all that the layer holds."""
        self._apply(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._apply(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._apply(lambda x: x[indices])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> Any:
        return self.cumulative_length if self.is_initialized else 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (torch.zeros_like(x[..., -1:, :]) for x in (key_states, value_states))  # (B, 1, 1, *)
        self._begin()

    def _begin(self) -> None:
        self.dtype, self.device = self.keys.dtype, self.keys.device
        self.is_initialized = True

    def store(self, keys: Tensor, values: Tensor, *others: Tensor | None) -> None:
        """Hold a source instead of a state (cross-attention cache); `others`: its context and its symbols."""
        self.keys, self.values, (self.context, self.symbols) = keys, values, others
        self._begin()
        self.cumulative_length *= 0
        self.cumulative_length += keys.shape[-2]

    def reset(self) -> None:
        # Dropped, not zeroed: the next sequence starts from the bridge, and a source's memory is not the layer's own.
        self.keys = self.values = self.context = self.symbols = self.origin = None
        self.is_initialized = False
        self.cumulative_length *= 0


class RecurrentStateLayer(_RecurrentState):
    """State of one decoder layer that can be rolled back: assisted and prompt-lookup decoding need that."""

    _layer_type = "rnn_state"
    is_croppable = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.cumulative_length = 0
        self.record_past = False

    def update(
        self, key_states: Tensor, value_states: Tensor, steps: int | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """
        Take the states (B, 1, n, *) after each of the last n steps; without recording only the last is kept. `steps`
        says how many steps were made if they are more than the states given.
        """
        self.cumulative_length += key_states.shape[-2] if steps is None else steps
        if self.record_past and self.is_initialized:
            key_states = torch.cat([self.keys, key_states], dim=-2)  # (B, 1, n, H)
            value_states = torch.cat([self.values, value_states], dim=-2)  # (B, 1, n, *)
        kept = slice(None) if self.record_past else slice(-1, None)
        self.keys, self.values = key_states[..., kept, :], value_states[..., kept, :]
        if not self.is_initialized:
            self._begin()
        return self.keys, self.values

    def get_max_length(self) -> int:
        return -1

    def activate_past_recording(self) -> None:
        """From now on keep the state after every step, until `crop`."""
        self.record_past = True

    def crop(self, tokens_to_remove: int) -> None:
        """Go back to the state `-tokens_to_remove` steps ago; older states are then dropped. `crop(0)` only drops."""
        if tokens_to_remove > 0:
            raise ValueError(
                f"tokens_to_remove must be zero or negative: minus the steps to undo; got {tokens_to_remove}"
            )
        if not self.is_initialized:
            return
        if not self.record_past and tokens_to_remove < 0:
            raise RuntimeError("crop needs the past states: call activate_past_recording() before the steps to undo")
        kept = self.keys.shape[-2] + tokens_to_remove
        if kept < 0 or (kept == 0 and self.cumulative_length + tokens_to_remove > 0):
            raise ValueError(
                f"tokens_to_remove={tokens_to_remove} goes back beyond the {self.keys.shape[-2]} states kept"
            )
        if kept == 0:
            self.reset()
            return
        self.cumulative_length += tokens_to_remove
        self.keys, self.values = self.keys[..., kept - 1 : kept, :], self.values[..., kept - 1 : kept, :]


class StaticRecurrentStateLayer(_RecurrentState, StaticLayer):
    """The twin for torch.compile: tensors stay where they are and the length is a tensor."""

    _layer_type = "rnn_state"
    is_compileable = True
    is_croppable = False

    def __init__(self, max_cache_len: int, **kwargs: Any) -> None:
        StaticLayer.__init__(self, max_cache_len)

    def _begin(self) -> None:
        super()._begin()
        self.cumulative_length = self.cumulative_length.to(self.device)
        if not is_traced():
            for tensor in (self.keys, self.values, self.cumulative_length):
                torch._dynamo.mark_static_address(tensor)

    def update(
        self, key_states: Tensor, value_states: Tensor, steps: int | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Take the state after the last of the steps (B, 1, n, *), in place."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.cumulative_length += key_states.shape[-2] if steps is None else steps
        self.keys.copy_(key_states[..., -1:, :])
        self.values.copy_(value_states[..., -1:, :])
        return self.keys, self.values

    def crop(self, tokens_to_remove: int) -> None:
        """Refused: there is only the last state. (A `StaticLayer` of keys goes back by its length alone.)"""
        raise RuntimeError(
            "a static cache keeps only the last state of a recurrence, it cannot go back: use a dynamic one"
        )


def new_cache(config: PreTrainedConfig) -> EncoderDecoderCache:
    """An empty cache, as `generate()` makes it."""
    return EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))


def check_cache_layers(cache: Cache, layers: int) -> None:
    """Refuse a cache whose layers are not the L of the decoder; one without any (`DynamicCache()`) is given them."""
    halves = [cache]
    if isinstance(cache, EncoderDecoderCache):
        halves = [cache.self_attention_cache, cache.cross_attention_cache]
    for half in halves:
        if not half.layers:
            half.layers.extend(RecurrentStateLayer() for _ in range(layers))
        # Not by the class: a model's code may be there more than once (saved beside several models), and each has one.
        own = RecurrentStateLayer._layer_type
        kinds = {type(layer).__name__ for layer in half.layers if getattr(layer, "_layer_type", None) != own}
        if kinds or len(half.layers) != layers:
            raise ValueError(
                f"cache has {len(half.layers)} layers{' of ' + ', '.join(sorted(kinds)) if kinds else ''}, "
                f"wanted {layers} of {RecurrentStateLayer.__name__}, as new_cache(config) or an empty "
                "EncoderDecoderCache(DynamicCache(), DynamicCache()) has them"
            )


def load_state(cache: Cache, config: Any) -> DecoderState | None:
    """Return the decoder's state after the last step in the cache; None if there was none yet."""
    layers = state_layers(cache)
    if not layers[0].is_initialized:
        return None
    size = config.decoder_hidden_size
    feed_start = size if config.rnn_type == "lstm" else 0
    states: list[LayerState] = []
    carried = coverage = None
    for layer in layers:
        hidden, carried = layer.keys[:, 0, -1], layer.values[:, 0, -1]  # (B, H), (B, *)
        if (config.coverage or config.aligns) and layer is layers[-1]:
            feed_end = feed_start + config.feed_size
            carried, coverage = carried.tensor_split([feed_end], dim=-1)
            carried = carried.to(hidden.dtype)  # coverage is of a higher precision than half, and so all is
        states.append((hidden, carried[:, :size]) if feed_start else (hidden,))
    feed = carried[:, feed_start:]  # (B, R)
    return DecoderState(tuple(states), feed if feed.shape[-1] else None, coverage)


def save_states(cache: Cache, states: list[DecoderState], steps: int) -> None:
    """Append the states after each of the last `steps` steps (or only after the very last) to the cache."""
    layers = state_layers(cache)
    for k, layer in enumerate(layers):
        hidden = torch.stack([state.layers[k][0] for state in states], dim=1)  # (B, n, H)
        carried = [torch.stack([state.layers[k][1] for state in states], 1)] if len(states[0].layers[k]) == 2 else []
        if k == len(layers) - 1:
            for part in ("feed", "coverage"):
                if getattr(states[0], part) is not None:
                    carried.append(torch.stack([getattr(state, part) for state in states], dim=1))
        values = torch.cat(carried, dim=-1) if carried else hidden[..., :0]
        layer.update(hidden.unsqueeze(1), values.unsqueeze(1), steps=steps)


def is_recording(cache: Cache) -> bool:
    """Whether the cache wants the state after every step, to be able to go back."""
    return any(getattr(layer, "record_past", False) for layer in state_layers(cache))


def load_source(cache: Cache | None, mask: Tensor | None) -> SourceMemory | None:
    """Return what `save_source` stored; None if there is nothing yet."""
    if not isinstance(cache, EncoderDecoderCache):
        return None
    layer: Any = cache.cross_attention_cache.layers[0]
    if not layer.is_initialized:
        return None
    return SourceMemory(layer.keys[:, 0], layer.values[:, 0], mask, layer.context, layer.symbols)


def save_source(cache: Cache | None, source: SourceMemory) -> None:
    """Keep the source's keys, memory and C for the steps to come. Structure 1 reads nothing after its first state."""
    if not isinstance(cache, EncoderDecoderCache) or (source.keys is None and source.context is None):
        return
    # Without attention there is only C: a memory of one position.
    keys = source.context[:, None] if source.keys is None else source.keys
    memory = source.context[:, None] if source.memory is None else source.memory
    layer: Any = cache.cross_attention_cache.layers[0]
    layer.store(keys.unsqueeze(1), memory.unsqueeze(1), source.context, source.symbols)


def keep_origin(cache: Cache | None, *sources: Tensor | None) -> bool:
    """
    Keep numbers (B, 3) that tell the source of the state in a cache: of its ids (B, S), its vectors (B, S, *) and its
    memory (B, S, D), None for what is not given. It may come with every step; another one is refused.

    Returns:
        Whether there was anything to compare it with, or nothing to compare: False, if the cache only has numbers of
        what is not given. There is nothing without a cache, and where looking is not free.
    """
    given = [source for source in sources if source is not None]
    if cache is None or not given or is_traced() or any(source.device.type != "cpu" for source in given):
        return True
    unknown = torch.full((len(given[0]),), torch.nan, dtype=torch.double)
    origin = torch.stack([unknown if source is None else _weighed(source) for source in sources], dim=1)
    layer: Any = state_layers(cache)[0]
    kept = layer.origin if layer.is_initialized else None
    if kept is None or kept.device.type != "cpu":
        layer.origin = origin
        return True
    if len(kept) != len(origin):
        raise ValueError(f"cache has the state of {len(kept)} rows, the source given (input_ids, or what is in its "
                         f"place) has {len(origin)}")  # fmt: skip
    # Equal ids are equal; vectors may have been computed in a batch of another size.
    relative = torch.tensor([0, 1e-3, 1e-3], dtype=torch.double)
    rows = ((kept - origin).abs() > 1e-6 + relative * (1 + kept.abs())).any(1).nonzero().flatten().tolist()
    if rows:
        raise ValueError(
            f"cache: row {rows[0]} has the state of another source than the one given (input_ids, or what is in its "
            "place), or of another model: give that source, or an empty cache"
        )
    if bool((kept.isnan() | origin.isnan()).all()):
        return False
    layer.origin = torch.where(kept.isnan(), origin, kept)
    return True


def _weighed(source: Tensor) -> Tensor:
    """
    Return a number (B,) of each source (B, S) or (B, S, *): a weighted sum. cos 0, cos 1, ... have no integer relation
    (Lindemann), so no two sources of ids have one number; signs alternate, so that a long sum stays small.
    """
    numbers = source.detach() if source.is_floating_point() else source.double()
    for axis in range(source.dim() - 1, 0, -1):
        places = torch.arange(source.shape[axis], dtype=torch.double)
        weights = (2 + places.cos()) * (1 - 2 * (places % 2))
        numbers = numbers.to(torch.promote_types(numbers.dtype, torch.float)) if axis > 1 else numbers.double()
        numbers = numbers @ weights.to(numbers.dtype)
    return numbers
