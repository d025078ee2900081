"""A spectrogram that a model spoke, and beneath it what its attention looked at while it did.

As in the figures of Tacotron (Wang et al. 2017, Figure 3). No state of matplotlib.pyplot is used or changed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch


try:
    import numpy as np
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(f"pictures need the package '{error.name}': pip install 'hf_rnn_seq2seq[demo]'") from error
from ..data.outputs import picture_format, replacing


def plot_spectrogram(
    spectrogram: torch.Tensor | np.ndarray,
    weights: torch.Tensor | np.ndarray | None = None,
    source_tokens: Sequence[str] = (),
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    frame_shift: float | None = None,
) -> Figure:
    """Draw a spectrogram, time from left to right, and the attention of its steps to the source beneath.

    Args:
        spectrogram (array of shape `(frames, bands)`): as `generate_speech()` returns it.
        weights (array of shape `(steps, source_length)`, *optional*): the attention; a step may be several frames.
        source_tokens (`Sequence[str]`): the labels of its rows.
        path (`str` or `os.PathLike`, *optional*): where to save the picture; the ending decides the format.
        title (`str`, *optional*): a line above the picture.
        frame_shift (`float`, *optional*): milliseconds from one frame to the next; `None`: the axis counts frames.

    Raises:
        ValueError: an array of another shape, labels that do not fit, or a picture of an unknown format.
    """
    picture = None if path is None else picture_format(Path(path))
    values = np.asarray(torch.as_tensor(spectrogram).detach().float().cpu())
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"spectrogram has shape {values.shape}, wanted (frames, bands)")
    end = len(values) if frame_shift is None else len(values) * frame_shift / 1000
    figure = Figure(figsize=(9, 3.2 if weights is None else 5.2), layout="constrained")
    axes = figure.subplots(1 if weights is None else 2, 1, sharex=True, squeeze=False)[:, 0]
    extent = (0, end, -0.5, values.shape[1] - 0.5)
    image = axes[0].imshow(values.T, origin="lower", aspect="auto", cmap="magma", extent=extent)
    axes[0].set_ylabel("band")
    figure.colorbar(image, ax=axes[0])
    if weights is not None:
        matrix = np.asarray(torch.as_tensor(weights).detach().float().cpu())  # (U, S)
        if matrix.ndim != 2 or matrix.shape[1] != len(source_tokens):
            raise ValueError(f"weights has shape {matrix.shape}, wanted (steps, {len(source_tokens)} source_tokens)")
        extent = (0, end, len(source_tokens) - 0.5, -0.5)
        image = axes[1].imshow(matrix.T, aspect="auto", cmap="Blues", vmin=0, extent=extent)
        axes[1].set_yticks(range(len(source_tokens)), source_tokens, parse_math=False)
        figure.colorbar(image, ax=axes[1])
    axes[-1].set_xlabel("vector" if frame_shift is None else "seconds")
    if title:
        axes[0].set_title(title, parse_math=False)
    if path is not None:
        with replacing(path) as file:
            figure.savefig(file, format=picture, dpi=120)
    return figure
