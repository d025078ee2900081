"""Pictures of values over time: the truth, and what a model predicted. No state of matplotlib.pyplot is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(f"pictures need the package '{error.name}': pip install 'hf_rnn_seq2seq[demo]'") from error
from ..data.outputs import picture_format


_WIDTH, _HEIGHT = 8.0, 2.6  # inches; the height of each value's own axes
_TRUTH, _PREDICTION = "#4a5560", "#d1495b"


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
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format=picture_format(path), dpi=150)
    return figure
