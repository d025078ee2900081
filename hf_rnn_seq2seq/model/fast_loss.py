"""The loss and the logits of a training step: a few rows of logits at a time, and none that nothing reads.

| here | plain twin | compared by |
|---|---|---|
| `chunked_cross_entropy`, `linear_cross_entropy` | `loss.cross_entropy` of all logits | test_fast_training |
| `with_later_logits` | logits made at once | test_fast_training |

Of N readouts, a few rows at a time become logits, their loss, and at once the gradients of both factors; then the
logits are dropped, so that memory does not grow with the vocabulary times the batch. Few programs read the logits of a
training step. Those that do (`outputs.logits`, `outputs["logits"]`, `outputs[1]`, `compute_loss` of a Trainer) find
them as in any other model, with their gradients. B batch, T target length, N rows, R readout, V vocabulary. This file
travels to the Hub: it imports only the standard library, torch, transformers and its flat siblings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import Seq2SeqLMOutput

from .fast_products import matrix_product
from .padding import looking_is_free


# So many logits at a time: few enough to stay near the processor, enough rows for a good matrix product.
_LOGITS_AT_ONCE = 2**21


def chunked_cross_entropy(
    readout: Tensor,
    labels: Tensor,
    head: nn.Linear | None,
    loss_of: Callable[[Tensor, Tensor, Any], Tensor],
    vocabulary_size: int,
    label_smoothing: float,
    pointer: Any,
) -> Tensor:
    """
    Return the summed loss at the labels that count, with never all logits at once.

    Args:
        readout: (B, T, R).
        labels: (B, T), -100 where they do not count.
        head: The output layer, if without a pointer the logits are what it gives; else None.
        loss_of: The summed loss of readouts (n, 1, R), their labels (n,) and pointer.
        vocabulary_size: V.
        label_smoothing: As in `linear_cross_entropy`.
        pointer: The `Pointer` of all steps, where the decoder copies.
    """
    length = labels.shape[1]
    readout, labels = readout.flatten(0, 1), labels.flatten()
    places = torch.arange(len(labels), device=labels.device)  # (N,)
    if looking_is_free(labels):  # elsewhere rows of -100 are computed, too, and do not count
        places = (labels != -100).nonzero().squeeze(1)
    row, step = places // length, places % length
    if len(places) < len(labels):
        readout, labels = readout.index_select(0, places), labels[places]
    if head is not None:
        return linear_cross_entropy(readout, head.weight, head.bias, labels, label_smoothing)

    def of_chunk(readout: Tensor, labels: Tensor, *parts: Tensor) -> Tensor:
        return loss_of(readout.unsqueeze(1), labels, type(pointer)(*parts) if parts else None)

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
    Return `F.cross_entropy(F.linear(readout, weight, bias), labels, reduction="sum")`, never all logits at once.

    Args:
        readout: (N, R) what the output layer reads.
        weight, bias: (V, R) and (V,), the output layer.
        labels: (N,) from 0 to V - 1; on another device than the CPU also -100, which does not count.
        label_smoothing: e: the target is (1 - e) of the label and e of all symbols alike.

    Returns:
        The sum over the rows, in single precision at least. It can be differentiated once.
    """
    if torch.is_autocast_enabled(readout.device.type) and readout.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(readout.device.type)
        readout, weight, bias = readout.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    return _LinearCrossEntropy.apply(readout, weight, bias, labels, label_smoothing)


def _rows_at_once(vocabulary: int) -> int:
    """Return how many rows of logits are made at a time."""
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
            ignored = None if looking_is_free(label) else label == -100  # (n, 1)
            if ignored is not None:
                label = label.clamp(min=0)
                log_p = log_p.masked_fill(ignored, 0)
            total -= (1 - smoothing) * log_p.gather(1, label).sum()
            if smoothing > 0:
                total -= smoothing / weight.shape[0] * log_p.sum()
            # d loss / d logits = p - target
            grad = log_p.exp_()
            grad.scatter_add_(1, label, grad.new_full((), smoothing - 1).expand_as(label))
            if smoothing > 0:
                grad -= smoothing / weight.shape[0]
            if ignored is not None:
                grad.masked_fill_(ignored, 0)
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


def with_later_logits(
    output: Seq2SeqLMOutput, make: Callable[[], Tensor], readout: Tensor, head: nn.Module
) -> "RnnSeq2SeqLMOutput":
    """
    Return the output with logits that are made when they are first used.

    Args:
        output: Without logits.
        make: Makes the logits (B, T, V).
        readout: What they are made of, (B, T, R).
        head: The output layer, which must not change until then.
    """
    logits: Any = _LaterLogits(make, readout, head)
    return RnnSeq2SeqLMOutput(**{**output, "logits": logits})


class _LaterLogits:
    """
    What stands for logits until they are used; used as a tensor, it is one.

    It is no tensor, so that what goes through all outputs of a model (accelerate under autocast,
    DistributedDataParallel) passes it by and makes nothing.
    """

    def __init__(self, make: Callable[[], Tensor], readout: Tensor, head: nn.Module) -> None:
        device = readout.device.type
        self._make, self._head, self._print = make, head, _print_of(head)
        self._autocast = (device, torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else None
        self.dtype = readout.dtype if self._autocast is None else torch.float32

    @cached_property
    def tensor(self) -> Tensor:
        """The logits; with gradients, and under the autocast of the forward pass, wherever they are asked for."""
        if not _same(self._print, _print_of(self._head)):
            raise RuntimeError(
                "logits of a training step were first asked for when the output layer had already been changed: read "
                "outputs.logits before the optimizer's step, or call the model with skip_logits=False"
            )
        with torch.enable_grad():
            if self._autocast is None:
                return self._make()
            device, dtype = self._autocast
            with torch.autocast(device, dtype):
                logits = self._make()
            return logits.float()  # as accelerate makes of the outputs of a model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tensor, name)

    def __reduce__(self) -> Any:
        return torch.Tensor.detach, (self.tensor,)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(cls, _made, (args, kwargs or {}))
        return func(*args, **kwargs)


@dataclass
class RnnSeq2SeqLMOutput(Seq2SeqLMOutput):
    """A `Seq2SeqLMOutput` whose `logits` may be made when they are asked for."""

    def __getattribute__(self, name: str) -> Any:
        return _made(super().__getattribute__(name))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return _made(super().__getitem__(key))
        names = list(self.keys())[key]
        return self[names] if isinstance(names, str) else tuple(self[name] for name in names)


def _made(value: Any) -> Any:
    return value.tensor if type(value) is _LaterLogits else value


def _print_of(module: nn.Module) -> list[tuple[int, Tensor | None]]:
    """Return what differs once parameters have changed: versions, and first columns for fused optimizers."""
    return [
        (parameter._version, parameter.detach()[..., :1].clone() if type(parameter) is nn.Parameter else None)
        for parameter in module.parameters()
    ]


def _same(one: list[tuple[int, Tensor | None]], other: list[tuple[int, Tensor | None]]) -> bool:
    return all(
        version == later and (column is None or after is None or torch.equal(column, after))
        for (version, column), (later, after) in zip(one, other)
    )
