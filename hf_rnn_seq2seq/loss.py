"""The output layer and its cross entropy in one: a training step keeps no logits.

Of N readouts, a few rows at a time become logits, their loss, and at once the gradients of both factors; then the
logits are dropped, so that memory does not grow with the vocabulary times the batch. Smoothing: Szegedy 2016. N rows, R
readout, V vocabulary. This file travels to the Hub: it imports only the standard library and torch.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


# So many logits at a time: few enough to stay near the processor, enough rows for a good matrix product.
_LOGITS_AT_ONCE = 2**22


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


def rows_at_once(vocabulary: int) -> int:
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
        size = rows_at_once(weight.shape[0])
        for start in range(0, readout.shape[0], size):
            rows, label = readout[start : start + size], labels[start : start + size, None]
            log_p = F.linear(rows, weight, bias).log_softmax(-1, dtype=dtype)  # (n, V)
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
                torch.mm(grad, weight, out=grad_readout[start : start + size])
            if grad_weight is not None and grad_weight.dtype == grad.dtype:
                grad_weight.addmm_(grad.t(), rows)
            elif grad_weight is not None:
                grad_weight += grad.t() @ rows
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
