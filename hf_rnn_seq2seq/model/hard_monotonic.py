"""Exact hard monotonic attention (Wu & Cotterell 2019): a symbol is written at one position, which never goes back.

Which position a_t it was is not known. The probability of a target sums over all alignments, by the forward algorithm
(eq. 5): p(y) = sum_a prod_t p(y_t | a_t, y_<t) p(a_t | a_{t-1}, y_<t), with p(a_t | a_{t-1}) = 0 for a_t < a_{t-1}. A
step needs of the past only p(a_{t-1} | y_<t), and h_{t-1}, which says what y_{t-1} tells of a_{t-1}; the recurrence
itself reads no attention. The sums are exact, in the logarithmic domain. B batch, S source length, T target length, H
of the decoder, D of a memory vector, R readout, V vocabulary, W distances.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fast import replaceable
from .state import SourceMemory


# As far as the authors' first-order model looks ahead; here all distances from there on have one score.
_DISTANCES = 6
# The logarithm of nothing: its exponential is exactly zero, and its gradient is no NaN.
_NOTHING = -1e4


class Marginal(NamedTuple):
    """What the output layer says of some steps where it has been asked at every position of the source."""

    log_probabilities: Tensor  # (B, T, V) log p(y_t | y_<t)

    def at(self, positions: slice | Tensor) -> "Marginal":
        """Return that of some of the steps."""
        return Marginal(self.log_probabilities[:, positions])

    def of_steps(self, row: Tensor, step: Tensor) -> "Marginal":
        """Return that of N single steps (N,), each as a batch row of its own."""
        return Marginal(self.log_probabilities[row, step].unsqueeze(1))


def first_alignment(memory: Tensor, mask: Tensor | None) -> Tensor:
    """Return log p(a_0) (B, S): before the first symbol, at the first real position of a memory (B, S, D)."""
    start = memory.new_full(memory.shape[:2], _NOTHING, dtype=torch.promote_types(memory.dtype, torch.float32))
    first = torch.zeros_like(start, dtype=torch.long)[:, :1] if mask is None else mask.long().argmax(1, keepdim=True)
    return start.scatter(1, first, 0)


@replaceable("keys")
class HardMonotonicAttention(nn.Module):
    """
    Sums over the positions at which each symbol may have been written.

    Args:
        query_size, memory_size, readout_size (`int`): H, D and R.
        order (`int`): 0: p(a_t = j | a_{t-1} = i) is the softmax of h_t.(W m_j) over j >= i (eq. 8 and 9). 1: to this
            is added a score of the distance j - i, from h_t and W m_i (eq. 10, where it is the only one).
        copies (`bool`): A position may also write the symbol that stands there: p(y | j) = g_j P_vocab(y | j) +
            (1 - g_j) [y = x_j], the pointer-generator (See 2017, eq. 9) where the attention is one position.
    """

    def __init__(self, query_size: int, memory_size: int, readout_size: int, order: int, copies: bool):
        super().__init__()
        self.key_projection = nn.Linear(memory_size, query_size, bias=False)
        self.memory_readout = nn.Linear(memory_size, readout_size, bias=False)
        self.state_readout = nn.Linear(query_size, readout_size, bias=False)
        self.order = order
        if order == 1:
            self.distance_from_state = nn.Linear(query_size, _DISTANCES)
            self.distance_from_key = nn.Linear(query_size, _DISTANCES, bias=False)
        if copies:
            self.generation_gate = nn.Linear(readout_size, 1)

    def keys(self, memory: Tensor) -> Tensor:
        """Return W m_j and its part of the readout, (B, S, H + R), from the memory (B, S, D)."""
        return torch.cat([self.key_projection(memory), self.memory_readout(memory)], dim=-1)

    def forward(
        self,
        states: Tensor,
        ids: Tensor,
        before: tuple[Tensor, Tensor],
        source: SourceMemory,
        mask: Tensor | None,
        output_layer: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        Make T steps of the forward algorithm.

        Args:
            states: (B, T, H), h_t of each step.
            ids: (B, T), y_{t-1} of each step.
            before: The state (B, H) before the first of these steps, and its log p(a | y) (B, S).
            source: What `keys()` returned, the mask, and the symbols where they are copied.
            mask: (B, T) bool, False at steps to pass over; None if there are none.
            output_layer: (..., R) -> (..., V).

        Returns:
            log p(y_t | y_<t) (B, T, V); log p(a_t | y_<t) (B, T, S); and the last state (B, H) that was not passed
            over. The first two are in single precision at least.
        """
        state, aligned = before
        steps = states.shape[1]
        assert source.keys is not None
        keys, read = source.keys.split([states.shape[-1], self.state_readout.out_features], dim=-1)
        every_state = torch.cat([state.unsqueeze(1), states], dim=1)  # (B, T + 1, H)
        readout = (read.unsqueeze(1) + self.state_readout(every_state).unsqueeze(2)).tanh()  # (B, T + 1, S, R)
        # log p(y | a_t = j, y_<t), eq. 3
        emitted = output_layer(readout).log_softmax(-1, dtype=aligned.dtype)  # (B, T + 1, S, V)
        if source.symbols is not None:
            emitted = self._with_copies(emitted, readout, source.symbols[:, 0])
        moves = self._transitions(states, keys, source.mask).to(aligned.dtype)  # (B, T, S, S)
        row = torch.arange(len(ids), device=ids.device)[:, None]  # (B, 1)
        last = torch.arange(steps + 1, device=ids.device).expand(len(ids), -1)  # (B, T + 1) 0: the state before
        if mask is not None:
            last = (last * F.pad(mask, (1, 0))).cummax(1).values
        index = ids[:, :, None, None].expand(-1, -1, emitted.shape[2], 1)  # (B, T, S, 1)
        told = emitted[row, last[:, :-1]].gather(3, index).squeeze(3)  # (B, T, S) log p(y_{t-1} | a_{t-1} = j)
        all_aligned = []
        for t in range(steps):
            past = (aligned + told[:, t]).log_softmax(-1)  # (B, S) log p(a_{t-1} | y_<t)
            new = (past.unsqueeze(2) + moves[:, t]).logsumexp(1)  # (B, S)
            aligned = new if mask is None else torch.where(mask[:, t, None], new, aligned)
            all_aligned.append(aligned)
        alignments = torch.stack(all_aligned, dim=1)  # (B, T, S)
        probabilities = (alignments.unsqueeze(3) + emitted[:, 1:]).logsumexp(2)  # (B, T, V)
        return probabilities, alignments, every_state[row[:, 0], last[:, -1]]

    def _with_copies(self, emitted: Tensor, readout: Tensor, symbols: Tensor) -> Tensor:
        """Return log p(y | j) (B, T, S, V) where x_j (B, S) may be copied, from log P_vocab and readouts."""
        gate = self.generation_gate(readout).to(emitted.dtype)  # (B, T, S, 1)
        emitted = emitted + F.logsigmoid(gate)
        index = symbols[:, None, :, None].expand_as(gate)
        copied = torch.logaddexp(emitted.gather(3, index), F.logsigmoid(-gate))  # (B, T, S, 1)
        return emitted.scatter(3, index, copied)

    def _transitions(self, states: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """Return log p(a_t = j | a_{t-1} = i, y_<t) as (B, T, i, j), from states (B, T, H) and keys (B, S, H)."""
        positions = torch.arange(keys.shape[1], device=keys.device).expand(len(keys), -1)  # (B, S)
        scores = (states @ keys.transpose(1, 2)).unsqueeze(2)  # (B, T, 1, S)
        allowed = positions.unsqueeze(1) >= positions.unsqueeze(2)  # (B, i, j)
        if mask is not None:
            allowed = allowed & mask.unsqueeze(1)
            positions = mask.long().cumsum(1)  # as if there were no padding
        if self.order == 1:
            distances = (positions.unsqueeze(1) - positions.unsqueeze(2)).clamp(0, _DISTANCES - 1)  # (B, i, j)
            by_distance = self.distance_from_state(states).unsqueeze(2) + self.distance_from_key(keys).unsqueeze(1)
            index = distances.unsqueeze(1).expand(-1, states.shape[1], -1, -1)
            scores = scores + by_distance.gather(3, index)  # (B, T, S, W) -> (B, T, S, S)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        return scores.masked_fill(~allowed.unsqueeze(1), _NOTHING).log_softmax(-1)
