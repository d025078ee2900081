"""The output layer and its cross entropy in one: a training step keeps no logits.

Of N readouts, a few rows at a time become logits, their loss, and at once the gradients of both factors; then the
logits are dropped, so that memory does not grow with the vocabulary times the batch. Smoothing: Szegedy 2016. B batch,
T target length, N rows, R readout, V vocabulary. This file travels to the Hub: it imports only the standard library,
torch and its flat siblings.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .copying import Pointer
from .fast import may_look
from .fast_products import matrix_product


# So many logits at a time: few enough to stay near the processor, enough rows for a good matrix product.
_LOGITS_AT_ONCE = 2**21


def shift_tokens_right(labels: Tensor, pad_token_id: int | None, decoder_start_token_id: int) -> Tensor:
    """Decoder inputs (B, T) of labels (B, T): the start symbol, then all labels but the last; -100 becomes padding."""
    if decoder_start_token_id is None:
        raise ValueError("decoder_start_token_id is None in the configuration: labels cannot become decoder inputs")
    start = labels.new_full((labels.shape[0], 1), decoder_start_token_id)
    shifted = torch.cat([start, labels[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == -100, pad_token_id if pad_token_id is not None else 0)


def cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float, normalised: bool, vocabulary_size: int
) -> Tensor:
    """
    The sum over the rows of logits (N, V) whose label is not -100; `normalised`: they are log-probabilities.

    The target is smoothed over the vocabulary: slots behind it (`copy_slots`) mostly have no probability to raise.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if label_smoothing > 0 and logits.shape[1] > vocabulary_size:
        vocabulary = logits[labels != -100, :vocabulary_size]
        right = F.nll_loss(logits, labels, reduction="sum")
        return (1 - label_smoothing) * right - label_smoothing * vocabulary.mean(1).sum()
    if normalised and label_smoothing == 0:
        # Another softmax would change nothing, and takes a tenth of the time.
        return F.nll_loss(logits, labels, reduction="sum")
    return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)


def loss_beyond_logits(config: Any, teacher_forcing_ratio: float) -> str | None:
    """What a loss that is made of the logits alone, as Trainer's label smoothing does, would miss, or None."""
    if config.copy_slots > 0:
        return f"copy_slots={config.copy_slots}: words that are not in a source have no probability to smooth"
    if config.coverage and config.coverage_loss_weight > 0:
        return "coverage=True: the coverage loss would be left out"
    if teacher_forcing_ratio < 1:
        return f"teacher_forcing_ratio={teacher_forcing_ratio}: every step would read the reference"
    return None


def steps_that_count(labels: Tensor) -> Tensor | None:
    """
    The steps (B, T) up to the last label of each row that is not -100: what comes behind, the loss does not read.

    None where all count, and where to pass over the others saves no time: outside of the CPU's single precision.
    """
    if labels.device.type != "cpu" or torch.is_autocast_enabled("cpu") or not may_look():
        return None
    counting = (labels != -100).flip(1).cumsum(1).flip(1) > 0
    return None if bool(counting.all()) else counting


