"""What enters a forward is looked at once: that its keywords are known, and its tensors fit each other.

Only shapes are compared, which costs microseconds and waits for no device; nothing is compared while a model is
compiled, traced or exported. torch's fused kernels of recurrences, which look at nothing themselves, write beyond the
ends of memory where shapes differ. B batch, S source length, T target length, E embedding, D encoder hidden, H decoder
hidden, R readout, L layers. This file travels to the Hub: it imports only the standard library and torch.
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from .fast import is_traced


Forward = TypeVar("Forward", bound=Callable[..., Any])


def only_known_keywords(forward: Forward) -> Forward:
    """
    A forward that takes the keywords that it names, and no others.

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
        return forward(self, *args, **kwargs)

    return checked  # type: ignore[return-value]


def check_tensor(name: str, tensor: Any) -> None:
    """Refuse what is no tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is {type(tensor).__name__}, wanted a tensor")


def check_shape(name: str, tensor: Any, wanted: Sequence[int | str], reason: str = "") -> None:
    """
    Refuse a tensor that has not this shape.

    Args:
        name: What an error calls it.
        tensor: None is no tensor, and fine.
        wanted: The sizes; a word stands for any.
        reason: Where the sizes come from.
    """
    if tensor is None:
        return
    check_tensor(name, tensor)
    shape = tensor.shape
    if len(shape) != len(wanted) or any(w != s for w, s in zip(wanted, shape) if not isinstance(w, str)):
        sizes = ", ".join(map(str, wanted)) + ("," if len(wanted) == 1 else "")
        raise ValueError(f"{name} has shape {tuple(shape)}, wanted ({sizes})" + (f": {reason}" if reason else ""))


def check_ids(name: str, ids: Tensor | None, symbols: int, reason: str = "") -> None:
    """Refuse what is no integer, and on the CPU, where looking does not wait, ids of no row of a table."""
    if ids is None or is_traced():
        return
    if ids.is_floating_point() or ids.is_complex():
        raise ValueError(f"{name} has type {ids.dtype}, wanted integers")
    if ids.device.type == "cpu" and ids.numel():
        low, high = (int(extreme) for extreme in ids.aminmax())
        if low < 0:
            raise ValueError(f"{name} holds the id {low}, wanted 0 to {symbols - 1}")
        if high >= symbols:
            raise ValueError(f"{name} holds the id {high}, wanted less than {symbols}{reason and ': '}{reason}")


def _symbols(config: Any, vocab_size: str) -> tuple[int, str]:
    """How many ids a side of the model reads, and why so many."""
    size, slots = getattr(config, vocab_size), config.copy_slots
    return size + slots, f"vocab_size={size} and copy_slots={slots}" if slots else ""


def check_source(
    config: Any,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    inputs_embeds: Tensor | None,
    character_ids: Tensor | None,
    input_features: Tensor | None,
) -> None:
    """Refuse what an encoder cannot read: two sources or none, or tensors that do not fit each other."""
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
    if is_traced():
        return
    check_shape("input_ids", input_ids, ("batch", "length"))
    check_shape("inputs_embeds", inputs_embeds, ("batch", "length", config.embedding_size))
    check_shape("input_features", input_features, ("batch", "length", size))
    source: Any = next(x for x in (input_ids, inputs_embeds, input_features) if x is not None)
    batch, length = source.shape[:2]
    if length == 0:
        raise ValueError(f"the source is empty: got input of shape {(batch, length)}, wanted (batch, length)")
    check_shape("attention_mask", attention_mask, (batch, length), "as the input")
    check_ids("input_ids", input_ids, *_symbols(config, "vocab_size"))
    if config.character_vocab_size is not None:
        check_tensor("character_ids", character_ids)
        words = character_ids.shape  # type: ignore[union-attr]  # it is there
        if len(words) != 3 or words[:2] != source.shape[:2] or words[2] == 0:
            raise ValueError(
                f"character_ids has shape {tuple(words)}, wanted {(batch, length)} as the input, and the length of "
                "the longest word"
            )


def check_encoder_outputs(
    config: Any, outputs: Any, attention_mask: Tensor | None = None, input_ids: Tensor | None = None
) -> None:
    """Refuse what no encoder of this configuration gives, and a mask or ids of another source."""
    memory = getattr(outputs, "last_hidden_state", None)
    if memory is None:
        raise TypeError(
            f"encoder_outputs is {type(outputs).__name__} without last_hidden_state, wanted what "
            "model.get_encoder()(...) returns"
        )
    if is_traced():
        return
    size = config.encoder_hidden_size
    check_shape("encoder_outputs.last_hidden_state", memory, ("batch", "length", size))
    batch, length = memory.shape[:2]
    if length == 0:
        raise ValueError(f"encoder_outputs is empty: last_hidden_state has shape {tuple(memory.shape)}")
    for name in ("final_hidden", "final_cell"):
        check_shape(f"encoder_outputs.{name}", getattr(outputs, name, None), (batch, config.encoder_layers, size))
    check_shape("encoder_outputs.mask", getattr(outputs, "mask", None), (batch, length), "as last_hidden_state")
    check_shape("encoder_outputs.source_ids", getattr(outputs, "source_ids", None), (batch, length))
    of_memory = f"of the source that gave encoder_outputs, {(batch, length)}"
    for name, given in (("attention_mask", attention_mask), ("input_ids", input_ids)):
        check_source_shape(name, given, batch, length, config.time_reduction, of_memory)


def check_source_shape(name: str, given: Tensor | None, batch: int, length: int, factor: int, reason: str) -> None:
    """Refuse what is not as long as the input of which a memory of this length is what `time_reduction` left."""
    check_shape(name, given, (batch, length if factor == 1 else "length"), reason)
    if given is not None and (given.shape[1] + factor - 1) // factor != length:
        raise ValueError(f"{name} has shape {tuple(given.shape)}, wanted ({batch}, up to {factor * length}): {reason}")


def check_model_inputs(
    config: Any,
    sources: dict[str, Tensor | None],
    encoder_outputs: Any,
    decoder_input_ids: Tensor | None,
    decoder_attention_mask: Tensor | None,
    decoder_inputs_embeds: Tensor | None,
    cache: Any,
) -> None:
    """
    Refuse what does not fit together in a call of a whole model. The source itself is the encoder's to check.

    Args:
        sources: By name: `input_ids`, `attention_mask` and the others that the encoder may read.
    """
    if (decoder_input_ids is None) == (decoder_inputs_embeds is None):
        raise ValueError("give exactly one of decoder_input_ids (or labels) and decoder_inputs_embeds")
    mask = sources["attention_mask"]
    if encoder_outputs is not None:
        check_encoder_outputs(config, encoder_outputs, mask, sources["input_ids"])
    if is_traced():
        return
    check_shape("attention_mask", mask, ("batch", "length"))
    rows: int | None = None if encoder_outputs is None else encoder_outputs.last_hidden_state.shape[0]
    for name, source in sources.items():
        if name == "attention_mask" or not isinstance(source, Tensor):
            continue
        # One of another rank is for the encoder to refuse.
        if source.dim() == (3 if source.is_floating_point() or name == "character_ids" else 2):
            if encoder_outputs is not None and source.shape[0] != rows:
                raise ValueError(f"{name} has {source.shape[0]} rows, wanted {rows} as encoder_outputs")
            rows = source.shape[0] if rows is None else rows
    goes_on = cache is not None and any(layer.is_initialized for layer in state_layers(cache))
    check_decoder_inputs(
        config, decoder_input_ids, decoder_attention_mask, decoder_inputs_embeds, goes_on, "decoder_", rows,
        f"the batch has {rows} sources",
    )  # fmt: skip
    given: Any = decoder_input_ids if decoder_inputs_embeds is None else decoder_inputs_embeds
    check_cache(config, cache, given.shape[0], mask)


def check_decoder_inputs(
    config: Any,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    inputs_embeds: Tensor | None,
    goes_on: bool,
    prefix: str = "",
    batch: int | None = None,
    reason: str = "",
) -> None:
    """
    Refuse what a decoder cannot read.

    Args:
        input_ids, attention_mask, inputs_embeds: What they are called, behind the prefix.
        goes_on: From a state; the mask may then be that of all steps so far.
        prefix: `"decoder_"` where they stand beside the encoder's.
        batch: B, where something else says it.
        reason: What does.
    """
    if is_traced():
        return
    rows = "batch" if batch is None else batch
    check_shape(f"{prefix}input_ids", input_ids, (rows, "length"), reason)
    width = config.embedding_size if config.feed_previous_token else "width"
    check_shape(f"{prefix}inputs_embeds", inputs_embeds, (rows, "length", width), reason)
    if config.feed_previous_token:
        name = f"{prefix}input_ids" + (" (or labels)" if prefix else "")
        check_ids(name, input_ids, *_symbols(config, "target_vocab_size"))
    name, given = ("input_ids", input_ids) if inputs_embeds is None else ("inputs_embeds", inputs_embeds)
    if given is None:
        raise ValueError(f"give one of {prefix}input_ids and {prefix}inputs_embeds")
    got_batch, length = given.shape[:2]
    if length == 0:
        raise ValueError(f"{prefix}{name} has shape {tuple(given.shape)}, wanted at least one step")
    name = f"{prefix}attention_mask"
    check_shape(name, attention_mask, (got_batch, "length" if goes_on else length), "as the decoder's input")
    if attention_mask is not None and attention_mask.shape[1] < length:
        raise ValueError(
            f"{name} has shape {tuple(attention_mask.shape)}, wanted ({got_batch}, at least {length}): as the "
            "decoder's input"
        )


def check_request(config: Any, source: Any, inputs: dict[str, Any]) -> None:
    """Refuse, before `generate()` begins, encoder outputs and prompts that do not fit; the rest a forward refuses."""
    outputs, prompts = inputs.get("encoder_outputs"), inputs.get("decoder_input_ids")
    if outputs is not None and not isinstance(outputs, tuple):
        check_encoder_outputs(config, outputs, inputs.get("attention_mask"))
        source = outputs.last_hidden_state
    if isinstance(prompts, Tensor) and isinstance(source, Tensor) and source.dim() > 1 and not is_traced():
        check_shape("decoder_input_ids", prompts, (len(source), "length"), f"the batch has {len(source)} sources")


def check_labels_shape(
    labels: Tensor | None,
    sources: Sequence[Any],
    decoder_inputs: Sequence[Tensor | None],
    config: Any,
) -> None:
    """
    Refuse labels of another batch or length than what is given beside them, and ids of no symbol.

    Args:
        labels: (B, T).
        sources: What says B: tensors, or the encoder's outputs, or None.
        decoder_inputs: What says B and T, or None.
        config: Says which ids there are; looked for on the CPU only, where that does not wait.
    """
    if labels is None or is_traced():
        return
    check_shape("labels", labels, ("batch", "length"))
    if labels.shape[1] == 0:
        raise ValueError(f"labels has shape {tuple(labels.shape)}, wanted at least one step")
    for source in sources:
        first = source if source is None or isinstance(source, Tensor) else source[0]
        # One of another rank is for the encoder to refuse.
        if isinstance(first, Tensor) and first.dim() == (3 if first.is_floating_point() else 2):
            check_shape("labels", labels, (first.shape[0], "length"), f"the batch has {first.shape[0]} sources")
    for given in decoder_inputs:
        if isinstance(given, Tensor) and given.dim() > 1:  # another is for the model to refuse
            check_shape("labels", labels, tuple(given.shape[:2]), "as the decoder's input")
    if labels.is_floating_point():
        raise ValueError(f"labels has type {labels.dtype}, wanted integers")
    if labels.device.type == "cpu":
        symbols = config.target_vocab_size + config.copy_slots
        wrong = ((labels >= symbols) | ((labels < 0) & (labels != -100))).nonzero().tolist()
        if wrong:
            row, step = wrong[0]
            label = labels[row, step].item()
            raise ValueError(
                f"labels[{row}, {step}] is {label}, wanted 0 to {symbols - 1}, or -100 for what is ignored"
            )


def state_layers(cache: Any) -> list[Any]:
    """The layers of a cache that hold the decoder's state."""
    layers: list[Any] = getattr(cache, "self_attention_cache", cache).layers
    return layers


