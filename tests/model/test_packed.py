"""The packed recurrence gives the values and gradients of the run over all positions, in double precision."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import gradients, padding_mask, randomize
from torch import Tensor

from hf_rnn_seq2seq.model import fast, fast_recurrence
from hf_rnn_seq2seq.model.fast import plain
from hf_rnn_seq2seq.model.fast_products import Factor
from hf_rnn_seq2seq.model.fast_recurrence import Packing
from hf_rnn_seq2seq.model.padding import Padding
from hf_rnn_seq2seq.model.recurrence import RecurrentStack


pytestmark = pytest.mark.fast_path


TIGHT: dict[str, Any] = {"atol": 1e-11, "rtol": 1e-9}
CELLS = ("lstm", "gru", "rnn_tanh")


def stack_of(rnn_type: str, layers: int = 2, bidirectional: bool = True, **options: Any) -> RecurrentStack:
    stack = RecurrentStack(rnn_type, 5, 6, layers, bidirectional=bidirectional, **options).double()
    randomize(stack)
    return stack.train()


def run(stack: RecurrentStack, x: Tensor, mask: Tensor | None, first: Tensor, packed: bool) -> dict[str, Tensor]:
    """All that a stack gives, and the gradients of all that it is given."""
    x, first = x.clone().requires_grad_(), first.clone().requires_grad_()
    parts = 2 if stack.rnn_type == "lstm" else 1
    states = tuple(tuple(layer[:parts]) for layer in first)
    padding = None if mask is None else Padding.from_mask(mask)
    with nullcontext() if packed else plain("packed"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "LSTM_REAL_SHARE", 1.0)  # whatever is faster
        result = stack(x, states, padding)
    given = {"output": result.output} | {
        f"state {k} {i}": part for k, state in enumerate(result.states) for i, part in enumerate(state)
    }
    weights = torch.Generator().manual_seed(1)
    total = sum((part * torch.randn(part.shape, generator=weights, dtype=part.dtype)).sum() for part in given.values())
    stack.zero_grad()
    total.backward()
    return given | {"x": x.grad, "first": first.grad} | gradients(stack)


@settings(max_examples=60, deadline=None)
@given(
    rnn_type=st.sampled_from(CELLS),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    rows=st.integers(1, 5).flatmap(
        lambda length: st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=1, max_size=6)
    ),
    options=st.sampled_from([{}, {"layer_norm": True, "residual": True}, {"reductions": (2, 1, 2)}]),
)
def test_a_packed_run_equals_one_over_all_positions(
    rnn_type: str, layers: int, bidirectional: bool, rows: list[list[bool]], options: dict[str, Any]
) -> None:
    mask = torch.tensor(rows)
    stack = stack_of(rnn_type, layers, bidirectional, **options)
    x = torch.randn(*mask.shape, 5, dtype=torch.float64)
    first = torch.randn(layers, 2, len(mask), 6, dtype=torch.float64)
    for masked in (mask, None):
        wanted = run(stack, x, masked, first, packed=False)
        for name, got in run(stack, x, masked, first, packed=True).items():
            torch.testing.assert_close(got, wanted[name], **TIGHT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("rnn_type", CELLS)
def test_single_precision_is_as_near_to_double_as_the_fused_run(rnn_type: str) -> None:
    stack = stack_of(rnn_type, layers=1)
    x, mask = torch.randn(9, 20, 5), torch.rand(9, 20) < 0.7
    padding = Padding.from_mask(mask)
    wanted = stack(x.double(), padding=padding).output
    got = stack.float()(x, padding=padding).output
    assert (got - wanted).abs().max() < 2e-6


@pytest.mark.parametrize("rnn_type", CELLS)
def test_a_second_backward_through_the_same_run_gives_the_same(rnn_type: str) -> None:
    stack, mask = stack_of(rnn_type), padding_mask("interior", [4, 2, 5], 5)
    output = stack(torch.randn(3, 5, 5, dtype=torch.float64), padding=Padding.from_mask(mask)).output
    total, parameters = output.square().sum(), list(stack.parameters())
    once = torch.autograd.grad(total, parameters, retain_graph=True)
    for got, wanted in zip(torch.autograd.grad(total, parameters), once, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_gives_the_same(reentrant: bool) -> None:
    mask, x = padding_mask("left", [4, 2, 5], 5).bool(), torch.randn(3, 5, 5, dtype=torch.float64)
    stack, first = stack_of("lstm"), torch.randn(2, 2, 3, 6, dtype=torch.float64)
    wanted = run(stack, x, mask, first, packed=True)
    for layer in stack.layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = lambda function, *arguments: torch.utils.checkpoint.checkpoint(
            function, *arguments, use_reentrant=reentrant
        )
    for name, got in run(stack, x, mask, first, packed=True).items():
        torch.testing.assert_close(got, wanted[name], **TIGHT)


def test_rows_stand_step_by_step_and_the_longest_sequence_first() -> None:
    mask = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 0, 0], [1, 0, 1]], dtype=torch.bool)
    packing = Packing.of(torch.zeros(4, 3, 1), Padding.from_mask(mask))
    assert packing.counts == (3, 2, 1)
    x = torch.arange(12.0).view(4, 3, 1)
    assert packing.compact(x).flatten().tolist() == [3, 9, 1, 4, 11, 5]
    torch.testing.assert_close(packing.spread(packing.compact(x)), x * mask[..., None])
    empty = torch.full((4, 1), -1.0)
    rows = packing.compact(x)
    assert packing.last(rows, empty, backwards=False).flatten().tolist() == [1, 5, -1, 11]
    assert packing.last(rows, empty, backwards=True).flatten().tolist() == [1, 3, -1, 9]


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What was run packed, in order."""
    seen: list[Tensor] = []
    monkeypatch.setattr(fast_recurrence, "run_packed_layers", lambda stack, x, *_: seen.append(x))
    return seen


