"""Checks of what enters a forward, once: its keywords are known, and its tensors fit each other, as `SHAPES` says.

Shapes and types are compared anywhere, which costs microseconds; values (ids of no symbol, NaN, masks that are none)
only on the CPU, since elsewhere that waits for the device; nothing while a model is compiled, traced or exported.
torch's fused kernels of recurrences, which look at nothing themselves, write beyond the
ends of memory where shapes differ.
"""

import difflib
import functools
import inspect
import numbers
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from .fast import is_traced


Forward = TypeVar("Forward", bound=Callable[..., Any])

# The shape of each tensor: a word is one size throughout a call, one that ends in "_size" or "_layers" that of the
# configuration. What ends in "length" is not 0. An error names the first tensor that does not fit those above it.
SHAPES = {
    "encoder_outputs.last_hidden_state": "batch memory_length encoder_hidden_size",
    "encoder_outputs.final_hidden": "batch encoder_layers encoder_hidden_size",
    "encoder_outputs.final_cell": "batch encoder_layers encoder_hidden_size",
    "encoder_outputs.mask": "batch memory_length",
    "encoder_outputs.source_ids": "batch memory_length",
    "input_ids": "batch length",
    "inputs_embeds": "batch length embedding_size",
    "input_features": "batch length input_feature_size",
    "character_ids": "batch length word_length",
    "decoder_input_ids": "batch target_length",
    "decoder_inputs_embeds": "batch target_length embedding_size",
    "labels": "batch target_length",
    "attention_mask": "batch length",
    "decoder_attention_mask": "batch steps_so_far",
    "state.layers": "batch decoder_hidden_size",
    "state.feed": "batch feed_size",
    "source.context": "batch encoder_hidden_size",
    "source.memory": "batch memory_length encoder_hidden_size",
    "source.keys": "batch memory_length width",
    "source.mask": "batch memory_length",
    "source.symbols": "batch parts memory_length",
    "state.coverage": "batch memory_length",
}
_INPUTS = [name for name in SHAPES if "." not in name]
_FLAGS = frozenset("use_cache output_attentions output_hidden_states skip_logits return_loss".split())
# Kinds of options: the type of each, in which a bool is no number.
_KINDS: dict[str, type] = {"whole number": numbers.Integral, "number": numbers.Real, "bool": bool, "list": list}


def only_known_keywords(forward: Forward) -> Forward:
    """
    Return a forward that takes the keywords that it names, and no others.

    `**kwargs` of a forward, which then is always empty, tells Trainer that it takes `num_items_in_batch`.
    """
    names = [name for name, p in inspect.signature(forward).parameters.items() if p.kind is not p.VAR_KEYWORD][1:]
    known = frozenset(names)

    @functools.wraps(forward)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in known:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f": it has {', '.join(names)}"
                raise TypeError(f"{type(self).__name__}.forward has no argument {name!r}{hint}")
            if name in _FLAGS and not isinstance(kwargs[name], bool | None):
                raise TypeError(f"{name} is {kwargs[name]!r}, wanted True or False")
        check_changes(self)
        return forward(self, *args, **kwargs)

    return checked  # type: ignore[return-value]


def checked_inputs(forward: Forward) -> Forward:
    """Return a forward that takes only keywords that it names, and only tensors that fit each other."""
    names = list(inspect.signature(forward).parameters)[1:]
    prefix = "decoder_" if "state" in names else ""  # of the decoder by itself, whose `input_ids` are the target's

    @functools.wraps(forward)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        check_inputs(self.config, {**dict(zip(names, args)), **kwargs}, prefix)
        return forward(self, *args, **kwargs)

    return only_known_keywords(checked)  # type: ignore[return-value]


def check_changes(model: Any) -> None:
    """Refuse options that were changed since the model was made into what cannot be, or what has other weights."""
    config = model.config
    changes = getattr(config, "changes", 0)
    if model.__dict__.get("_checked") == (id(config), changes) or is_traced():
        return
    config.check_options()
    made_with = model.__dict__.get("_made_with", {})
    for name, before in made_with.items():
        if getattr(config, name) != before:
            raise ValueError(
                f"config.{name} was {before!r} when the model was made, and is {getattr(config, name)!r} now: its "
                "weights are those of the former; make another model"
            )
    model._checked = (id(config), changes)


