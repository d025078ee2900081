"""Where the real positions of a batch are: how a recurrence passes over padding, wherever it is.

A sequence is first made compact: its real positions move to the left, in order. Then padding only trails, and a
recurrence has read all real positions before it meets any. B batch, S length, D size of a vector.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .fast import is_traced


class Padding(NamedTuple):
    """Which positions of a batch are real, and where they are in the compact sequences."""

    mask: Tensor  # (B, S) bool, True at real positions, as given
    order: Tensor  # (B, S) original index of each compact position
    restore: Tensor  # (B, S) compact index of each original position
    reverse: Tensor  # (B, S) compact index of the mirrored position; its own inverse
    lengths: Tensor  # (B,) number of real positions

    @classmethod
    def from_mask(cls, mask: Tensor) -> "Padding":
        """Read a mask (B, S), non-zero at real positions."""
        mask = mask.bool()
        lengths = mask.sum(1)  # (B,)
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # (B, S)
        position = torch.arange(mask.shape[1], device=mask.device)[None]  # (1, S)
        mirrored = lengths[:, None] - 1 - position  # (B, S)
        return cls(mask, order, order.argsort(dim=1), torch.where(mirrored >= 0, mirrored, position), lengths)

    @property
    def trailing(self) -> Tensor:
        """(B, S) True where a compact sequence is over."""
        return torch.arange(self.mask.shape[1], device=self.mask.device)[None] >= self.lengths[:, None]

    def compact(self, x: Tensor) -> Tensor:
        """Move real positions of x (B, S, D) to the left, zeros behind them: a NaN in the padding goes nowhere."""
        return _take(x.masked_fill(~self.mask[..., None], 0), self.order)

    def spread(self, x: Tensor) -> Tensor:
        """Move every position back to its place, zeros at padding: the inverse of `compact`."""
        return _take(x, self.restore).masked_fill(~self.mask[..., None], 0)

    def mirror(self, x: Tensor) -> Tensor:
        """Reverse the compact sequences of x (B, S, D); trailing padding stays where it is."""
        return _take(x, self.reverse)

    def last(self, x: Tensor, empty: Tensor) -> Tensor:
        """Return the vector at each compact sequence's last position, (B, D); of `empty` where there is none."""
        index = (self.lengths - 1).clamp(min=0)[:, None]  # (B, 1)
        return torch.where(self.lengths[:, None] > 0, _take(x, index).squeeze(1), empty)


def looking_is_free(x: Tensor) -> bool:
    """Return whether values can be looked at as the program runs; on an accelerator that is to wait for it."""
    return x.device.type == "cpu"


def padding_of(mask: Tensor | None) -> Padding | None:
    """Return the padding of a mask (B, S), or None where there is none (looked up only where looking is free)."""
    if mask is None or (not is_traced() and looking_is_free(mask) and bool(mask.all())):
        return None
    return Padding.from_mask(mask)


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
