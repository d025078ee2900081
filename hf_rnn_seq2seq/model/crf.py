"""The linear-chain conditional random field: labels of a sequence scored together, not one by one.

Lafferty et al. 2001; on top of a recurrent network, Huang et al. 2015 and Lample et al. 2016. log p(y | x) is
score(y) - log Z, score(y) = start[y_1] + sum_t emission_t[y_t] + sum_t transition[y_{t-1}, y_t] + end[y_S]. B batch, S
length, C labels.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .fast import is_traced
from .padding import Padding, looking_is_free


# What a label that is ruled out adds to a score: exp of it is exactly zero, and yet no difference of two is NaN.
_IMPOSSIBLE = -1e30


class LinearChainCRF(nn.Module):
    """
    Scores of label sequences, by the forward algorithm and by Viterbi's, over a whole batch at once.

    A call of the module gives the lattice of a batch, which all methods compute with: whatever waits for the call
    (offloaded, pruned weights) sees it. Every method takes emissions (B, S, C) and a mask (B, S), True at real
    positions, or None. The chain runs over the real positions only: wherever padding is, it is masked as if it
    were not there. Scores are computed in single precision at least, under autocast too.

    Args:
        num_labels (`int`): C.

    Attributes:
        transitions: (C, C), from row to column. `start_transitions`, `end_transitions`: (C,), of the first and of the
            last label.
    """

    def __init__(self, num_labels: int):
        super().__init__()
        self.transitions = nn.Parameter(torch.zeros(num_labels, num_labels))
        self.start_transitions = nn.Parameter(torch.zeros(num_labels))
        self.end_transitions = nn.Parameter(torch.zeros(num_labels))

    def extra_repr(self) -> str:
        return f"num_labels={self.transitions.shape[0]}"

    def forward(self, emissions: Tensor, mask: Tensor | None = None) -> "_Chain":
        """Return the lattice of emissions (B, S, C), with copies of the parameters."""
        return _Chain.of(self, emissions, mask)

    def log_likelihood(self, emissions: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Return log p of each row's labels (B, S) in 0 .. C-1 (Lafferty 2001, eq. 1): (B,), in nats a sequence; zero for
        a row without real positions or without labels.

        A label of -100 at a real position is unknown: the probabilities of all labels that it could be are summed, so
        the chain is the same one with and without labels.
        """
        if not is_traced() and looking_is_free(labels):
            chain = self(emissions, mask)
            known = labels
            if chain.padding is not None:
                known = labels.gather(1, chain.padding.order).masked_fill(chain.padding.trailing, 0)
            if bool((known >= 0).all()):  # one sequence needs no lattice
                return chain.score(known) - chain.total(torch.logsumexp)
        other = torch.arange(emissions.shape[-1], device=labels.device) != labels.unsqueeze(-1)  # (B, S, C)
        other &= (labels != -100).unsqueeze(-1)
        # One lattice of 2 B rows: what the labels leave possible, and all.
        emissions = emissions.to(torch.promote_types(emissions.dtype, torch.float32))
        both = torch.cat([emissions.masked_fill(other, _IMPOSSIBLE), emissions])
        constrained, free = self(both, None if mask is None else mask.repeat(2, 1)).total(torch.logsumexp).chunk(2)
        return constrained - free

    def log_partition(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return log Z, (B,): the log of the sum of exp(score) over all label sequences."""
        return self(emissions, mask).total(torch.logsumexp)

    def log_marginals(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return log p(y_t = c | x), (B, S, C), by the forward-backward algorithm; zero at padding."""
        return self(emissions, mask).through(torch.logsumexp)

    def log_max_marginals(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Return log p of the best label sequence that has label c at position t, (B, S, C); zero at padding.

        Its largest entry at every position is log p of the best sequence of all, so the argmax over c is Viterbi's
        path (where two sequences tie, position by position one of theirs; `decode` then gives one of the two).
        """
        return self(emissions, mask).through(torch.amax)

    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the most probable label sequence, (B, S) (Viterbi 1967); -100 at padding."""
        chain = self(emissions, mask)
        score, pointers = chain.first(), []
        stay = torch.arange(score.shape[1], device=score.device).expand_as(score)  # (B, C)
        for t in range(1, chain.emissions.shape[1]):
            best, pointer = (score.unsqueeze(2) + chain.transitions).max(dim=1)  # (B, C), over the previous label
            over = chain.over(t)  # (B, 1)
            score = torch.where(over, score, best + chain.emissions[:, t])  # (B, C)
            pointers.append(torch.where(over, stay, pointer))
        path = [(score + chain.end).argmax(dim=1, keepdim=True)]  # (B, 1)
        for pointer in reversed(pointers):
            path.append(pointer.gather(1, path[-1]))
        labels = torch.cat(path[::-1], dim=1)  # (B, S)
        if chain.padding is None:
            return labels
        return labels.gather(1, chain.padding.restore).masked_fill(~chain.padding.mask, -100)


Reduction = Callable[..., Tensor]  # over labels: logsumexp sums probabilities, amax keeps the best


class _Chain(NamedTuple):
    """The lattices of a batch, compact (padding only trails), with everything in the precision of the sums."""

    emissions: Tensor  # (B, S, C)
    transitions: Tensor
    start: Tensor
    end: Tensor
    padding: Padding | None

    @classmethod
    def of(cls, crf: LinearChainCRF, emissions: Tensor, mask: Tensor | None) -> "_Chain":
        padding = None if mask is None else Padding.from_mask(mask)
        emissions = emissions if padding is None else padding.compact(emissions)
        dtype = torch.promote_types(torch.promote_types(emissions.dtype, crf.transitions.dtype), torch.float32)
        parameters = (crf.transitions, crf.start_transitions, crf.end_transitions)
        # Copies: who offloads or casts parameters takes them away again after the call.
        transitions, start, end = (parameter.to(dtype, copy=True) for parameter in parameters)
        return cls(emissions.to(dtype), transitions, start, end, padding)

    def first(self) -> Tensor:
        """Return the scores of the first label, (B, C)."""
        return self.start + self.emissions[:, 0]

    def over(self, t: int) -> Tensor:
        """Return (B, 1), True where the sequence has ended before position t."""
        if self.padding is None:
            return torch.zeros(1, 1, dtype=torch.bool, device=self.emissions.device)
        return t >= self.padding.lengths[:, None]

    def score(self, labels: Tensor) -> Tensor:
        """Return the score, (B,), of one label sequence a row, compact (B, S)."""
        emitted = self.emissions.gather(2, labels.unsqueeze(2)).squeeze(2)  # (B, S)
        moved = self.transitions[labels[:, :-1], labels[:, 1:]]  # (B, S - 1)
        if self.padding is None:
            return self.start[labels[:, 0]] + emitted.sum(1) + moved.sum(1) + self.end[labels[:, -1]]
        trailing, lengths = self.padding.trailing, self.padding.lengths  # (B, S), (B,)
        last = labels.gather(1, (lengths - 1).clamp(min=0)[:, None]).squeeze(1)  # (B,)
        inner = emitted.masked_fill(trailing, 0).sum(1) + moved.masked_fill(trailing[:, 1:], 0).sum(1)
        return (self.start[labels[:, 0]] + inner + self.end[last]).masked_fill(lengths == 0, 0)

    def prefixes(self, reduce: Reduction) -> list[Tensor]:
        """Return for each position (B, C): the sequences up to there that end in a label."""
        scores = [self.first()]
        for t in range(1, self.emissions.shape[1]):
            score = reduce(scores[-1].unsqueeze(2) + self.transitions, dim=1) + self.emissions[:, t]
            scores.append(torch.where(self.over(t), scores[-1], score))
        return scores

    def suffixes(self, reduce: Reduction) -> list[Tensor]:
        """Return for each position (B, C): what can follow a label there."""
        scores = [self.end.expand_as(self.emissions[:, 0])]
        for t in range(self.emissions.shape[1] - 1, 0, -1):
            score = reduce(self.transitions + (self.emissions[:, t] + scores[-1]).unsqueeze(1), dim=2)
            scores.append(torch.where(self.over(t), scores[-1], score))
        return scores[::-1]

    def total(self, reduce: Reduction) -> Tensor:
        """Return (B,) over all sequences; zero for a row without real positions."""
        return self._end(self.prefixes(reduce)[-1], reduce)

    def through(self, reduce: Reduction) -> Tensor:
        """Return log p of all sequences, or of the best one, through a label at a position, (B, S, C)."""
        prefixes = self.prefixes(torch.logsumexp)
        log_z = self._end(prefixes[-1], torch.logsumexp)  # (B,)
        if reduce is not torch.logsumexp:
            prefixes = self.prefixes(reduce)
        before, after = torch.stack(prefixes, dim=1), torch.stack(self.suffixes(reduce), dim=1)  # (B, S, C) each
        scores = before + after - log_z[:, None, None]  # (B, S, C)
        return scores if self.padding is None else self.padding.spread(scores)

    def _end(self, last: Tensor, reduce: Reduction) -> Tensor:
        score = reduce(last + self.end, dim=1)
        return score if self.padding is None else score.masked_fill(self.padding.lengths == 0, 0)


__all__ = ["LinearChainCRF"]
