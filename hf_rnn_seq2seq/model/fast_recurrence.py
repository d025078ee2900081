"""A recurrence over real positions only, inputs looked up in a table, and torch's fused kernels.

| here | plain twin | compared by |
|---|---|---|
| `run_packed_layers` | `recurrence.RecurrentStack._run_layers` | test_packed |
| `run_fused` | `recurrence.run_stepwise` | test_recurrence |
| `lookup_of`, `Lookup` | W_ih x of the embedded symbols x | test_lookup |

Packed: the sequences of a batch stand by falling length. The first positions of all of them come first, then the
second ones of those that have a second, and so on: N rows, no padding. Step t reads the next n_t of them, and n_t
falls. All products but the recurrent one are then one product over N rows, forward and backward; the backward pass is
written by hand. Looked up: W e_y = (W E^T) o_y, where e_y is row y of the table E and o_y is one-hot: a batch has far
more letters or phones than there are different ones. B batch, S or T length, H hidden, I input, G gates * H, V rows of
the table, E their size. This file travels to the Hub: it imports only the standard library, torch and its flat
siblings.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .fast_products import Factor, matrix_product


Weights = tuple[Tensor, Tensor, Tensor, Tensor]  # W_ih, W_hh, b_ih, b_hh
# (gradient by the result, result, grad_input=): into a tensor that is there, which the functions of torch cannot
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input
# Far beyond where a sigmoid saturates to exactly 0 or 1, and still representable in half precision.
_SATURATION = 1e4
_FUSED: dict[str, Callable[..., Any]] = {"lstm": torch.lstm, "gru": torch.gru, "rnn_tanh": torch.rnn_tanh}


def run_fused(
    rnn_type: str, x: Tensor, first: tuple[Tensor, ...], weights: Weights, padding: Any
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """
    Run one direction of a layer over compact inputs x (B, S, I) by one of torch's fused kernels.

    Args:
        first: First state, (B, H) a tensor.
        padding: The `Padding` of x, or None.

    Returns:
        Outputs (B, S, H), and the final state, (B, H) a tensor.
    """
    w_ih, w_hh, b_ih, b_hh = weights
    if padding is not None and rnn_type == "lstm":
        # h at the last real position can be gathered from the outputs, the cell cannot: one more input column, 1
        # at padding, closes the input gate and opens the forget gate there, and the cell passes it unchanged.
        x = torch.cat([x, padding.trailing[..., None].to(x.dtype)], dim=-1)
        column = w_ih.new_zeros(4, w_hh.shape[1])
        column[0], column[1] = -_SATURATION, _SATURATION
        w_ih = torch.cat([w_ih, column.view(-1, 1)], dim=1)
    hx = [s.unsqueeze(0).contiguous() for s in first]
    # has_biases, num_layers, dropout, train (cuDNN keeps what backward needs), bidirectional, batch_first
    options = (True, 1, 0.0, torch.is_grad_enabled(), False, True)
    y, *final = _FUSED[rnn_type](x, hx if len(hx) == 2 else hx[0], [w_ih, w_hh, b_ih, b_hh], *options)
    final = tuple(s.squeeze(0) for s in final)
    return y, final if padding is None else (padding.last(y, empty=first[0]), *final[1:])


class Packing(NamedTuple):
    """Where the rows of a packed batch are in a batch of shape (B, S)."""

    places: Tensor  # (N,) flat index b * S + s of each row
    order: Tensor  # (B,) the sequences, by falling length
    lengths: Tensor  # (B,) their lengths, falling
    counts: tuple[int, ...]  # n_t, of each step up to the longest length
    shape: tuple[int, int]  # B, S

    @classmethod
    def of_positions(cls, positions: Tensor, lengths: Tensor) -> "Packing":
        """Pack the positions (B, S) of each sequence, the real ones first, of which so many (B,) are real."""
        batch, length = positions.shape
        lengths, order = lengths.sort(descending=True, stable=True)
        alive = torch.arange(length)[:, None] < lengths  # (S, B)
        counts = tuple(n for n in alive.sum(1).tolist() if n)
        return cls((positions[order] + order[:, None] * length).t()[alive], order, lengths, counts, (batch, length))

    @classmethod
    def of(cls, x: Tensor, padding: Any) -> "Packing":
        """Pack a batch x (B, S, I) with a `Padding`, or None."""
        if padding is not None:
            return cls.of_positions(padding.order, padding.lengths)
        batch, length = x.shape[:2]
        return cls.of_positions(torch.arange(length).expand(batch, length), torch.full((batch,), length))

    def compact(self, x: Tensor) -> Tensor:
        """Gather the real positions (N, D) of x (B, S, D)."""
        return x.flatten(0, 1).index_select(0, self.places)

    def spread(self, rows: Tensor) -> Tensor:
        """Bring rows (N, D) back to (B, S, D), zeros at padding."""
        batch, length = self.shape
        flat = rows.new_zeros(batch * length, rows.shape[1]).index_copy(0, self.places, rows)
        return flat.unflatten(0, self.shape)

    def last(self, rows: Tensor, empty: Tensor, backwards: bool) -> Tensor:
        """
        Return the rows (N, D) which a recurrence reads last, (B, D) in the order of the batch; of a sequence without
        positions that of `empty` (B, D).
        """
        place = torch.arange(len(self.order))  # at the first step; in the order of the packing
        if not backwards:
            place = place + torch.tensor((0, *self.counts)).cumsum(0)[(self.lengths - 1).clamp(min=0)]
        real = self.lengths > 0
        return empty.index_copy(0, self.order[real], rows.index_select(0, place[real]))


def run_packed_layers(
    stack: Any, x: Tensor, states: Sequence[tuple[Tensor, ...]], padding: Any, weights: list[list[Weights]]
) -> tuple[list[Tensor], list[tuple[Tensor, ...]]]:
    """
    Run a `RecurrentStack` over the real positions of x (B, S, I); the arguments are those of its `_run_layers`.

    Returns:
        The outputs (B, S, D) and the final state of each layer.
    """
    packing = Packing.of(x, padding)
    rows = packing.compact(x)  # (N, I)
    outputs, finals = [], []
    for k, directions in enumerate(weights):
        if k > 0:
            rows = F.dropout(rows, stack.dropout, stack.training)
        if stack.reductions[k] > 1:
            x = packing.spread(rows)
            x, padding = stack._reduce(k, x if padding is None else padding.compact(x), padding)
            packing = Packing.of(x, padding)
            rows = packing.compact(x)
        results = []
        for i, direction in enumerate(directions):
            first = tuple(part.chunk(len(directions), dim=-1)[i] for part in states[k])
            y, final = run_packed(stack.rnn_type, rows, first, direction, packing, backwards=i == 1)
            results.append((y, *final))
        y, *state = results[0] if len(results) == 1 else (torch.cat(parts, dim=-1) for parts in zip(*results))
        rows = stack._hand_upward(k, rows, y)
        finals.append(tuple(state))
        outputs.append(packing.spread(rows))
    return outputs, finals


def run_packed(
    rnn_type: str,
    x: Tensor,
    state: tuple[Tensor, ...],
    weights: Weights,
    packing: Packing,
    backwards: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """
    Run one layer in one direction.

    Args:
        rnn_type: `"lstm"`, `"gru"` or `"rnn_tanh"`.
        x: (N, I) packed inputs.
        state: First state, (B, H) a tensor.
        weights: (W_ih, W_hh, b_ih, b_hh).
        packing: Of the batch.
        backwards: From the end of each sequence to its beginning.

    Returns:
        Outputs (N, H), and the final state, (B, H) a tensor.
    """
    first = (part.index_select(0, packing.order) for part in state)
    results = _Recurrence.apply(rnn_type, packing.counts, backwards, x, *weights, *first)
    return results[0], tuple(packing.last(part, start, backwards) for part, start in zip(results, state))


class _Recurrence(torch.autograd.Function):
    """
    Packed inputs to the outputs h (N, H), and of the LSTM the cells c (N, H).

    Each gate's gradient is a local derivative, which is known at all rows before the way back begins, times the
    gradient that comes down: of c' for the LSTM's input, forget and candidate, of h' for all others.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rnn_type: str,
        counts: tuple[int, ...],
        backwards: bool,
        x: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
        *first: Tensor,
    ) -> tuple[Tensor, ...]:
        size = w_hh.shape[1]
        recurrent = Factor(w_hh.t(), b_hh)
        gates = matrix_product(x, w_ih.t(), b_ih)  # (N, G); W_ih x + b_ih, and in the end the gates' values
        results = [gates.new_empty(len(gates), size) for _ in range(_BUFFERS[rnn_type])]  # (N, H) each
        run_step = _STEPS[rnn_type]
        state: list[Tensor] = [part[:0] for part in first]
        steps = _order(counts, backwards)
        gates_of, results_of = gates.split(counts), list(zip(*(part.split(counts) for part in results)))
        for t in steps:
            before = [_continue(now, start, counts[t]) for now, start in zip(state, first)]
            run_step(gates_of[t], recurrent(before[0]), before, *results_of[t])
            state = list(results_of[t][: len(first)])
        ctx.save_for_backward(x, w_ih, w_hh, gates, *results, *first)
        ctx.rnn_type, ctx.counts, ctx.backwards = rnn_type, counts, backwards
        ctx.set_materialize_grads(False)
        return tuple(results[: len(first)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor | None, grad_c: Tensor | None = None) -> tuple[Tensor | None, ...]:
        rnn_type, counts, backwards = ctx.rnn_type, ctx.counts, ctx.backwards
        x, w_ih, w_hh, gates, *others = ctx.saved_tensors
        results, first = others[: _BUFFERS[rnn_type]], others[_BUFFERS[rnn_type] :]
        before = [_before(part, start, counts, backwards) for part, start in zip(results, first)]
        local = _LOCAL[rnn_type](gates, before, *results)
        grads = [part.split(counts) if part is not None else None for part in (grad_h, grad_c)]
        local_of = list(zip(*(part.split(counts) for part in local)))
        back_step = _BACK[rnn_type]
        back = Factor(w_hh)
        of_state = [torch.zeros_like(start) for start in first]
        for t in reversed(_order(counts, backwards)):
            now = [part[: counts[t]] for part in of_state]
            for part, grad in zip(now, grads):
                if grad is not None:
                    part += grad[t]
            back_step(back, now, *local_of[t])
        of_gates = local[0]  # (N, G) by W_hh h + b_hh
        of_inputs = of_gates
        if rnn_type == "gru":
            of_inputs = torch.cat([of_gates[:, : 2 * w_hh.shape[1]], local[1]], dim=1)
        of_x = matrix_product(of_inputs, w_ih) if ctx.needs_input_grad[3] else None
        of_bias = of_gates.sum(0)
        of_weights = (
            matrix_product(of_inputs.t(), x),
            matrix_product(of_gates.t(), before[0]),
            of_bias if of_inputs is of_gates else of_inputs.sum(0),
            of_bias,
        )
        return None, None, None, of_x, *of_weights, *of_state


def _order(counts: tuple[int, ...], backwards: bool) -> list[int]:
    return list(range(len(counts)))[:: -1 if backwards else 1]


def _continue(last: Tensor, first: Tensor, count: int) -> Tensor:
    """The state before a step of `count` sequences: `last` of those under way, `first` of those that begin."""
    return last[:count] if len(last) >= count else torch.cat([last, first[len(last) : count]])


def _before(states: Tensor, first: Tensor, counts: tuple[int, ...], backwards: bool) -> Tensor:
    """The state before each row, (N, H), of the states after each."""
    parts, last = states.split(counts), first[:0]
    result: list[Tensor] = []
    for t in _order(counts, backwards):
        result.append(_continue(last, first, counts[t]))
        last = parts[t]
    return torch.cat(result[::-1] if backwards else result) if result else states


def _tanh(x: Tensor) -> Tensor:
    """tanh x = 2 sigmoid(2 x) - 1, in place: torch's own tanh takes four times as long on the CPU."""
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)