def check_cache(config: Any, cache: Any, rows: int, attention_mask: Tensor | None) -> None:
    """Refuse a cache whose states are not of this batch and model, and a mask of another source than its own."""
    if cache is None or is_traced():
        return
    check_shape("attention_mask", attention_mask, (rows, "length"), "as the decoder's input")
    states = state_layers(cache)
    for number, layer in enumerate(states):
        if layer.is_initialized:
            name = f"cache: the state of layer {number}"
            check_shape(name, layer.keys, (rows, 1, "steps", config.decoder_hidden_size), "batch, 1, steps, hidden")
            check_shape(name, layer.values, (rows, 1, layer.keys.shape[2], "size"), "as its first part")
    if states and states[0].is_initialized and len(states) != config.decoder_layers:
        raise ValueError(f"cache has the states of {len(states)} layers, wanted {config.decoder_layers}")
    source = getattr(cache, "cross_attention_cache", None)
    if source is not None and source.layers and source.layers[0].is_initialized:
        keys = source.layers[0].keys
        check_shape("cache: the source", keys, (rows, 1, "length", "size"), "batch, 1, source length, size")
        if config.attention_type != "none":
            reason = f"the source in the cache is {(rows, keys.shape[2])}"
            check_source_shape("attention_mask", attention_mask, rows, keys.shape[2], config.time_reduction, reason)


