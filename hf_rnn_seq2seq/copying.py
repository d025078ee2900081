"""Copying: the pointer-generator's mixture of a vocabulary and of the source's symbols (See, Liu & Manning 2017, 2.2).

P(w) = p_gen P_vocab(w) + (1 - p_gen) sum over the positions j with x_j = w of a_j (eq. 9), in the logarithmic domain.
There is one vocabulary: a symbol that can be copied has an id of its own, the paper's extended vocabulary is not
needed. B batch, S source length, T target length, V vocabulary. This file travels to the Hub: it imports only torch.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Pointer(NamedTuple):
    """What some steps need to copy: how likely they are not to, and from where they would."""

    gate: Tensor  # (B, T, 1) logit of p_gen
    weights: Tensor  # (B, T, S) attention
    symbols: Tensor  # (B, 2, S), of `source_symbols()`

    def at(self, positions: slice | Tensor) -> "Pointer":
        """Of some of the steps only."""
        return Pointer(self.gate[:, positions], self.weights[:, positions], self.symbols)

    def of_steps(self, row: Tensor, step: Tensor) -> "Pointer":
        """Of N single steps (N,), each as a batch row of its own."""
        return Pointer(self.gate[row, step].unsqueeze(1), self.weights[row, step].unsqueeze(1), self.symbols[row])


def source_symbols(ids: Tensor) -> Tensor:
    """
    The source as the mixture reads it; made once a source sequence.

    Args:
        ids: (B, S) symbols of the source.

    Returns:
        (B, 2, S) int64: `[:, 0]` the symbols, `[:, 1]` the first position that holds the same symbol.
    """
    ordered, order = ids.sort(dim=1, stable=True)
    starts = F.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True)  # of runs of one symbol
    run = torch.where(starts, torch.arange(ids.shape[1], device=ids.device), 0).cummax(dim=1).values
    first = torch.empty_like(order).scatter(1, order, order.gather(1, run))
    return torch.stack([ids.long(), first], dim=1)


def log_mixture(logits: Tensor, pointer: Pointer) -> Tensor:
    """
    log P(w), always finite: what is added to p_gen P_vocab(w) is added at the source's symbols only.

    With g = log(p_gen P_vocab(w)) and c = log((1 - p_gen) sum_j a_j), log P(w) = log(e^g + e^c) = g + softplus(c - g).
    Only one more (B, T, V) tensor than the vocabulary's distribution needs, and it is written in place.

    Args:
        logits: (B, T, V) of the vocabulary's distribution, before its softmax.
        pointer: of the same steps.

    Returns:
        (B, T, V) in single precision at least; its exponentials sum to one.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    gate, weights = pointer.gate.to(dtype), pointer.weights.to(dtype)
    symbols, first = pointer.symbols.unsqueeze(2).expand(-1, -1, weights.shape[1], -1).unbind(1)  # (B, T, S)
    vocabulary, open_gate = logits.log_softmax(-1, dtype=dtype), F.logsigmoid(gate)
    # The weight of a symbol is gathered at its first position: at the others, and at padding, it is zero.
    mass = torch.zeros_like(weights).scatter_add(2, first, weights)
    copied = mass.clamp(min=torch.finfo(dtype).tiny).log() + F.logsigmoid(-gate)
    generated = vocabulary.gather(2, symbols) + open_gate
    added = F.softplus(copied - generated, threshold=40).masked_fill(mass <= 0, 0)
    return (vocabulary + open_gate).scatter_add_(2, symbols, added)
