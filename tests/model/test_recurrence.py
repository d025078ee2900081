"""The recurrent stack: against NumPy, against torch's own modules, step by step against fused, under any padding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from tiny import PADDINGS, gradients, numpy_step, padding_mask, randomize
from torch import Tensor, nn

from hf_rnn_seq2seq.model.fast import plain
from hf_rnn_seq2seq.model.padding import Padding, padding_of
from hf_rnn_seq2seq.model.recurrence import STEPS, RecurrentStack, draw_recurrent_masks, run_stepwise


CELLS = ("lstm", "gru", "rnn_tanh")
TORCH = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}
TIGHT = {"atol": 1e-12, "rtol": 1e-10}


def stack_of(rnn_type: str, layers: int = 2, bidirectional: bool = False, **options: Any) -> RecurrentStack:
    stack = RecurrentStack(rnn_type, 5, 6, layers, bidirectional=bidirectional, **options).double()
    randomize(stack)
    return stack.eval()


def states_of(stack: RecurrentStack, batch: int) -> tuple[tuple[Tensor, ...], ...]:
    parts = 2 if stack.rnn_type == "lstm" else 1
    return tuple(
        tuple(torch.randn(batch, stack.hidden_size, dtype=torch.float64) for _ in range(parts))
        for _ in range(stack.num_layers)
    )


@pytest.fixture
def fused() -> Iterator[None]:
    """No packed run: what other devices, exports and half precision compute."""
    with plain("packed"):
        yield


@pytest.fixture(params=["plain", "fused", "packed"])
def either_run(request: pytest.FixtureRequest) -> Iterator[None]:
    """The loop as the papers write it; torch's kernels; real positions only."""
    with {"plain": plain, "fused": lambda: plain("packed"), "packed": nullcontext}[request.param]():
        yield


@pytest.mark.parametrize("rnn_type", CELLS)
def test_a_cell_equals_the_equations_in_numpy(rnn_type: str) -> None:
    stack = stack_of(rnn_type, layers=1)
    x, ((*state,),) = torch.randn(3, 5, dtype=torch.float64), states_of(stack, 3)
    w_ih, w_hh, b_ih, b_hh = stack.weights(0)
    got = STEPS[rnn_type](x @ w_ih.T + b_ih, tuple(state), w_hh, b_hh)
    weights = [w.detach().numpy() for w in (w_ih, w_hh, b_ih, b_hh)]
    for row in range(3):
        wanted = numpy_step(rnn_type, x[row].numpy(), [s[row].numpy() for s in state], weights)
        for got_part, wanted_part in zip(got, wanted, strict=True):
            np.testing.assert_allclose(got_part[row].detach().numpy(), wanted_part, atol=1e-13)


