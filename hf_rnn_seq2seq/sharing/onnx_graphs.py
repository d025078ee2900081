"""A model as two ONNX graphs, which `runtime.py` runs.

`encoder.onnx` reads the source once: memory, projected keys, the decoder's first state. `decoder_step.onnx` makes one
step. Both are traced from the model itself with free batch and length; only a recurrent layer is written as the ONNX
operator of its kind, which onnxruntime runs fused and can quantise. Needs the extra `export`.
"""

import copy
import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


try:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process
except ImportError as error:
    raise ImportError("export needs onnx and onnxruntime: pip install 'hf_rnn_seq2seq[export]'") from error

from ..model.copying import Pointer
from ..model.decoder import RnnSeq2SeqDecoder
from ..model.modeling_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from ..model.padding import Padding
from ..model.recurrence import GATES, LayerState, RecurrentStack, StackOutput
from ..model.state import DecoderState, SourceMemory
from . import runtime
from .onnx_loop import add_greedy_loop, drop_detours


OPSET = 17  # the first with LayerNormalization
# A changed step of recurrence.py is not exported: these operators are torch's cells. `Attention.forward` is traced.
# Where ONNX has torch's gates: i, o, f, c for i, f, g, o; z, r, h for r, z, n.
_GATE_ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn_tanh": (0,)}
_OPERATOR, _STATES = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN"}, {"lstm": 2, "gru": 1, "rnn_tanh": 1}
# Weights of a step that greedy search is put beside, as onnxruntime keeps them twice: a search of one source takes
# 0.8 times as long with 0.6 million weights (model B of docs/speed.md), and 0.96 with 10 million (A).
_MOST_IN_A_LOOP = 2**22
_LAYER_STATE = ("hidden", "cell")
_SOURCE = ("keys", "memory", "mask", "context", "symbols")
# Options of the configuration that the runtime has no input for, and the value that leaves them out.
_NOT_EXPORTED = {"input_feature_size": None, "time_reduction": 1, "character_vocab_size": None}


def write_graphs(
    model: RnnSeq2SeqForConditionalGeneration, output_dir: str | Path, quantize: str | None = None
) -> None:
    """Write `encoder.onnx` and `decoder_step.onnx` into a folder; ValueError for an option that cannot be exported.

    The encoder's inputs are `input_ids` and `attention_mask`, (B, S) int64, padded on the right; its outputs are the
    decoder's inputs by the same names: `state.*`, which each step gives back as `new_state.*`, and `source.*`, which
    stay. A step is of N rows, as many for each source, those of a source side by side: `state.*` are (N, .), and
    `source.*` stay (B, .) however many hypotheses read them. The decoder also reads `previous_ids` (N,), if the model
    does, and returns `log_probabilities` (N, V), the best of these (`_add_best_symbols`) and, if it attends,
    `attention` (N, S). Asked for `steps` more, a small one of one row is followed by those of greedy
    search (`add_greedy_loop`).
    """
    if quantize not in (None, "int8"):
        raise ValueError(f"quantize must be 'int8' or None; got {quantize!r}")
    if model.config.copy_slots:
        raise ValueError(
            f"copy_slots={model.config.copy_slots} cannot be exported: the runtime's tokenizer gives unknown words no "
            "slots; save the model with config.copy_slots = 0 to export it, it then gives the unknown symbol for them"
        )
    if model.config.aligns:
        raise ValueError(
            "attention_type='hard_monotonic' cannot be exported: the runtime's step reads no symbol's probability at "
            "each position; train a model with another attention_type to export it"
        )
    for name, value in _NOT_EXPORTED.items():
        if getattr(model.config, name) != value:
            raise ValueError(f"{name}={getattr(model.config, name)} cannot be exported: the runtime reads token ids")
    model = copy.deepcopy(model).cpu().float().eval()
    inner = model.model
    use_right_padding(inner.encoder.rnn)
    # There is no quantised GRU or RNN operator: there the steps stay matrix products, which can be quantised.
    if model.config.rnn_type == "lstm" or quantize is None:
        _use_onnx_layers(inner.decoder.rnn)
    inner.decoder.__class__ = _SharesSources
    ids = torch.full((2, 3), min(2, model.config.vocab_size - 1))
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    with torch.no_grad():
        encoder = _Encoder(model)
        tensors = encoder.read(ids, mask)
        step = _DecoderStep(model, list(tensors))
        states = [name for name in tensors if name.startswith("state.")]
        # Traced with two rows for each source.
        rows = {name: part.repeat_interleave(2, dim=0) if name in states else part for name, part in tensors.items()}
        outputs = ["log_probabilities", *(f"new_{name}" for name in states)]
        if inner.decoder.attends:
            outputs.append("attention")
        graphs = {
            runtime.ENCODER: (encoder, {"input_ids": ids, "attention_mask": mask}, list(tensors)),
            runtime.DECODER_STEP: (step, {"previous_ids": ids[:, 0].repeat(2), **rows}, outputs),
        }
        for file, (module, inputs, names) in graphs.items():
            rows_name = "rows" if "previous_ids" in inputs else "batch"
            axes = {name: _free_axes(name, rows_name) for name in [*inputs, *names]}
            with quantized(Path(output_dir) / file, quantize) as traced:
                trace_graph(module, inputs, names, axes, traced)
                if file == runtime.DECODER_STEP:
                    drop_detours(traced)
    _add_best_symbols(Path(output_dir) / runtime.DECODER_STEP)


