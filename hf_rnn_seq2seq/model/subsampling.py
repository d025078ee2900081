"""Shorter sequences: several consecutive vectors become one, between the layers of the encoder or before them.

The pyramidal encoder of Listen, Attend and Spell (Chan 2016, eq. 5): h_i^j = RNN(h_{i-1}^j, [h_{2i}^{j-1} ;
h_{2i+1}^{j-1}]). A sequence of n vectors has ceil(n / factor) groups; what the last one lacks is zero. B batch, S
length, D size of a vector.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def reduction_plan(time_reduction: int, num_layers: int) -> tuple[int, ...]:
    """
    Return how many consecutive vectors each layer reads as one: two from the second layer on, until their product is
    `time_reduction` (a power of two), and in the first layer what the others leave over.
    """
    halvings = min(time_reduction.bit_length() - 1, num_layers - 1)
    return (time_reduction >> halvings, *(2 if k <= halvings else 1 for k in range(1, num_layers)))


def stack_frames(x: Tensor, factor: int) -> Tensor:
    """Join each group of consecutive vectors: (B, S, D) -> (B, ceil(S / factor), factor * D)."""
    x = F.pad(x, (0, 0, 0, -x.shape[1] % factor))
    return x.reshape(x.shape[0], -1, factor * x.shape[2])


def reduced_mask(mask: Tensor, factor: int) -> Tensor:
    """
    Return the mask (B, ceil(S / factor)) of what a mask (B, S), non-zero at real positions, leaves: ceil(n / factor)
    real positions of n, to the left, since padding between them was taken out before they were grouped.
    """
    lengths = (mask.bool().sum(1) + factor - 1) // factor
    return torch.arange((mask.shape[1] + factor - 1) // factor, device=mask.device)[None] < lengths[:, None]
