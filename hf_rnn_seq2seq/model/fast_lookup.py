"""Inputs that are rows of a table: their first product is made once a row, not once a position.

W e_y = (W E^T) o_y, where e_y is row y of the table E and o_y is one-hot: a batch has far more letters or phones than
there are different ones. Values and gradients are the same. B batch, T length, V rows of the table, E their size, I
size of an input, G gates. This file travels to the Hub: it imports only the standard library, torch and its siblings.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .fast import may_look
from .fast_products import matrix_product


class Lookup(NamedTuple):
    """Of inputs (B, T, I) whose first E columns are rows of a table."""

    one_hot: Tensor  # (B, T, V)
    products: tuple[Tensor, ...]  # (G, V) each: W E^T, of the first E columns of each W
    size: int  # E

    def inputs(self, x: Tensor) -> Tensor:
        """What takes the place of the inputs x, (B, T, V + I - E)."""
        rest = x[..., self.size :]
        return torch.cat([self.one_hot, rest], dim=-1) if rest.shape[-1] else self.one_hot

    def weight(self, i: int, weight: Tensor) -> Tensor:
        """What takes the place of the i-th W (G, I), (G, V + I - E)."""
        rest = weight[:, self.size :]
        return torch.cat([self.products[i], rest], dim=1) if rest.shape[1] else self.products[i]

    def of_rows(self, index: Tensor | tuple[slice, ...]) -> "Lookup":
        """The same of these sequences, or of some of their positions."""
        return self._replace(one_hot=self.one_hot[index])


def lookup_of(ids: Tensor, embedding: nn.Module, weights: Sequence[Tensor]) -> Lookup | None:
    """
    For inputs that begin with `embedding(ids)`.

    Args:
        ids: (B, T).
        embedding: Where it is no plain `nn.Embedding`, the inputs may be anything.
        weights: The matrices W (G, I) that read the inputs.

    Returns:
        None where it cannot be, and where it saves less than a quarter of the products.
    """
    if ids.device.type != "cpu" or type(embedding) is not nn.Embedding or not may_look(embedding):
        return None
    table = embedding.weight
    if _has_options(embedding) or table.dtype not in (torch.float32, torch.float64):
        return None
    (rows, size), positions = table.shape, ids.numel()
    if rows * (size + positions) > 0.75 * positions * size:
        return None
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


def _has_options(embedding: nn.Embedding) -> bool:
    """Whether it does more than to look up."""
    options = (embedding.padding_idx, embedding.max_norm)
    return embedding.scale_grad_by_freq or embedding.sparse or options != (None, None)