@pytest.mark.parametrize("rnn_type", CELLS)
def test_an_lstm_with_little_padding_is_not_packed(rnn_type: str, packings: list[Tensor]) -> None:
    stack, x = stack_of(rnn_type), torch.zeros(2, 5, 5, dtype=torch.float64)
    little, much = (Padding.from_mask(padding_mask("interior", lengths, 5)) for lengths in ([5, 4], [5, 1]))
    for padding in (little, None):
        stack(x, padding=padding)
    assert len(packings) == (0 if rnn_type == "lstm" else 2)
    stack(x, padding=much)
    assert len(packings) == (1 if rnn_type == "lstm" else 3)


def test_a_packed_run_is_for_the_cpu_in_full_precision_and_never_traced(packings: list[Tensor]) -> None:
    stack, x = stack_of("gru").float(), torch.zeros(2, 2, 5)
    stack(x)
    assert len(packings) == 1
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        stack(x)
    with plain():
        stack(x)
    torch.jit.trace(lambda x: stack.requires_grad_(False)(x).output, x, check_trace=False)
    stack.bfloat16()(x.bfloat16())
    stack.to("meta")(x.bfloat16().to("meta"))
    assert len(packings) == 1


@pytest.mark.parametrize("bias", [None, torch.randn(9)], ids=["no_bias", "bias"])
def test_a_factor_multiplies_any_number_of_rows(bias: Tensor | None) -> None:
    torch.manual_seed(0)
    for b in (torch.randn(5, 9), torch.randn(9, 5).t(), torch.randn(5, 20)[:, 2:11]):
        for dtype in (torch.float32, torch.float64):
            factor = Factor(b.to(dtype), None if bias is None else bias.to(dtype))
            for rows in (300, 7, 64, 0, 1, 300):
                a = torch.randn(rows, 12)[:, 3:8].to(dtype)
                wanted = a.double() @ b.double() + (0 if bias is None else bias.double())
                torch.testing.assert_close(factor(a).double(), wanted, atol=1e-5, rtol=1e-5)
