"""The context vector C and the decoder's first state, against plain tensor code."""

from __future__ import annotations

import pytest
import torch
from tiny import PADDINGS, padding_mask, randomize
from torch import Tensor

from hf_rnn_seq2seq.model.bridge import Bridge, context_vector


def finals_of(layers: int, has_cell: bool, size: int = 4) -> tuple[tuple[Tensor, ...], ...]:
    return tuple(tuple(torch.randn(2, size) for _ in range(1 + has_cell)) for _ in range(layers))


@pytest.mark.parametrize("where", [None, *PADDINGS])
def test_the_context_vector_reads_real_positions_only(where: str | None) -> None:
    memory, last = torch.randn(3, 5, 4) - 3, torch.randn(3, 4)  # negative: a maximum with zeros would show
    mask = None if where is None else padding_mask(where, [3, 5, 1], 5).bool()
    rows = [m if mask is None else m[mask[i]] for i, m in enumerate(memory)]
    torch.testing.assert_close(
        context_vector("mean", memory, mask, last), torch.stack([sum(row) / len(row) for row in rows])
    )
    torch.testing.assert_close(
        context_vector("max", memory, mask, last), torch.stack([row.max(dim=0).values for row in rows])
    )
    assert context_vector("last", memory, mask, last) is last


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_the_context_of_a_source_of_padding_only_is_zero(kind: str) -> None:
    context = context_vector(kind, torch.zeros(2, 3, 4), torch.tensor([[0, 0, 0], [0, 1, 0]]) > 0, torch.zeros(2, 4))
    assert (context[0] == 0).all() and torch.isfinite(context).all()


@pytest.mark.parametrize(
    ("encoder_layers", "decoder_layers", "sources"),
    [(2, 2, [0, 1]), (4, 2, [2, 3]), (1, 3, [0, 0, 0]), (2, 4, [0, 0, 0, 1])],
)
@pytest.mark.parametrize("has_cell", [False, True], ids=["h", "h_and_c"])
def test_layers_are_matched_from_the_top(
    encoder_layers: int, decoder_layers: int, sources: list[int], has_cell: bool
) -> None:
    bridge = Bridge("copy", "last", 4, 4, encoder_layers, decoder_layers, has_cell)
    finals = finals_of(encoder_layers, has_cell)
    first = bridge(finals[-1][0], finals)
    assert len(first) == decoder_layers
    for state, source in zip(first, sources, strict=True):
        for got, wanted in zip(state, finals[source], strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("context_kind", ["last", "mean"])
@pytest.mark.parametrize("has_cell", [False, True], ids=["h", "h_and_c"])
def test_projections_are_one_a_layer_and_tanh_bounds_h_only(kind: str, context_kind: str, has_cell: bool) -> None:
    bridge = Bridge(kind, context_kind, 4, 3, 2, 2, has_cell)
    randomize(bridge, scale=2.0)
    finals, context = finals_of(2, has_cell), torch.randn(2, 4)
    first = bridge(context, finals if context_kind == "last" else None)
    for layer, state in enumerate(first):
        source = finals[layer] if context_kind == "last" else (context, context)
        projection = bridge.hidden_projections[layer]
        hidden = source[0] @ projection.weight.T + projection.bias
        torch.testing.assert_close(state[0], torch.tanh(hidden) if kind == "mlp" else hidden)
        if has_cell:
            projection = bridge.cell_projections[layer]
            torch.testing.assert_close(state[1], source[1] @ projection.weight.T + projection.bias)
        assert len(state) == 1 + has_cell


@pytest.mark.parametrize("has_cell", [False, True], ids=["h", "h_and_c"])
def test_copying_a_pooled_context_starts_every_layer_from_it_and_cells_from_zero(has_cell: bool) -> None:
    context = torch.randn(2, 4)
    for state in Bridge("copy", "max", 4, 4, 1, 2, has_cell)(context, None):
        torch.testing.assert_close(state[0], context)
        assert all((cell == 0).all() for cell in state[1:]) and len(state) == 1 + has_cell


@pytest.mark.parametrize("has_cell", [False, True], ids=["h", "h_and_c"])
def test_the_zero_bridge_has_no_parameters_and_reads_nothing(has_cell: bool) -> None:
    bridge = Bridge("zeros", "last", 4, 3, 2, 2, has_cell)
    first = bridge(torch.full((2, 4), float("nan")), None)
    assert list(bridge.parameters()) == []
    assert [[part.shape for part in state] for state in first] == [[(2, 3)] * (1 + has_cell)] * 2
    assert all((part == 0).all() for state in first for part in state)
