"""Forecasting as a task: windows of series, the forecaster, its errors, and beside them those of a naive forecast.

Needs the extras `train` and `metrics`.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from transformers import set_seed

from ..data.files import table_line
from ..data.outputs import write_json
from ..data.preprocessing import SERIES_FILE
from ..data.splits import Dataset, DatasetDict, evenly_taken
from ..data.windows import (
    BAND,
    SAVED_OPTIONS,
    ForecastDataOptions,
    ForecastWindows,
    load_series_options,
    load_windows,
)
from ..evaluation.ensemble import RnnSeq2SeqTimeSeriesEnsemble
from ..evaluation.metrics import load_metric
from ..evaluation.value_metrics import VALUE_METRICS, MeanAbsoluteScaledError
from ..model.modeling_time_series import RnnSeq2SeqForTimeSeriesPrediction
from .options import OptionsError
from .recipe import Recipe, RecipeError, RecipeKind
from .run_folder import FORECAST_PICTURE
from .task import Scores, Task


if TYPE_CHECKING:
    import evaluate as evaluate_library

logger = logging.getLogger(__name__)

_PREDICTIONS_HEADER = ("series", "row", "step", "column", "truth", "forecast", *(f"quantile_{q}" for q in BAND))


@dataclass
class NoForecastTokenizerOptions:
    """There are no symbols: the section `tokenizer` is left out."""

    def stand_in_sizes(self) -> dict[str, int | None]:
        """Sizes for checking a model's options before there is data."""
        return {"input_feature_size": 1, "prediction_length": 1}


