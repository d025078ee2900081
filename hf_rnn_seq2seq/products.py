"""One matrix product, by the library that does it fastest.

torch's fused LSTM runs on oneDNN, but its `linear` on MKL, which on AMD's processors is half as fast (measured: 75
against 160 GFLOP/s a thread). torch has oneDNN's product too; it has no gradient: it is for code that makes its own.
This file travels to the Hub: it imports only torch.
"""

import torch
from torch import Tensor


_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def matrix_product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """
    a @ b + bias, outside autograd.

    Args:
        a, b: (N, I) and (I, O), in any layout.
        bias: (O,), or None.
    """
    suits = a.dtype == b.dtype == torch.float32 and a.device.type == b.device.type == "cpu"
    if suits and _HAS_ONEDNN and torch.backends.mkldnn.enabled and a.numel() and b.numel():
        product: Tensor = torch.ops.mkldnn._linear_pointwise(_dense(a), _dense(b).t(), bias, "none", [], "")
        return product
    return a @ b if bias is None else torch.addmm(bias, a, b)


def _dense(x: Tensor) -> Tensor:
    """Some columns of a wider matrix are copied: oneDNN has no fast way through those."""
    return x if x.is_contiguous() or x.t().is_contiguous() else x.contiguous()