def _add_best_symbols(file: Path) -> None:
    """Add to a step what a search looks for: the best of log P(y_t) + `totals` (N, 1) + `allowed` (V,) of the rows of
    each source, `best_scores` and `best_places` (B, K), best first; a place is row * V + symbol.

    B and K are what the inputs `grouping`, [B, -1], and `best`, [K], say. None of the four inputs need be given: then
    it is the likeliest symbol of each row.
    """
    model = onnx.load(file)
    graph = model.graph
    defaults = {
        "totals": np.zeros((1, 1), np.float32),
        "allowed": np.zeros(1, np.float32),
        "grouping": np.array([0, -1]),
        "best": np.array([1]),
    }
    for name, value in defaults.items():
        tensor = onnx.numpy_helper.from_array(value, name)
        graph.initializer.append(tensor)
        free: dict[str, list[Any]] = {"totals": ["rows", 1], "allowed": ["symbols"]}
        shape = free.get(name, list(value.shape))
        graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, shape))
    for kind, inputs, outputs in (
        ("Add", ["log_probabilities", "totals"], ["scores_so_far"]),
        ("Add", ["scores_so_far", "allowed"], ["allowed_scores"]),
        ("Reshape", ["allowed_scores", "grouping"], ["scores_of_sources"]),
        ("TopK", ["scores_of_sources", "best"], ["best_scores", "best_places"]),
    ):
        graph.node.append(onnx.helper.make_node(kind, inputs, outputs))
    for name, data_type in (("best_scores", onnx.TensorProto.FLOAT), ("best_places", onnx.TensorProto.INT64)):
        graph.output.append(onnx.helper.make_tensor_value_info(name, data_type, ["sources", "best"]))
    if sum(math.prod(weights.dims) for weights in graph.initializer) <= _MOST_IN_A_LOOP:
        add_greedy_loop(graph)
    onnx.checker.check_model(model)
    onnx.save(model, file)


@contextmanager
def quantized(target: Path, quantize: str | None) -> Iterator[Path]:
    """Yield the file to trace a graph to, which then becomes `target`, quantised if asked for."""
    if quantize is None:
        yield target
        return
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # on the disk that the graph goes to
        traced = Path(folder) / target.name
        yield traced
        quant_pre_process(traced, traced, skip_optimization=True, skip_symbolic_shape=True)
        # Unsigned: with signed weights the products overflow on processors without VNNI instructions.
        quantize_dynamic(traced, target, per_channel=True, weight_type=QuantType.QUInt8)


