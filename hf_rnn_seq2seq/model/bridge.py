"""From the encoder to the decoder: the fixed-size context vector C, and the decoder's first state.

C is the last state (Sutskever 2014, Cho 2014), the mean or the maximum over all states. The bridge maps the encoder's
final states, layer by layer, to the decoder's first ones.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .fast import replaceable
from .recurrence import LayerState


def last_output(memory: Tensor, mask: Tensor | None, bidirectional: bool) -> Tensor:
    """
    Return what the encoder's top layer hands upward last, (B, D), of its outputs (B, S, D) under a mask (B, S): the
    forward half of the last position, the backward half of the first one. This is the layer's last state where there
    is neither `layer_norm` nor `residual`.
    """
    first, last = memory[:, 0], memory[:, -1]  # (B, D) each
    if mask is not None:
        position = torch.arange(memory.shape[1], device=memory.device)[None]  # (1, S)
        rows = torch.arange(memory.shape[0], device=memory.device)  # (B,)
        first = memory[rows, torch.where(mask, position, memory.shape[1] - 1).amin(1)]
        last = memory[rows, torch.where(mask, position, 0).amax(1)]
    if not bidirectional:
        return last
    half = memory.shape[2] // 2
    return torch.cat([last[:, :half], first[:, half:]], dim=1)


def context_vector(kind: str, memory: Tensor, mask: Tensor | None, last: Tensor) -> Tensor:
    """
    Compute the fixed-size context vector C, (B, D), zero for a source without any real position: the `"last"` state or
    output (B, D) of the encoder's top layer, or the `"mean"` or `"max"` over its memory (B, S, D) under a mask (B, S).
    """
    if kind == "last":
        return last
    if mask is None:
        return memory.mean(1) if kind == "mean" else memory.amax(1)
    mask = mask.unsqueeze(-1)  # (B, S, 1)
    count = mask.sum(1)  # (B, 1)
    if kind == "mean":
        return memory.masked_fill(~mask, 0).sum(1) / count.clamp(min=1).to(memory.dtype)
    peak = memory.masked_fill(~mask, torch.finfo(memory.dtype).min).amax(1)  # (B, D)
    return torch.where(count > 0, peak, torch.zeros_like(peak))


def final_states(config: Any, encoder_outputs: Any, mask: Tensor | None) -> tuple[LayerState, ...]:
    """Return the last states of the encoder's layers; of a plain `BaseModelOutput` where its memory has them."""
    last = "final_cell" if config.rnn_type == "lstm" else "final_hidden"
    if getattr(encoder_outputs, "final_hidden", None) is not None and getattr(encoder_outputs, last) is not None:
        states: tuple[LayerState, ...] = encoder_outputs.final_states
        return states
    if config.rnn_type == "lstm" or config.encoder_layers > 1 or config.layer_norm:
        raise ValueError(
            "encoder_outputs has no final_hidden (and final_cell), of which the decoder's first state is made: "
            f"pass what model.get_encoder()(...) returns, got {type(encoder_outputs).__name__}"
        )
    return ((last_output(encoder_outputs.last_hidden_state, mask, config.bidirectional_encoder),),)


@replaceable()
class Bridge(nn.Module):
    """
    The decoder's first state from the encoder's final states.

    With context_vector "last", decoder layer k starts from the final state of the encoder's layer at the same distance
    from the top (or its lowest layer): h from h, and for the LSTM c from c. With "mean" or "max" every layer starts
    from C, and copied cells start from zero.

    Args:
        bridge_type (`str`): As in the configuration. `"mlp"` leaves the cell state linear: cells are not bounded.
        context_kind (`str`): `context_vector` of the configuration.
        has_cell (`bool`): Whether a layer's state is (h, c).
    """

    hidden_projections: nn.ModuleList
    cell_projections: nn.ModuleList

    def __init__(
        self,
        bridge_type: str,
        context_kind: str,
        encoder_size: int,
        decoder_size: int,
        encoder_layers: int,
        decoder_layers: int,
        has_cell: bool,
    ):
        super().__init__()
        self.bridge_type, self.context_kind, self.has_cell = bridge_type, context_kind, has_cell
        self.decoder_size = decoder_size
        self.source_layers = [max(0, encoder_layers - decoder_layers + k) for k in range(decoder_layers)]
        if bridge_type in ("linear", "mlp"):
            for part in ("hidden", "cell")[: 1 + has_cell]:
                layers = nn.ModuleList(nn.Linear(encoder_size, decoder_size) for _ in range(decoder_layers))
                self.add_module(f"{part}_projections", layers)

    def forward(self, context: Tensor, final_states: tuple[LayerState, ...] | None) -> tuple[LayerState, ...]:
        """
        Return the first state of each decoder layer, (B, H) tensors, of C (B, D) or, with context_vector "last", of
        each encoder layer's final state, (B, D) tensors: tanh(W h_1) of Bahdanau 2015, appendix A.2.2, and what others
        have in its place.
        """
        zero = context.new_zeros(context.shape[0], self.decoder_size)  # (B, H)
        first_states = []
        for k, source_layer in enumerate(self.source_layers):
            state = (context, context)[: 1 + self.has_cell]  # (B, D) each
            if self.bridge_type == "zeros":
                state = (zero, zero)[: 1 + self.has_cell]
            elif self.context_kind == "last":
                state = final_states[source_layer]
            elif self.bridge_type == "copy":
                state = (context, zero)[: 1 + self.has_cell]
            if self.bridge_type in ("linear", "mlp"):
                hidden, *cell = state
                hidden = self.hidden_projections[k](hidden)  # (B, H)
                hidden = hidden.tanh() if self.bridge_type == "mlp" else hidden
                state = (hidden, *(self.cell_projections[k](part) for part in cell))
            first_states.append(state)
        return tuple(first_states)
