"""Forecasts of the series of a table, as the objects that `predict` writes and the demo shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..data.windows import BAND, ForecastWindows, forecast_inputs


def forecasts(model: Any, windows: ForecastWindows, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Return the forecasts of some series: `id`, `times`, `forecast`, and of a distribution `quantiles`.

    Args:
        model: in evaluation mode.
        windows: the series, with rows ahead of them.
        numbers: of those to forecast.
    """
    ends = [windows.observed_rows(number) for number in numbers]
    rows = [forecast_inputs(windows, number, end) for number, end in zip(numbers, ends)]
    batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])).to(model.device) for name in rows[0]}
    values = model.eval().forecast(**batch).float().cpu().numpy()
    bands: Any = [None] * len(numbers)
    if model.distribution_output is not None:
        torch.manual_seed(0)  # the same band each time
        sequences = model.generate(**batch).sequences.float().cpu().numpy()  # (B, n, T, C)
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


def _columns(values: np.ndarray, names: Sequence[str]) -> dict[str, list[float]]:
    """Return values (T, C) as a list a column, of seven digits."""
    return {name: [float(f"{value:.7g}") for value in column] for name, column in zip(names, values.T)}