# The steps of recurrence.py once more, in place, each with its backward pass. A change of `lstm_step`, `gru_step` or
# `rnn_tanh_step` there is not seen here, nor in fast_step.py, nor by the fused kernels: it is to be made in each.


def _lstm_step(gates: Tensor, recurrent: Tensor, before: list[Tensor], h: Tensor, c: Tensor, tanh_c: Tensor) -> None:
    """`recurrence.lstm_step`, in place: of W_ih x + b_ih the gates' values, and c', tanh c' and h'."""
    gates += recurrent
    size = c.shape[1]
    gates[:, : 2 * size].sigmoid_()
    _tanh(gates[:, 2 * size : 3 * size])
    gates[:, 3 * size :].sigmoid_()
    i, f, g, o = gates.chunk(4, dim=1)
    torch.mul(f, before[1], out=c).addcmul_(i, g)
    torch.mul(o, _tanh(tanh_c.copy_(c)), out=h)


def _lstm_local(gates: Tensor, before: list[Tensor], h: Tensor, c: Tensor, tanh_c: Tensor) -> tuple[Tensor, ...]:
    """
    Derivatives, each by what the gates' functions are taken of: (N, 4H) of c' by i, f, g and of h' by o; (N, H) of h'
    by c'; (N, H) of c' by c.
    """
    i, f, g, o = gates.chunk(4, dim=1)
    by_gates = torch.empty_like(gates)
    by_i, by_f, by_g, by_o = by_gates.chunk(4, dim=1)
    _sigmoid_backward(g, i, grad_input=by_i)
    _sigmoid_backward(before[1], f, grad_input=by_f)
    _tanh_backward(i, g, grad_input=by_g)
    _sigmoid_backward(tanh_c, o, grad_input=by_o)
    return by_gates, torch.ops.aten.tanh_backward(o, tanh_c), f


