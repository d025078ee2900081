"""Values of the series of a table, by a saved model, written to a file: what `predict` does for folders of values.

The table is written as those that the model was trained on, without the columns that it predicts. The output has an
object for each series: {"id": ..., "rows": [...], "<value>": [...], ...}, a value for each row, null at rows of which
a model of whole sequences gives none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.preprocessing import COLUMNS_FILE
from ..data.values import ValueColumns
from ..evaluation.saved_model import load_model
from ..evaluation.work_in_parts import start_processes, work_in_parts
from ..model.modeling_classification import RnnSeq2SeqForSequenceClassification, RnnSeq2SeqForTokenClassification
from .predict_tables import check_arguments
from .task_values import predict_values


_CLASSES = {"vector": RnnSeq2SeqForTokenClassification, "sequence": RnnSeq2SeqForSequenceClassification}


def reads_tables(model_dir: str | Path) -> bool:
    """Return whether a folder holds a model that gives values of series."""
    return (Path(model_dir) / COLUMNS_FILE).is_file()


def predict_value_file(args: argparse.Namespace) -> None:
    """Predict for every series of `--input_file`.

    Raises:
        DataError: the table cannot be read (the message names file, row and column), an option has no meaning here,
            or the output is no .jsonl.
    """
    check_arguments(args, "gives values")
    columns = ValueColumns.load(args.model_dir)
    device = start_processes()
    model = load_model(_CLASSES[columns.target], args.model_dir).to(device)
    series = columns.read(args.input_file, model.config.standardise_features)

    def work(chunk: Sequence[str]) -> list[str]:
        chosen = [series[int(number)] for number in chunk]
        features = [one.values(columns.features) for one in chosen]
        lines = []
        for one, values in zip(chosen, predict_values(model, features, columns, args.batch_size)):
            shown = {name: list(map(_number, values[:, place])) for place, name in enumerate(columns.values)}
            lines.append(json.dumps({"id": one.id, "rows": one.rows.tolist(), **shown}, ensure_ascii=False))
        return lines

    files = [args.input_file, *sorted(Path(args.model_dir).glob("*.safetensors"))]
    files += [Path(args.model_dir) / name for name in ("config.json", COLUMNS_FILE)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    job = {"model_and_table": digest.hexdigest(), "batch_size": args.batch_size}
    numbers = [str(number) for number in range(len(series))]
    work_in_parts(numbers, work, args.output_file, job=job, part_size=args.part_size, overwrite=args.overwrite)


def _number(value: np.float32) -> float | None:
    """Return a value with the digits that single precision has."""
    return None if np.isnan(value) else float(f"{value:.7g}")
