"""Recurrent cells and stacks: one set of parameters, run over a whole sequence or one step at a time.

LSTM: Hochreiter & Schmidhuber 1997 with forget gate (Gers 2000). GRU: Cho 2014 in torch's variant. Elman: rnn_tanh.
Parameters carry torch's names, shapes and gate order, so a state dict of `nn.LSTM`, `nn.GRU` or `nn.RNN` loads as it
is. There is no `nn.LSTM` module here on purpose: torch.compile refuses it, and it repacks its weights at every call.
B batch, S length, I input, D output, H hidden of one direction, G gates * H.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .checks import check_recurrence
from .fast import replaceable, run_direction, run_layers
from .padding import Padding
from .subsampling import reduced_mask, stack_frames


# The state of one layer: (h, c) for the LSTM, (h,) for the others; each tensor is (B, H).
LayerState = tuple[Tensor, ...]
Weights = tuple[Tensor, Tensor, Tensor, Tensor]  # W_ih (G, I), W_hh (G, H), b_ih and b_hh (G,)

_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1}  # torch's order: i, f, g, o and r, z, n

# The equations of a step: what `plain()` computes, everywhere. They stand in three more places, which a change here
# does not reach: `_Layer` of fast_step.py (searches), fast_recurrence.py (training on the CPU; torch's kernels, for
# whole sequences elsewhere), and for an export `_OPERATOR` of the package's export.py.


def lstm_step(x_gates: Tensor, state: LayerState, weight_hh: Tensor, bias_hh: Tensor) -> LayerState:
    """c' = f * c + i * g, h' = o * tanh(c'); i f g o = W_ih x + W_hh h + b, `x_gates` is W_ih x + b_ih, (B, 4H)."""
    h, c = state  # (B, H) each, as all that follows
    i, f, g, o = (x_gates + F.linear(h, weight_hh, bias_hh)).chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(x_gates: Tensor, state: LayerState, weight_hh: Tensor, bias_hh: Tensor) -> LayerState:
    """h' = (1 - z) * n + z * h, n = tanh(W_in x + b_in + r * (W_hn h + b_hn)). `x_gates` is W_ih x + b_ih, (B, 3H)."""
    (h,) = state  # (B, H), as all that follows
    x_r, x_z, x_n = x_gates.chunk(3, dim=-1)
    h_r, h_z, h_n = F.linear(h, weight_hh, bias_hh).chunk(3, dim=-1)
    z = (x_z + h_z).sigmoid()
    n = (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
    return (n + z * (h - n),)


def rnn_tanh_step(x_gates: Tensor, state: LayerState, weight_hh: Tensor, bias_hh: Tensor) -> LayerState:
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh). `x_gates` is W_ih x + b_ih, (B, H)."""
    return ((x_gates + F.linear(state[0], weight_hh, bias_hh)).tanh(),)


STEPS: dict[str, Callable[..., LayerState]] = {"lstm": lstm_step, "gru": gru_step, "rnn_tanh": rnn_tanh_step}


class StackOutput(NamedTuple):
    """The top layer's outputs (B, S, D), or (B, D) of a step; each layer's final state; each layer's outputs."""

    output: Tensor
    states: tuple[LayerState, ...]
    layer_outputs: tuple[Tensor, ...]


@replaceable("_run_direction")
class RecurrentLayer(GradientCheckpointingLayer):
    """A layer over a whole sequence, with activation checkpointing where that is on; its weights are the stack's."""

    def __init__(self, rnn_type: str, recurrent_dropout: float):
        super().__init__()
        self.rnn_type = rnn_type
        self.recurrent_dropout = recurrent_dropout

    def forward(
        self, x: Tensor, *state: Tensor, weights: list[Weights], padding: Padding | None
    ) -> tuple[Tensor, ...]:
        """
        Return outputs (B, S, D) and the final state, (B, D) a tensor, of compact x (B, S, I), the first state, and the
        weights of each direction.

        Tensors come and go one by one, not in a tuple: reentrant checkpointing drops the gradients of those.
        """
        w_ih, w_hh = weights[0][:2]
        check_recurrence(x, [state], w_hh.shape[1] * len(weights), w_ih.shape[1], name="the recurrence's state")
        results = []
        for i, direction_weights in enumerate(weights):
            first = tuple(s.chunk(len(weights), dim=-1)[i] for s in state)  # (B, H) each
            y, final = self._run_direction(_mirror(x, padding) if i else x, first, direction_weights, padding)
            results.append((_mirror(y, padding) if i else y, *final))  # (B, S, H), (B, H) each
        return results[0] if len(results) == 1 else tuple(torch.cat(parts, dim=-1) for parts in zip(*results))

    def _run_direction(
        self, x: Tensor, first: LayerState, weights: Weights, padding: Padding | None
    ) -> tuple[Tensor, LayerState]:
        sooner = run_direction(self, x, first, weights, padding)
        if sooner is not None:
            return sooner
        w_ih, w_hh, b_ih, b_hh = weights
        dropout = self.recurrent_dropout if self.training else 0.0
        masks = draw_recurrent_masks(x, first[0].shape[1], 1, dropout)  # (B, H)
        trailing = None if padding is None else padding.trailing  # (B, S)
        x_gates = F.linear(x, w_ih, b_ih)  # (B, S, G)
        return run_stepwise(self.rnn_type, x_gates, first, w_hh, b_hh, trailing, None if masks is None else masks[0])


@replaceable(*("weights", "all_weights", "zero_states", "step", "_run_layers", "_reduce", "_hand_upward"))
class RecurrentStack(nn.Module):
    """
    Recurrent layers on top of each other, with the state dict of `nn.LSTM` / `nn.GRU` / `nn.RNN`.

    Args:
        input_size (`int`): I; may be 0 (a decoder that reads nothing).
        hidden_size (`int`): D, both directions together.
        dropout (`float`): Between layers; `recurrent_dropout`, `layer_norm` and `residual` as in the configuration.
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
        self.rnn_type, self.hidden_size, self.num_layers = rnn_type, hidden_size, num_layers
        self.suffixes = ("", "_reverse") if bidirectional else ("",)
        self.cell_size = hidden_size // len(self.suffixes)
        self.dropout, self.recurrent_dropout, self.residual = dropout, recurrent_dropout, residual
        self.reductions = reductions or (1,) * num_layers
        self.layers = nn.ModuleList(RecurrentLayer(rnn_type, recurrent_dropout) for _ in range(num_layers))
        rows = GATES[rnn_type] * self.cell_size
        for k in range(num_layers):
            columns = (input_size if k == 0 else hidden_size) * self.reductions[k]
            for suffix in self.suffixes:
                for name, shape in zip(_WEIGHTS, ((rows, columns), (rows, self.cell_size), (rows,), (rows,))):
                    self.register_parameter(f"{name}_l{k}{suffix}", nn.Parameter(torch.empty(shape)))
        norms = (num_layers if norm_top else num_layers - 1) if layer_norm else 0
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(norms))

    def extra_repr(self) -> str:
        return f"{self.rnn_type}, hidden_size={self.hidden_size}, num_layers={self.num_layers}"

    def weights(self, layer: int, suffix: str = "") -> Weights:
        """Return (W_ih, W_hh, b_ih, b_hh) of one layer and direction."""
        w_ih, w_hh, b_ih, b_hh = (getattr(self, f"{name}_l{layer}{suffix}") for name in _WEIGHTS)
        return w_ih, w_hh, b_ih, b_hh

    def all_weights(self) -> list[list[Weights]]:
        """Return the weights of each layer's directions."""
        return [[self.weights(k, suffix) for suffix in self.suffixes] for k in range(self.num_layers)]

    def zero_states(self, like: Tensor) -> tuple[LayerState, ...]:
        """Return the states before the first position, for the batch and dtype of `like` (B, ...)."""
        zero = like.new_zeros(like.shape[0], self.hidden_size)  # (B, D)
        return ((zero,) * (2 if self.rnn_type == "lstm" else 1),) * self.num_layers

    def forward(
        self,
        x: Tensor,
        states: tuple[LayerState, ...] | None = None,
        padding: Padding | None = None,
        lookup: Any = None,
        recurrent_masks: tuple[Tensor, ...] | None = None,
    ) -> StackOutput:
        """
        Run over a whole sequence, or make one step.

        Both are a call of the module, so that whatever waits for that (offloaded, pruned, adapted weights) sees it.

        Args:
            x: (B, S, I) inputs; (B, I) of one step.
            states: First states of the layers, (B, D) each; zeros if absent.
            padding: Where x is padding: those positions are masked and come out as zeros. None: nowhere.
            lookup: Of x, where `fast.lookup` gave one.
            recurrent_masks: Of `draw_recurrent_masks()`, for one step; the same ones at each step of a sequence.

        Returns:
            Outputs (B, S, D); of a layer that reduces, and of those above it, shorter: real positions to the left.
        """
        states = self.zero_states(x) if states is None else states
        width, mask = self.weights(0)[0].shape[1] // self.reductions[0], None if padding is None else padding.mask
        check_recurrence(x, states, self.hidden_size, width, self.num_layers, mask)
        if x.dim() == 2:
            return self.step(x, states, recurrent_masks)
        layers = run_layers(self, x, states, padding, lookup)
        outputs, final_states = layers or self._run_layers(x, states, padding, self.all_weights())
        return StackOutput(outputs[-1], tuple(final_states), tuple(outputs))

    def _run_layers(
        self, x: Tensor, states: tuple[LayerState, ...], padding: Padding | None, weights: list[list[Weights]]
    ) -> tuple[list[Tensor], list[LayerState]]:
        """Return the outputs (B, S, D) and the final state of each layer."""
        x = x if padding is None else padding.compact(x)  # (B, S, I)
        outputs, final_states = [], []
        for k in range(self.num_layers):
            if k > 0:
                x = F.dropout(x, self.dropout, self.training)
            if self.reductions[k] > 1:
                x, padding = self._reduce(k, x, padding)  # (B, ceil(S / r), r * D)
            y, *state = self.layers[k](x, *states[k], weights=weights[k], padding=padding)  # (B, S, D), (B, D) ...
            x = self._hand_upward(k, x, y)  # (B, S, D)
            final_states.append(tuple(state))
            outputs.append(x if padding is None else padding.spread(x))
        return outputs, final_states

    def _reduce(self, k: int, x: Tensor, padding: Padding | None) -> tuple[Tensor, Padding | None]:
        """Make the compact inputs x (B, S, D) as short as layer k reads them, and their padding."""
        if padding is not None:
            # What a group lacks at the end of its sequence is zero, as at the end of the batch.
            x = x.masked_fill(padding.trailing[..., None], 0)  # (B, S, D)
            padding = Padding.from_mask(reduced_mask(padding.mask, self.reductions[k]))
        return stack_frames(x, self.reductions[k]), padding

    def step(
        self, x: Tensor, states: tuple[LayerState, ...], recurrent_masks: tuple[Tensor, ...] | None = None
    ) -> StackOutput:
        """Make one step (one direction only) from x (B, I): the decoder's recurrence. `forward` calls it."""
        check_recurrence(x, states, self.hidden_size, self.weights(0)[0].shape[1], self.num_layers)
        new_states, layer_outputs = [], []
        for k in range(self.num_layers):
            w_ih, w_hh, b_ih, b_hh = self.weights(k)
            if k > 0:
                x = F.dropout(x, self.dropout, self.training)
            x_gates = F.linear(x, w_ih, b_ih)  # (B, G)
            state = states[k]  # (B, H) each
            if recurrent_masks is not None:
                state = (state[0] * recurrent_masks[k], *state[1:])
            state = STEPS[self.rnn_type](x_gates, state, w_hh, b_hh)
            x = self._hand_upward(k, x, state[0])  # (B, H)
            new_states.append(state)
            layer_outputs.append(x)
        return StackOutput(x, tuple(new_states), tuple(layer_outputs))

    def _hand_upward(self, k: int, x: Tensor, y: Tensor) -> Tensor:
        """Return what layer k gives to the layer above, (B, S, D), from its input x and its recurrence's output y."""
        if self.residual and k > 0 and self.reductions[k] == 1:
            y = y + x  # (B, S, D)
        return self.norms[k](y) if k < len(self.norms) else y

    def reset_parameters(self, scheme: str = "orthogonal") -> None:
        """Initialise as `init_scheme` of the configuration says."""
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
    """Draw dropout masks for a whole sequence `like` (B, ...) (Gal & Ghahramani 2016): (B, H) a layer, or None."""
    return tuple(F.dropout(like.new_ones(like.shape[0], size), dropout) for _ in range(layers)) if dropout else None


def _mirror(x: Tensor, padding: Padding | None) -> Tensor:
    return x.flip(1) if padding is None else padding.mirror(x)


def run_stepwise(
    rnn_type: str,
    x_gates: Tensor,
    state: LayerState,
    weight_hh: Tensor,
    bias_hh: Tensor,
    trailing: Tensor | None,
    recurrent_mask: Tensor | None,
) -> tuple[Tensor, LayerState]:
    """
    Run one layer in one direction, step by step, from W_ih x + b_ih of compact inputs, `x_gates` (B, S, G): outputs
    (B, S, H), and the final state. `trailing` (B, S) is True where a sequence is over.
    """
    outputs = []
    for t in range(x_gates.shape[1]):
        before = state if recurrent_mask is None else (state[0] * recurrent_mask, *state[1:])  # (B, H) each
        after = STEPS[rnn_type](x_gates[:, t], before, weight_hh, bias_hh)  # (B, H) each
        if trailing is not None:
            after = tuple(torch.where(trailing[:, t, None], old, new) for old, new in zip(state, after))
        state = after
        outputs.append(state[0])
    return torch.stack(outputs, dim=1), state  # (B, S, H)