def _lstm_back(back: Factor, grads: list[Tensor], of_gates: Tensor, h_by_c: Tensor, forget: Tensor) -> None:
    """From the gradients of h' and c' those of h and c, in place; `of_gates` becomes the gates'."""
    of_h, of_c = grads
    of_c.addcmul_(of_h, h_by_c)
    size = of_c.shape[1]
    of_gates[:, : 3 * size].unflatten(1, (3, size)).mul_(of_c.unsqueeze(1))
    of_gates[:, 3 * size :].mul_(of_h)
    of_c *= forget
    of_h.copy_(back(of_gates))


def _gru_step(gates: Tensor, recurrent: Tensor, before: list[Tensor], h: Tensor, h_n: Tensor) -> None:
    """`recurrence.gru_step`, in place; h_n is W_hn h + b_hn, which the reset gate multiplies."""
    size = h.shape[1]
    both = gates[:, : 2 * size].add_(recurrent[:, : 2 * size]).sigmoid_()
    r, z = both.chunk(2, dim=1)
    n = _tanh(gates[:, 2 * size :].addcmul_(r, h_n.copy_(recurrent[:, 2 * size :])))
    torch.lerp(n, before[0], z, out=h)


def _gru_local(gates: Tensor, before: list[Tensor], h: Tensor, h_n: Tensor) -> tuple[Tensor, ...]:
    """Return derivatives of h': (N, 3H) by W_hh h + b_hh, (N, H) by the candidate's W_ih x + b_ih, (N, H) by h."""
    r, z, n = gates.chunk(3, dim=1)
    by_n = torch.ops.aten.tanh_backward(1 - z, n)
    by_r = torch.ops.aten.sigmoid_backward(by_n * h_n, r)
    by_z = torch.ops.aten.sigmoid_backward(before[0] - n, z)
    return torch.cat([by_r, by_z, by_n * r], dim=1), by_n, z


