"""From the encoder to the decoder: the fixed-size context vector C, and the decoder's first state.

C is the last state (Sutskever 2014, Cho 2014), the mean or the maximum over all states. The bridge maps the encoder's
final states, layer by layer, to the decoder's first ones.
"""

import torch
from torch import Tensor, nn

from .fast import replaceable
from .recurrence import LayerState


def last_output(memory: Tensor, mask: Tensor | None, bidirectional: bool) -> Tensor:
    """
    Return what the encoder's top layer hands upward last, (B, D): its forward half of the last position, its backward
    half of the first one. This is the layer's last state where there is neither `layer_norm` nor `residual`.

    Args:
        memory: (B, S, D) outputs of the encoder's top layer, zero at padding.
        mask: (B, S) bool, True at real positions, or None.
        bidirectional: Whether half of a vector is of the direction that reads from the end.
    """
    length = memory.shape[1]
    if mask is None:
        first, last = memory[:, 0], memory[:, -1]  # (B, D) each
    else:
        position = torch.arange(length, device=memory.device)[None]  # (1, S)
        rows = torch.arange(memory.shape[0], device=memory.device)
        first = memory[rows, torch.where(mask, position, length - 1).amin(1)]
        last = memory[rows, torch.where(mask, position, 0).amax(1)]
    if not bidirectional:
        return last
    half = memory.shape[2] // 2
    return torch.cat([last[:, :half], first[:, half:]], dim=1)


def context_vector(kind: str, memory: Tensor, mask: Tensor | None, last: Tensor) -> Tensor:
    """
    Compute the fixed-size context vector C.

    Args:
        kind: `"last"`, `"mean"` or `"max"`.
        memory: (B, S, D) states of the encoder's top layer.
        mask: (B, S) bool, True at real positions, or None.
        last: (B, D) last state or last output of the top layer: [last forward ; last backward].

    Returns:
        C, (B, D). For a source without any real position it is zero.
    """
    if kind == "last":
        return last
    if mask is None:
        return memory.mean(1) if kind == "mean" else memory.amax(1)
    mask = mask.unsqueeze(-1)  # (B, S, 1)
    count = mask.sum(1)  # (B, 1)
    if kind == "mean":
        return memory.masked_fill(~mask, 0).sum(1) / count.clamp(min=1).to(memory.dtype)
    peak = memory.masked_fill(~mask, torch.finfo(memory.dtype).min).amax(1)
    return torch.where(count > 0, peak, torch.zeros_like(peak))


@replaceable()
class Bridge(nn.Module):
    """
    The decoder's first state from the encoder's final states.

    With context_vector "last", decoder layer k starts from the final state of the encoder's layer at the same distance
    from the top (or its lowest layer): h from h, and for the LSTM c from c. With "mean" or "max" every layer starts
    from C, and copied cells start from zero.

    Args:
        bridge_type (`str`): `"zeros"`, `"copy"`, `"linear"`, or `"mlp"`: tanh of linear (the cell state stays linear,
            as cells are not bounded).
        context_kind (`str`): `"last"`, `"mean"` or `"max"`.
        has_cell (`bool`): Whether a layer's state is (h, c).
    """

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
        self.bridge_type = bridge_type
        self.context_kind = context_kind
        self.decoder_size = decoder_size
        self.decoder_layers = decoder_layers
        self.source_layers = [max(0, encoder_layers - decoder_layers + k) for k in range(decoder_layers)]
        self.has_cell = has_cell
        if bridge_type in ("linear", "mlp"):
            self.hidden_projections = nn.ModuleList(
                nn.Linear(encoder_size, decoder_size) for _ in range(decoder_layers)
            )
            if has_cell:
                self.cell_projections = nn.ModuleList(
                    nn.Linear(encoder_size, decoder_size) for _ in range(decoder_layers)
                )

    def forward(self, context: Tensor, final_states: tuple[LayerState, ...] | None) -> tuple[LayerState, ...]:
        """
        Make the first states: tanh(W h_1) of Bahdanau 2015, appendix A.2.2, and what others have in its place.

        Args:
            context: C, (B, D).
            final_states: Of each encoder layer, (B, D) tensors; only read with context_vector "last".

        Returns:
            The first state of each decoder layer, (B, H) tensors.
        """
        zero = context.new_zeros(context.shape[0], self.decoder_size)
        if self.bridge_type == "zeros":
            return ((zero, zero) if self.has_cell else (zero,),) * self.decoder_layers
        first_states = []
        for k, source_layer in enumerate(self.source_layers):
            if self.context_kind == "last":
                source = final_states[source_layer]
            else:
                source = (context, context) if self.has_cell else (context,)
            if self.bridge_type == "copy":
                state = source if self.context_kind == "last" else (context, *([zero] * self.has_cell))
            else:
                hidden = self.hidden_projections[k](source[0])  # (B, H)
                state = (hidden.tanh() if self.bridge_type == "mlp" else hidden,)
                if self.has_cell:
                    state = (*state, self.cell_projections[k](source[1]))
            first_states.append(state)
        return tuple(first_states)