def _free_axes(name: str, rows: str) -> dict[int, str]:
    """Return the axes of an input or output that have any size."""
    batch = "batch" if name.startswith("source.") else rows
    if name == "source.symbols":
        return {0: batch, 2: "source_length"}
    along_source = ("input_ids", "attention_mask", "source.keys", "source.memory", "source.mask", "attention")
    return {0: batch, 1: "source_length"} if name in along_source or "coverage" in name else {0: batch}


def trace_graph(
    module: nn.Module,
    inputs: dict[str, Tensor],
    outputs: list[str],
    axes: dict[str, dict[int, str]],
    file: Path,
) -> None:
    """Write a module as a graph; `axes` are those of inputs and outputs that have any size."""
    with warnings.catch_warnings():
        # Tracing takes the branches of this configuration, as it should; the newer exporter freezes the time axis.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(file),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.checker.check_model(str(file))


class _OnnxRecurrence(torch.autograd.Function):
    """A recurrent layer over sequences as one ONNX node; run by torch it only returns tensors of the right shapes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, r: Tensor, b: Tensor, lengths: Tensor, rnn_type: str
    ) -> tuple[Tensor, ...]:
        size = r.shape[0] * r.shape[2]
        states = [x.new_zeros(x.shape[0], size) for _ in range(_STATES[rnn_type])]
        return (x.new_zeros(*x.shape[:2], size), *states)

    @staticmethod
    def symbolic(g: Any, x: Any, w: Any, r: Any, b: Any, lengths: Any, rnn_type: str) -> tuple[Any, ...]:
        directions, _, size = r.type().sizes()

        def joined(value: Any, axes: int) -> Any:  # (*axes, directions, H) -> (*axes, directions * H)
            shape = g.op("Constant", value_t=torch.tensor([0] * axes + [-1]))
            return g.op("Reshape", value, shape).setType(x.type().with_sizes([None] * axes + [directions * size]))

        outputs = g.op(
            *(_OPERATOR[rnn_type], g.op("Transpose", x, perm_i=[1, 0, 2]), w, r, b, lengths),
            outputs=1 + _STATES[rnn_type],
            direction_s="bidirectional" if directions == 2 else "forward",
            **_options(rnn_type, size),
        )
        # Y is (S, directions, B, H), Y_h and Y_c are (directions, B, H).
        return (
            joined(g.op("Transpose", outputs[0], perm_i=[2, 0, 1, 3]), 2),
            *(joined(g.op("Transpose", final, perm_i=[1, 0, 2]), 1) for final in outputs[1:]),
        )


class _OnnxStep(torch.autograd.Function):
    """One step of a recurrent layer, from x (N, I) and state (N, H) each to the new state, as one ONNX node."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, r: Tensor, b: Tensor, rnn_type: str, *state: Tensor) -> Any:
        return tuple(torch.zeros_like(part) for part in state)

    @staticmethod
    def symbolic(g: Any, x: Any, w: Any, r: Any, b: Any, rnn_type: str, *state: Any) -> Any:
        no_lengths, first, size = g.op("prim::Constant"), torch.tensor([0]), r.type().sizes()[2]
        no_lengths.setType(torch._C.OptionalType.ofTensor())
        # of one time step, or of one direction
        rows, *before = (g.op("Unsqueeze", part, g.op("Constant", value_t=first)) for part in (x, *state))
        outputs = g.op(
            *(_OPERATOR[rnn_type], rows, w, r, b, no_lengths, *before),
            outputs=1 + len(state),
            **_options(rnn_type, size),
        )
        after = [g.op("Squeeze", new, g.op("Constant", value_t=first)) for new in outputs[1:]]
        return tuple(new.setType(x.type().with_sizes([None, size])) for new in after)


def _options(rnn_type: str, size: int) -> dict[str, Any]:
    """Return the attributes of a recurrent operator."""
    return {"hidden_size_i": size, **({"linear_before_reset_i": 1} if rnn_type == "gru" else {})}


