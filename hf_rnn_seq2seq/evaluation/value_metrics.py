"""Metrics of values, such as forecasts: an item is an array of values, NaN where nobody observed one.

Errors are scikit-learn's, the continuous ranked probability score is scoringrules'. Each is a mean over all observed
values of all items, in the unit of the values unless it says another. Needs the extra `metrics`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np


try:
    import scoringrules
    from datasets import Features, Value
    from sklearn.metrics import mean_absolute_error, mean_squared_error
except ImportError as error:
    raise ImportError(f"metrics: {error}; they need pip install 'hf_rnn_seq2seq[metrics]'") from error
from .offline_metric import OfflineMetric


class ValueMetric(OfflineMetric):
    """The mean over values: of an item only the sum, and how many values there are, are kept."""

    _features = Features({"predictions": Value("float64"), "references": Value("float64")})
    # The name in recipes.
    reported: ClassVar[str]
    # Whether a prediction is several samples of the values: (n, *shape) for a reference of this shape.
    of_samples: ClassVar[bool] = False

    def _normalize(self, predictions: list[Any], references: list[Any]) -> tuple[list[Any], list[Any]]:
        items = [self._sum(*self._item(number, *pair)) for number, pair in enumerate(zip(predictions, references))]
        sums, counts = zip(*items)
        return list(sums), list(counts)

    def _item(self, number: int, prediction: Any, reference: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return prediction and reference as arrays that fit."""
        got, wanted = np.asarray(prediction, dtype=np.float64), np.asarray(reference, dtype=np.float64)
        shape = got.shape[1:] if self.of_samples else got.shape
        if shape != self._scored(wanted).shape or (self.of_samples and not got.size):
            samples = "samples of " if self.of_samples else ""
            raise ValueError(
                f"item {number}: the prediction has shape {got.shape}, wanted {samples}the reference's, "
                f"{self._scored(wanted).shape}"
            )
        if np.isnan(got).any():
            raise ValueError(f"item {number}: a predicted value is NaN, wanted a number")
        return got, wanted

    def _scored(self, reference: np.ndarray) -> np.ndarray:
        """Return the part of a reference that is predicted."""
        return reference

    @abstractmethod
    def _sum(self, prediction: np.ndarray, reference: np.ndarray) -> tuple[float, int]:
        """Return the sum over the observed values of an item, and their number."""

    def _finish(self, mean: float) -> float:
        return mean

    def _compute(self, *, predictions: list[float], references: list[float]) -> dict[str, Any]:
        if not sum(references):
            raise ValueError(f"{self.reported}: no value was observed")
        return {self.reported: self._finish(math.fsum(predictions) / sum(references))}


class MeanSquaredError(ValueMetric):
    """Mean of the squared errors."""

    reported = "mse"

    def _sum(self, prediction: np.ndarray, reference: np.ndarray) -> tuple[float, int]:
        there = ~np.isnan(reference)
        count = int(there.sum())
        return (count * float(mean_squared_error(reference[there], prediction[there])) if count else 0.0), count


class RootMeanSquaredError(MeanSquaredError):
    """Root of the mean of the squared errors."""

    reported = "rmse"

    def _finish(self, mean: float) -> float:
        return math.sqrt(mean)


class MeanAbsoluteError(ValueMetric):
    """Mean of the absolute errors."""

    reported = "mae"

    def _sum(self, prediction: np.ndarray, reference: np.ndarray) -> tuple[float, int]:
        there = ~np.isnan(reference)
        count = int(there.sum())
        return (count * float(mean_absolute_error(reference[there], prediction[there])) if count else 0.0), count


class PrognosticsScore(ValueMetric):
    """
    The score of the PHM 2008 challenge (Saxena 2008): the sum of exp(-d / 13) - 1 where the difference d of prediction
    and truth is negative, else of exp(d / 10) - 1. A life promised too long costs more than one too short.
    """

    reported = "phm"

    def _sum(self, prediction: np.ndarray, reference: np.ndarray) -> tuple[float, int]:
        there = ~np.isnan(reference)
        difference = prediction[there] - reference[there]
        return float(np.expm1(np.where(difference < 0, -difference / 13, difference / 10)).sum()), int(there.sum())

    def _compute(self, *, predictions: list[float], references: list[float]) -> dict[str, Any]:
        mean = super()._compute(predictions=predictions, references=references)[self.reported]
        return {self.reported: mean * sum(references)}


