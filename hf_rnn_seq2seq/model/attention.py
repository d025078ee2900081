"""Attention over the encoder's memory: (query, keys, memory, mask) -> context vector c_t and weights.

dot and general: Luong 2015, section 3.1. additive: Bahdanau 2015, appendix A.1.2. Keys are projected once a source
sequence, outside the steps. Nothing is kept on the module between calls. B batch, S source length, T queries, H of the
decoder, K size of a key, A of the additive score, D of a memory vector.
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
    """

    def __init__(
        self, attention_type: str, query_size: int, memory_size: int, attention_size: int, coverage: bool = False
    ):
        super().__init__()
        self.attention_type = attention_type
        if attention_type == "general":
            self.key_projection = nn.Linear(memory_size, query_size, bias=False)
        elif attention_type == "additive":
            self.key_projection = nn.Linear(memory_size, attention_size, bias=False)
            self.query_projection = nn.Linear(query_size, attention_size, bias=True)
            self.score_projection = nn.Linear(attention_size, 1, bias=False)
        if coverage:
            self.coverage_weight = nn.Parameter(torch.zeros(attention_size if attention_type == "additive" else 1))

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
            coverage = coverage.unsqueeze(1) if coverage.dim() == 2 else coverage  # (B, T or 1, S)
            # (B, T or 1, S, A) in the additive score, (B, T or 1, S, 1) in the others
            covered = coverage.to(memory.dtype).unsqueeze(-1) * self.coverage_weight
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
