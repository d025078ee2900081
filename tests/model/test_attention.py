"""Attention against the papers' scores, written with loops."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import PADDINGS, padding_mask, randomize
from torch import Tensor

from hf_rnn_seq2seq.model.attention import Attention


TYPES = ("dot", "general", "additive")


def attention_of(kind: str, memory_size: int = 6, coverage: bool = False) -> Attention:
    attention = Attention(kind, query_size=6, memory_size=memory_size, attention_size=4, coverage=coverage).double()
    randomize(attention)
    return attention


@torch.no_grad()
def plain_attention(
    attention: Attention, query: Tensor, memory: Tensor, coverage: Tensor
) -> tuple[Tensor, list[float]]:
    """c_t and its weights for one query (H,) over the real positions of one memory (S, D), attended to so far (S,)."""
    scores = []
    weight = getattr(attention, "coverage_weight", torch.zeros(1, dtype=torch.float64))
    for m, covered in zip(memory, coverage, strict=True):
        if attention.attention_type == "dot":
            scores.append(float(query @ m + weight * covered))
        elif attention.attention_type == "general":
            scores.append(float(query @ attention.key_projection.weight @ m + weight * covered))
        else:
            hidden = attention.query_projection.weight @ query + attention.query_projection.bias
            hidden = torch.tanh(hidden + attention.key_projection.weight @ m + weight * covered)
            scores.append(float(attention.score_projection.weight[0] @ hidden))
    total = sum(math.exp(score) for score in scores)
    weights = [math.exp(score) / total for score in scores]
    context = sum((w * m for w, m in zip(weights, memory, strict=True)), torch.zeros_like(memory[0]))
    return context, weights


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("where", [None, *PADDINGS])
@pytest.mark.parametrize("several", [False, True])
def test_locations_are_read_as_the_paper_says(kind: str, where: str | None, several: bool) -> None:
    """Chorowski 2015, eq. 8 and 9: f_j = sum_k F_k g_(j + k), over real positions side by side; by loops."""
    attention = Attention(kind, 6, 6, 4, coverage=True, location_filters=3, location_width=5).double()
    randomize(attention)
    memory, query = torch.randn(3, 7, 6, dtype=torch.float64), torch.randn(3, 2, 6, dtype=torch.float64)
    mask = torch.ones(3, 7, dtype=torch.bool) if where is None else padding_mask(where, [4, 7, 1], 7).bool()
    memory = memory.masked_fill(~mask[..., None], 0)
    coverage = torch.rand(3, 2, 7, dtype=torch.float64).masked_fill(~mask[:, None], 0)
    coverage = coverage if several else coverage[:, :1].expand(-1, 2, -1)
    given = coverage if several else coverage[:, 0]
    _, weights = attention(query, attention.keys(memory), memory, None if where is None else mask, given)
    filters, projection = attention.location_filters.weight[:, 0], attention.location_projection.weight
    for row in range(3):
        for t in range(2):
            g = [float(x) for x in coverage[row, t, mask[row]]]
            scores = []
            for j, m in enumerate(memory[row, mask[row]]):
                near = [g[j + k] if 0 <= j + k < len(g) else 0.0 for k in (-2, -1, 0, 1, 2)]
                added = projection @ (filters @ torch.tensor(near, dtype=torch.float64))
                q = query[row, t]
                if kind == "additive":
                    hidden = attention.query_projection(q) + attention.key_projection.weight @ m + added
                    scores.append(attention.score_projection.weight[0] @ hidden.tanh())
                else:
                    key = m if kind == "dot" else attention.key_projection.weight @ m
                    scores.append(q @ key + added[0])
            wanted = torch.stack(scores).softmax(0)
            torch.testing.assert_close(weights[row, t, mask[row]], wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("where", [None, *PADDINGS])
@pytest.mark.parametrize("covers", [False, True])
def test_attention_equals_the_papers_scores(kind: str, where: str | None, covers: bool) -> None:
    attention = attention_of(kind, 6 if kind == "dot" else 5, covers)
    coverage = torch.rand(3, 5, dtype=torch.float64)
    memory = torch.randn(3, 5, 6 if kind == "dot" else 5, dtype=torch.float64)
    query = torch.randn(3, 2, 6, dtype=torch.float64)
    mask = None if where is None else padding_mask(where, [3, 5, 1], 5).bool()
    if mask is not None:
        memory = memory.masked_fill(~mask[..., None], 0)
    context, weights = attention(query, attention.keys(memory), memory, mask, coverage if covers else None)
    for row in range(3):
        real = torch.ones(5, dtype=torch.bool) if mask is None else mask[row]
        for t in range(2):
            wanted_context, wanted_weights = plain_attention(
                attention, query[row, t], memory[row, real], coverage[row, real]
            )
            torch.testing.assert_close(context[row, t], wanted_context, atol=1e-12, rtol=0)
            torch.testing.assert_close(weights[row, t, real], torch.tensor(wanted_weights, dtype=torch.float64))
            assert (weights[row, t, ~real] == 0).all()


@pytest.mark.parametrize("kind", TYPES)
def test_all_steps_at_once_equal_one_at_a_time(kind: str) -> None:
    attention, memory = attention_of(kind), torch.randn(2, 4, 6, dtype=torch.float64)
    query = torch.randn(2, 3, 6, dtype=torch.float64)
    keys = attention.keys(memory)
    at_once = attention(query, keys, memory, None)
    for t in range(3):
        for got, wanted in zip(at_once, attention(query[:, t : t + 1], keys, memory, None), strict=True):
            torch.testing.assert_close(got[:, t : t + 1], wanted)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_source_of_padding_only_gives_a_context_of_zeros(kind: str, dtype: torch.dtype) -> None:
    attention = attention_of(kind).to(dtype)
    memory = torch.zeros(1, 4, 6, dtype=dtype)
    context, weights = attention(torch.randn(1, 2, 6).to(dtype), attention.keys(memory), memory, torch.zeros(1, 4) > 0)
    assert (context == 0).all() and torch.isfinite(weights).all()


@pytest.mark.parametrize("kind", TYPES)
def test_gradients_of_padding_are_zero(kind: str) -> None:
    attention, mask = attention_of(kind), torch.tensor([[True, False, True]])
    memory = torch.randn(1, 3, 6, dtype=torch.float64, requires_grad=True)
    context, _ = attention(torch.randn(1, 1, 6, dtype=torch.float64), attention.keys(memory), memory, mask)
    context.square().sum().backward()
    assert memory.grad is not None
    assert (memory.grad[0, 1] == 0).all() and (memory.grad[0, 0] != 0).all()


def test_each_score_has_the_parameters_of_its_equation() -> None:
    # A bias on keys or scores would change nothing but the saved file.
    names = {kind: {name for name, _ in attention_of(kind, coverage=True).named_parameters()} for kind in TYPES}
    own = {"dot": set(), "general": {"key_projection.weight"}}
    own["additive"] = {"key_projection.weight", "query_projection.weight", "query_projection.bias"}
    own["additive"].add("score_projection.weight")
    assert names == {kind: found | {"coverage_weight"} for kind, found in own.items()}