class SymmetricMeanAbsolutePercentageError(ValueMetric):
    """Mean of 2 |y - f| / (|y| + |f|), in percent, 0 where both are 0 (Makridakis 1993; as in the M4 competition)."""

    reported = "smape"

    def _sum(self, prediction: np.ndarray, reference: np.ndarray) -> tuple[float, int]:
        there = ~np.isnan(reference)
        got, wanted = prediction[there], reference[there]
        size = np.abs(got) + np.abs(wanted)
        shares = np.divide(2 * np.abs(got - wanted), size, out=np.zeros_like(size), where=size > 0)
        return 100 * float(shares.sum()), int(there.sum())


class MeanAbsoluteScaledError(ValueMetric):
    """
    Mean of the absolute errors, divided by that of the seasonal naive forecast on the past (Hyndman & Koehler 2006).

    A reference is the past and then the future of a window, (P + T, C); its prediction is of the last T rows. A
    channel whose past does not change, or was not observed, is left out.

    Args:
        season (`int`, *optional*, defaults to 1): rows of a season, such as 24 of hours; 1: the value before.
    """

    reported = "mase"

    def __init__(self, *, season: int = 1, **base_options: Any) -> None:
        if season < 1:
            raise ValueError(f"season must be at least 1, got {season}")
        self._season = season
        super().__init__(**base_options)

    def _item(self, number: int, prediction: Any, reference: Any) -> tuple[np.ndarray, np.ndarray]:
        got, whole = np.asarray(prediction, dtype=np.float64), np.asarray(reference, dtype=np.float64)
        rows = len(whole) - len(got) if got.ndim and whole.ndim else 0
        if got.shape[1:] != whole.shape[1:] or rows <= self._season:
            raise ValueError(
                f"item {number}: the reference has shape {whole.shape}, wanted more than season={self._season} rows "
                f"of the past before the rows of the prediction, {got.shape}"
            )
        return got, whole

    def _sum(self, prediction: np.ndarray, reference: np.ndarray) -> tuple[float, int]:
        past, future = np.split(reference, [len(reference) - len(prediction)])
        changes = np.abs(past[self._season :] - past[: -self._season])  # (P - season, C)
        counted = (~np.isnan(changes)).sum(0)
        scale = np.nansum(changes, 0) / np.maximum(counted, 1)  # (C,)
        errors = np.abs(prediction - future)[..., scale > 0] / scale[scale > 0]
        return float(np.nansum(errors)), int((~np.isnan(errors)).sum())


class ContinuousRankedProbabilityScore(ValueMetric):
    """The CRPS of the samples' distribution (Gneiting & Raftery 2007); of one sample, the absolute error."""

    reported = "crps"
    of_samples = True

    def _sum(self, prediction: np.ndarray, reference: np.ndarray) -> tuple[float, int]:
        there = ~np.isnan(reference)
        scores = scoringrules.crps_ensemble(reference[there], prediction[:, there], m_axis=0, estimator="qd")
        return float(np.sum(scores)), int(there.sum())


class Coverage(ValueMetric):
    """
    How many values lie in the band between two quantiles of the samples, in percent: `level` of a calibrated forecast.

    Args:
        level (`float`, *optional*, defaults to 80): share of the samples within the band, in percent.
    """

    reported = "coverage"
    of_samples = True

    def __init__(self, *, level: float = 80, **base_options: Any) -> None:
        if not 0 < level < 100:
            raise ValueError(f"level must be between 0 and 100, got {level}")
        self._tail = (100 - level) / 200
        super().__init__(**base_options)

    def _sum(self, prediction: np.ndarray, reference: np.ndarray) -> tuple[float, int]:
        there = ~np.isnan(reference)
        low, high = np.quantile(prediction[:, there], [self._tail, 1 - self._tail], axis=0)
        within = (low <= reference[there]) & (reference[there] <= high)
        return 100 * float(within.sum()), int(there.sum())


VALUE_METRICS: dict[str, type[ValueMetric]] = {
    kind.reported: kind
    for kind in (
        *(MeanSquaredError, RootMeanSquaredError, MeanAbsoluteError, PrognosticsScore),
        *(SymmetricMeanAbsolutePercentageError, MeanAbsoluteScaledError, ContinuousRankedProbabilityScore, Coverage),
    )
}