class _OnnxLayer(nn.Module):
    """A layer in place of a `RecurrentLayer`, with weights in the layout of ONNX."""

    def __init__(self, rnn_type: str, weights: list[tuple[Tensor, Tensor, Tensor, Tensor]]):
        super().__init__()
        self.rnn_type = rnn_type

        def reordered(matrix: Tensor) -> Tensor:
            gates = matrix.detach().chunk(GATES[rnn_type])
            return torch.cat([gates[k] for k in _GATE_ORDER[rnn_type]])

        each = [[reordered(matrix) for matrix in direction] for direction in weights]
        w = torch.stack([direction[0] for direction in each])
        self.reads_nothing = w.shape[2] == 0
        self.w = nn.Parameter(w.new_zeros(*w.shape[:2], 1) if self.reads_nothing else w)
        self.r = nn.Parameter(torch.stack([direction[1] for direction in each]))
        self.b = nn.Parameter(torch.stack([torch.cat(direction[2:]) for direction in each]))

    def forward(self, x: Tensor, *state: Tensor, weights: Any, padding: Padding) -> tuple[Tensor, ...]:
        """Run over whole sequences, from states of zero."""
        outputs: tuple[Tensor, ...] = _OnnxRecurrence.apply(
            x, self.w, self.r, self.b, padding.lengths.int(), self.rnn_type
        )
        return outputs

    def step(self, x: Tensor, state: LayerState) -> LayerState:
        """Return the state after one step, whose input is x (N, I)."""
        x = x.new_zeros(x.shape[0], 1) if self.reads_nothing else x
        new: LayerState = _OnnxStep.apply(x, self.w, self.r, self.b, self.rnn_type, *state)
        return new


class _SteppedByLayers(RecurrentStack):
    """A stack whose step, too, is made of whole layers."""

    def step(
        self, x: Tensor, states: tuple[LayerState, ...], recurrent_masks: tuple[Tensor, ...] | None = None
    ) -> StackOutput:
        new_states, outputs = [], []
        for k, (layer, state) in enumerate(zip(self.layers, states)):
            assert isinstance(layer, _OnnxLayer)
            state = layer.step(x, state)
            x = self._hand_upward(k, x, state[0])
            new_states.append(state)
            outputs.append(x)
        return StackOutput(x, tuple(new_states), tuple(outputs))


def _use_onnx_layers(stack: RecurrentStack) -> None:
    for k in range(stack.num_layers):
        weights = [stack.weights(k, suffix) for suffix in stack.suffixes]
        stack.layers[k] = _OnnxLayer(stack.rnn_type, weights)
    stack.__class__ = _SteppedByLayers


def use_right_padding(stack: RecurrentStack) -> None:
    """Make an encoder's stack one of ONNX operators, which skip padding behind the real positions by themselves."""
    _use_onnx_layers(stack)
    stack.register_forward_pre_hook(_padding_is_on_the_right, with_kwargs=True)


class _RightPadding(Padding):
    """Padding behind the real positions only, which the ONNX operators skip by themselves."""

    def compact(self, x: Tensor) -> Tensor:
        return x

    def spread(self, x: Tensor) -> Tensor:
        return x.masked_fill(~self.mask[..., None], 0)


