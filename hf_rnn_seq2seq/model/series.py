"""Windows of a time series as an RNN reads them: normalised, and cut into segments.

What is taken out of a window is put back into its forecast: the last value (Lin 2023, "SegRNN"), mean and standard
deviation (Kim 2022, "Reversible Instance Normalization"), or the mean absolute value (Salinas 2020, "DeepAR"). Shapes:
B batch, P steps of the past, C channels, k steps of a segment, S segments. This file travels to the Hub: it imports
only torch and its flat siblings.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .checks import check_integers, check_mask, check_numbers, check_shape
from .fast import is_traced


# Below the square of a thousandth of a standard deviation, a window's variance is taken for noise.
_LEAST_VARIANCE = 1e-5
_LEAST_SCALE = 1e-10


def window_statistics(kind: str, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return what `window_normalization` subtracts from each channel of a window, and what it divides by: (B, 1, C) each.

    Args:
        kind: `"none"`, `"last"`, `"instance"` or `"mean"`.
        values: (B, P, C), zero where not observed.
        observed: (B, P, C) bool. A channel without any observed value is left as it is.
    """
    zero, one = torch.zeros_like(values[:, :1]), torch.ones_like(values[:, :1])  # (B, 1, C)
    count = observed.sum(1, keepdim=True)  # (B, 1, C)
    if kind == "last":
        position = torch.arange(values.shape[1], device=values.device)[:, None]  # (P, 1)
        last = torch.where(observed, position, 0).amax(1, keepdim=True)  # (B, 1, C)
        return values.gather(1, last), one
    if kind == "instance":
        mean = values.sum(1, keepdim=True) / count.clamp(min=1)  # (B, 1, C)
        squares = (values - mean).masked_fill(~observed, 0).square()  # (B, P, C)
        variance = squares.sum(1, keepdim=True) / count.clamp(min=1)  # (B, 1, C)
        return mean, torch.where(count > 0, (variance + _LEAST_VARIANCE).sqrt(), one)
    if kind == "mean":
        size = values.abs().sum(1, keepdim=True) / count.clamp(min=1)  # (B, 1, C)
        return zero, torch.where(size > _LEAST_SCALE, size, one)
    return zero, one


def segments(x: Tensor, length: int, at_end: bool = True) -> Tensor:
    """
    Cut x (B, P, D) into segments (B, S, k * D) of this length, step after step.

    Args:
        at_end: Whether the last segment ends with the last step, and zeros fill up the first one; else the first
            segment begins with the first step, and zeros fill up the last one.
    """
    missing = -x.shape[1] % length
    x = F.pad(x, (0, 0, missing, 0) if at_end else (0, 0, 0, missing))
    return x.reshape(x.shape[0], -1, length * x.shape[2])


def leading_padding(observed: Tensor, length: int) -> Tensor:
    """Return the mask of segments (B, S): False before the first that has an observed value of any channel."""
    anything = observed.any(-1, keepdim=True).int()  # (B, P, 1)
    return segments(anything, length).amax(-1).cumsum(1) > 0


def check_series(config: Any, inputs: dict[str, Tensor | None]) -> None:
    """
    Refuse inputs of a forecaster that do not fit its configuration and each other.

    Args:
        inputs: By name, those of `RnnSeq2SeqForTimeSeriesPrediction.forward`.
    """
    past = inputs["past_values"]
    if past is None:
        raise ValueError("past_values is missing: the series to go on with, (batch, steps, channels)")
    _check_presence(config, inputs)
    if is_traced():
        return
    channels: tuple[int | str, ...] = (config.input_feature_size,)
    if config.input_feature_size == 1 and past.dim() == 2:
        channels = ()
    check_shape("past_values", past, ("batch", "steps", *channels), f"input_feature_size={config.input_feature_size}")
    batch, steps = past.shape[:2]
    if not 1 <= steps <= config.context_length:
        raise ValueError(
            f"past_values has {steps} steps, wanted 1 to {config.context_length} (context_length): a longer past is "
            "cut by past_values[:, -context_length:], and so is what goes with it"
        )
    ahead, trained = (
        config.prediction_length,
        f"the model was trained for prediction_length={config.prediction_length}",
    )
    check_shape("past_observed_mask", inputs["past_observed_mask"], tuple(past.shape), "as past_values")
    check_shape("past_time_features", inputs["past_time_features"], (batch, steps, config.num_time_features))
    future = inputs["future_values"]
    check_shape("future_values", future, (batch, ahead, *channels), trained)
    check_shape("future_observed_mask", inputs["future_observed_mask"], (batch, ahead, *channels), "as future_values")
    check_shape(
        "future_time_features", inputs["future_time_features"], (batch, ahead, config.num_time_features), trained
    )
    classes, numbers = config.num_static_categorical_features, config.num_static_real_features
    check_shape("static_categorical_features", inputs["static_categorical_features"], (batch, classes))
    check_shape("static_real_features", inputs["static_real_features"], (batch, numbers))
    _check_classes(config, inputs["static_categorical_features"])
    for side in ("past", "future"):
        check_mask(f"{side}_observed_mask", inputs[f"{side}_observed_mask"], of_source=False)
        _check_observed(side, inputs[f"{side}_values"], inputs[f"{side}_observed_mask"])
    for name in ("past_time_features", "future_time_features", "static_real_features"):
        check_numbers(name, inputs[name])


def _check_presence(config: Any, inputs: dict[str, Tensor | None]) -> None:
    """Refuse features that the configuration does not know, and the lack of those that it knows."""
    for name, option in (
        ("past_time_features", "num_time_features"),
        ("future_time_features", "num_time_features"),
        ("static_categorical_features", "num_static_categorical_features"),
        ("static_real_features", "num_static_real_features"),
    ):
        if (inputs[name] is None) != (getattr(config, option) == 0):
            got = "is missing" if inputs[name] is None else "was given"
            raise ValueError(f"{name} {got}, but the model has {option}={getattr(config, option)}")
    if inputs["future_observed_mask"] is not None and inputs["future_values"] is None:
        raise ValueError("future_observed_mask was given without future_values, of which it says what is observed")


def _check_classes(config: Any, classes: Tensor | None) -> None:
    """Refuse classes (B, N) of no embedding; looked for on the CPU only, where that does not wait."""
    if classes is None:
        return
    check_integers("static_categorical_features", classes)
    if classes.device.type != "cpu":
        return
    wrong = ((classes < 0) | (classes >= torch.tensor(config.cardinality))).nonzero().tolist()
    if wrong:
        row, column = wrong[0]
        raise ValueError(
            f"static_categorical_features[{row}, {column}] is {classes[row, column].item()}, wanted 0 to "
            f"{config.cardinality[column] - 1} (cardinality)"
        )


def _check_observed(side: str, values: Tensor | None, observed: Tensor | None) -> None:
    """Refuse a NaN or infinity that no mask calls missing; looked for on the CPU only, where that does not wait."""
    if values is None:
        return
    if values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{side}_values has type {values.dtype}, wanted numbers")
    if values.device.type != "cpu":
        return
    wrong = ~values.isfinite() if observed is None else ~values.isfinite() & observed.bool()
    if bool(wrong.any()):
        first = wrong.nonzero()[0].tolist()
        place, what = ", ".join(map(str, first)), "NaN" if bool(values[tuple(first)].isnan()) else "infinite"
        raise ValueError(
            f"{side}_values[{place}] is {what}, but nothing says that it is missing: give {side}_observed_mask, with "
            "0 there"
        )
