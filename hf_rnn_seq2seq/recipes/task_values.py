"""Values as a task: of each vector of a series, or of the series up to a row; scales, batches, errors, a picture.

The scales of features and values are fitted to the training data alone, and saved with the model. Metrics are given
over all rows, and as `last_<name>` over the last row of each series. Needs the extras `train` and `metrics`.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from ..data.files import table_line
from ..data.splits import Dataset, DatasetDict, evenly_taken
from ..data.values import ValueColumns, ValueDataOptions, Windows, arrays, load_value_data
from ..evaluation.ensemble import RnnSeq2SeqSequenceClassificationEnsemble as SequenceEnsemble
from ..evaluation.ensemble import RnnSeq2SeqTokenClassificationEnsemble as TokenEnsemble
from ..evaluation.value_metrics import VALUE_METRICS
from ..model.modeling_classification import RnnSeq2SeqForSequenceClassification, RnnSeq2SeqForTokenClassification
from ..training.batches import pad_value_rows
from .options import OptionsError
from .recipe import Recipe, RecipeError, RecipeKind
from .run_folder import VALUES_PICTURE
from .scoring import compute_metrics
from .task import Scores, Task


logger = logging.getLogger(__name__)

_HEADER = ("series", "row", "column", "truth", "prediction")


@dataclass
class NoTokenizerOptions:
    """There are no symbols: the section `tokenizer` is left out."""

    def stand_in_sizes(self) -> dict[str, Any]:
        """Sizes for checking a model's options before there is data."""
        return {"input_feature_size": 1, "problem_type": "regression"}


VALUES = RecipeKind("values", ValueDataOptions, NoTokenizerOptions)


def predict_values(
    model: Any, features: Sequence[np.ndarray], columns: ValueColumns, batch_size: int, rows: str = "all"
) -> list[np.ndarray]:
    """Return the values of series that a model, or an ensemble of several, predicts.

    Args:
        model: gives values of each vector, or of a sequence; in evaluation mode.
        features: (N, F) of each series.
        columns: what it reads and predicts.
        batch_size: number of sequences read at a time, those of like length together.
        rows: of "all" rows of a series or of its "last" one, where a value is that of the series up to a row.

    Returns:
        (N, C) of each series, in the user's units; NaN at rows that no sequence ends at.
    """
    found = [np.full((len(one), len(columns.values)), np.nan, dtype=np.float32) for one in features]
    if columns.target == "vector":
        sequences: Any = [{"input_features": one} for one in features]
        places = [(number, slice(None)) for number in range(len(features))]
    else:
        sequences = Windows(features, None, columns.window).dataset("last" if rows == "last" else "all")
        ends = sequences.with_format(None)[:]
        places = list(zip(ends["series"], ends["end"]))
    lengths = [len(features[series]) if isinstance(end, slice) else end for series, end in places]
    order = sorted(range(len(places)), key=lambda place: lengths[place])
    training = model.training
    model.eval()
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = pad_value_rows([sequences[number] for number in chosen])
        with torch.no_grad():
            logits = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).logits.float().cpu()
        for number, values in zip(chosen, logits.numpy()):
            series, end = places[number]
            found[series][end] = values[: len(features[series])] if columns.target == "vector" else values
    model.train(training)
    return found


