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

import numpy as np
import torch

from ..data.files import DataError
from ..data.preprocessing import SERIES_FILE
from ..data.windows import BAND, ForecastDataOptions, ForecastWindows, forecast_inputs, load_windows, with_rows_ahead
from ..evaluation.saved_model import load_model
from ..evaluation.work_in_parts import start_processes, work_in_parts
from ..model.modeling_time_series import RnnSeq2SeqForTimeSeriesPrediction
from .predict_tables import check_arguments
from .task_forecast import load_series_options


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
    windows = read_series(args.input_file, args.model_dir, model.config)

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


def read_series(path: Path, model_dir: str | Path, config: Any) -> ForecastWindows:
    """Read the series of a table as a model's folder says, and rows ahead of them."""
    known, classes = load_series_options(model_dir)
    options = ForecastDataOptions(
        file=path.name, look_back=config.context_length, horizon=config.prediction_length, shortest_past=1, **known
    )
    windows = load_windows(options, path.parent, classes)
    longer = [
        with_rows_ahead(series, options.table, _observed_rows(windows, number) + options.horizon - len(series))
        for number, series in enumerate(windows.series)
    ]
    return ForecastWindows(options, longer, classes)


def forecasts(model: Any, windows: ForecastWindows, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Return the forecasts of some series, as the objects that are written."""
    ends = [_observed_rows(windows, number) for number in numbers]
    rows = [forecast_inputs(windows, number, end) for number, end in zip(numbers, ends)]
    batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])).to(model.device) for name in rows[0]}
    values = model.eval().forecast(**batch).cpu().numpy()
    bands: Any = [None] * len(numbers)
    if model.distribution_output is not None:
        torch.manual_seed(0)  # the same band each time
        sequences = model.generate(**batch).sequences.cpu().numpy()  # (B, n, T, C)
        bands = np.quantile(sequences, BAND, axis=1).swapaxes(0, 1)  # (B, 2, T, C)
    found, options = [], windows.options
    for number, end, forecast, band in zip(numbers, ends, values, bands):
        series = windows.series[number]
        times = None if series.time is None else [str(time) for time in series.time[end : end + options.horizon]]
        record: dict[str, Any] = {"id": series.id, "times": times, "forecast": _columns(forecast, options.columns)}
        if band is not None:
            record["quantiles"] = {str(share): _columns(edge, options.columns) for share, edge in zip(BAND, band)}
        found.append(record)
    return found


def _observed_rows(windows: ForecastWindows, number: int) -> int:
    """Return how many rows of a series there are up to the last one with a value."""
    there = np.flatnonzero(~np.isnan(windows.values[number]).all(axis=1))
    if not len(there):
        series = windows.series[number]
        raise DataError(f"{series.place(0)}, series {series.id!r}: holds no value to go on from")
    return int(there[-1]) + 1


def _columns(values: np.ndarray, names: Sequence[str]) -> dict[str, list[float]]:
    """Return values (T, C) as a list a column, of seven digits."""
    return {name: [float(f"{value:.7g}") for value in column] for name, column in zip(names, values.T)}
