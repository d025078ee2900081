"""The weights of a search in the form in which its steps are fastest: many products of few rows with one matrix.

On the CPU in single precision that is oneDNN's own layout of a matrix, and its fused LSTM; elsewhere torch's usual
operations. No gradients. N rows, I input, O output, H hidden, G gates * H. This file travels to the Hub: it imports
only the standard library, torch and its flat siblings.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .recurrence import LayerState


# Multiplications of a product from which on oneDNN, whose calls take longer, is faster than MKL (measured).
_LARGE = 600_000
_HAS_PRODUCTS = hasattr(torch.ops.mkldnn, "_linear_pointwise") and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
_HAS_LSTM = hasattr(torch, "mkldnn_rnn_layer") and hasattr(torch.ops.mkldnn, "_reorder_mkldnn_rnn_layer_weight")


class PreparedLinear:
    """
    x W^T + b, of one W for many x.

    To lay out W takes about as long as six products of five rows, or twenty of one: for one row it stays as it is.

    Args:
        weight: W, (O, I).
        bias: b, (O,), or None.
        rows: How many rows x will have at most.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int):
        self.weight, self.transposed, self.bias = weight, weight.t(), bias
        self.laid_out: Tensor | None = None
        if _HAS_PRODUCTS and _suits_onednn(weight) and rows * weight.numel() > _LARGE:
            self.laid_out = weight.contiguous()
            if rows > 1:
                self.laid_out = torch.ops.mkldnn._reorder_linear_weight(self.laid_out, rows)

    def __call__(self, x: Tensor) -> Tensor:
        """(N, O) of x (N, I)."""
        if self.laid_out is None:
            return F.linear(x, self.weight, self.bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), self.laid_out, self.bias, "none", [], "")
        return product

    def plus(self, other: Tensor, x: Tensor) -> Tensor:
        """The same without b, but with `other` (N, O) added."""
        if self.laid_out is None:
            return torch.addmm(other, x, self.transposed)
        total: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            x.contiguous(), other.contiguous(), self.laid_out, None, "add"
        )
        return total


class PreparedLstm:
    """
    A step of an LSTM layer, as one call.

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
        return _HAS_LSTM and rows > 1 and _suits_onednn(weight_ih)

    def __call__(self, x: Tensor, state: LayerState) -> LayerState:
        """The state after the input x (N, I)."""
        hidden, cell = (part.contiguous().unsqueeze(0) for part in state)  # oneDNN would read others as if they were
        w_ih, w_hh, *_ = self.weights
        b_ih, b_hh = self.biases
        # reverse, batch sizes (of packed sequences), mode LSTM, hidden size, layers, with biases, and neither
        # bidirectional, nor batch first, nor training
        options: tuple[Any, ...] = (False, [], 2, self.size, 1, True, False, False, False)
        run: Any = torch.mkldnn_rnn_layer
        _, h, c, _ = run(x.contiguous().unsqueeze(0), w_ih, w_hh, b_ih, b_hh, hidden, cell, *options)
        return h[0], c[0]


def _suits_onednn(weight: Tensor) -> bool:
    suits = weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.numel() > 0
    return suits and torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