def check_option(name: str, value: Any, kind: str, holds: Callable[[Any], bool], words: str) -> None:
    """Refuse what is of another kind, a key of `_KINDS`, or of which something does not hold; `words` say it."""
    if not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise TypeError(f"{name} is {value!r}, wanted {f'a {kind}, ' if 'number' in kind else ''}{words}")
    if not holds(value):
        raise ValueError(f"{name} must be {words}; got {value}")


def check_tensor(name: str, tensor: Any) -> None:
    """Refuse what is no tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is {type(tensor).__name__}, wanted a tensor")


def check_shape(name: str, tensor: Any, wanted: Sequence[int | str], reason: str = "") -> None:
    """Refuse a tensor, unless it is None, that has not these sizes; a word stands for any."""
    if tensor is None:
        return
    check_tensor(name, tensor)
    shape = tensor.shape
    if len(shape) != len(wanted) or any(w != s for w, s in zip(wanted, shape) if not isinstance(w, str)):
        sizes = ", ".join(map(str, wanted)) + ("," if len(wanted) == 1 else "")
        raise ValueError(f"{name} has shape {tuple(shape)}, wanted ({sizes})" + (f": {reason}" if reason else ""))


class Sizes:
    """The sizes of one call by name, each with what told it: the configuration, or the first tensor that has it."""

    def __init__(self, config: Any = None, **told: int):
        self.config = config
        self.told: dict[str, tuple[int | None, str]] = {word: (size, "the input") for word, size in told.items()}

    def check(self, name: str, tensor: Any, shape: str = "") -> None:
        """Refuse a tensor of another shape, in words; by default that of `SHAPES`. None is no tensor, and fine."""
        if tensor is None:
            return
        check_tensor(name, tensor)
        got, words, told = tensor.shape, (shape or SHAPES[name]).split(), self.told
        fits, empty = len(got) == len(words), False
        for word, size in zip(words, got):
            if word not in told:
                is_option = word.endswith(("_size", "_layers"))
                told[word] = (getattr(self.config, word), "") if is_option else (size, name)
            fits = fits and told[word][0] in (size, None)
            empty = empty or (size == 0 and word.endswith("length"))
        if fits and not empty:
            return
        known = {word: told[word] for word in words if word in told and told[word][1] != name}
        wanted = ", ".join(str(known[word][0] or word) if word in known else word for word in words)
        reasons = ", ".join(f"{word} as {origin}" for word, (_, origin) in known.items() if origin)
        what = "the source is empty: " if fits and "length" in words else ""
        raise ValueError(f"{what}{name} has shape {tuple(got)}, wanted ({wanted}){reasons and ': '}{reasons}")

    def check_length(self, name: str, tensor: Tensor | None, origin: str) -> None:
        """Refuse a tensor (B, S) of a source that `time_reduction` does not make as long as the memory."""
        self.check(name, tensor)
        length, factor = self.told["memory_length"][0], self.config.time_reduction
        if tensor is not None and -(-tensor.shape[1] // factor) != length:
            reduced = f"{length} in" if factor == 1 else f"{length} when divided by time_reduction={factor}, as in"
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, wanted the length {reduced} {origin}")


def check_integers(name: str, ids: Tensor) -> None:
    """Refuse what is no integer."""
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"{name} has type {ids.dtype}, wanted integers")


def check_mask(name: str, mask: Tensor | None, of_source: bool = True) -> None:
    """
    Refuse what is no mask, 1 (or True) at what is real and 0 elsewhere: on the CPU another value, which may be that of
    an additive mask (0 and -inf), read the other way round. A mask `of_source` of floats that is all 0 is one, too.
    """
    if mask is None or mask.dtype == torch.bool or is_traced():
        return
    wanted = "wanted 1 at what is real and 0 at padding (an additive mask, with 0 and -inf, is not read)"
    if mask.is_complex():
        raise ValueError(f"{name} has type {mask.dtype}, {wanted}")
    if mask.device.type != "cpu" or not mask.numel():
        return
    low, high = (float(extreme) for extreme in mask.aminmax())
    if low < 0 or high > 1 or low != low or high != high or mask.is_floating_point():
        wrong = mask[(mask != 0) & (mask != 1)]
        if len(wrong):
            raise ValueError(f"{name} holds {wrong[0].item()}, {wanted}")
        if of_source and high == 0:
            raise ValueError(f"{name} is 0 everywhere, {wanted}")


def check_numbers(name: str, x: Tensor | None, real: Tensor | None = None, missing: bool = False) -> None:
    """
    Refuse what holds no floating-point numbers and, on the CPU, NaN and infinity outside of padding.

    Args:
        x: (B, S, ...).
        real: Mask (B, S), 0 at padding; `None`: there is none.
        missing: Whether NaN is a missing number, and fine.
    """
    if x is None or is_traced():
        return
    if not x.is_floating_point():
        raise ValueError(f"{name} has type {x.dtype}, wanted floating-point numbers")
    if x.device.type != "cpu" or bool(x.detach().sum().isfinite()):  # one pass, where all is well
        return
    wrong = x.isinf() if missing else ~x.isfinite()
    if real is not None and real.shape == x.shape[:2]:
        wrong = wrong & real.bool().view(*real.shape, *[1] * (x.dim() - 2))
    places = wrong.nonzero().tolist()
    if places:
        place = ", ".join(map(str, places[0]))
        raise ValueError(f"{name}[{place}] is {x[tuple(places[0])].item()}, wanted a finite number")


def check_ids(name: str, ids: Tensor | None, symbols: int, reason: str = "", anywhere: bool = False) -> None:
    """Refuse what is no integer and, on the CPU or `anywhere`, since it waits for the device, ids of no symbol."""
    if ids is None or is_traced():
        return
    check_integers(name, ids)
    if (anywhere or ids.device.type == "cpu") and ids.numel():
        low, high = (int(extreme) for extreme in ids.aminmax())
        if low < 0:
            raise ValueError(f"{name} holds the id {low}, wanted 0 to {symbols - 1}")
        if high >= symbols:
            raise ValueError(f"{name} holds the id {high}, wanted less than {symbols}{reason and ': '}{reason}")


def symbols_of(config: Any, vocab_size: str) -> tuple[int, str]:
    """Return how many ids a side of the model reads, and why so many."""
    size, slots = getattr(config, vocab_size), config.copy_slots
    return size + slots, f"vocab_size={size} and copy_slots={slots}" if slots else ""


def check_inputs(config: Any, given: dict[str, Any], prefix: str = "") -> None:
    """
    Refuse inputs that do not fit each other or the model, and ids of no symbol.

    Args:
        given: The arguments of a forward, by name.
        prefix: What the names of inputs lack of those in `SHAPES`.
    """
    if is_traced():
        return
    sizes, outputs = Sizes(config), given.get("encoder_outputs")
    if outputs is not None and not isinstance(outputs, tuple):
        check_encoder_outputs(sizes, outputs)
    for name in _INPUTS:
        called = name.removeprefix(prefix)
        tensor = given.get(called)
        if tensor is None or (prefix and called == name):
            continue
        if name == "character_ids" and config.character_vocab_size is None:
            continue  # nothing reads them
        free = name == "decoder_inputs_embeds" and not config.feed_previous_token  # likewise
        sizes.check(called, tensor, "batch target_length width" if free else SHAPES[name])
        if "memory_length" in sizes.told and "length" in SHAPES[name].split():
            sizes.check_length(called, tensor, "encoder_outputs")
        if name == "labels":
            _check_labels(tensor, config.target_vocab_size + config.copy_slots)
    steps, length = (sizes.told.get(word, (None,))[0] for word in ("steps_so_far", "target_length"))
    if steps is not None and length is not None and steps < length:
        mask = f"{'' if prefix else 'decoder_'}attention_mask"
        raise ValueError(f"{mask} is of {steps} steps, wanted {length} as the decoder's input, or more from a state")


def _check_labels(labels: Tensor, symbols: int) -> None:
    """Refuse labels (B, T) that are no integers and, on the CPU, those of no symbol."""
    check_integers("labels", labels)
    if labels.device.type == "cpu":
        wrong = ((labels >= symbols) | ((labels < 0) & (labels != -100))).nonzero().tolist()
        for row, step in wrong[:1]:
            label = int(labels[row, step])
            raise ValueError(f"labels[{row}, {step}] is {label}, wanted 0 to {symbols - 1}, or -100 for none")


def check_source(
    config: Any,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    character_ids: Tensor | None,
    input_features: Tensor | None,
    attention_mask: Tensor | None = None,
) -> None:
    """Refuse two sources or none, one of a kind that the encoder does not read, and values that are none."""
    size = config.input_feature_size
    if size is None:
        if input_features is not None:
            raise ValueError("got input_features, but the model reads token ids (input_feature_size=None)")
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds to the encoder")
    elif input_features is None or input_ids is not None or inputs_embeds is not None:
        raise ValueError(
            f"the model reads vectors (input_feature_size={size}): give it input_features, and neither input_ids "
            "nor inputs_embeds"
        )
    if config.character_vocab_size is not None and character_ids is None:
        raise ValueError(
            f"character_ids is missing: the model reads characters (character_vocab_size="
            f"{config.character_vocab_size}), which its tokenizer gives beside input_ids"
        )
    check_ids("input_ids", input_ids, *symbols_of(config, "vocab_size"))
    check_mask("attention_mask", attention_mask)
    check_numbers("inputs_embeds", inputs_embeds, attention_mask)
    check_numbers("input_features", input_features, attention_mask, missing=config.standardise_features)


def check_encoder_outputs(sizes: Sizes, outputs: Any, attention_mask: Tensor | None = None) -> None:
    """Refuse what no encoder of this configuration gives, and a mask of another source."""
    if getattr(outputs, "last_hidden_state", None) is None:
        raise TypeError(
            f"encoder_outputs is {type(outputs).__name__} without last_hidden_state, wanted what "
            "model.get_encoder()(...) returns"
        )
    if is_traced():
        return
    for field in ("last_hidden_state", "final_hidden", "final_cell", "mask", "source_ids"):
        sizes.check(f"encoder_outputs.{field}", getattr(outputs, field, None))
    sizes.check_length("attention_mask", attention_mask, "encoder_outputs")
    if not outputs.last_hidden_state.is_floating_point():
        got = outputs.last_hidden_state.dtype
        raise ValueError(f"encoder_outputs.last_hidden_state has type {got}, wanted floating-point numbers")


def check_positions(logits_to_keep: Any) -> None:
    """Refuse what says of no positions that their logits are wanted."""
    if not isinstance(logits_to_keep, Tensor):
        words = "at least 0, or a tensor of positions"
        check_option("logits_to_keep", logits_to_keep, "whole number", lambda n: n >= 0, words)


def check_sequences(config: Any, sequences: Any) -> None:
    """Refuse what are no targets (N, T + 1) with their start symbol."""
    check_tensor("sequences", sequences)
    if sequences.dim() != 2 or sequences.shape[1] < 2:
        raise ValueError(f"sequences has shape {tuple(sequences.shape)}, wanted (num_sequences, 2 or more)")
    check_ids("sequences", sequences, *symbols_of(config, "target_vocab_size"))


def check_request(config: Any, name: str, source: Any, inputs: dict[str, Any]) -> None:
    """
    Refuse, before `generate()` begins, encoder outputs, prompts and masks that do not fit, and what is no tensor; the
    rest a forward refuses. `name` is that of the source.
    """
    outputs, mask = inputs.get("encoder_outputs"), inputs.get("attention_mask")
    prompts = inputs.get("decoder_input_ids")
    if source is None:
        name, source = "inputs_embeds", inputs.get("inputs_embeds")
    for called, tensor in ((name, source), ("attention_mask", mask), ("decoder_input_ids", prompts)):
        if tensor is not None:
            check_tensor(called, tensor)
    if outputs is not None and not isinstance(outputs, tuple):
        check_encoder_outputs(Sizes(config), outputs, mask)
        source = outputs.last_hidden_state
        check_numbers("encoder_outputs.last_hidden_state", source)
    if source is not None and not source.dim():
        raise ValueError(f"{name} has shape (), wanted a batch")
    check_mask("attention_mask", mask)
    if isinstance(prompts, Tensor) and isinstance(source, Tensor) and source.dim() > 1 and not is_traced():
        Sizes(batch=len(source)).check("decoder_input_ids", prompts, "batch prompt_length")
        check_ids("decoder_input_ids", prompts, *symbols_of(config, "target_vocab_size"))


def state_layers(cache: Any) -> list[Any]:
    """Return the layers of a cache that hold the decoder's state, one a decoder layer."""
    layers: list[Any] = getattr(cache, "self_attention_cache", cache).layers
    return layers