def _gru_back(back: Factor, grads: list[Tensor], of_gates: Tensor, by_n: Tensor, by_h: Tensor) -> None:
    (of_h,) = grads
    of_gates.unflatten(1, (3, of_h.shape[1])).mul_(of_h.unsqueeze(1))
    by_n *= of_h
    of_h *= by_h
    of_h += back(of_gates)


def _tanh_step(gates: Tensor, recurrent: Tensor, before: list[Tensor], h: Tensor) -> None:
    h.copy_(_tanh(gates.add_(recurrent)))


def _tanh_local(gates: Tensor, before: list[Tensor], h: Tensor) -> tuple[Tensor, ...]:
    return (1 - h * h,)


def _tanh_back(back: Factor, grads: list[Tensor], of_gates: Tensor) -> None:
    grads[0].copy_(back(of_gates.mul_(grads[0])))


_BUFFERS = {"lstm": 3, "gru": 2, "rnn_tanh": 1}  # (N, H) tensors that a step fills: h, c, tanh c; h, W_hn h + b_hn; h
_STEPS: dict[str, Callable[..., None]] = {"lstm": _lstm_step, "gru": _gru_step, "rnn_tanh": _tanh_step}
_LOCAL: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "lstm": _lstm_local,
    "gru": _gru_local,
    "rnn_tanh": _tanh_local,
}
_BACK: dict[str, Callable[..., None]] = {"lstm": _lstm_back, "gru": _gru_back, "rnn_tanh": _tanh_back}


