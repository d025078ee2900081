"""Greedy search inside the graph of a decoder's step: what `runtime.py` would do step by step, without leaving it.

Works on the graph that `onnx_graphs.py` traced. Needs the extra `export`.
"""

from pathlib import Path
from typing import Any

import numpy as np


try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise ImportError("export needs onnx: pip install 'hf_rnn_seq2seq[export]'") from error


# Nodes that the loop takes from the step around it, where they read nothing that changes: those that look at shapes.
_SHARED = {"Constant", "Shape", "Gather", "Unsqueeze", "Concat"}
_PREFIX = "loop."


def drop_detours(file: Path) -> None:
    """Take nodes out of a traced step that only undo each other, and look at a size in one node and not in three."""
    model = onnx.load(file)
    graph = model.graph
    _squeeze_at_once(graph)
    producers = {name: node for node in graph.node for name in node.output}
    of_graph = {output.name for output in graph.output}
    renamed: dict[str, str] = {}
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        before: Any = producers.get(node.input[0]) if node.input else None
        kinds = (before.op_type if before else "", node.op_type)
        if node.output[0] in of_graph:
            continue
        if kinds[1] == "Concat" and len(node.input) == 1:
            renamed[node.output[0]] = node.input[0]
        elif kinds in (("Squeeze", "Unsqueeze"), ("Unsqueeze", "Squeeze")):
            if _constant(node, producers) == _constant(before, producers) is not None:
                renamed[node.output[0]] = before.input[0]
        elif kinds == ("Gather", "Unsqueeze") and (shape := producers.get(before.input[0])) is not None:
            size = _constant(before, producers)
            if shape.op_type == "Shape" and not shape.attribute and size is not None and size[0] >= 0:
                node.CopyFrom(
                    helper.make_node("Shape", shape.input, node.output, node.name, start=size[0], end=size[0] + 1)
                )
    _keep_used(graph)
    onnx.save(model, file)


def _squeeze_at_once(graph: Any) -> None:
    """Squeeze where the tracer asks at each step whether an axis is 1 long: a step has no other axis to squeeze."""
    nodes = []
    for node in graph.node:
        branch = {attribute.name: attribute.g for attribute in node.attribute}.get("then_branch")
        if branch is None:
            nodes.append(node)
            continue
        if branch.node[-1].op_type != "Squeeze":
            raise ValueError(f"the step cannot be exported: it branches to {branch.node[-1].op_type} as it runs")
        branch.node[-1].output[0] = node.output[0]
        nodes.extend(branch.node)
    del graph.node[:]
    graph.node.extend(nodes)


def _constant(node: Any, producers: dict[str, Any]) -> list[int] | None:
    """Return the numbers that a node reads beside its first input, where they are constant."""
    constant = producers.get(node.input[1]) if len(node.input) == 2 else None
    if constant is None or constant.op_type != "Constant":
        return None
    numbers: list[int] = numpy_helper.to_array(constant.attribute[0].t).reshape(-1).tolist()
    return numbers


def _keep_used(graph: Any) -> None:
    """Take out the nodes whose results nobody reads."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))


def add_greedy_loop(graph: Any) -> None:
    """Add to a step of one row, with its best symbol, the steps that follow, each with the likeliest symbol before it.

    Inputs: `steps`, how many more steps to make (none, if it is not given), and `goes_on` (V,) bool, after which
    symbols. Outputs: `symbols` and `scores` (T, 1), and `last_state.*`.
    """
    states = [value for value in graph.input if value.name.startswith("state.")]
    inner = {"previous_ids", *(state.name for state in states)}  # what changes from step to step
    nodes = []
    for node in graph.node:
        if node.op_type in _SHARED and not inner & set(node.input):
            continue
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [_PREFIX + name if name in inner else name for name in node.input]
        copied.output[:] = [name and _PREFIX + name for name in node.output]
        copied.name = _PREFIX + node.name
        inner |= set(filter(None, node.output))
        nodes.append(copied)
    of_graph = {"loop.one": np.array([1]), "loop.all": np.array([-1])}
    defaults = {"steps": np.array(0), "goes_on": np.array([True])}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in (of_graph | defaults).items())
    for name, kind, shape in (("steps", TensorProto.INT64, []), ("goes_on", TensorProto.BOOL, ["symbols"])):
        graph.input.append(helper.make_tensor_value_info(name, kind, shape))
    body = helper.make_graph(
        [
            *nodes,
            helper.make_node("Add", ["loop.log_probabilities", "allowed"], ["loop.allowed"]),
            helper.make_node("TopK", ["loop.allowed", "loop.one"], ["loop.score", "loop.symbol"]),
            helper.make_node("Reshape", ["loop.symbol", "loop.all"], ["loop.chosen"]),
            helper.make_node("Gather", ["goes_on", "loop.chosen"], ["loop.goes_on"]),
        ],
        "greedy",
        [
            helper.make_tensor_value_info("loop.number", TensorProto.INT64, []),
            helper.make_tensor_value_info("loop.before", TensorProto.BOOL, ["rows"]),
            helper.make_tensor_value_info("loop.previous_ids", TensorProto.INT64, ["rows"]),
            *(_renamed(state, _PREFIX + state.name) for state in states),
        ],
        [
            helper.make_tensor_value_info("loop.goes_on", TensorProto.BOOL, ["rows"]),
            helper.make_tensor_value_info("loop.chosen", TensorProto.INT64, ["rows"]),
            *(_renamed(state, f"loop.new_{state.name}") for state in states),
            helper.make_tensor_value_info("loop.symbol", TensorProto.INT64, ["rows", 1]),
            helper.make_tensor_value_info("loop.score", TensorProto.FLOAT, ["rows", 1]),
        ],
    )
    _keep_used(body)
    graph.node.append(helper.make_node("Reshape", ["best_places", "loop.all"], ["loop.first"]))
    graph.node.append(
        helper.make_node(
            "Loop",
            ["steps", "", "loop.first", *(f"new_{state.name}" for state in states)],
            ["loop.last", *(f"last_{state.name}" for state in states), "symbols", "scores"],
            body=body,
        )
    )
    graph.output.extend(_renamed(state, f"last_{state.name}") for state in states)
    graph.output.append(helper.make_tensor_value_info("symbols", TensorProto.INT64, ["made", "rows", 1]))
    graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["made", "rows", 1]))


def _renamed(value: Any, name: str) -> Any:
    copied = onnx.ValueInfoProto()
    copied.CopyFrom(value)
    copied.name = name
    return copied