def check_target(
    config: Any,
    cache: Any,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    target_mask: Tensor | None,
    attention_mask: Tensor | None,
) -> None:
    """
    Refuse two targets or none, ids of no symbol, a cache whose states are not of this batch and model, and masks of
    another source than its own or, where it has no state yet, of another target.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give exactly one of decoder_input_ids (or labels) and decoder_inputs_embeds")
    if is_traced():
        return
    if config.feed_previous_token:
        check_ids("decoder_input_ids (or labels)", input_ids, *symbols_of(config, "target_vocab_size"))
    target: Any = input_ids if inputs_embeds is None else inputs_embeds
    sizes = Sizes(config, batch=target.shape[0], steps=target.shape[1], one=1)
    check_mask("decoder_attention_mask", target_mask)
    check_numbers("decoder_inputs_embeds", inputs_embeds, target_mask)
    layers = state_layers(cache) if cache is not None else []
    begins = not any(layer.is_initialized for layer in layers)
    if attention_mask is not None and (begins or attention_mask.is_floating_point()):  # of integers it was looked at
        check_mask("attention_mask", attention_mask)
    if begins:
        sizes.check("decoder_attention_mask", target_mask, "batch steps")
    for number, layer in enumerate(layers):
        if layer.is_initialized:
            name = f"cache: the state of layer {number}"
            sizes.check(name, layer.keys, "batch one steps_kept decoder_hidden_size")
            sizes.check(name, layer.values, f"batch one steps_kept carried_by_{number}")
    sizes.check("attention_mask", attention_mask)
    source = getattr(cache, "cross_attention_cache", None)
    if source is not None and source.layers and source.layers[0].is_initialized:
        sizes.check("cache: the source", source.layers[0].keys, "batch one memory_length width")
        if config.attention_type != "none":
            sizes.check_length("attention_mask", attention_mask, "the source in the cache")


def check_decoder_state(config: Any, rows: int, state: Any, source: Any) -> None:
    """Refuse a `DecoderState` or a `SourceMemory` of another batch or model than the decoder's inputs (B, T)."""
    if is_traced():
        return
    parts, attends = 2 if config.rnn_type == "lstm" else 1, config.attention_type != "none"
    if [len(layer) for layer in state.layers] != [parts] * config.decoder_layers:
        raise ValueError(
            f"state.layers has {[len(layer) for layer in state.layers]} tensors, wanted {parts} of each of "
            f"{config.decoder_layers} layers"
        )
    if source.context is None and config.feeds_context:
        raise ValueError("source.context is missing: the decoder reads C at every step (context_feeding)")
    if source.memory is None and attends:
        raise ValueError("source.memory is missing: the decoder attends to it (attention_type)")
    sizes = Sizes(config, batch=rows)
    for part in (part for layer in state.layers for part in layer):
        sizes.check("state.layers", part)
    sizes.check("state.feed", state.feed)
    sizes.check("source.context", source.context)
    if attends:
        for field in ("memory", "keys", "mask", "symbols"):
            sizes.check(f"source.{field}", getattr(source, field))
        sizes.check("state.coverage", state.coverage)


def check_recurrence(
    x: Tensor,
    states: Sequence[Sequence[Tensor]],
    hidden_size: int,
    width: int,
    layers: int = 1,
    mask: Tensor | None = None,
    name: str = "states",
) -> None:
    """Refuse inputs (B, S, width) or (B, width), first states (B, D) of the layers, a mask (B, S) that do not fit."""
    if is_traced():
        return
    if x.dim() not in (2, 3):
        raise ValueError(f"x has shape {tuple(x.shape)}, wanted (batch, length, size)")
    if x.shape[-1] != width:
        raise ValueError(f"the recurrence's input has width {x.shape[-1]}, wanted {width} as its weights")
    if len(states) != layers:
        raise ValueError(f"{name} has {len(states)} layers, wanted {layers}")
    sizes = Sizes(batch=x.shape[0], positions=x.shape[1], hidden=hidden_size)
    for part in (part for state in states for part in state):
        sizes.check(name, part, "batch hidden")
    sizes.check("padding", mask, "batch positions")
