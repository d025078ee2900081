"""Attention over the encoder's memory: (query, keys, memory, mask) -> context vector c_t and weights.

dot and general: Luong 2015, section 3.1. additive: Bahdanau 2015, appendix A.1.2. By location too: Chorowski 2015,
section 2.1. Keys are projected once a source sequence, outside the steps. Nothing is kept on the module between calls.
B batch, S source length, T queries, H of the decoder, K size of a key, A of the additive score, D of a memory vector,
N location filters.
"""

import torch
from torch import Tensor, nn

from .fast import replaceable


@replaceable("keys")
class Attention(nn.Module):
    """
    Scores a query against every memory position and mixes the memory by the softmax of the scores.

    Args:
        attention_type (`str`): `"dot"` q.m_j, `"general"` q.(W m_j), `"additive"` v.tanh(W q + U m_j).
        query_size, memory_size, attention_size (`int`): H, D, and A of the additive score.
        coverage (`bool`): The score also reads how much each position was attended to so far, g_j (See 2017, 2.3):
            additive v.tanh(W q + U m_j + w g_j); the others add w g_j with one learned number w to the score.
        location_filters (`int`): N: so many filters over neighbouring g_j, f_j (N,), in place of g_j alone: additive
            v.tanh(W q + U m_j + V f_j) (Chorowski 2015, eq. 8 and 9; g_j and not the last weights: Shen 2018, 2.2);
            the others add v.f_j to the score. 0: none.
        location_width (`int`): How many neighbours a filter reads, an odd number.
    """

    def __init__(
        self,
        attention_type: str,
        query_size: int,
        memory_size: int,
        attention_size: int,
        coverage: bool = False,
        location_filters: int = 0,
        location_width: int = 31,
    ):
        super().__init__()
        self.attention_type = attention_type
        if attention_type == "general":
            self.key_projection = nn.Linear(memory_size, query_size, bias=False)
        elif attention_type == "additive":
            self.key_projection = nn.Linear(memory_size, attention_size, bias=False)
            self.query_projection = nn.Linear(query_size, attention_size, bias=True)
            self.score_projection = nn.Linear(attention_size, 1, bias=False)
        width = attention_size if attention_type == "additive" else 1
        self.reads_locations = location_filters > 0
        if self.reads_locations:
            self.location_filters = nn.Conv1d(
                1, location_filters, location_width, padding=location_width // 2, bias=False
            )
            self.location_projection = nn.Linear(location_filters, width, bias=False)
        elif coverage:
            self.coverage_weight = nn.Parameter(torch.zeros(width))

    def keys(self, memory: Tensor) -> Tensor:
        """Return what queries are scored against, (B, S, K), from the memory (B, S, D). Once a source sequence."""
        return memory if self.attention_type == "dot" else self.key_projection(memory)

    def forward(
        self, query: Tensor, keys: Tensor, memory: Tensor, mask: Tensor | None, coverage: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """
        Compute the scores, their softmax, and the mix: what `plain()` computes, everywhere. Else a search takes
        `_Products` of fast_step.py, and training lets `DeferredGradients` take over the products with keys and memory.

        Args:
            query: (B, T, H), all steps at once or one (T = 1).
            keys: (B, S, K), which `keys()` returns.
            memory: (B, S, D), zero at padding.
            mask: (B, S) bool, True at real positions; None if there is no padding.
            coverage: (B, S), sum of the weights so far, where the scores read it; (B, T, S) if each query has its own.

        Returns:
            Context vectors (B, T, D) and weights (B, T, S), which sum to one over the real positions; the weights are
            in single precision at least.
        """
        covered = None
        if coverage is not None:
            covered = self._covered(coverage.to(memory.dtype), mask)
        if self.attention_type == "additive":
            keys = keys.unsqueeze(1) if covered is None else keys.unsqueeze(1) + covered
            # (B, T, 1, A) + (B, 1, S, A): the one score that cannot be a matrix product
            hidden = torch.tanh(self.query_projection(query).unsqueeze(2) + keys)  # (B, T, S, A)
            scores = self.score_projection(hidden).squeeze(-1)  # (B, T, S)
        else:
            scores = query @ keys.transpose(1, 2)  # (B, T, S)
            if covered is not None:
                scores = scores + covered.squeeze(-1)
        # Softmax in single precision at least, half precision loses small weights.
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if mask is not None:
            # Not -inf: a source that is all padding must give zeros (its memory), not NaN.
            scores = scores.masked_fill(~mask.unsqueeze(1), torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1)  # (B, T, S)
        return weights.to(memory.dtype) @ memory, weights

    def _covered(self, coverage: Tensor, mask: Tensor | None) -> Tensor:
        """Return what coverage adds, (B, T or 1, S, A); A is 1 in other scores than the additive."""
        coverage = coverage.unsqueeze(1) if coverage.dim() == 2 else coverage  # (B, T or 1, S)
        if not self.reads_locations:
            return coverage.unsqueeze(-1) * self.coverage_weight
        place = None
        if mask is not None:
            # The filters read real positions side by side, as if there were no padding, which has no weight.
            place = (mask.long().cumsum(1) - 1).clamp(min=0).unsqueeze(1).expand_as(coverage)  # (B, T or 1, S)
            coverage = torch.zeros_like(coverage).scatter_add(2, place, coverage)
        rows = coverage.flatten(0, 1).unsqueeze(1)  # (B T, 1, S)
        filtered = self.location_filters(rows).transpose(1, 2)  # (B T, S, N)
        added = self.location_projection(filtered).unflatten(0, coverage.shape[:2])  # (B, T or 1, S, A)
        return added if place is None else added.gather(2, place.unsqueeze(-1).expand_as(added))