def check_decoder_state(config: Any, rows: int, state: Any, source: Any) -> None:
    """Refuse a `DecoderState` or a `SourceMemory` of another batch or model than the decoder's inputs (B, T)."""
    if is_traced():
        return
    parts = 2 if config.rnn_type == "lstm" else 1
    if len(state.layers) != config.decoder_layers or any(len(layer) != parts for layer in state.layers):
        raise ValueError(
            f"state.layers has {[len(layer) for layer in state.layers]} tensors, wanted {parts} of each of "
            f"{config.decoder_layers} layers"
        )
    for layer in state.layers:
        for part in layer:
            check_shape("state.layers", part, (rows, config.decoder_hidden_size), "batch, hidden")
    check_shape("state.feed", state.feed, (rows, config.output_size), "batch, readout")
    check_shape("source.context", source.context, (rows, config.encoder_hidden_size), "batch, encoder hidden")
    if source.context is None and config.feeds_context:
        raise ValueError("source.context is missing: the decoder reads C at every step (context_feeding)")
    if config.attention_type == "none":
        return
    if source.memory is None:
        raise ValueError("source.memory is missing: the decoder attends to it (attention_type)")
    check_shape("source.memory", source.memory, (rows, "length", config.encoder_hidden_size), "batch, length, hidden")
    length = source.memory.shape[1]
    check_shape("source.keys", source.keys, (rows, length, "size"), "as source.memory")
    check_shape("source.mask", source.mask, (rows, length), "as source.memory")
    check_shape("source.symbols", source.symbols, (rows, 2, length), "batch, 2, length of source.memory")
    check_shape("state.coverage", state.coverage, (rows, length), "as source.memory")


