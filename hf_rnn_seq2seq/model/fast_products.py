"""One matrix product, by the library that does it fastest.

torch's fused LSTM runs on oneDNN, but its `linear` on MKL, which on AMD's processors is half as fast (measured: 75
against 160 GFLOP/s a thread). torch has oneDNN's product too; it has no gradient: it is for code that makes its own.
This file travels to the Hub: it imports only torch.
"""

import torch
from torch import Tensor


_HAS_ONEDNN = torch.backends.mkldnn.is_available() and all(
    hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight")
)


def matrix_product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """
    a @ b + bias, outside autograd.

    Args:
        a, b: (N, I) and (I, O), in any layout.
        bias: (O,), or None.
    """
    if _suits(a) and _suits(b):
        if bias is None and b.is_contiguous() and not a.is_contiguous() and b.numel() < a.numel():
            # oneDNN reads its first factor row by row: the smaller one is brought into that order, as b^T.
            return matrix_product(b.t(), a.t()).t()
        product: Tensor = torch.ops.mkldnn._linear_pointwise(_dense(a), _dense(b).t(), bias, "none", [], "")
        return product
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
        """a (N, I) @ b + bias."""
        self._uses += 1
        if self._uses < 3 or not (_suits(a) and _suits(self.b)):
            return matrix_product(a, self.b, self.bias)
        if self._laid_out is None:
            self._laid_out = torch.ops.mkldnn._reorder_linear_weight(_dense(self.b.t()), a.shape[0])
        product: Tensor = torch.ops.mkldnn._linear_pointwise(_dense(a), self._laid_out, self.bias, "none", [], "")
        return product


def _suits(x: Tensor) -> bool:
    fits: bool = x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
    return fits and _HAS_ONEDNN and bool(torch.backends.mkldnn.enabled)


def _dense(x: Tensor) -> Tensor:
    """Some columns of a wider matrix are copied: oneDNN has no fast way through those."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()