def _padding_is_on_the_right(stack: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {**kwargs, "padding": _RightPadding(*kwargs["padding"])}


class _SharesSources(RnnSeq2SeqDecoder):
    """A decoder whose step is of N rows, N / B for each of the B sources that it reads."""

    def _attend(self, query: Tensor, source: SourceMemory, coverage: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert source.memory is not None  # it attends
        coverage = None if coverage is None else _by_source(coverage, source.memory)
        query = _by_source(query.squeeze(1), source.memory, self.config.decoder_hidden_size)
        attended, weights = super()._attend(query, source, coverage)
        # (N, 1, H), of a known H, which spares the graph to look; (N, 1, S)
        return attended.reshape(-1, 1, self.config.encoder_hidden_size), weights.flatten(0, 1).unsqueeze(1)

    def _generation_gate(
        self, top: Tensor, attended: Tensor | None, embedded: Tensor, source: SourceMemory
    ) -> Tensor | None:
        if source.mask is not None:
            source = source._replace(mask=_for_rows(source.mask, top))
        return super()._generation_gate(top, attended, embedded, source)


def _by_source(rows: Tensor, source: Tensor, size: int | None = None) -> Tensor:
    """Reshape (N, D) to (B, N / B, D), for `source` (B, ...); to know D spares the graph to look."""
    return rows.reshape(source.shape[0], -1, size or rows.shape[-1])


def _for_rows(source: Tensor, rows: Tensor) -> Tensor:
    """Repeat (B, D) to (N, D), for `rows` (N, ...)."""
    return source.unsqueeze(1).expand(-1, rows.shape[0] // source.shape[0], -1).flatten(0, 1)


class _Encoder(nn.Module):
    """The encoder, from a source to all that the decoder starts from and reads at each step."""

    def __init__(self, model: RnnSeq2SeqForConditionalGeneration):
        super().__init__()
        self.model = model

    def read(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Return the tensors by name, in the order of the graph's outputs."""
        inner = self.model.model
        outputs = inner.encoder(input_ids, attention_mask, return_dict=True)
        state, source = inner._read_source(outputs, outputs.mask, input_ids, needs_state=True)
        if source.symbols is not None:
            # As `copying.source_symbols()`, which has no ONNX form: the first position of the same symbol.
            same = input_ids.unsqueeze(2) == input_ids.unsqueeze(1)
            source = source._replace(symbols=torch.stack([input_ids, same.int().argmax(-1)], dim=1))
        if self.model.config.attention_type == "dot":
            source = source._replace(keys=None)  # the memory itself
        named = {
            f"state.{name}_{k}": tensor
            for k, layer in enumerate(state.layers)
            for name, tensor in zip(_LAYER_STATE, layer)
        }
        named |= {f"state.{name}": getattr(state, name) for name in ("feed", "coverage")}
        named |= {f"source.{name}": getattr(source, name) for name in _SOURCE}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.read(input_ids, attention_mask).values())


class _DecoderStep(nn.Module):
    """The decoder's step, from y_{t-1}, state and source to log P(y_t), new state and attention."""

    def __init__(self, model: RnnSeq2SeqForConditionalGeneration, names: list[str]):
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, previous_ids: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        config, decoder = self.model.config, self.model.model.decoder
        named = dict(zip(self.names, tensors))
        layers = tuple(
            tuple(named[f"state.{name}_{k}"] for name in _LAYER_STATE if f"state.{name}_{k}" in named)
            for k in range(config.decoder_layers)
        )
        state = DecoderState(layers, named.get("state.feed"), named.get("state.coverage"))
        source = SourceMemory(*(named.get(f"source.{name}") for name in _SOURCE))
        if config.attention_type == "dot":
            source = source._replace(keys=source.memory)
        if source.context is not None:
            source = source._replace(context=_for_rows(source.context, layers[0][0]))
        embedded = decoder.embed(previous_ids.unsqueeze(0)).squeeze(0)
        step = decoder.step(embedded, state, source)
        if source.symbols is not None:
            output, gate, weights = (
                _by_source(part, source.symbols) for part in (step.output, step.gate, step.weights)
            )
            scores = self.model._logits(output, Pointer(gate, weights, source.symbols)).flatten(0, 1)
        else:
            scores = self.model._logits(step.output, None).log_softmax(-1)
        after = step.states[0]
        new_state = [tensor for layer in after.layers for tensor in layer]
        new_state += [tensor for tensor in (after.feed, after.coverage) if tensor is not None]
        attention = [] if step.weights is None else [step.weights]
        return (scores, *new_state, *attention)
