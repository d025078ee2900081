"""Recurrent cells and stacks: one set of parameters, run fused over a whole sequence or one step at a time.

LSTM: Hochreiter & Schmidhuber 1997 with forget gate (Gers 2000). GRU: Cho 2014 in torch's variant. Elman: rnn_tanh.
Parameters carry torch's names, shapes and gate order, so a state dict of `nn.LSTM`, `nn.GRU` or `nn.RNN` loads as it
is. There is no `nn.LSTM` module here on purpose: torch.compile refuses it, and it repacks its weights at every call.
This file travels to the Hub: it imports only the standard library, torch and transformers.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .checks import check_recurrence, check_stack
from .fast import is_dense, is_traced, may_look, replaceable
from .fast_lookup import Lookup, lookup_of
from .fast_recurrence import Packing, run_packed
from .subsampling import reduced_mask, stack_frames


# The state of one layer: (h, c) for the LSTM, (h,) for the others; each tensor is (B, H).
LayerState = tuple[Tensor, ...]

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1}  # torch's order: i, f, g, o and r, z, n
_FUSED: dict[str, Callable[..., Any]] = {"lstm": torch.lstm, "gru": torch.gru, "rnn_tanh": torch.rnn_tanh}
# Far beyond where a sigmoid saturates to exactly 0 or 1, and still representable in half precision.
_SATURATION = 1e4

# The equations of a step. They stand in four places: whoever changes one here changes `_Layer` of decoder_step.py
# (greedy and beam search), the step and its backward pass in packed.py (training on the CPU), torch's fused kernels
# (`_FUSED`: whole sequences elsewhere), and for an export `_OPERATOR` of the package's export.py.


def lstm_step(x_gates: Tensor, state: LayerState, weight_hh: Tensor, bias_hh: Tensor) -> LayerState:
    """c' = f * c + i * g, h' = o * tanh(c'); i f g o = W_ih x + W_hh h + b, `x_gates` is W_ih x + b_ih, (B, 4H)."""
    h, c = state
    i, f, g, o = (x_gates + F.linear(h, weight_hh, bias_hh)).chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(x_gates: Tensor, state: LayerState, weight_hh: Tensor, bias_hh: Tensor) -> LayerState:
    """h' = (1 - z) * n + z * h, n = tanh(W_in x + b_in + r * (W_hn h + b_hn)). `x_gates` is W_ih x + b_ih, (B, 3H)."""
    (h,) = state
    x_r, x_z, x_n = x_gates.chunk(3, dim=-1)
    h_r, h_z, h_n = F.linear(h, weight_hh, bias_hh).chunk(3, dim=-1)
    z = (x_z + h_z).sigmoid()
    n = (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
    return (n + z * (h - n),)


def rnn_tanh_step(x_gates: Tensor, state: LayerState, weight_hh: Tensor, bias_hh: Tensor) -> LayerState:
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh). `x_gates` is W_ih x + b_ih, (B, H)."""
    return ((x_gates + F.linear(state[0], weight_hh, bias_hh)).tanh(),)


STEPS: dict[str, Callable[..., LayerState]] = {"lstm": lstm_step, "gru": gru_step, "rnn_tanh": rnn_tanh_step}


class Padding(NamedTuple):
    """
    Where the real positions of a batch are, for running over them as if there were no padding.

    A sequence is first made compact: its real positions move to the left, in order. Then padding, wherever it was,
    only trails, and a recurrence has passed all real positions before it meets any.
    """

    mask: Tensor  # (B, S) bool, True at real positions, as given
    order: Tensor  # (B, S) original index of each compact position
    restore: Tensor  # (B, S) compact index of each original position
    reverse: Tensor  # (B, S) compact index of the mirrored position; its own inverse
    lengths: Tensor  # (B,) number of real positions

    @classmethod
    def from_mask(cls, mask: Tensor) -> "Padding":
        """Of a mask (B, S), non-zero at real positions."""
        mask = mask.bool()
        lengths = mask.sum(1)
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
        position = torch.arange(mask.shape[1], device=mask.device)[None]
        mirrored = lengths[:, None] - 1 - position
        return cls(mask, order, order.argsort(dim=1), torch.where(mirrored >= 0, mirrored, position), lengths)

    @property
    def trailing(self) -> Tensor:
        """(B, S) True where a compact sequence is over."""
        return torch.arange(self.mask.shape[1], device=self.mask.device)[None] >= self.lengths[:, None]

    def real_share(self) -> float:
        """How many of the positions are real, from 0 to 1; 0 where it cannot be known, or not for free."""
        return 0.0 if is_traced() or self.mask.device.type != "cpu" else float(self.mask.float().mean())

    def compact(self, x: Tensor) -> Tensor:
        """Real positions of x (B, S, D) to the left, zeros behind them (so that a NaN in the padding goes nowhere)."""
        return _take(x.masked_fill(~self.mask[..., None], 0), self.order)

    def spread(self, x: Tensor) -> Tensor:
        """The inverse of `compact`: every position back to its place, zeros at padding."""
        return _take(x, self.restore).masked_fill(~self.mask[..., None], 0)

    def last(self, x: Tensor, empty: Tensor) -> Tensor:
        """The vector of each compact sequence's last position, (B, D); of `empty` where there is none."""
        index = (self.lengths - 1).clamp(min=0)[:, None]
        return torch.where(self.lengths[:, None] > 0, _take(x, index).squeeze(1), empty)


def padding_of(mask: Tensor | None) -> Padding | None:
    """The padding of a mask (B, S), or None where there is none (looked up only where looking is free)."""
    if mask is None:
        return None
    if not is_traced() and mask.device.type == "cpu" and bool(mask.all()):
        return None
    return Padding.from_mask(mask)


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def packing_of(x: Tensor, padding: Padding | None) -> Packing | None:
    """The packing of a batch x (B, S, D), or None where the packed run cannot be: it is plain torch on the CPU."""
    plain = type(x) is Tensor and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    if is_traced() or not plain or torch.is_autocast_enabled("cpu"):
        return None
    if padding is not None:
        return Packing.of_positions(padding.order, padding.lengths)
    batch, length = x.shape[:2]
    return Packing.of_positions(torch.arange(length).expand(batch, length), torch.full((batch,), length))


class StackOutput(NamedTuple):
    """The top layer's outputs (B, S, D), or (B, D) of a step; each layer's final state; each layer's outputs."""

    output: Tensor
    states: tuple[LayerState, ...]
    layer_outputs: tuple[Tensor, ...]


class KnownInput(NamedTuple):
    """The part of the first layer's input that no step has to wait for."""

    gates: Tensor  # (B, gates * H) W_ih x + b_ih of the columns known, at one step
    weight: Tensor  # (gates * H, I'') the columns of W_ih for the others


@replaceable("_run_direction")
class RecurrentLayer(GradientCheckpointingLayer):
    """
    One layer over a whole sequence, in one direction or two, with activation checkpointing where that is enabled.

    It owns no parameters: they are the stack's, under torch's names.
    """

    def __init__(self, rnn_type: str, recurrent_dropout: float):
        super().__init__()
        self.rnn_type = rnn_type
        self.recurrent_dropout = recurrent_dropout

    def forward(
        self,
        x: Tensor,
        *state: Tensor,
        weights: list[tuple[Tensor, Tensor, Tensor, Tensor]],
        padding: Padding | Packing | None,
    ) -> tuple[Tensor, ...]:
        """
        Tensors come and go one by one, not in a tuple: reentrant checkpointing drops the gradients of those.

        Args:
            x: (B, S, I) compact inputs; (N, I) packed ones.
            state: First state, (B, D) a tensor.
            weights: (W_ih, W_hh, b_ih, b_hh) of each direction.
            padding: Where x is padding, or None. A packing: how x is packed.

        Returns:
            Outputs (B, S, D), or (N, D) packed, and the final state, (B, D) a tensor.
        """
        check_recurrence(x, len(padding.order) if isinstance(padding, Packing) else x.shape[0], state, weights)
        results = []
        for i, direction_weights in enumerate(weights):
            first = tuple(s.chunk(len(weights), dim=-1)[i] for s in state)
            if isinstance(padding, Packing):
                y, final = run_packed(self.rnn_type, x, first, direction_weights, padding, backwards=i == 1)
            else:
                y, final = self._run_direction(_mirror(x, padding) if i else x, first, direction_weights, padding)
                y = _mirror(y, padding) if i else y
            results.append((y, *final))
        return results[0] if len(results) == 1 else tuple(torch.cat(parts, dim=-1) for parts in zip(*results))

    def _run_direction(
        self, x: Tensor, first: LayerState, weights: tuple[Tensor, Tensor, Tensor, Tensor], padding: Padding | None
    ) -> tuple[Tensor, LayerState]:
        w_ih, w_hh, b_ih, b_hh = weights
        drops = self.training and self.recurrent_dropout > 0
        # The fused kernels know no other kinds of tensors (quantised weights); a product with them always works.
        if drops or not (is_traced() or all(map(is_dense, weights))):
            recurrent_mask = F.dropout(torch.ones_like(first[0]), self.recurrent_dropout) if drops else None
            trailing = None if padding is None else padding.trailing
            return _run_stepwise(self.rnn_type, F.linear(x, w_ih, b_ih), first, w_hh, b_hh, trailing, recurrent_mask)
        if padding is not None and self.rnn_type == "lstm":
            # h at the last real position can be gathered from the outputs, the cell cannot: one more input column, 1
            # at padding, closes the input gate and opens the forget gate there, and the cell passes it unchanged.
            x = torch.cat([x, padding.trailing[..., None].to(x.dtype)], dim=-1)
            column = w_ih.new_zeros(4, w_hh.shape[1])
            column[0], column[1] = -_SATURATION, _SATURATION
            w_ih = torch.cat([w_ih, column.view(-1, 1)], dim=1)
        hx = [s.unsqueeze(0).contiguous() for s in first]
        fused = _FUSED[self.rnn_type]
        # has_biases, num_layers, dropout, train (cuDNN keeps what backward needs), bidirectional, batch_first
        options = (True, 1, 0.0, torch.is_grad_enabled(), False, True)
        y, *final = fused(x, hx if len(hx) == 2 else hx[0], [w_ih, w_hh, b_ih, b_hh], *options)
        final = tuple(s.squeeze(0) for s in final)
        if padding is not None:
            final = (padding.last(y, empty=first[0]), *final[1:])
        return y, final


@replaceable(
    *("weights", "zero_states", "lookup", "step", "step_from_gates", "know_input", "_packing", "_hand_upward")
)
class RecurrentStack(nn.Module):
    """
    Recurrent layers on top of each other, with the state dict of `nn.LSTM` / `nn.GRU` / `nn.RNN`.

    Args:
        rnn_type (`str`): `"lstm"`, `"gru"` or `"rnn_tanh"`.
        input_size (`int`): Size of an input vector; may be 0 (a decoder that reads nothing).
        hidden_size (`int`): Size of an output vector, both directions together.
        num_layers (`int`): L.
        bidirectional (`bool`): A second recurrence in each layer reads from the end.
        dropout (`float`): Between layers.
        recurrent_dropout (`float`): Variational dropout of h_{t-1}, in training; takes the step-by-step path.
        layer_norm, residual (`bool`): On what a layer hands upward; see the configuration.
        reductions (`tuple[int, ...]`, *optional*): How many consecutive inputs each layer reads as one (Chan 2016).
        norm_top (`bool`): Whether the top layer has a `layer_norm`; where only its last states are read, it has none.
    """

    def __init__(
        self,
        rnn_type: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        layer_norm: bool = False,
        residual: bool = False,
        reductions: tuple[int, ...] | None = None,
        norm_top: bool = True,
    ):
        super().__init__()
        self.rnn_type = rnn_type
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.suffixes = ("", "_reverse") if bidirectional else ("",)
        self.cell_size = hidden_size // len(self.suffixes)
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.residual = residual
        self.reductions = reductions or (1,) * num_layers
        self.layers = nn.ModuleList(RecurrentLayer(rnn_type, recurrent_dropout) for _ in range(num_layers))
        rows = GATES[rnn_type] * self.cell_size
        for k in range(num_layers):
            for suffix in self.suffixes:
                columns = (input_size if k == 0 else hidden_size) * self.reductions[k]
                self.register_parameter(f"weight_ih_l{k}{suffix}", nn.Parameter(torch.empty(rows, columns)))
                self.register_parameter(f"weight_hh_l{k}{suffix}", nn.Parameter(torch.empty(rows, self.cell_size)))
                self.register_parameter(f"bias_ih_l{k}{suffix}", nn.Parameter(torch.empty(rows)))
                self.register_parameter(f"bias_hh_l{k}{suffix}", nn.Parameter(torch.empty(rows)))
        norms = (num_layers if norm_top else num_layers - 1) if layer_norm else 0
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(norms))

    def extra_repr(self) -> str:
        return f"{self.rnn_type}, hidden_size={self.hidden_size}, num_layers={self.num_layers}"

    def weights(self, layer: int, suffix: str = "") -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(W_ih, W_hh, b_ih, b_hh) of one layer and direction."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w_ih, w_hh, b_ih, b_hh = (getattr(self, f"{name}_l{layer}{suffix}") for name in names)
        return w_ih, w_hh, b_ih, b_hh

    def zero_states(self, like: Tensor) -> tuple[LayerState, ...]:
        """The states before the first position, for the batch and dtype of `like` (B, ...)."""
        zero = like.new_zeros(like.shape[0], self.hidden_size)
        return ((zero,) * (2 if self.rnn_type == "lstm" else 1),) * self.num_layers

    def lookup(self, ids: Tensor, embedding: nn.Module) -> Lookup | None:
        """In training, of inputs (B, S, I) that begin with `embedding(ids)`; None where it saves nothing."""
        if not (self.training and torch.is_grad_enabled()) or self.reductions[0] > 1:
            return None
        if self.layers[0].gradient_checkpointing:  # reentrant, it wants inputs that have gradients
            return None
        return lookup_of(ids, embedding, [self.weights(0, suffix)[0] for suffix in self.suffixes])

    def forward(
        self,
        x: Tensor,
        states: tuple[LayerState, ...] | None = None,
        padding: Padding | None = None,
        lookup: Lookup | None = None,
        recurrent_masks: tuple[Tensor, ...] | None = None,
    ) -> StackOutput:
        """
        Run over a whole sequence, in fused kernels where possible; or make one step.

        Both are a call of the module, so that whatever waits for that (offloaded, pruned, adapted weights) sees it.

        Args:
            x: (B, S, I) inputs; (B, I) of one step.
            states: First states of the layers, (B, D) each; zeros if absent.
            padding: Where x is padding: those positions are passed over and come out as zeros. None: nowhere.
            lookup: Of x, where it has one.
            recurrent_masks: As in `step`, of one step.

        Returns:
            Outputs (B, S, D); of a layer that reduces, and of those above it, shorter: real positions to the left.
        """
        states = self.zero_states(x) if states is None else states
        check_stack(x, states, self.num_layers, self.hidden_size, None if padding is None else padding.mask)
        if x.dim() == 2:
            return self.step(x, states, recurrent_masks)
        all_weights = [[self.weights(k, suffix) for suffix in self.suffixes] for k in range(self.num_layers)]
        dense = all(is_dense(weight) for layer in all_weights for direction in layer for weight in direction)
        packs = dense and may_look(self.layers)
        if lookup is not None:
            x = lookup.inputs(x)
        packing = self._packing(x, padding) if packs else None
        places = padding if packing is None else packing
        if places is not None:
            x = places.compact(x)
        final_states, layer_outputs = [], []
        for k in range(self.num_layers):
            if k > 0:
                x = F.dropout(x, self.dropout, self.training)
            if self.reductions[k] > 1:
                if packing is not None:
                    x = packing.spread(x) if padding is None else padding.compact(packing.spread(x))
                if padding is not None:
                    # What a group lacks at the end of its sequence is zero, as at the end of the batch.
                    x = x.masked_fill(padding.trailing[..., None], 0)
                    padding = Padding.from_mask(reduced_mask(padding.mask, self.reductions[k]))
                x = stack_frames(x, self.reductions[k])
                packing = self._packing(x, padding) if packs else None
                places = padding if packing is None else packing
                if packing is not None:
                    x = packing.compact(x)
            weights = all_weights[k]
            if k == 0 and lookup is not None:
                weights = [(lookup.weight(i, of[0]), *of[1:]) for i, of in enumerate(weights)]
            y, *state = self.layers[k](x, *states[k], weights=weights, padding=places)
            x = self._hand_upward(k, x, y)
            final_states.append(tuple(state))
            layer_outputs.append(x if places is None else places.spread(x))
        return StackOutput(layer_outputs[-1], tuple(final_states), tuple(layer_outputs))

    def _packing(self, x: Tensor, padding: Padding | None) -> Packing | None:
        """
        Packed, the processor passes no padding, and the GRU takes half as long as in torch, which has no fused kernel
        for it. The LSTM has one, oneDNN's: a row of it takes two thirds of the time of a packed one.
        """
        if self.training and self.recurrent_dropout > 0:
            return None
        if self.rnn_type == "lstm" and (padding is None or padding.real_share() > 0.7):
            return None
        return packing_of(x, padding)

    def step(
        self,
        x: Tensor,
        states: tuple[LayerState, ...],
        recurrent_masks: tuple[Tensor, ...] | None = None,
    ) -> StackOutput:
        """
        One step of all layers (one direction only): the decoder's recurrence. `forward` calls it.

        Args:
            x: (B, I) input.
            states: States of the layers before the step.
            recurrent_masks: Of `draw_recurrent_masks()`, the same ones at each step of a sequence.

        Returns:
            Outputs (B, H) and the states after the step.
        """
        check_stack(x, states, self.num_layers, self.hidden_size)
        w_ih, _, b_ih, _ = self.weights(0)
        return self.step_from_gates(F.linear(x, w_ih, b_ih), states, recurrent_masks)

    def step_from_gates(
        self, x_gates: Tensor, states: tuple[LayerState, ...], recurrent_masks: tuple[Tensor, ...] | None = None
    ) -> StackOutput:
        """The same of W_ih x + b_ih of the first layer, (B, gates * H), where a part of it was known before."""
        x, new_states, layer_outputs = x_gates, [], []
        for k in range(self.num_layers):
            w_ih, w_hh, b_ih, b_hh = self.weights(k)
            if k > 0:
                x = F.dropout(x, self.dropout, self.training)
                x_gates = F.linear(x, w_ih, b_ih)
            state = states[k]
            if recurrent_masks is not None:
                state = (state[0] * recurrent_masks[k], *state[1:])
            state = STEPS[self.rnn_type](x_gates, state, w_hh, b_hh)
            x = self._hand_upward(k, x, state[0])
            new_states.append(state)
            layer_outputs.append(x)
        return StackOutput(x, tuple(new_states), tuple(layer_outputs))

    def know_input(self, x: Tensor, lookup: Lookup | None = None) -> list[KnownInput]:
        """For each step, what is known of its input before any step is made: the first columns, x (B, T, I')."""
        w_ih, _, b_ih, _ = self.weights(0)
        first, last = w_ih.split([x.shape[-1], w_ih.shape[1] - x.shape[-1]], dim=1)
        if lookup is not None:
            x, first = lookup.inputs(x), lookup.weight(0, first)
        return [KnownInput(gates, last) for gates in F.linear(x, first, b_ih).unbind(1)]

    def _hand_upward(self, k: int, x: Tensor, y: Tensor) -> Tensor:
        """What layer k gives to the layer above it, from its input x and its recurrence's output y."""
        if self.residual and k > 0 and self.reductions[k] == 1:
            y = y + x
        return self.norms[k](y) if k < len(self.norms) else y

    def reset_parameters(self, scheme: str = "orthogonal") -> None:
        """`"orthogonal"`: recurrent matrices so and input matrices Xavier, gate by gate, biases 0, the forget bias 1.
        `"torch"`: all uniform up to `cell_size ** -0.5`."""
        for name, parameter in self.named_parameters(recurse=False):
            # transformers marks what it has loaded from a checkpoint; it must not be overwritten.
            if getattr(parameter, "_is_hf_initialized", False):
                continue
            with torch.no_grad():
                if scheme == "torch":
                    parameter.uniform_(-(self.cell_size**-0.5), self.cell_size**-0.5)
                    continue
                if name.startswith("bias"):
                    parameter.zero_()
                    if self.rnn_type == "lstm" and name.startswith("bias_ih"):
                        parameter[self.cell_size : 2 * self.cell_size] = 1.0
                    continue
                for gate in parameter.chunk(GATES[self.rnn_type]):
                    if name.startswith("weight_hh"):
                        nn.init.orthogonal_(gate)
                    elif gate.numel():
                        bound = math.sqrt(6.0 / sum(gate.shape))
                        gate.uniform_(-bound, bound)


