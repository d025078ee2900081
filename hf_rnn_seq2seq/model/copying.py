"""Copying: the pointer-generator's mixture of a vocabulary and of the source's symbols (See, Liu & Manning 2017, 2.2).

P(w) = p_gen P_vocab(w) + (1 - p_gen) sum over the positions j with x_j = w of a_j (eq. 9), in the logarithmic domain.
Both sides have one vocabulary. The paper's extended vocabulary has `copy_slots` more ids: those from `vocab_size` on
stand for the words of a source that are not in the vocabulary, and of these P_vocab is zero. B batch, S source length,
T target length, V vocabulary, Z slots.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .fast import is_traced


class Pointer(NamedTuple):
    """How likely some steps are not to copy, and from where they would."""

    gate: Tensor  # (B, T, 1) logit of p_gen
    weights: Tensor  # (B, T, S) attention
    symbols: Tensor  # (B, 2, S), of `source_symbols()`

    def at(self, positions: slice | Tensor) -> "Pointer":
        """Return the pointer of some of the steps."""
        return Pointer(self.gate[:, positions], self.weights[:, positions], self.symbols)

    def of_steps(self, row: Tensor, step: Tensor) -> "Pointer":
        """Return the pointer of N single steps (N,), each as a batch row of its own."""
        return Pointer(self.gate[row, step].unsqueeze(1), self.weights[row, step].unsqueeze(1), self.symbols[row])


def source_symbols(ids: Tensor) -> Tensor:
    """Return the source's ids (B, S) as the mixture reads them, (B, 2, S): symbols, and where each stands first."""
    ordered, order = ids.sort(dim=1, stable=True)  # (B, S) each, as all that follows
    starts = F.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True)  # of runs of one symbol
    run = torch.where(starts, torch.arange(ids.shape[1], device=ids.device), 0).cummax(dim=1).values
    first = torch.empty_like(order).scatter(1, order, order.gather(1, run))
    return torch.stack([ids.long(), first], dim=1)


def check_labels(labels: Tensor, pointer: Any, config: Any) -> None:
    """Refuse labels (B, T) that have no probability: slots that stand for nothing in their source."""
    if pointer is None or config.copy_slots == 0 or is_traced():
        return
    row, step = (labels >= config.vocab_size).nonzero(as_tuple=True)
    missing = (pointer.symbols[row, 0] != labels[row, step, None]).all(1).nonzero()
    if len(missing):
        b, t = int(row[missing[0]]), int(step[missing[0]])
        raise ValueError(
            f"labels[{b}, {t}] is {int(labels[b, t])}, a slot (vocab_size={config.vocab_size}, copy_slots="
            f"{config.copy_slots}) that does not occur in input_ids[{b}]: of what is not there nothing can be copied; "
            f"an unknown word that the source does not have is unk_token_id={config.unk_token_id}"
        )


def log_mixture(logits: Tensor, pointer: Pointer, slots: int = 0) -> Tensor:
    """
    Compute log P(w), always finite: what is added to p_gen P_vocab(w) is added at the source's symbols only.

    With g = log(p_gen P_vocab(w)) and c = log((1 - p_gen) sum_j a_j), log P(w) = log(e^g + e^c) = g + softplus(c - g).
    Only one more (B, T, V) tensor than the vocabulary's distribution needs, and it is written in place.

    Args:
        logits: (B, T, V) of the vocabulary's distribution, before its softmax.
        pointer: Of the same steps; its symbols are less than V + Z.
        slots: Z.

    Returns:
        (B, T, V + Z) in single precision at least; a slot that the source does not have has the lowest number.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    gate, weights = pointer.gate.to(dtype), pointer.weights.to(dtype)  # (B, T, 1), (B, T, S)
    symbols, first = pointer.symbols.unsqueeze(2).expand(-1, -1, weights.shape[1], -1).unbind(1)  # (B, T, S)
    copies = None
    if slots:
        copies = _log_copies(gate, weights, pointer.symbols[:, 0] - logits.shape[-1], slots)
        unknown = symbols >= logits.shape[-1]
        weights, symbols = weights.masked_fill(unknown, 0), symbols.masked_fill(unknown, 0)
    vocabulary, open_gate = logits.log_softmax(-1, dtype=dtype), F.logsigmoid(gate)  # (B, T, V), (B, T, 1)
    # The weight of a symbol is gathered at its first position: at the others, and at padding, it is zero.
    mass = torch.zeros_like(weights).scatter_add(2, first, weights)  # (B, T, S)
    copied = mass.clamp(min=torch.finfo(dtype).tiny).log() + F.logsigmoid(-gate)  # (B, T, S)
    generated = vocabulary.gather(2, symbols) + open_gate  # (B, T, S)
    added = F.softplus(copied - generated, threshold=40).masked_fill(mass <= 0, 0)  # (B, T, S)
    words = (vocabulary + open_gate).scatter_add_(2, symbols, added)  # (B, T, V)
    return words if copies is None else torch.cat([words, copies], dim=-1)


def _log_copies(gate: Tensor, weights: Tensor, slot: Tensor, slots: int) -> Tensor:
    """Compute log P of the slots (B, T, Z), which can only be copied; `slot` (B, S) is negative at words."""
    place = slot.clamp(min=-1) + 1  # the first one is for all words of the vocabulary
    mass = weights.new_zeros(*weights.shape[:2], slots + 1)
    mass = mass.scatter_add(2, place.unsqueeze(1).expand_as(weights), weights)[..., 1:]  # (B, T, Z)
    copies = mass.clamp(min=torch.finfo(mass.dtype).tiny).log() + F.logsigmoid(-gate)  # (B, T, Z)
    present = mass.new_zeros(slot.shape[0], slots + 1, dtype=torch.bool).scatter(1, place, True)[:, None, 1:]
    return copies.masked_fill(~present, torch.finfo(mass.dtype).min)
