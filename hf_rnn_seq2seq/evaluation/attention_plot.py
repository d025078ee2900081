"""Pictures of what the attention looked at, as in Bahdanau et al. 2015, Figure 3.

A pixel of row t and column j is the weight alpha_tj: how much of the source symbol j went into the context vector of
the target symbol t. `model.alignments(...)` gives these weights for what `generate()` returned. No state of
matplotlib.pyplot is used or changed.
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import torch


try:
    import numpy as np
    from matplotlib import font_manager, rcParams
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        f"pictures of attention need the package '{error.name}': pip install 'hf_rnn_seq2seq[demo]'"
    ) from error
from ..data.outputs import picture_format, replacing


_CELL_INCHES = 0.34
# Longer sequences get smaller cells: a page is not wider.
_MAX_INCHES = 14.0
_BAR_INCHES = 0.14
_SAVED_DPI = 150
_QUIET = "#4a5560"
# Symbols that would leave an empty label.
_VISIBLE = str.maketrans({" ": "␣", "\t": "⇥", "\n": "↵", "\r": "↵"})


def plot_attention(
    weights: torch.Tensor | np.ndarray | Sequence[Sequence[float]],
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw attention weights as a heat map: source from left to right, target from top to bottom.

    Args:
        weights (array of shape `(target_length, source_length)`): attention of each target symbol over the source,
            such as one item of `model.alignments(...)`, cut to the hypothesis' and the source's length.
        source_tokens (`Sequence[str]`): the labels of the columns; a string is taken character by character.
        target_tokens (`Sequence[str]`): the labels of the rows.
        path (`str` or `os.PathLike`, *optional*): where to save the picture; the ending decides the format (.png,
            .svg, .pdf), PNG if there is none. Its folder is made if need be.
        title (`str`, *optional*): a line above the picture.

    Returns:
        `matplotlib.figure.Figure`, ready for `savefig` or for display in a notebook.

    Raises:
        ValueError: weights that are no finite matrix, labels that do not fit its shape, or a picture of an unknown
            format.
    """
    picture = None if path is None else picture_format(Path(path))
    matrix = _checked(weights, source_tokens, target_tokens)
    columns = [token.translate(_VISIBLE) or "∅" for token in source_tokens]
    rows = [token.translate(_VISIBLE) or "∅" for token in target_tokens]
    cell = min(_CELL_INCHES, _MAX_INCHES / max(matrix.shape))
    fonts = _font_families("".join([*columns, *rows, title or ""]))
    # In points: at most what fits a cell, at least what can still be read when the picture is enlarged.
    size = max(3.0, min(11.0, 72 * cell * 0.55))
    height, width = cell * matrix.shape[0], cell * matrix.shape[1]
    figure = Figure(figsize=(width + 1.4, height + 1.0), layout="constrained")
    axes = figure.add_subplot()
    # The map keeps its scale from 0, so that an even spread of weights looks even; the bar tells the top.
    image = axes.imshow(matrix, cmap="Blues", vmin=0.0, vmax=max(matrix.max(), 1e-6), aspect="equal")

    _draw_grid(axes, matrix.shape, min(0.6, cell))
    axes.xaxis.tick_top()
    # parse_math: a token may hold dollar signs and is never a formula.
    axes.set_xticks(range(len(columns)), columns, fontsize=size, fontfamily=fonts, parse_math=False)
    axes.set_yticks(range(len(rows)), rows, fontsize=size, fontfamily=fonts, parse_math=False)
    for label, column in zip(axes.get_xticklabels(), columns, strict=True):
        # What fits over its cell stands upright, since turned letters are hard to read.
        label.set_rotation(0 if len(column) <= 2 else 90)

    # An inset: as high as the map itself, whatever the layout does to the map.
    inset = axes.inset_axes((1 + _BAR_INCHES / width, 0, _BAR_INCHES / width, 1))
    bar = figure.colorbar(image, cax=inset)
    bar.set_label("attention weight", fontsize=8, color=_QUIET)
    bar.ax.tick_params(labelsize=7, length=2, color=_QUIET, labelcolor=_QUIET)
    bar.outline.set_visible(False)
    if title:
        axes.set_title(title, fontsize=12, fontfamily=fonts, parse_math=False, pad=10)
    if path is not None:
        # tight: the labels decide how much margin there is.
        with replacing(path) as file:
            figure.savefig(file, format=picture, dpi=_SAVED_DPI, bbox_inches="tight", pad_inches=0.12)
    return figure


def _draw_grid(axes: Axes, shape: tuple[int, ...], linewidth: float) -> None:
    """Draw thin lines between cells: where many weights are near 0, they let the eye follow a row."""
    axes.set_xticks(np.arange(shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(shape[0] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#d9dde3", linewidth=linewidth)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_color("#9aa3ad")


def _checked(
    weights: torch.Tensor | np.ndarray | Sequence[Sequence[float]], sources: Sequence[str], targets: Sequence[str]
) -> np.ndarray:
    """Return the weights as a matrix (T, S); refuse what is none, or does not fit its labels."""
    if isinstance(weights, torch.Tensor):
        weights = weights.detach().float().cpu().numpy()  # float: numpy knows no bfloat16
    matrix = np.asarray(weights, dtype=float)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"weights must have the shape (target_length, source_length), got {matrix.shape}")
    for name, tokens, axis in (("source_tokens", sources, 1), ("target_tokens", targets, 0)):
        if len(tokens) != matrix.shape[axis]:
            raise ValueError(
                f"{name} must hold {matrix.shape[axis]} labels, one for each "
                f"{'column' if axis else 'row'} of weights of shape {matrix.shape}, got {len(tokens)}"
            )
    if not np.isfinite(matrix).all():
        raise ValueError("weights must be finite, got NaN or infinity")
    return matrix


def _font_families(text: str) -> list[str]:
    """Return the standard font, and after it installed ones with symbols that it lacks (matplotlib falls back)."""
    families = list(rcParams["font.family"])
    missing = {ord(symbol) for symbol in text}
    for family in families:
        missing -= _symbols(font_manager.findfont(font_manager.FontProperties(family=[family])))
    for entry in font_manager.fontManager.ttflist:
        if not missing:
            break
        # The last-resort font has a box for every symbol there is: no help to a reader.
        if entry.name in families or entry.name.startswith("Last Resort"):
            continue
        found = missing & _symbols(entry.fname)
        if found:
            families.append(entry.name)
            missing -= found
    return families


@functools.cache
def _symbols(font_file: str) -> frozenset[int]:
    return frozenset(font_manager.get_font(font_file).get_charmap())
