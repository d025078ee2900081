"""Matrix products by the library that does them fastest: on the CPU in single precision oneDNN, elsewhere torch.

torch's fused LSTM runs on oneDNN, but its `linear` on MKL, which on AMD's processors is half as fast (measured: 75
against 160 GFLOP/s a thread). torch has oneDNN's product too; it has no gradient: it is for searches, and for code
that makes its own.

| here | plain twin | compared by |
|---|---|---|
| `matrix_product`, `Factor` | `torch.addmm` | test_fast_training, test_packed |
| `PreparedLinear` | `torch.nn.functional.linear` | test_fast_generation |
| `PreparedLstm` | `recurrence.lstm_step` | test_fast_generation |

N rows, I input, O output, H hidden. This file travels to the Hub: it imports only torch and its flat siblings.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .fast_switch import is_on


_HAS_PRODUCTS = torch.backends.mkldnn.is_available() and all(
    hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight")
)
_HAS_LSTM = hasattr(torch, "mkldnn_rnn_layer") and hasattr(torch.ops.mkldnn, "_reorder_mkldnn_rnn_layer_weight")
# Multiplications of a product from which on oneDNN, whose calls take longer, is faster than MKL. Measured, us: one row
# of 0.4 million 21 against 30, of 0.5 32 against 38, of 1.0 57 against 53; five rows of 0.7 million 28 against 18.
_LARGE = 600_000


def matrix_product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """
    Return a @ b + bias, outside autograd.

    Args:
        a, b: (N, I) and (I, O), in any layout.
        bias: (O,), or None.
    """
    if _suits(a, "onednn") and _suits(b, "onednn"):
        if bias is None and b.is_contiguous() and not a.is_contiguous() and b.numel() < a.numel():
            # oneDNN reads its first factor row by row: the smaller one is brought into that order, as b^T.
            return matrix_product(b.t(), a.t()).t()
        return _pointwise(_dense(a), _dense(b).t(), bias)
    return a @ b if bias is None else torch.addmm(bias, a, b)


class Factor:
    """
    b, for many products a @ b + bias with few rows each, outside autograd.

    From the third product on, b is there in oneDNN's own layout: 5 % faster with 64 rows, 30 % with 30 rows.

    Args:
        b: (I, O), in any layout.
        bias: (O,), or None.
    """

    def __init__(self, b: Tensor, bias: Tensor | None = None):
        self.b, self.bias = b, bias
        self._uses = 0
        self._laid_out: Tensor | None = None

    def __call__(self, a: Tensor) -> Tensor:
        """Return a (N, I) @ b + bias."""
        self._uses += 1
        if self._uses < 3 or not (_suits(a, "onednn") and _suits(self.b, "onednn")):
            return matrix_product(a, self.b, self.bias)
        if self._laid_out is None:
            self._laid_out = torch.ops.mkldnn._reorder_linear_weight(_dense(self.b.t()), a.shape[0])
        return _pointwise(_dense(a), self._laid_out, self.bias)


class PreparedLinear:
    """
    x W^T + b, of one W for many x, without gradients.

    To lay out W takes about as long as six products of five rows, or twenty of one: for one row it stays as it is.

    Args:
        weight: W, (O, I).
        bias: b, (O,), or None.
        rows: How many rows x will have at most.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int):
        self.weight, self.transposed, self.bias = weight, weight.t(), bias
        self.laid_out: Tensor | None = None
        if _suits(weight, "prepared") and rows * weight.numel() > _LARGE:
            self.laid_out = weight.contiguous()
            if rows > 1:
                self.laid_out = torch.ops.mkldnn._reorder_linear_weight(self.laid_out, rows)

    def __call__(self, x: Tensor) -> Tensor:
        """Return (N, O) for x (N, I)."""
        if self.laid_out is None:
            return F.linear(x, self.weight, self.bias)
        return _pointwise(x.contiguous(), self.laid_out, self.bias)

    def plus(self, other: Tensor, x: Tensor) -> Tensor:
        """Return x W^T + `other` (N, O), without b."""
        if self.laid_out is None:
            return torch.addmm(other, x, self.transposed)
        total: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            x.contiguous(), other.contiguous(), self.laid_out, None, "add"
        )
        return total


class PreparedLstm:
    """
    A step of an LSTM layer, as one call without gradients.

    Args:
        weights: (W_ih, W_hh, b_ih, b_hh) in torch's layout.
        rows: How many rows an input will have at most.
    """

    def __init__(self, weights: tuple[Tensor, Tensor, Tensor, Tensor], rows: int):
        w_ih, w_hh, *self.biases = weights
        self.size = w_hh.shape[1]
        # hidden size, reverse, with biases, batch first, shape of an input
        layout = (self.size, False, True, False, [1, rows, w_ih.shape[1]])
        self.weights = torch.ops.mkldnn._reorder_mkldnn_rnn_layer_weight(w_ih, w_hh, *layout)

    @staticmethod
    def suits(weight_ih: Tensor, rows: int) -> bool:
        """Whether it is possible, and faster than products: one row does not pay for the layout of the weights."""
        return _HAS_LSTM and rows > 1 and rows * weight_ih.numel() > _LARGE and _suits(weight_ih, "prepared")

    def __call__(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the state after the input x (N, I)."""
        hidden, cell = (part.contiguous().unsqueeze(0) for part in state)  # oneDNN would read others as if they were
        w_ih, w_hh, *_ = self.weights
        b_ih, b_hh = self.biases
        # reverse, batch sizes (of packed sequences), mode LSTM, hidden size, layers, with biases, and neither
        # bidirectional, nor batch first, nor training
        options: tuple[Any, ...] = (False, [], 2, self.size, 1, True, False, False, False)
        run: Any = torch.mkldnn_rnn_layer
        _, h, c, _ = run(x.contiguous().unsqueeze(0), w_ih, w_hh, b_ih, b_hh, hidden, cell, *options)
        return h[0], c[0]


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def _suits(x: Tensor, name: str) -> bool:
    """Whether oneDNN multiplies such a matrix, and is asked to by this acceleration."""
    fits: bool = x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
    return fits and _HAS_PRODUCTS and bool(torch.backends.mkldnn.enabled) and is_on(name)


def _dense(x: Tensor) -> Tensor:
    """Copy some columns of a wider matrix: oneDNN has no fast way through those."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()
