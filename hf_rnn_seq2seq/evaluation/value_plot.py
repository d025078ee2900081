"""Pictures of values over time: the truth, and what a model predicted. No state of matplotlib.pyplot is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(f"pictures need the package '{error.name}': pip install 'hf_rnn_seq2seq[demo]'") from error
from ..data.outputs import picture_format, replacing


_WIDTH, _HEIGHT = 8.0, 2.6  # inches; the height of each value's own axes
_TRUTH, _PREDICTION = "#4a5560", "#d1495b"
# So many times the horizon of the past are drawn before a forecast.
_PAST_SHOWN = 2


def plot_values(
    truth: np.ndarray,
    prediction: np.ndarray,
    names: Sequence[str],
    path: str | Path | None = None,
    title: str | None = None,
) -> Figure:
    """Draw true and predicted values of a series, one below the other.

    Args:
        truth: (N, C) over the rows of the series, NaN where nobody observed one.
        prediction: (N, C), NaN where there is none.
        names: of the C values.
        path: where to save the picture; the ending decides the format. `None`: nowhere.
        title: a line above the picture.

    Raises:
        ValueError: the shapes do not fit, or the ending is of no format.
    """
    if truth.shape != prediction.shape or truth.shape[1:] != (len(names),):
        raise ValueError(
            f"truth has shape {truth.shape} and prediction {prediction.shape}, wanted (rows, {len(names)}) of both"
        )
    figure = Figure(figsize=(_WIDTH, _HEIGHT * len(names)), layout="constrained")
    for number, (axes, name) in enumerate(zip(figure.subplots(len(names), squeeze=False)[:, 0], names)):
        rows = np.arange(1, len(truth) + 1)
        # A point where a line has nothing to lead to.
        style = {"marker": "."} if np.isfinite(prediction[:, number]).sum() < 2 else {}
        axes.plot(rows, truth[:, number], color=_TRUTH, label="truth")
        axes.plot(rows, prediction[:, number], color=_PREDICTION, label="prediction", **style)
        axes.set_ylabel(name)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    axes.set_xlabel("row")
    if title is not None:
        figure.suptitle(title)
    if path is not None:
        with replacing(path) as file:
            figure.savefig(file, format=picture_format(path), dpi=150)
    return figure


def plot_forecast(
    past: np.ndarray,
    future: np.ndarray,
    forecast: np.ndarray,
    names: Sequence[str],
    band: tuple[np.ndarray, np.ndarray] | None = None,
    path: str | Path | None = None,
    title: str | None = None,
) -> Figure:
    """Draw a forecast over what came, behind the end of the past, the channels one below the other.

    Args:
        past: (P, C), NaN where nobody observed a value.
        future: (T, C), likewise.
        forecast: (T, C).
        names: of the C channels.
        band: lower and upper quantile of the forecast, (T, C) each; `None`: it has no distribution.
        path: where to save the picture; the ending decides the format. `None`: nowhere.
        title: a line above the picture.

    Raises:
        ValueError: the shapes do not fit, or the ending is of no format.
    """
    shapes = {array.shape for array in (future, forecast, *(band or ()))}
    if len(shapes) > 1 or {past.shape[1:], future.shape[1:]} != {(len(names),)}:
        raise ValueError(
            f"past, future, forecast and band have the shapes {past.shape}, {', '.join(map(str, sorted(shapes)))}, "
            f"wanted (rows, {len(names)}), and of the last ones as many rows"
        )
    figure = Figure(figsize=(_WIDTH, _HEIGHT * len(names)), layout="constrained")
    shown = past[-_PAST_SHOWN * len(future) :]
    before, ahead = np.arange(1 - len(shown), 1), np.arange(1, len(future) + 1)
    for number, (axes, name) in enumerate(zip(figure.subplots(len(names), squeeze=False)[:, 0], names)):
        truth = np.concatenate([shown, future])[:, number]
        axes.plot(np.concatenate([before, ahead]), truth, color=_TRUTH, label="truth")
        axes.plot(ahead, forecast[:, number], color=_PREDICTION, label="forecast")
        if band is not None:
            low, high = (edge[:, number] for edge in band)
            axes.fill_between(ahead, low, high, color=_PREDICTION, alpha=0.25, linewidth=0, label="80 % band")
        axes.axvline(0.5, color=_TRUTH, linewidth=0.5, linestyle=":")
        axes.set_ylabel(name)
        axes.spines[["top", "right"]].set_visible(False)
        if number == 0:  # above, where no line is
            axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    axes.set_xlabel("row, counted from the end of the past")
    if title is not None:
        figure.suptitle(title)
    if path is not None:
        with replacing(path) as file:
            figure.savefig(file, format=picture_format(path), dpi=150)
    return figure
