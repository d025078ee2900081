"""A saved model of values or labels as a folder without torch and transformers: one ONNX graph, settings, runtime.

The graph reads vectors in the user's units, or token ids, and gives values in the user's units, both scales inside it,
or the probability of each label. The folder also gets a copy of `runtime_values.py`, which runs it. Needs the extra
`export`.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.files import read_object
from ..data.preprocessing import COLUMNS_FILE
from ..evaluation.saved_model import load_model, saved_classes
from ..model.modeling_classification import RnnSeq2SeqForSequenceClassification, RnnSeq2SeqForTokenClassification
from . import runtime_values
from .one_graph import check_one_graph, write_one_graph
from .onnx_graphs import quantized, trace_graph, use_right_padding


_CLASSES: dict[str, Any] = {
    "RnnSeq2SeqForTokenClassification": RnnSeq2SeqForTokenClassification,
    "RnnSeq2SeqForSequenceClassification": RnnSeq2SeqForSequenceClassification,
}


def value_class(model_dir: str | Path) -> Any:
    """Return the class of the model in a folder if it gives values or labels, else None."""
    folder = Path(model_dir)
    if not (folder / "config.json").is_file():
        return None
    return next((_CLASSES[name] for name in saved_classes(folder)[:1] if name in _CLASSES), None)


def export_values(
    model_dir: str | Path, output_dir: str | Path, quantize: str | None = None, overwrite: bool = True
) -> Path:
    """Write a saved model of values or labels as a folder for `runtime_values.RnnValuesRuntime`.

    Args:
        model_dir: what `save_pretrained` wrote; the names of the columns that a recipe trained on are taken along.
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
    check_one_graph(output_dir, runtime_values, quantize, overwrite)
    model = load_model(value_class(model_dir), model_dir)
    config = model.config
    for name, wanted, why in (
        ("time_reduction", 1, ""),
        ("character_vocab_size", None, ": the runtime reads ids of words alone"),
        ("use_crf", False, ": the runtime does not search for the best sequence of labels"),
    ):
        if getattr(config, name) != wanted:
            raise ValueError(f"{name}={getattr(config, name)} cannot be exported{why}")
    columns = model_dir / COLUMNS_FILE
    features = read_object(columns).get("features") if columns.is_file() else None
    if columns.is_file() and not isinstance(features, list):
        raise ValueError(f"{columns}: features is {features!r}, wanted a list of names of columns")
    settings = {
        "each_vector": isinstance(model, RnnSeq2SeqForTokenClassification),
        "vector_size": config.input_feature_size,
        "vocab_size": config.vocab_size,
        "missing": config.standardise_features,
        "values": [config.id2label[number] for number in range(config.num_labels)],
        "features": features,
        "gives": _gives(model),
        "quantize": quantize,
    }
    write_one_graph(output_dir, runtime_values, settings, lambda file: _write_graph(model, file, quantize))
    return output_dir


def _gives(model: Any) -> str:
    """Return what the runtime calls the output of a model."""
    kind = model.config.problem_type
    alone = isinstance(model, RnnSeq2SeqForSequenceClassification) and model.config.num_labels == 1
    if kind == "regression" or (kind is None and alone):
        return "values"
    return "labels" if kind == "multi_label_classification" else "label"


def _write_graph(model: Any, graph: Path, quantize: str | None) -> None:
    model = copy.deepcopy(model).cpu().float().eval()
    use_right_padding(model.model.encoder.rnn)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    size = model.config.input_feature_size
    source = torch.full((2, 3), min(2, model.config.vocab_size - 1)) if size is None else torch.zeros(2, 3, size)
    name = "input_ids" if size is None else "input_features"
    inputs = {name: source, "attention_mask": mask}
    axes = {given: {0: "batch", 1: "source_length"} for given in inputs}
    each = isinstance(model, RnnSeq2SeqForTokenClassification)
    axes["values"] = {0: "batch", 1: "source_length"} if each else {0: "batch"}
    with torch.no_grad(), quantized(graph, quantize) as file:
        trace_graph(_Values(model, name), inputs, ["values"], axes, file)


class _Values(nn.Module):
    """A model as a function of its source and mask: values (B, S, C) or (B, C), or probabilities of labels."""

    def __init__(self, model: Any, source: str):
        super().__init__()
        self.model, self.source = model, source

    def forward(self, source: Tensor, attention_mask: Tensor) -> Tensor:
        values: Tensor = self.model(**{self.source: source}, attention_mask=attention_mask, return_dict=True).logits
        gives = _gives(self.model)
        return values if gives == "values" else values.sigmoid() if gives == "labels" else values.softmax(-1)