@pytest.mark.usefixtures("either_run")
@pytest.mark.parametrize("rnn_type", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one_way", "both_ways"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_stack_is_torchs_module_under_its_state_dict(rnn_type: str, bidirectional: bool, layers: int) -> None:
    stack = stack_of(rnn_type, layers, bidirectional)
    reference = TORCH[rnn_type](5, stack.cell_size, layers, bidirectional=bidirectional, batch_first=True).double()
    reference.load_state_dict(stack.state_dict())  # strict: names and shapes are torch's

    lengths = [4, 7, 1]
    mask = padding_mask("right", lengths, 7)
    x = torch.randn(3, 7, 5, dtype=torch.float64)
    for padding in (None, Padding.from_mask(mask)):
        got = stack(x, padding=padding)
        if padding is None:
            wanted, final = reference(x)
        else:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            packed_output, final = reference(packed)
            wanted, _ = nn.utils.rnn.pad_packed_sequence(packed_output, batch_first=True, total_length=7)
        torch.testing.assert_close(got.output, wanted, **TIGHT)
        parts = final if isinstance(final, tuple) else (final,)
        for layer, state in enumerate(got.states):
            directions = 2 if bidirectional else 1
            for got_part, wanted_part in zip(state, parts, strict=True):
                rows = wanted_part[layer * directions : (layer + 1) * directions]
                torch.testing.assert_close(got_part, torch.cat(list(rows), dim=-1), **TIGHT)

    back = RecurrentStack(rnn_type, 5, 6, layers, bidirectional=bidirectional).double()
    back.load_state_dict(reference.state_dict())
    torch.testing.assert_close(back(x).output, stack(x).output, rtol=0, atol=0)


@pytest.mark.usefixtures("either_run")
@pytest.mark.parametrize("rnn_type", CELLS)
@pytest.mark.parametrize("options", [{}, {"layer_norm": True, "residual": True}], ids=["plain", "norm_residual"])
def test_step_by_step_equals_the_whole_run_in_values_and_gradients(rnn_type: str, options: dict[str, Any]) -> None:
    stack = stack_of(rnn_type, **options)
    x = torch.randn(3, 5, 5, dtype=torch.float64, requires_grad=True)
    first = states_of(stack, 3)
    fused = stack(x, first)
    states, outputs = first, []
    for t in range(5):
        one = stack.step(x[:, t], states)
        states = one.states
        outputs.append(one.output)
    stepped = torch.stack(outputs, dim=1)
    torch.testing.assert_close(stepped, fused.output, **TIGHT)

    weights = torch.randn_like(stepped)
    results = []
    for output, finals in ((fused.output, fused.states), (stepped, states)):
        total = (output * weights).sum() + sum(part.square().sum() for state in finals for part in state)
        (x_grad,) = torch.autograd.grad(total, x, retain_graph=True)
        total.backward()
        results.append({"x": x_grad, **gradients(stack)})
        x.grad = None
    for name, wanted in results[0].items():
        torch.testing.assert_close(results[1][name], wanted, **TIGHT)


@pytest.mark.usefixtures("either_run")
@pytest.mark.parametrize("rnn_type", CELLS)
@pytest.mark.parametrize("kind", PADDINGS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one_way", "both_ways"])
def test_padding_changes_nothing_in_values_and_gradients(rnn_type: str, kind: str, bidirectional: bool) -> None:
    stack = stack_of(rnn_type, 2, bidirectional, layer_norm=True, residual=True)
    lengths, width = [5, 2, 7], 7
    mask = padding_mask(kind, lengths, width).bool()
    first = states_of(stack, 3)
    x = torch.randn(3, width, 5, dtype=torch.float64)
    poisoned = x.masked_fill(~mask[..., None], float("nan")).requires_grad_()
    batch = stack(poisoned, first, Padding.from_mask(mask))
    (batch.output.square().sum() + sum(s.square().sum() for state in batch.states for s in state)).backward()
    batch_gradients = gradients(stack)
    assert (batch.output[~mask] == 0).all()
    assert all((outputs[~mask] == 0).all() for outputs in batch.layer_outputs)
    assert poisoned.grad is not None and (poisoned.grad[~mask] == 0).all()

    total = torch.zeros((), dtype=torch.float64)
    for row in range(3):
        state = tuple(tuple(part[row : row + 1] for part in layer) for layer in first)
        alone = stack(x[row, mask[row]][None], state)
        torch.testing.assert_close(batch.output[row, mask[row]], alone.output[0], **TIGHT)
        for got_layer, wanted_layer in zip(batch.states, alone.states, strict=True):
            for got, wanted in zip(got_layer, wanted_layer, strict=True):
                torch.testing.assert_close(got[row : row + 1], wanted, **TIGHT)
        total = total + alone.output.square().sum() + sum(s.square().sum() for state in alone.states for s in state)
    total.backward()
    for name, wanted in gradients(stack).items():
        torch.testing.assert_close(batch_gradients[name], wanted, **TIGHT)


@pytest.mark.usefixtures("either_run")
@pytest.mark.parametrize("rnn_type", CELLS)
def test_a_sequence_of_padding_only_leaves_the_first_state(rnn_type: str) -> None:
    stack = stack_of(rnn_type, layers=1, bidirectional=True)
    mask = torch.tensor([[0, 0, 0], [1, 0, 1]])
    first = states_of(stack, 2)
    got = stack(torch.randn(2, 3, 5, dtype=torch.float64), first, Padding.from_mask(mask))
    for part, wanted in zip(got.states[0], first[0], strict=True):
        torch.testing.assert_close(part[0], wanted[0], rtol=0, atol=0)
    assert (got.output[0] == 0).all()


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("rnn_type", CELLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_long_padding_does_not_wear_the_state_away(rnn_type: str, dtype: torch.dtype) -> None:
    # The padding of the LSTM's fused run is passed by saturated gates: 400 of them must not change one bit.
    stack = stack_of(rnn_type, layers=1).to(dtype)
    x = torch.randn(2, 400, 5).to(dtype)
    x[:, 3:] = 50
    mask = torch.zeros(2, 400)
    mask[:, :3] = 1
    got = stack(x, padding=Padding.from_mask(mask)).states[0]
    wanted = stack(x[:, :3]).states[0]
    for part, reference in zip(got, wanted, strict=True):
        assert torch.isfinite(part).all()
        torch.testing.assert_close(part, reference, rtol=2e-2 if dtype == torch.bfloat16 else 1e-6, atol=0)


@pytest.mark.parametrize("kind", PADDINGS)
def test_compact_and_spread_are_inverse_and_mirror_reverses_the_real_positions(kind: str) -> None:
    mask = padding_mask(kind, [3, 6, 1], 6).bool()
    padding = Padding.from_mask(mask)
    x = torch.randn(3, 6, 2)
    compact = padding.compact(x)
    for row, real in enumerate(mask):
        length = int(real.sum())
        torch.testing.assert_close(compact[row, :length], x[row, real])
        assert (compact[row, length:] == 0).all()
        reverse = padding.reverse[row]
        torch.testing.assert_close(compact[row, reverse][:length], x[row, real].flip(0))
    torch.testing.assert_close(padding.spread(compact), x.masked_fill(~mask[..., None], 0))
    torch.testing.assert_close(padding.last(compact, x[:, 0]), torch.stack([x[i, m][-1] for i, m in enumerate(mask)]))


def test_a_mask_of_ones_is_no_padding() -> None:
    assert padding_of(None) is None
    assert padding_of(torch.ones(2, 3)) is None
    assert padding_of(torch.tensor([[1, 0], [1, 1]])) is not None


@pytest.mark.parametrize("rnn_type", CELLS)
@pytest.mark.parametrize("kind", PADDINGS)
def test_the_loop_of_recurrent_dropout_equals_the_fused_run_when_it_drops_nothing(rnn_type: str, kind: str) -> None:
    # A rate too small to ever drop: the loop runs, and must give what the fused kernels give.
    stack = stack_of(rnn_type, 2, True, recurrent_dropout=1e-12).train()
    padding = Padding.from_mask(padding_mask(kind, [5, 3, 1], 5))
    x = torch.randn(3, 5, 5, dtype=torch.float64)
    looped = stack(x, padding=padding)
    fused = stack.eval()(x, padding=padding)
    torch.testing.assert_close(looped.output, fused.output, atol=1e-9, rtol=1e-9)
    for got, wanted in zip(looped.states, fused.states, strict=True):
        for got_part, wanted_part in zip(got, wanted, strict=True):
            torch.testing.assert_close(got_part, wanted_part, atol=1e-9, rtol=1e-9)


def test_recurrent_dropout_draws_one_mask_a_sequence_and_keeps_the_mean() -> None:
    masks = draw_recurrent_masks(torch.empty(2000, 1, dtype=torch.float64), 6, 2, 0.25)
    assert masks is not None and len(masks) == 2
    for mask in masks:
        assert mask.shape == (2000, 6)
        assert set(mask.unique().tolist()) == {0.0, 1 / 0.75}
        assert abs(mask.mean().item() - 1) < 0.03
    assert draw_recurrent_masks(torch.empty(1, 1), 6, 2, 0.0) is None


def test_dropout_stands_between_layers_only() -> None:
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    one = stack_of("gru", 1, dropout=0.5)
    torch.testing.assert_close(one.train()(x).output, one.eval()(x).output)
    two = stack_of("gru", 2, dropout=0.5).train()
    assert not torch.allclose(two(x).output, two(x).output)
    torch.testing.assert_close(two(x).layer_outputs[0], two.eval()(x).layer_outputs[0])


def test_initialisation_is_orthogonal_per_gate_with_an_open_forget_gate() -> None:
    stack = RecurrentStack("lstm", 5, 6, 2)
    stack.reset_parameters()
    for gate in stack.weight_hh_l1.chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(6), atol=1e-5, rtol=0)
    i, f, g, o = (stack.bias_ih_l0 + stack.bias_hh_l0).chunk(4)
    assert (f == 1).all() and not torch.cat([i, g, o]).any()
    assert stack.weight_ih_l0.std() > 0.1


@pytest.mark.usefixtures("either_run")
@pytest.mark.parametrize("rnn_type", CELLS)
def test_residual_layers_from_the_second_on_add_what_the_layer_below_gave(rnn_type: str) -> None:
    torch.manual_seed(1)
    plain_stack, residual = stack_of(rnn_type, 2), stack_of(rnn_type, 2, residual=True)
    x, states = torch.randn(3, 5, dtype=torch.float64), states_of(residual, 3)
    first = plain_stack.step(x, states)
    torch.testing.assert_close(
        residual.step(x, states).output, first.layer_outputs[1] + first.layer_outputs[0], **TIGHT
    )


def test_a_step_drops_out_between_layers_and_nothing_of_its_input() -> None:
    stack = stack_of("gru", 1)
    stack.dropout = 0.9
    x, states = torch.randn(3, 5, dtype=torch.float64), states_of(stack, 3)
    assert torch.equal(stack.train().step(x, states).output, stack.eval().step(x, states).output)
    two = stack_of("gru", 2)
    two.dropout = 0.9
    states = states_of(two, 3)
    assert not torch.equal(two.train().step(x, states).output, two.eval().step(x, states).output)


def test_recurrent_dropout_scales_what_a_step_reads_of_the_state() -> None:
    """h_t = tanh(g_t + W (m * h_{t-1}) + b), with one mask m of a sequence (Gal & Ghahramani 2016, eq. 7)."""
    generator = torch.Generator().manual_seed(0)
    gates, h, weight, bias, mask = (
        torch.randn(*shape, generator=generator) for shape in ((2, 3, 4), (2, 4), (4, 4), (4,), (2, 4))
    )
    mask = 2.0 * (mask > 0)
    outputs, _ = run_stepwise("rnn_tanh", gates, (h,), weight, bias, None, mask)
    for t in range(3):
        h = torch.tanh(gates[:, t] + (mask * h) @ weight.T + bias)
        torch.testing.assert_close(outputs[:, t], h)
    stack = stack_of("gru")
    x, states = torch.randn(2, 5, dtype=torch.float64), states_of(stack, 2)
    masks = tuple(2.0 * (torch.randn(2, 6, generator=generator) > 0).double() for _ in states)
    # GRU's own interpolation reads the state through the mask, too: the step of a masked state.
    scaled = tuple((state[0] * mask,) for state, mask in zip(states, masks))
    assert torch.equal(stack.step(x, states, masks).output, stack.step(x, scaled).output)
