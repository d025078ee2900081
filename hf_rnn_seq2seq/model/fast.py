"""The one place that the book asks for a fast path: may it be taken here, and does it pay.

Each function stands in front of one of the appendix (`fast_*.py`) and returns what that gives, or None: "not here";
then the plain code that asked does the work. `plain()` and the environment variable `HF_RNN_SEQ2SEQ_PLAIN` switch them
off, all or some of `ACCELERATIONS` (see fast_switch). The thresholds are measured on one thread of a CPU; elsewhere
only torch's fused kernels, one product for all weight gradients, and the loss in chunks are taken. B batch, S source
length, T target length, E embedding, I input, H hidden, R readout, V vocabulary. This file travels to the Hub: it
imports only torch and its flat siblings, those of the appendix when they are asked for.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .fast_switch import ACCELERATIONS, is_dense, is_on, is_own, is_traced, may_look, plain, replaceable


__all__ = ["ACCELERATIONS", "is_dense", "is_on", "is_own", "is_traced", "may_look", "plain", "replaceable"]

# A row of oneDNN's LSTM takes two thirds of the time of a packed one: with more real positions than that it is faster.
# torch has no fused kernel for the others; packed, they take half as long.
LSTM_REAL_SHARE = 0.7
# One-hot rows must be so much less work than the embedded ones, else making them costs what they save.
LOOKUP_SHARE = 0.75
# With more real steps than that, it is faster to make those behind the last one too than to pass them over: of a loop,
# and of all steps at once.
LOOP_REAL_SHARE, AT_ONCE_REAL_SHARE = 0.85, 0.6
# To find equal words takes longer than to read all of fewer: 16 sentences of UD English (700 words, padding counted)
# lost 5 % of a step, 64 gained 28 %.
ENOUGH_WORDS = 1024


def run_direction(
    layer: Any, x: Tensor, first: tuple[Tensor, ...], weights: tuple[Tensor, Tensor, Tensor, Tensor], padding: Any
) -> tuple[Tensor, tuple[Tensor, ...]] | None:
    """Run `RecurrentLayer._run_direction` by a fused kernel of torch."""
    drops = layer.training and layer.recurrent_dropout > 0
    # A trace cannot loop over a length that it does not know. The kernels know no other kinds of tensors (quantised
    # weights); a product with them always works.
    if drops or not (is_traced() or (is_on("fused") and all(map(is_dense, weights)))):
        return None
    from .fast_recurrence import run_fused

    return run_fused(layer.rnn_type, x, first, weights, padding)


def run_layers(stack: Any, x: Tensor, states: Any, padding: Any, lookup: Any) -> tuple[Any, Any] | None:
    """Run `RecurrentStack._run_layers` over real positions only, or with the first product looked up."""
    if is_traced():
        return None
    weights = stack.all_weights()
    if lookup is not None:
        x, weights[0] = lookup.inputs(x), lookup.weights(weights[0])
    if _packs(stack, x, padding, weights):
        from .fast_recurrence import run_packed_layers

        return run_packed_layers(stack, x, states, padding, weights)
    return None if lookup is None else stack._run_layers(x, states, padding, weights)


def _packs(stack: Any, x: Tensor, padding: Any, weights: Any) -> bool:
    if type(x) is not Tensor or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return False
    if stack.training and (stack.recurrent_dropout > 0 or any(layer.gradient_checkpointing for layer in stack.layers)):
        return False
    if stack.rnn_type == "lstm" and (padding is None or float(padding.mask.float().mean()) > LSTM_REAL_SHARE):
        return False
    dense = all(is_dense(weight) for layer in weights for direction in layer for weight in direction)
    own = is_own(stack, "_run_layers", "_reduce", "_hand_upward")
    return dense and own and not torch.is_autocast_enabled("cpu") and may_look(stack.layers, by="packed")


def lookup(stack: Any, embedding: nn.Module, ids: Tensor, dropout: float) -> Any:
    """
    Return the `Lookup` of a stack's inputs that begin with `embedding(ids)`, in training; where it saves products.

    Args:
        ids: (B, T).
        dropout: Of what is embedded.
    """
    if not (stack.training and torch.is_grad_enabled()) or dropout > 0 or type(embedding) is not nn.Embedding:
        return None
    if not may_look(stack, embedding, by="lookup"):
        return None
    if stack.reductions[0] > 1 or stack.layers[0].gradient_checkpointing:  # reentrant, it wants inputs with gradients
        return None
    table = embedding.weight
    if table.device.type != "cpu" or table.dtype not in (torch.float32, torch.float64):
        return None
    if embedding.scale_grad_by_freq or embedding.sparse or (embedding.padding_idx, embedding.max_norm) != (None, None):
        return None
    (rows, size), positions = table.shape, ids.numel()
    if rows * (size + positions) > LOOKUP_SHARE * positions * size:
        return None
    from .fast_recurrence import lookup_of

    return lookup_of(ids, table, [stack.weights(0, suffix)[0] for suffix in stack.suffixes])


def run_decoder(
    decoder: Any,
    embedded: Tensor,
    state: Any,
    source: Any,
    mask: Tensor | None,
    one_by_one: bool,
    choose_input: Callable[..., Tensor] | None,
    ids: Tensor | None,
    keeps_state: bool,
) -> Any:
    """
    Run all steps of a `RnnSeq2SeqDecoder`: its `_run_steps` or `_run_at_once`.

    Args:
        embedded: (B, T, E).
        mask: (B, T) False where a step is passed over.
        one_by_one: Whether a step waits for the one before.
        ids: (B, T) what was embedded, where nothing else was done to it.
        keeps_state: Whether the state after the steps is wanted.
    """
    if not (decoder.training or embedded.shape[1] > 1) or not may_look(decoder):
        return None
    trails = not keeps_state and choose_input is None and only_trails(mask)
    if trails and float(mask.float().mean()) > (LOOP_REAL_SHARE if one_by_one else AT_ONCE_REAL_SHARE):  # type: ignore[union-attr]
        mask = None
    table = None
    if ids is not None and not one_by_one and decoder.config.feed_previous_token:
        table = lookup(decoder.rnn, decoder.embed_tokens, decoder.known_ids(ids), decoder.config.embedding_dropout)
    from .fast_training import run_decoder as run

    return run(
        decoder, embedded, state, source, mask, one_by_one, choose_input, table,
        shrinks=trails and mask is not None and is_on("shrinking"),
        defers=decoder.training and torch.is_grad_enabled() and is_on("deferred"),
    )  # fmt: skip


def only_trails(mask: Tensor | None) -> bool:
    """Whether each row of a mask (B, T) is steps to make, then steps to pass over; where it costs little to look."""
    if mask is None or mask.device.type != "cpu":
        return False
    return bool(mask.any()) and bool((mask[:, 1:] <= mask[:, :-1]).all())


def read_words(encoder: Any, words: Tensor) -> Tensor | None:
    """Return the vectors (N, H) of a `CharacterEncoder` for words (N, W): distinct ones are read once."""
    if words.device.type != "cpu" or not may_look(encoder, by="words") or len(words) < ENOUGH_WORDS:
        return None
    from .fast_words import read_each_once

    return read_each_once(encoder._read, words, encoder.pad_token_id)


def search(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    model_kwargs: dict[str, Any],
    streamer: Any = None,
) -> Any:
    """Return what `GenerationMixin._sample` or `_beam_search` find from prompts (N, T), where no symbol is drawn."""
    if model.config.aligns or not may_look(model.model.bridge, model.model.decoder, model.lm_head, by="search"):
        return None
    from .fast_search import search as run

    return run(model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs, streamer)


def training_products(decoder: Any) -> AbstractContextManager:
    """Return a context in which a decoder's products in training make their gradients themselves, or one in which
    nothing is different."""
    if not (decoder.training and torch.is_grad_enabled() and may_look(decoder, by="deferred")):
        return nullcontext()
    from .fast_training import defer_gradients

    return defer_gradients() or nullcontext()


def steps_that_count(model: Any, labels: Tensor) -> Tensor | None:
    """
    Return the mask of the steps (B, T) up to the last label of each row that is not -100: what comes behind, the loss
    does not read. None where all count, and where to pass over the others saves no time.
    """
    if labels.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return None
    if not (is_own(model) and may_look(model.decoder, by="trimmed")):
        return None
    counting = (labels != -100).flip(1).cumsum(1).flip(1) > 0
    return None if bool(counting.all()) else counting


def chunked_loss(
    model: Any,
    readout: Tensor,
    labels: Tensor,
    pointer: Any,
    label_smoothing: float,
    loss_of: Callable[[Tensor, Tensor, Any], Tensor],
) -> Tensor | None:
    """
    Return the summed loss of a model that generates, without all logits at once.

    Args:
        readout, labels, pointer: (B, T, R), (B, T), and the `Pointer` where the decoder copies.
        loss_of: The summed loss of readouts (n, 1, R), their labels (n,) and pointer, by way of their logits.
    """
    if is_traced() or not is_on("chunked"):
        return None
    head = model.lm_head
    looks = pointer is None and is_own(model, "_logits") and isinstance(head, nn.Linear) and may_look(head)
    from .fast_loss import chunked_cross_entropy

    return chunked_cross_entropy(
        readout, labels, head if looks else None, loss_of, model.config.target_vocab_size, label_smoothing, pointer
    )


def logits_wait(model: nn.Module, labels: Tensor | None) -> bool:
    """Whether logits are made when they are first read: in training, where the loss has no need of them."""
    return model.training and labels is not None and torch.is_grad_enabled() and may_look(by="later")


def with_later_logits(output: Any, make_logits: Callable[[], Tensor], readout: Tensor, head: nn.Module) -> Any:
    """Return a `Seq2SeqLMOutput` without logits as one that makes them of readouts (B, T, R) when they are read."""
    from .fast_loss import with_later_logits as with_later

    later = with_later(output, make_logits, readout, head)
    if later is None:
        output.logits = make_logits()
    return output if later is None else later
