"""Attention pictures: the right cell is dark, the labels are the tokens, nothing global changes."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg

from hf_rnn_seq2seq.evaluation.attention_plot import plot_attention


# The target is longer than the source and each row is different, so that a transposed or flipped picture is caught.
WEIGHTS = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.2, 0.4, 0.4]])
SOURCE, TARGET = ["k", "ö", "</s>"], ["K", "ER1", "N", "</s>"]


def labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_rows_are_the_target_from_top_to_bottom_and_columns_the_source():
    figure = plot_attention(WEIGHTS, SOURCE, TARGET, title="kö")
    axes = figure.axes[0]
    assert labels(axes.xaxis) == SOURCE
    assert labels(axes.yaxis) == TARGET
    assert axes.get_title() == "kö"

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba()).astype(int)
    brightness = np.empty(WEIGHTS.shape)
    for t, j in np.ndindex(*WEIGHTS.shape):
        x, y = axes.transData.transform((j, t)).astype(int)
        brightness[t, j] = pixels[pixels.shape[0] - y, x, :3].sum()
    # The more weight, the darker, and equal weights look equal.
    order = np.unique(WEIGHTS.numpy(), return_inverse=True)[1].reshape(WEIGHTS.shape)
    levels = [set(brightness[order == level]) for level in range(order.max() + 1)]
    assert all(len(level) == 1 for level in levels)
    assert [level.pop() for level in levels] == sorted(set(brightness.ravel()), reverse=True)
    first, last = axes.transData.transform([(0, 0), (2, 3)])
    assert first[0] < last[0]
    assert first[1] > last[1]


def test_files_of_every_kind_are_written(tmp_path):
    plot_attention(WEIGHTS, SOURCE, TARGET, tmp_path / "new" / "a.png")
    height, width, _ = matplotlib.image.imread(tmp_path / "new" / "a.png").shape
    assert height > 100
    assert width > 100
    plot_attention(WEIGHTS, SOURCE, TARGET, str(tmp_path / "a.svg"))
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")


def test_all_kinds_of_arrays_give_the_same_picture():
    def picture(weights):
        canvas = FigureCanvasAgg(plot_attention(weights, SOURCE, TARGET))
        canvas.draw()
        return bytes(canvas.buffer_rgba())

    exact = (WEIGHTS * 8).round() / 8  # exact in bfloat16 too
    expected = picture(exact.numpy())
    assert picture(exact.tolist()) == expected
    assert picture(exact.bfloat16()) == expected
    assert picture(exact.clone().requires_grad_()) == expected


def test_no_pyplot_and_no_settings_are_touched(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import of it now fails
    before = matplotlib.rcParams.copy()
    plot_attention(WEIGHTS, SOURCE, TARGET, title="title")
    assert matplotlib.rcParams.copy() == before


def test_tokens_are_never_formulas_and_never_invisible(tmp_path):
    source = ["$x^2$", " ", "", "\n", "$", "▁the", "\\frac"]
    figure = plot_attention(np.eye(7), source, source, tmp_path / "a.png", title="$bad")
    assert labels(figure.axes[0].xaxis) == ["$x^2$", "␣", "∅", "↵", "$", "▁the", "\\frac"]
    assert not any(label.get_parse_math() for label in figure.axes[0].get_xticklabels())


def test_a_symbol_that_the_standard_font_lacks_gets_a_font_that_has_it(tmp_path):
    def symbols(family: str) -> set[int]:
        path = font_manager.findfont(font_manager.FontProperties(family=[family]))
        return set(font_manager.get_font(path).get_charmap())

    # Both fonts come with matplotlib.
    symbol = chr(min(symbols("STIXGeneral") - symbols("DejaVu Sans")))
    figure = plot_attention(np.eye(2), ["a", symbol], ["b", "c"], tmp_path / "a.png")
    families = figure.axes[0].get_xticklabels()[0].get_fontfamily()
    assert families[: len(matplotlib.rcParams["font.family"])] == list(matplotlib.rcParams["font.family"])
    assert any(ord(symbol) in symbols(family) for family in families[1:])
    plain = plot_attention(np.eye(2), ["a", "é"], ["b", "c"]).axes[0].get_xticklabels()[0].get_fontfamily()
    assert plain == list(matplotlib.rcParams["font.family"])


def test_long_sequences_stay_on_a_page():
    figure = plot_attention(np.full((200, 300), 1 / 300), ["w"] * 300, ["w"] * 200)
    assert max(figure.get_size_inches()) < 17
    sizes = {label.get_fontsize() for label in figure.axes[0].get_xticklabels()}
    assert sizes == {3.0}


@pytest.mark.parametrize(
    ("weights", "source", "target", "message"),
    [
        (np.eye(3), "abc", "ab", r"target_tokens must hold 3 labels, one for each row of .*\(3, 3\), got 2"),
        (np.ones((2, 3)), "ab", "ab", r"source_tokens must hold 3 labels, one for each column of .*\(2, 3\), got 2"),
        (np.ones((1, 2, 3)), "abc", "ab", r"weights must have the shape .*, got \(1, 2, 3\)"),
        (np.ones((0, 3)), "abc", "", r"weights must have the shape .*, got \(0, 3\)"),
        (np.array([[np.nan, 1.0]]), "ab", "a", "weights must be finite"),
    ],
)
def test_bad_input_is_named(weights, source, target, message):
    with pytest.raises(ValueError, match=message):
        plot_attention(weights, source, target)