@dataclass
class ForecastOptions:
    """How values are scaled and forecasts scored (the section `forecast`).

    Args:
        standardise: fit the model's scale to the training rows; without it the values are read as they are.
        scores_in: what errors are measured in: standard deviations of the training rows (as the papers on ETT do), or
            the units of the data.
        season: rows of a season; the seasonal naive forecast, the values one season before, is then scored as
            naive_<metric>, with the normal distribution of its errors in the past. `None`: it is not.
        samples: how many futures are drawn where the model has a distribution.
    """

    standardise: bool = True
    scores_in: Literal["standard_deviations", "units"] = "standard_deviations"
    season: int | None = None
    samples: int = 100

    def __post_init__(self) -> None:
        for name in ("season", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, wanted at least 1")


FORECAST = RecipeKind("forecast", ForecastDataOptions, NoForecastTokenizerOptions, more={"forecast": ForecastOptions})


class ForecastTask(Task):
    """Values ahead."""

    kind = FORECAST
    model_class = RnnSeq2SeqForTimeSeriesPrediction
    ensemble_class = RnnSeq2SeqTimeSeriesEnsemble
    model: RnnSeq2SeqForTimeSeriesPrediction
    windows: ForecastWindows
    classes: dict[str, list[str]]  # of the static features that have them

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.drawn: dict[str, Any] | None = None  # what `plot_forecast` draws
        data: ForecastDataOptions = recipe.data
        self.data, self.options = data, recipe.more["forecast"]
        specs = recipe.evaluation.metric_specs
        for reported, (name, _) in specs.items():
            if name not in VALUE_METRICS:
                known = ", ".join(VALUE_METRICS)
                raise RecipeError(f"evaluation.metrics: {reported} is {name!r}, wanted one of {known} for forecasts")
            if VALUE_METRICS[name].of_samples and recipe.model.get("distribution_output", "none") == "none":
                raise RecipeError(
                    f"evaluation.metrics: {reported} is of a distribution, but the model forecasts values: set "
                    "model.distribution_output, or leave it out"
                )
        if recipe.model.get("distribution_output") == "negative_binomial" and self.options.standardise:
            raise RecipeError("forecast.standardise: counts stay counts, set it to false for a negative binomial")
        best = recipe.evaluation.best_metric
        if best != "loss" and specs[best][0] == "coverage":
            raise RecipeError("evaluation.best_metric: more coverage is not better; wanted loss or an error")
        if self.options.season is not None and self.options.season > data.past_needed:
            raise RecipeError(
                f"forecast.season: got {self.options.season}, wanted at most the rows behind a forecast, "
                f"{data.past_needed}"
            )

    def load_data(self, data_dir: str | Path) -> DatasetDict:
        self.windows = load_windows(self.data, data_dir)
        return self.windows.splits()

    def build(self, data: DatasetDict) -> None:
        self.classes = self.windows.classes
        config = self.recipe.model_config(
            input_feature_size=len(self.data.columns),
            prediction_length=self.data.horizon,
            context_length=self.data.look_back,
            num_time_features=len(self.data.all_features),
            num_static_real_features=len(self.data.static_real_features),
            num_static_categorical_features=len(self.data.static_categorical_features),
            cardinality=[len(names) for names in self.classes.values()] or None,
            num_parallel_samples=self.options.samples,
        )
        set_seed(self.recipe.seed)
        self.model = RnnSeq2SeqForTimeSeriesPrediction(config)
        if self.options.standardise:
            self.model.value_scale.fit(torch.from_numpy(self.windows.training_rows()))
        if self.data.static_real_features:
            self.model.static_scale.fit(torch.from_numpy(self.windows.static_numbers))

    def save_processors(self, directory: str | Path) -> None:
        said = {name: getattr(self.data, name) for name in SAVED_OPTIONS} | {"table": asdict(self.data.table)}
        write_json(Path(directory) / SERIES_FILE, {**said, "classes": self.classes})

    def load_processors(self, directory: str | Path) -> None:
        saved, self.classes = load_series_options(directory)
        for name, value in saved.items():
            if name != "shortest_past" and value != getattr(self.data, name):
                raise OptionsError(
                    f"data.{name}: the recipe says {getattr(self.data, name)!r}, but the model in {directory} was "
                    f"trained with {value!r}; give the recipe the model's value"
                )

    def check_data(self, data: DatasetDict) -> None:
        config = self.model.config
        for option, wanted in (
            ("horizon", config.prediction_length),
            ("look_back", config.context_length),
        ):
            if getattr(self.data, option) != wanted:
                got = getattr(self.data, option)
                raise OptionsError(f"data.{option}: got {got}, but the model was trained for {wanted}")
        self.windows.number_classes(self.classes)

    def encode(self, split: Dataset, name: str) -> Dataset:
        return split

    def lengths(self, encoded: Dataset) -> list[tuple[int, int]]:
        return [(self.data.look_back, self.data.horizon)] * len(encoded)

    def collate(self, rows: list[dict[str, Any]]) -> Mapping[str, Any]:
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}

    def validation_scorer(self, validation: Dataset) -> Callable[[], dict[str, float]] | None:
        if not self.recipe.evaluation.metric_specs or self.recipe.evaluation.validation_samples == 0:
            return None
        taken = validation.select(evenly_taken(len(validation), self.recipe.evaluation.validation_samples))
        return lambda: self.score(taken)

    def evaluate(self, split: Dataset, predictions: Path) -> Scores:
        with predictions.open("w", encoding="utf-8") as file:
            file.write(table_line(_PREDICTIONS_HEADER))
            return Scores(self.score(split, file.write), {})

    def score(self, split: Dataset, write: Callable[[str], Any] | None = None) -> dict[str, float]:
        """Forecast all windows of a split; return the recipe's metrics, and those of the naive forecast.

        Args:
            write: takes the lines of those forecasts that follow each other without overlap.
        """
        season = self.options.season
        metrics = {"": self._metrics()} | ({} if season is None else {"naive_": self._metrics()})
        is_random = self.model.distribution_output is not None
        for batch in self._batches(split):
            scored = self._forecast(batch, is_random)
            past, future = self._scored(batch, "past"), self._scored(batch, "future")  # (B, P, C), (B, T, C)
            _add(metrics[""], *scored, past, future)
            if season is not None:
                _add(metrics["naive_"], *naive_forecast(past, self.data.horizon, season), past, future)
            if write is not None:
                for line in self._lines(batch, scored, future):
                    write(line)
                self._keep_to_draw(batch, scored, past, future)
        return {
            f"{prefix}{reported}": float(next(iter(metric.compute().values())))
            for prefix, named in metrics.items()
            for reported, metric in named.items()
        }

    def errors_by_step(self, split: Dataset) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the mean absolute error at each step ahead, (T,), and that of the naive forecast, if it is scored."""
        found: dict[str, list[np.ndarray]] = {"": [], "naive": []}
        for batch in self._batches(split):
            past, future = self._scored(batch, "past"), self._scored(batch, "future")  # (B, P, C), (B, T, C)
            found[""].append(np.abs(self._forecast(batch, is_random=False)[0] - future))
            if self.options.season is not None:
                found["naive"].append(np.abs(naive_forecast(past, self.data.horizon, self.options.season)[0] - future))
        model, naive = (np.nanmean(np.concatenate(one), axis=(0, 2)) if one else None for one in found.values())
        assert model is not None
        return model, naive

    def _keep_to_draw(
        self, batch: dict[str, Any], scored: tuple[np.ndarray, np.ndarray | None], past: np.ndarray, future: np.ndarray
    ) -> None:
        """Keep the last window of a batch, for the picture of the card."""
        forecasts, samples = scored
        band = None if samples is None else tuple(np.quantile(samples[-1], BAND, axis=0))
        series = self.windows.series[batch["series"][-1]]
        title = f"series {series.id}, from row {series.rows[batch['start'][-1]]} on"
        self.drawn = {
            "past": past[-1], "future": future[-1], "forecast": forecasts[-1], "band": band, "title": title,
            "names": self.data.columns,
        }  # fmt: skip

    def draw(self, directory: Path) -> None:
        """Draw the last forecast over what came, where matplotlib is there (extra `demo`)."""
        if not self._can_draw():
            logger.warning("no picture for the card: it needs pip install 'hf_rnn_seq2seq[demo]'")
            return
        from ..evaluation.value_plot import plot_forecast

        assert self.drawn is not None
        plot_forecast(**self.drawn, path=directory / FORECAST_PICTURE)

    def card_fields(self) -> dict[str, Any]:
        band = "" if self.model.distribution_output is None else ", with the band that holds 80 % of its distribution"
        caption = f"A forecast of the data that were kept apart{band}, over what came."
        return {"picture": (FORECAST_PICTURE, caption)} if self._can_draw() else {}

    def _can_draw(self) -> bool:
        return self.drawn is not None and importlib.util.find_spec("matplotlib") is not None

    def _metrics(self) -> dict[str, evaluate_library.Metric]:
        specs = self.recipe.evaluation.metric_specs
        return {reported: load_metric(name, **options) for reported, (name, options) in specs.items()}

    def _batches(self, split: Dataset) -> Iterator[dict[str, Any]]:
        """Yield the model's inputs of batches of windows, and the windows' places, in evaluation mode."""
        size, training = self.recipe.evaluation.batch_size, self.model.training
        places = split.with_format(None)
        self.model.eval()
        try:
            for first in range(0, len(split), size):
                rows = range(first, min(first + size, len(split)))
                inputs = self.collate(split.__getitems__(list(rows)))
                moved = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
                yield {**moved, **{name: places[list(rows)][name] for name in ("series", "start")}}
        finally:
            self.model.train(training)

    def _forecast(self, batch: dict[str, Any], is_random: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the forecast (B, T, C) and the samples (B, n, T, C) or None, in the units of the scores."""
        unknown = ("future_values", "future_observed_mask", "series", "start")
        inputs = {name: batch[name] for name in batch if name not in unknown}
        with torch.random.fork_rng(devices=[], enabled=is_random):  # the training draws what it would without this
            forecasts, samples = self._in_units(self.model.forecast(**inputs)), None
            if is_random:
                torch.manual_seed(self.recipe.seed)
                sequences = self.model.generate(**inputs).sequences
                assert sequences is not None
                samples = self._in_units(sequences)
            return forecasts, samples

    def _scored(self, batch: dict[str, Any], side: str) -> np.ndarray:
        """Return the true values of a side, NaN where not observed, in the units of the scores."""
        values, observed = batch[f"{side}_values"], batch.get(f"{side}_observed_mask")
        return self._in_units(values if observed is None else values.masked_fill(~observed, torch.nan))

    def _in_units(self, values: torch.Tensor) -> np.ndarray:
        """Return values in what the scores are measured in."""
        if self.options.scores_in == "standard_deviations":
            values = self.model.value_scale.standardise(values)
        return values.cpu().numpy()

    def _lines(
        self, batch: dict[str, Any], scored: tuple[np.ndarray, np.ndarray | None], future: np.ndarray
    ) -> Iterator[str]:
        """Yield a line a value of those windows that follow each other without overlap."""
        forecasts, samples = scored
        for item, (number, start) in enumerate(zip(batch["series"], batch["start"], strict=True)):
            if (start - self.data.past_needed) % self.data.horizon:
                continue
            series = self.windows.series[number]
            band = None if samples is None else np.quantile(samples[item], BAND, axis=0)  # (2, T, C)
            for step in range(self.data.horizon):
                for channel, column in enumerate(self.data.columns):
                    numbers = [future[item, step, channel], forecasts[item, step, channel]]
                    numbers += [] if band is None else list(band[:, step, channel])
                    shown = ["" if np.isnan(number) else f"{number:.5g}" for number in numbers]
                    place = (series.id, str(series.rows[start + step]), str(step + 1), column)
                    yield table_line([*place, *shown, *([""] * (2 + len(BAND) - len(shown)))])


