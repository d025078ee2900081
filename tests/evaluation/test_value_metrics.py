"""Metrics of forecasts: compared with what their papers write, and missing values left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error

from hf_rnn_seq2seq.evaluation import load_metric


RNG = np.random.default_rng(0)
TRUTH, FORECAST = RNG.normal(size=(5, 6, 2)), RNG.normal(size=(5, 6, 2))
SAMPLES = RNG.normal(size=(5, 30, 6, 2))


def test_errors_are_means_over_all_values() -> None:
    flat = TRUTH.ravel(), FORECAST.ravel()
    for name, wanted in (
        ("mse", mean_squared_error(*flat)),
        ("rmse", mean_squared_error(*flat) ** 0.5),
        ("mae", mean_absolute_error(*flat)),
        ("smape", 200 * np.mean(np.abs(TRUTH - FORECAST) / (np.abs(TRUTH) + np.abs(FORECAST)))),
    ):
        assert load_metric(name).compute(predictions=FORECAST, references=TRUTH) == {name: pytest.approx(wanted)}


def test_values_that_were_not_observed_do_not_count() -> None:
    """Items of unequal counts: the mean is over values, not over items."""
    truth = TRUTH.copy()
    truth[0, 1:] = truth[3, :, 1] = np.nan
    there = ~np.isnan(truth)
    wanted = np.mean((truth - FORECAST)[there] ** 2)
    assert load_metric("mse").compute(predictions=FORECAST, references=truth)["mse"] == pytest.approx(wanted)
    metric = load_metric("mse")
    for part in (slice(0, 2), slice(2, 5)):
        metric.add_batch(predictions=list(FORECAST[part]), references=list(truth[part]))
    assert metric.compute()["mse"] == pytest.approx(wanted)
    with pytest.raises(ValueError, match="mse: no value was observed"):
        load_metric("mse").compute(predictions=FORECAST, references=np.full_like(truth, np.nan))


def test_crps_is_that_of_the_samples_distribution() -> None:
    """E|X - y| - E|X - X'| / 2 (Gneiting & Raftery 2007, eq. 21); the absolute error of a single sample."""
    got = load_metric("crps").compute(predictions=SAMPLES, references=TRUTH)["crps"]
    x = np.moveaxis(SAMPLES, 1, 0)  # (n, items, T, C)
    wanted = np.abs(x - TRUTH).mean(0) - np.abs(x[:, None] - x[None]).mean((0, 1)) / 2
    assert got == pytest.approx(wanted.mean())
    single = load_metric("crps").compute(predictions=SAMPLES[:, :1], references=TRUTH)["crps"]
    assert single == pytest.approx(np.abs(SAMPLES[:, 0] - TRUTH).mean())


@pytest.mark.parametrize("level", [80, 50])
def test_coverage_counts_values_between_two_quantiles(level: float) -> None:
    low, high = np.quantile(SAMPLES, [0.5 - level / 200, 0.5 + level / 200], axis=1)
    got = load_metric("coverage", level=level).compute(predictions=SAMPLES, references=TRUTH)["coverage"]
    assert got == pytest.approx(100 * ((low <= TRUTH) & (high >= TRUTH)).mean())


def test_mase_divides_by_the_naive_error_in_the_past() -> None:
    season, past = 3, RNG.normal(size=(5, 10, 2))
    scale = np.abs(past[:, season:] - past[:, :-season]).mean(1, keepdims=True)
    wanted = (np.abs(TRUTH - FORECAST) / scale).mean()
    whole = np.concatenate([past, TRUTH], 1)
    assert load_metric("mase", season=season).compute(predictions=FORECAST, references=whole) == {
        "mase": pytest.approx(wanted)
    }
    flat = past.copy()
    flat[:, :, 1] = 7  # never changes: only the other channel counts
    wanted = (np.abs(TRUTH - FORECAST) / scale)[..., 0].mean()
    whole = np.concatenate([flat, TRUTH], 1)
    assert load_metric("mase", season=season).compute(predictions=FORECAST, references=whole)["mase"] == (
        pytest.approx(wanted)
    )


@pytest.mark.parametrize(
    "name, options, predictions, references, message",
    [
        ("mse", {}, FORECAST[:, :3], TRUTH, r"item 0: the prediction has shape \(3, 2\), wanted .* \(6, 2\)"),
        ("crps", {}, FORECAST, TRUTH, r"wanted samples of the reference's, \(6, 2\)"),
        ("mse", {}, FORECAST * np.nan, TRUTH, "item 0: a predicted value is NaN"),
        ("mase", {"season": 4}, FORECAST, np.concatenate([TRUTH[:, :4], TRUTH], 1), "more than season=4 rows"),
    ],
)
def test_items_that_do_not_fit_are_refused(
    name: str, options: dict[str, Any], predictions: np.ndarray, references: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_metric(name, **options).compute(predictions=predictions, references=references)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="season must be at least 1, got 0"):
        load_metric("mase", season=0)
    with pytest.raises(ValueError, match="level must be between 0 and 100, got 100"):
        load_metric("coverage", level=100)