class ValueTask(Task):
    """Values of each vector of a series, or of the series up to a row."""

    kind = VALUES
    model: RnnSeq2SeqForTokenClassification | RnnSeq2SeqForSequenceClassification | TokenEnsemble | SequenceEnsemble

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        each = recipe.data.target == "vector"
        self.model_class = RnnSeq2SeqForTokenClassification if each else RnnSeq2SeqForSequenceClassification  # type: ignore[misc]
        self.ensemble_class = TokenEnsemble if each else SequenceEnsemble  # type: ignore[misc]
        self.columns: ValueColumns = recipe.data.columns()
        self.drawn: tuple[str, np.ndarray, np.ndarray] | None = None  # id, truth and prediction of a series
        specs = recipe.evaluation.metric_specs
        wrong = [name for name, (metric, _) in specs.items() if not _counts_values(metric)]
        if wrong:
            known = ", ".join(name for name in VALUE_METRICS if _counts_values(name))
            raise RecipeError(f"evaluation.metrics: {wrong[0]} is {specs[wrong[0]][0]!r}, wanted one of {known}")
        if recipe.model.get("use_crf"):
            raise RecipeError("model.use_crf: got true, but a CRF scores labels, and these are values: leave it out")

    def load_data(self, data_dir: str | Path) -> DatasetDict:
        return load_value_data(self.recipe.data, data_dir, self.recipe.model.get("standardise_features", True))

    def number_of_items(self, train: Dataset) -> int:
        return len(self.encode(train, "train"))

    def build(self, data: DatasetDict) -> None:
        names = dict(enumerate(self.columns.values))
        config = self.recipe.model_config(
            problem_type="regression",
            input_feature_size=len(self.columns.features),
            id2label=names,
            label2id={name: number for number, name in names.items()},
            standardise_features=self.recipe.model.get("standardise_features", True),
        )
        set_seed(self.recipe.seed)
        model = self.model_class(config)
        features, values = (torch.from_numpy(np.concatenate(part)) for part in arrays(data["train"], self.columns))
        if config.standardise_features:
            model.model.encoder.input_scale.fit(features)
        model.output_scale.fit(values)
        self.model = model

    def load_processors(self, directory: str | Path) -> None:
        saved = ValueColumns.load(directory)
        for name, value in asdict(self.columns).items():
            if name != "table" and getattr(saved, name) != value:
                raise OptionsError(
                    f"data: the recipe's {name} are {value!r}, but the model in {directory} was trained with "
                    f"{getattr(saved, name)!r}; give the recipe the model's value"
                )

    def save_processors(self, directory: str | Path) -> None:
        self.columns.save(directory)

    def encode(self, split: Dataset, name: str) -> Dataset:
        features, values = arrays(split, self.columns)
        if self.columns.target == "vector":
            return type(split).from_dict({"series": range(len(features))}).with_transform(_whole(features, values))
        options = self.recipe.data
        step = options.train_step if name == "train" else 1
        return Windows(features, values, self.columns.window).dataset(options.rows, step)

    def lengths(self, encoded: Dataset) -> list[tuple[int, int]]:
        if self.columns.target == "vector":
            return [(len(row["input_features"]), 1) for row in encoded]
        window = self.columns.window
        return [(end + 1 if window is None else min(end + 1, window), 1) for end in encoded.with_format(None)["end"]]

    def collate(self, rows: list[dict[str, Any]]) -> Mapping[str, Any]:
        return pad_value_rows(rows)

    def predict(self, split: Dataset) -> list[np.ndarray]:
        """Return the values (N, C) of each series of a split."""
        options = self.recipe
        return predict_values(
            self.model, arrays(split, self.columns)[0], self.columns, options.evaluation.batch_size, options.data.rows
        )

    def metrics(self, truths: Sequence[np.ndarray], predicted: Sequence[np.ndarray]) -> Scores:
        """The recipe's metrics, over all rows that were predicted, and over the last row of each series."""
        there = [truth.copy() for truth in truths]
        for truth, values in zip(there, predicted):
            truth[np.isnan(values)] = np.nan
        got = [np.nan_to_num(values, nan=0.0) for values in predicted]
        numbers, details = compute_metrics(self.recipe, got, there)
        last = compute_metrics(self.recipe, [values[-1:] for values in got], [truth[-1:] for truth in there])[0]
        return Scores({**numbers, **{f"last_{name}": value for name, value in last.items()}}, details)

    def validation_scorer(self, validation: Dataset) -> Callable[[], dict[str, float]] | None:
        options = self.recipe.evaluation
        if not options.metric_specs or options.validation_samples == 0:
            return None
        taken = validation.select(evenly_taken(len(validation), options.validation_samples))
        truths = arrays(taken, self.columns)[1]
        return lambda: dict(self.metrics(truths, self.predict(taken)).numbers)

    def evaluate(self, split: Dataset, predictions: Path) -> Scores:
        predicted, truths = self.predict(split), arrays(split, self.columns)[1]
        with predictions.open("w", encoding="utf-8", newline="") as handle:
            handle.writelines(self._lines(split, truths, predicted))
        longest = max(range(len(truths)), key=lambda number: len(truths[number]))
        self.drawn = split["id"][longest], truths[longest], predicted[longest]
        return self.metrics(truths, predicted)

    def draw(self, directory: Path) -> None:
        """Draw truth and prediction of the longest series, where matplotlib is there (extra `demo`)."""
        if self.drawn is None or importlib.util.find_spec("matplotlib") is None:
            logger.warning("no picture for the card: it needs pip install 'hf_rnn_seq2seq[demo]'")
            return
        from ..evaluation.value_plot import plot_values

        name, truth, values = self.drawn
        plot_values(truth, values, self.columns.values, path=directory / VALUES_PICTURE, title=f"series {name}")

    def card_fields(self) -> dict[str, Any]:
        if self.drawn is None or importlib.util.find_spec("matplotlib") is None:
            return {}
        return {"picture": (VALUES_PICTURE, f"What was to be predicted of the series {self.drawn[0]}, and what was.")}

    def _lines(self, split: Dataset, truths: Sequence[np.ndarray], predicted: Sequence[np.ndarray]) -> Iterator[str]:
        yield table_line(_HEADER)
        for name, rows, truth, values in zip(split["id"], split["rows"], truths, predicted, strict=True):
            for number, row in enumerate(rows):
                for place, column in enumerate(self.columns.values):
                    if not np.isnan(values[number, place]):
                        pair = f"{truth[number, place]:.6g}", f"{values[number, place]:.6g}"
                        yield table_line((name, str(row), column, *pair))


def _counts_values(metric: str) -> bool:
    return metric in VALUE_METRICS and not VALUE_METRICS[metric].of_samples and metric != "mase"


def _whole(
    features: Sequence[np.ndarray], values: Sequence[np.ndarray]
) -> Callable[[dict[str, list[int]]], dict[str, list[np.ndarray]]]:
    """Return what gives the whole series of rows of a data set with the column `series`."""
    return lambda batch: {
        "input_features": [features[number] for number in batch["series"]],
        "labels": [values[number] for number in batch["series"]],
    }