def check_stack(
    x: Tensor,
    states: Sequence[Sequence[Tensor]],
    layers: int,
    hidden_size: int,
    width: int,
    mask: Tensor | None = None,
) -> None:
    """Refuse inputs (B, S, width) or (B, width), first states (B, D) of the layers, a mask (B, S) that do not fit."""
    if is_traced():
        return
    if x.dim() not in (2, 3):
        raise ValueError(f"x has shape {tuple(x.shape)}, wanted (batch, length, size)")
    if x.shape[-1] != width:
        raise ValueError(f"the recurrence's input has width {x.shape[-1]}, wanted {width} as its weights")
    if len(states) != layers:
        raise ValueError(f"states has {len(states)} layers, wanted {layers}")
    for state in states:
        for part in state:
            check_shape("states", part, (x.shape[0], hidden_size), "batch, hidden")
    check_shape("padding", mask, tuple(x.shape[:2]), "as x")


def check_recurrence(x: Tensor, rows: int, state: Sequence[Tensor], weights: Sequence[Sequence[Tensor]]) -> None:
    """
    Refuse what torch's fused kernels would not: the last look before they run.

    Args:
        x: (B, S, I), or packed (N, I).
        rows: B.
        state: First state, (B, H) a tensor, all directions.
        weights: (W_ih, W_hh, b_ih, b_hh) of each direction.
    """
    if is_traced():
        return
    w_ih, w_hh = weights[0][:2]
    if x.shape[-1] != w_ih.shape[1]:
        raise ValueError(f"the recurrence's input has width {x.shape[-1]}, wanted {w_ih.shape[1]} as its weights")
    for part in state:
        check_shape("the recurrence's state", part, (rows, w_hh.shape[1] * len(weights)), "batch, hidden")
