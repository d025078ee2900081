"""Forecasts of the series of a table, by a saved model, written to a file: what `predict` does for forecasters.

The table is written as those that the model was trained on. A forecast begins behind the last row that has a value of
any column to forecast; rows behind it say what is known ahead, and where there are none, the times go on. The output
has an object for each series: {"id": ..., "times": [...], "forecast": {column: [...]}}, and of a distribution
"quantiles": {"0.1": {column: [...]}, "0.9": {column: [...]}}.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.preprocessing import SERIES_FILE
from ..data.windows import load_series_options, series_to_forecast
from ..evaluation.forecasting import forecasts
from ..evaluation.saved_model import load_model
from ..evaluation.work_in_parts import start_processes, work_in_parts
from ..model.modeling_time_series import RnnSeq2SeqForTimeSeriesPrediction
from .predict_tables import check_arguments


def reads_series(model_dir: str | Path) -> bool:
    """Return whether a folder holds a forecaster of a recipe."""
    return (Path(model_dir) / SERIES_FILE).is_file()


def predict_series_file(args: argparse.Namespace) -> None:
    """Forecast every series of `--input_file`.

    Raises:
        DataError: the table cannot be read (the message names file, row and column), an option has no meaning here,
            or the output is no .jsonl.
    """
    check_arguments(args, "forecasts")
    device = start_processes()
    model: Any = load_model(RnnSeq2SeqForTimeSeriesPrediction, args.model_dir).to(device)
    windows = series_to_forecast(args.input_file, model.config, *load_series_options(args.model_dir))

    def work(chunk: Sequence[str]) -> list[str]:
        numbers = [int(number) for number in chunk]
        parts = [numbers[first : first + args.batch_size] for first in range(0, len(numbers), args.batch_size)]
        return [json.dumps(found, ensure_ascii=False) for part in parts for found in forecasts(model, windows, part)]

    digest = hashlib.sha256(args.input_file.read_bytes())
    for file in sorted(path for name in ("*.safetensors", "*.json") for path in Path(args.model_dir).glob(name)):
        digest.update(file.read_bytes())
    items = [str(number) for number in range(len(windows.series))]
    job = {"files": digest.hexdigest(), "batch_size": args.batch_size}
    work_in_parts(items, work, args.output_file, job=job, part_size=args.part_size, overwrite=args.overwrite)
