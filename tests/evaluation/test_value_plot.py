"""Pictures of values: a line for the truth and one for what was predicted, for each value."""

from pathlib import Path

import numpy as np
import pytest

from hf_rnn_seq2seq.evaluation.value_plot import plot_values


def test_each_value_has_its_axes_with_both_lines(tmp_path: Path) -> None:
    truth, prediction = np.arange(8.0).reshape(4, 2), np.arange(8.0).reshape(4, 2) + 1
    prediction[0] = np.nan
    figure = plot_values(truth, prediction, ["heat", "wear"], tmp_path / "a.png", title="engine 1")
    assert [axes.get_ylabel() for axes in figure.axes] == ["heat", "wear"]
    for number, axes in enumerate(figure.axes):
        drawn = [np.asarray(line.get_ydata()) for line in axes.get_lines()]
        np.testing.assert_array_equal(drawn, [truth[:, number], prediction[:, number]])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_single_prediction_is_a_point() -> None:
    prediction = np.full((4, 1), np.nan)
    prediction[-1] = 2
    (axes,) = plot_values(np.zeros((4, 1)), prediction, ["heat"]).axes
    assert axes.get_lines()[1].get_marker() == "."


@pytest.mark.parametrize(
    ("truth", "prediction", "names", "path", "message"),
    [
        (np.zeros((4, 1)), np.zeros((3, 1)), ["a"], None, r"truth has shape \(4, 1\) and prediction \(3, 1\)"),
        (np.zeros((4, 1)), np.zeros((4, 1)), ["a", "b"], None, r"wanted \(rows, 2\)"),
        (np.zeros((4, 1)), np.zeros((4, 1)), ["a"], "a.xyz", r"wanted a name that ends in \.png"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    truth: np.ndarray, prediction: np.ndarray, names: list[str], path: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        plot_values(truth, prediction, names, None if path is None else tmp_path / path)
