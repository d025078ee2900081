"""A saved forecaster as a folder that needs neither torch nor transformers: one ONNX graph, settings, runtime.

The graph reads the past in the user's units and gives the forecast in them; the steps of the horizon, whose number is
fixed, are all in it. The folder also gets a copy of `runtime_series.py`, which runs it. Needs the extra `export`.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.files import read_json
from ..data.preprocessing import SERIES_FILE
from ..evaluation.saved_model import load_model, saved_classes
from ..model.modeling_time_series import RnnSeq2SeqForTimeSeriesPrediction
from ..model.padding import Padding
from . import runtime_series
from .one_graph import check_one_graph, write_one_graph
from .onnx_graphs import quantized, trace_graph, use_right_padding


def is_forecaster(model_dir: str | Path) -> bool:
    """Return whether a folder holds a forecaster."""
    folder = Path(model_dir)
    is_model = (folder / "config.json").is_file()
    return is_model and RnnSeq2SeqForTimeSeriesPrediction.__name__ in saved_classes(folder)


def export_series(
    model_dir: str | Path, output_dir: str | Path, quantize: str | None = None, overwrite: bool = True
) -> Path:
    """Write a saved forecaster as a folder for `runtime_series.RnnSeriesRuntime`.

    Args:
        model_dir: what `save_pretrained` wrote.
        output_dir: the folder to write. Nothing in it changes before the export is whole.
        quantize: `"int8"` or `None`, as in `export_model`.
        overwrite: replace the files of an earlier export.

    Returns:
        `output_dir`.

    Raises:
        FileExistsError: `output_dir` holds something of these names, and it is no export, or `overwrite` is not set.
        ValueError: `quantize` is unknown, or the model has an option that cannot be exported.
    """
    model_dir, output_dir = Path(model_dir), Path(output_dir)
    check_one_graph(output_dir, runtime_series, quantize, overwrite)
    model = load_model(RnnSeq2SeqForTimeSeriesPrediction, model_dir)
    config = model.config
    if config.time_reduction > 1:
        raise ValueError(f"time_reduction={config.time_reduction} cannot be exported")
    series = model_dir / SERIES_FILE
    settings = {
        "channels": config.input_feature_size,
        "context_length": config.context_length,
        "prediction_length": config.prediction_length,
        "distribution_output": config.distribution_output,
        "cardinality": config.cardinality or [],
        "classes": read_json(series)["classes"] if config.cardinality and series.is_file() else {},
        "quantize": quantize,
    }
    write_one_graph(output_dir, runtime_series, settings, lambda file: _write_graph(model, file, quantize))
    return output_dir


def _write_graph(model: Any, graph: Path, quantize: str | None) -> None:
    model = copy.deepcopy(model).cpu().float().eval()
    stack = model.model.encoder.rnn
    use_right_padding(stack)
    stack.register_forward_pre_hook(_padding_is_in_front, with_kwargs=True)  # after that of right padding
    inputs = model.dummy_inputs
    past = inputs.pop("past_values")
    inputs = {"past_values": past, "past_observed_mask": torch.ones_like(past, dtype=torch.long), **inputs}
    inputs["past_observed_mask"][0, 0] = 0
    outputs = ["forecast"]
    if model.distribution_output is not None:
        outputs += [*(f"params.{name}" for name in model.distribution_output.args_dim), "loc", "scale"]
    axes = {name: {0: "batch"} for name in (*inputs, *outputs)}
    with torch.no_grad(), quantized(graph, quantize) as file:
        trace_graph(_Forecast(model, list(inputs)), inputs, outputs, axes, file)


class _Forecast(nn.Module):
    """A model as a function of what it reads of the past, and of the features of the future."""

    def __init__(self, model: Any, names: list[str]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        output = self.model(**dict(zip(self.names, inputs)), return_dict=True)
        parameters = () if output.params is None else (*output.params, output.loc, output.scale)
        return (output.prediction_outputs, *parameters)


def _padding_is_in_front(stack: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Say where real segments go, which all come last, without sorting, which ONNX has no form for."""
    padding = kwargs["padding"]
    count = padding.mask.shape[1]
    position = torch.arange(count)[None]  # (1, S)
    before = count - padding.lengths[:, None]  # (B, 1)
    order, restore = (position + before) % count, (position - before + count) % count  # (B, S) each
    return args, {**kwargs, "padding": Padding(padding.mask, order, restore, padding.reverse, padding.lengths)}