def _add(
    metrics: Mapping[str, Any], forecasts: np.ndarray, samples: np.ndarray | None, past: np.ndarray, future: np.ndarray
) -> None:
    """Add forecasts (B, T, C), samples (B, n, T, C), the past (B, P, C) and the future (B, T, C) to metrics."""
    for metric in metrics.values():
        predictions: Any = samples if metric.of_samples else forecasts
        scaled = isinstance(metric, MeanAbsoluteScaledError)
        metric.add_batch(
            predictions=list(predictions), references=list(np.concatenate([past, future], 1) if scaled else future)
        )


def naive_forecast(past: np.ndarray, horizon: int, season: int, samples: int = 99) -> tuple[np.ndarray, np.ndarray]:
    """Return the seasonal naive forecast (B, T, C) of the past (B, P, C), and a sample of its distribution.

    The forecast is what was one season before; a value that is missing there is taken from a season earlier, or is 0.
    Its errors are normal, with the standard deviation of the seasonal changes in the past, which grows with the root
    of the seasons ahead (Hyndman & Athanasopoulos 2021, 5.5). The sample is its quantiles, evenly apart.

    Args:
        samples: n, of (B, n, T, C).
    """
    filled = past[:, -season:].copy()  # (B, season, C)
    for end in range(past.shape[1] - season, season - 1, -season):
        filled = np.where(np.isnan(filled), past[:, end - season : end], filled)
    steps = np.arange(horizon)
    forecasts = np.nan_to_num(filled)[:, steps % season]  # (B, T, C)
    changes = past[:, season:] - past[:, :-season]  # (B, P - season, C)
    counted = np.maximum((~np.isnan(changes)).sum(1), 1)
    spread = np.sqrt(np.nansum(changes**2, axis=1) / counted)[:, None]  # (B, 1, C)
    spread = spread * np.sqrt(steps // season + 1)[None, :, None]  # (B, T, C)
    shares = torch.arange(1, samples + 1, dtype=torch.float64) / (samples + 1)
    quantiles = torch.special.ndtri(shares).numpy()[None, :, None, None]  # (1, n, 1, 1)
    return forecasts, forecasts[:, None] + quantiles * spread[:, None]