class Lookup(NamedTuple):
    """Inputs (B, T, I) whose first E columns are rows of a table."""

    one_hot: Tensor  # (B, T, V)
    products: tuple[Tensor, ...]  # (G, V) each: W E^T, of the first E columns of each W
    size: int  # E

    def inputs(self, x: Tensor) -> Tensor:
        """Return what takes the place of the inputs x, (B, T, V + I - E)."""
        return torch.cat([self.one_hot, x[..., self.size :]], dim=-1) if x.shape[-1] > self.size else self.one_hot

    def weight(self, i: int, weight: Tensor) -> Tensor:
        """Return what takes the place of the i-th W (G, I), (G, V + I - E)."""
        rest = weight[:, self.size :]
        return torch.cat([self.products[i], rest], dim=1) if rest.shape[1] else self.products[i]

    def weights(self, directions: list[Weights]) -> list[Weights]:
        """Return what takes the place of the weights of the first layer."""
        return [(self.weight(i, of[0]), *of[1:]) for i, of in enumerate(directions)]


def lookup_of(ids: Tensor, table: Tensor, weights: Sequence[Tensor]) -> Lookup:
    """
    Return the lookup of inputs that begin with rows `ids` (B, T) of a table (V, E).

    Args:
        weights: The matrices W (G, I) that read the inputs.
    """
    rows, size = table.shape
    one_hot = torch.zeros(*ids.shape, rows, dtype=table.dtype).scatter_(-1, ids.unsqueeze(-1), 1)
    firsts = [weight if weight.shape[1] == size else weight[:, :size] for weight in weights]
    if torch.is_autocast_enabled("cpu") and table.dtype == torch.float32:
        dtype = torch.get_autocast_dtype("cpu")
        table, firsts = table.to(dtype), [first.to(dtype) for first in firsts]
    return Lookup(one_hot, _Products.apply(table, *firsts), size)


class _Products(torch.autograd.Function):
    """W E^T (G, V), of a table E (V, E) and each W (G, E)."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(table, *weights)
        return tuple(matrix_product(table, weight.t()).t().contiguous() for weight in weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        table, *weights = ctx.saved_tensors
        of_table = torch.zeros_like(table)
        for grad, weight in zip(grads, weights):
            of_table += matrix_product(grad.t(), weight)
        return of_table, *(matrix_product(grad, table) for grad in grads)