def chunked_cross_entropy(
    readout: Tensor,
    labels: Tensor,
    head: nn.Module | None,
    logits_of: Callable[[Tensor, Pointer | None], Tensor],
    vocabulary_size: int,
    label_smoothing: float,
    pointer: Pointer | None,
) -> Tensor:
    """
    The same of what the logits are made of: only at labels that count, and never with all logits at once.

    Args:
        readout: (B, T, R).
        labels: (B, T), -100 where they do not count.
        head: The output layer, if without a pointer the logits are what it gives; else None.
        logits_of: Makes the logits (B, T, V) of readouts and pointer.
        vocabulary_size: V.
        label_smoothing: As in `linear_cross_entropy`.
        pointer: Of all steps, where the decoder copies.
    """
    length = labels.shape[1]
    readout, labels = readout.flatten(0, 1), labels.flatten()
    places = (labels != -100).nonzero().squeeze(1)  # (N,)
    row, step = places // length, places % length
    if len(places) < len(labels):
        readout, labels = readout.index_select(0, places), labels[places]
    if pointer is None and isinstance(head, nn.Linear) and may_look(head):
        return linear_cross_entropy(readout, head.weight, head.bias, labels, label_smoothing)

    def of_chunk(readout: Tensor, labels: Tensor, *parts: Tensor) -> Tensor:
        logits = logits_of(readout.unsqueeze(1), Pointer(*parts) if parts else None)
        return cross_entropy(logits.squeeze(1), labels, label_smoothing, pointer is not None, vocabulary_size)

    total = readout.new_zeros((), dtype=torch.promote_types(readout.dtype, torch.float32))
    for chunk in torch.arange(len(labels), device=labels.device).split(_rows_at_once(vocabulary_size)):
        parts = () if pointer is None else pointer.of_steps(row[chunk], step[chunk])
        # Going back, a chunk's logits are made again.
        total = total + checkpoint(of_chunk, readout[chunk], labels[chunk], *parts, use_reentrant=False)
    return total


def linear_cross_entropy(
    readout: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """
    `F.cross_entropy(F.linear(readout, weight, bias), labels, reduction="sum")`, without the logits of all rows.

    Args:
        readout: (N, R) what the output layer reads.
        weight, bias: (V, R) and (V,), the output layer.
        labels: (N,) from 0 to V - 1.
        label_smoothing: e: the target is (1 - e) of the label and e of all symbols alike.

    Returns:
        The sum over the rows, in single precision at least. It can be differentiated once.
    """
    if torch.is_autocast_enabled(readout.device.type) and readout.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(readout.device.type)
        readout, weight, bias = readout.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    return _LinearCrossEntropy.apply(readout, weight, bias, labels, label_smoothing)


def _rows_at_once(vocabulary: int) -> int:
    """How many rows of logits are made at a time."""
    return max(1, _LOGITS_AT_ONCE // vocabulary)


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradients are made going forward, while a chunk's logits are there; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any, readout: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, smoothing: float
    ) -> Tensor:
        dtype = torch.promote_types(readout.dtype, torch.float32)
        grads = [
            torch.empty_like(readout) if ctx.needs_input_grad[0] else None,
            torch.zeros_like(weight, dtype=dtype) if ctx.needs_input_grad[1] else None,
            torch.zeros_like(bias, dtype=dtype) if bias is not None and ctx.needs_input_grad[2] else None,
        ]
        grad_readout, grad_weight, grad_bias = grads
        total = readout.new_zeros((), dtype=dtype)
        size = _rows_at_once(weight.shape[0])
        for start in range(0, readout.shape[0], size):
            rows, label = readout[start : start + size], labels[start : start + size, None]
            log_p = matrix_product(rows, weight.t(), bias).log_softmax(-1, dtype=dtype)  # (n, V)
            total -= (1 - smoothing) * log_p.gather(1, label).sum()
            if smoothing > 0:
                total -= smoothing / weight.shape[0] * log_p.sum()
            # d loss / d logits = p - target
            grad = log_p.exp_()
            grad.scatter_add_(1, label, grad.new_full((), smoothing - 1).expand_as(label))
            if smoothing > 0:
                grad -= smoothing / weight.shape[0]
            if grad_bias is not None:
                grad_bias += grad.sum(0)
            grad = grad.to(rows.dtype)
            if grad_readout is not None:
                grad_readout[start : start + size] = matrix_product(grad, weight)
            if grad_weight is not None:
                # contiguous: the product then comes in the layout of the sum
                grad_weight += matrix_product(grad.t().contiguous(), rows)
        ctx.save_for_backward(*grads)
        ctx.dtypes = (readout.dtype, weight.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (
            None if grad is None else (grad * grad_total).to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes)
        )
        return (*scaled, None, None)
