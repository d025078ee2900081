"""A decoder's steps in training: weight gradients that wait for the end, batches that shrink.

| here | plain twin | compared by |
|---|---|---|
| `run_decoder` | `decoder.RnnSeq2SeqDecoder._run_steps`, `_run_at_once` | test_fast_training |
| `DeferredGradients` | autograd's sum over the steps | test_fast_training |

A step of a recurrence multiplies a few rows by the same matrices as every other step. Plain autograd adds up one
gradient as large as the matrix for each step; here a step hands down only the gradient of its input, and keeps the
rows. dW = sum_t g_t^T x_t = [g_1 .. g_T]^T [x_1 .. x_T]: the values are the same. B batch, S source length, T steps.
This file travels to the Hub: it imports only the standard library, torch and its flat siblings.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .fast_products import Factor, matrix_product
from .fast_recurrence import Lookup


# Whenever so much of the batch has come to its end, the others go on without it.
_LEFT_TOGETHER = 1 / 8


def run_decoder(
    decoder: Any,
    embedded: Tensor,
    state: Any,
    source: Any,
    mask: Tensor | None,
    one_by_one: bool,
    choose_input: Callable[..., Tensor] | None,
    lookup: Lookup | None,
    shrinks: bool,
    defers: bool,
) -> Any:
    """
    Run a `RnnSeq2SeqDecoder` over embedded inputs (B, T, E); the arguments are those of its `_run_steps`.

    Args:
        one_by_one: Whether a step waits for the one before.
        lookup: Of the embedded inputs where all steps are made at once, or None.
        shrinks: Whether sequences leave the batch where the mask says that they are over: it only trails.
        defers: Whether weight gradients may wait for the end.

    Returns:
        The steps' `StepResults`. Where the batch shrinks, steps that are passed over give zeros, and there are no
        states.
    """

    def run(embedded: Tensor, state: Any, source: Any, mask: Tensor | None, masks: Any = None) -> Any:
        with _deferred(defers, source):
            if not one_by_one:
                return decoder._run_at_once(embedded, state, source, mask, lookup)
            return decoder._run_steps(embedded, state, source, mask, choose_input, masks)

    if not (one_by_one and shrinks):
        return run(embedded, state, source, mask)
    assert mask is not None  # it says where they shrink
    return _run_shrinking(run, decoder._draw_recurrent_masks(embedded), embedded, state, source, mask)


def _deferred(defers: bool, source: Any) -> AbstractContextManager:
    return DeferredGradients(source.keys, source.memory) if defers else nullcontext()


def _run_shrinking(
    run: Callable[..., Any], masks: Any, embedded: Tensor, state: Any, source: Any, mask: Tensor
) -> Any:
    """Run sequences by falling length, and again and again without those that have come to their end."""
    lengths, order = mask.sum(1).sort(descending=True, stable=True)
    counts = [int((lengths > t).sum()) for t in range(int(lengths[0]))]  # sequences that make step t
    embedded, state, source = embedded[order], _select(state, order), _select(source, order)
    parts = []
    start = 0
    for stop in range(1, len(counts) + 1):
        rows = slice(counts[start])
        if stop == len(counts) or counts[stop] <= counts[start] - len(mask) * _LEFT_TOGETHER:
            state, source = _select(state, rows), _select(source, rows)
            here = (rows, slice(start, stop))
            parts.append(run(embedded[here], state, source, None, _select(masks, rows)))
            state, start = parts[-1].states[-1], stop

    def join(pieces: tuple[Any, ...]) -> Any:
        if pieces[0] is None or isinstance(pieces[0], tuple):
            return None if pieces[0] is None else tuple(join(layer) for layer in zip(*pieces))
        # each (n, t, *), where the last axes may be none, to (B, T, *)
        inner = (0, 0) * (pieces[0].dim() - 2)
        steps = torch.cat([F.pad(x, (*inner, 0, 0, 0, len(mask) - len(x))) for x in pieces], dim=1)
        return F.pad(steps, (*inner, 0, mask.shape[1] - len(counts)))[order.argsort()]

    kind = type(parts[0])
    fields = {name: join(tuple(p)) for name, *p in zip(kind._fields, *parts) if name != "states"}
    return kind(states=[], **fields)


def _select(parts: Any, rows: Tensor | slice) -> Any:
    """Return these rows of every tensor of a state, of what is read of the source, of dropout masks."""
    if isinstance(parts, tuple):
        selected = [_select(part, rows) for part in parts]
        return type(parts)(*selected) if hasattr(parts, "_fields") else tuple(selected)
    return None if parts is None else parts[rows]


def defer_gradients(keys: Tensor | None = None, memory: Tensor | None = None) -> "DeferredGradients":
    """Return the context that `DeferredGradients` describes."""
    return DeferredGradients(keys, memory)


class DeferredGradients(TorchFunctionMode):
    """
    A context for a loop. In it `F.linear(x, weight, bias)`, so every `nn.Linear` too, defers the gradients of its
    weight and bias, and so do the attention's products with the keys and the memory given here.

    Args:
        keys: (B, S, K), multiplied as `query @ keys.transpose(1, 2)`; or None.
        memory: (B, S, D), multiplied as `weights @ memory`; or None.

    These are the products of `Attention.forward`, told by how they are written there. Others are left as they are.
    """

    def __init__(self, keys: Tensor | None = None, memory: Tensor | None = None):
        super().__init__()
        self._fixed: dict[int, _Fixed] = {}
        self._keys = keys
        if keys is not None and memory is not None:
            self._transposed = keys.transpose(1, 2)
            for matrix in (self._transposed, memory):
                self._fixed[id(matrix)] = _Fixed(matrix)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and not kwargs and _has_gradient(args[1]):
            weight = args[1]
            if id(weight) not in self._fixed:
                self._fixed[id(weight)] = _Fixed(weight.t(), args[2] if len(args) > 2 else None, weight)
            return self._fixed[id(weight)].product(args[0])
        if func is torch.Tensor.transpose and args[0] is self._keys:
            return self._transposed
        if func in _PRODUCTS and id(args[1]) in self._fixed:
            return self._fixed[id(args[1])].product(args[0])
        return func(*args, **(kwargs or {}))


_PRODUCTS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)


def _has_gradient(weight: Any) -> bool:
    return type(weight) in (Tensor, torch.nn.Parameter) and weight.requires_grad


# Rows and gradients of the steps; one list for each backward pass that is on its way.
_Steps = dict[int, list[tuple[Tensor, Tensor]]]


class _Fixed:
    """The right factor of x @ matrix + bias at each step, (I, O), or (B, I, O); `owner` is what a gradient is of."""

    def __init__(self, matrix: Tensor, bias: Tensor | None = None, owner: Tensor | None = None):
        self.owner = matrix if owner is None else owner  # kept, so that its id stays its own
        self.dtype = matrix.dtype
        if torch.is_autocast_enabled(matrix.device.type) and matrix.dtype == torch.float32:
            self.dtype = torch.get_autocast_dtype(matrix.device.type)
        matrix = matrix.detach().to(self.dtype)
        self.batched = matrix.dim() == 3
        self.times, self.times_transposed = _map(matrix, bias), _map(matrix.mT)
        self.steps: _Steps = {}
        self.token = _Collect.apply(self.steps, self.owner, bias)

    def product(self, x: Tensor) -> Tensor:
        result: Tensor = _Product.apply(self, x.to(self.dtype), self.token)
        return result


def _map(matrix: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """x (*, I) -> x @ matrix + bias."""
    if matrix.dim() == 3:
        return lambda x: x @ matrix
    factor = Factor(matrix, None if bias is None else bias.detach().to(matrix.dtype))
    return lambda x: factor(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


class _Collect(torch.autograd.Function):
    """Comes first, so that its backward comes last: when all steps have left their rows. Its result is a token."""

    @staticmethod
    def forward(ctx: Any, steps: _Steps, owner: Tensor, bias: Tensor | None) -> Tensor:
        ctx.steps, ctx.dtype = steps, owner.dtype
        ctx.save_for_backward(owner)
        return owner.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        ctx.saved_tensors  # noqa: B018 - raises if the weight was changed in place: the steps cannot tell
        steps = ctx.steps.pop(torch._C._current_graph_task_id())
        x, grad = steps[0] if len(steps) == 1 else (torch.cat(parts, dim=-2) for parts in zip(*steps))
        of_owner = of_bias = None
        if ctx.needs_input_grad[1]:
            # A weight is (O, I); keys and memory are multiplied as they lie, (B, I, O).
            of_owner = (matrix_product(grad.t(), x) if x.dim() == 2 else x.mT @ grad).to(ctx.dtype)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum(0, dtype=ctx.dtype)
        return None, of_owner, of_bias


class _Product(torch.autograd.Function):
    """x @ matrix + bias of one step."""

    @staticmethod
    def forward(ctx: Any, fixed: _Fixed, x: Tensor, token: Tensor) -> Tensor:
        ctx.fixed = fixed
        ctx.save_for_backward(x)
        return fixed.times(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,), fixed = ctx.saved_tensors, ctx.fixed
        rows = (x.detach(), grad) if fixed.batched else (x.detach().flatten(0, -2), grad.flatten(0, -2))
        fixed.steps.setdefault(torch._C._current_graph_task_id(), []).append(rows)
        of_x = fixed.times_transposed(grad) if ctx.needs_input_grad[1] else None
        return None, of_x, grad.new_zeros(())