def draw_recurrent_masks(like: Tensor, size: int, layers: int, dropout: float) -> tuple[Tensor, ...] | None:
    """
    Dropout masks of a whole sequence (Gal & Ghahramani 2016), (B, H) for each of L layers; None without dropout.

    Args:
        like: (B, ...).
        size: H.
        layers: L.
        dropout: Probability; 0 outside of training.
    """
    return tuple(F.dropout(like.new_ones(like.shape[0], size), dropout) for _ in range(layers)) if dropout else None


def _mirror(x: Tensor, padding: Padding | None) -> Tensor:
    """The compact sequences of x (B, S, D) read from their ends; trailing padding stays where it is."""
    return x.flip(1) if padding is None else _take(x, padding.reverse)


def _run_stepwise(
    rnn_type: str,
    x_gates: Tensor,
    state: LayerState,
    weight_hh: Tensor,
    bias_hh: Tensor,
    trailing: Tensor | None,
    recurrent_mask: Tensor | None,
) -> tuple[Tensor, LayerState]:
    """The plain loop over x_gates (B, S, gates * H): what the fused kernels compute, and what they cannot."""
    outputs = []
    for t in range(x_gates.shape[1]):
        before = state if recurrent_mask is None else (state[0] * recurrent_mask, *state[1:])
        after = STEPS[rnn_type](x_gates[:, t], before, weight_hh, bias_hh)
        if trailing is not None:
            after = tuple(torch.where(trailing[:, t, None], old, new) for old, new in zip(state, after))
        state = after
        outputs.append(state[0])
    return torch.stack(outputs, dim=1), state
