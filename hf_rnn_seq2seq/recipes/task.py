"""What one kind of output means to the run of a recipe: its data, model, batches and scores.

`experiment.py` trains and evaluates any `Task`; the kinds are in `seq2seq_task.py`, `token_classification_task.py`,
`sequence_classification_task.py` and `speech_task.py`. Needs the extra `train`; must not be imported by the model
files.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from transformers import PreTrainedModel

from ..data.files import read_json, reading
from .recipe import Recipe, RecipeKind


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


REPORT_FILE = "training_report.json"


@dataclass(frozen=True)
class Scores:
    """What an evaluation found.

    Args:
        numbers: metric -> number, in percent unless the metric has another unit.
        details: what belongs to a metric and is no number, such as BLEU's signature.
    """

    numbers: Mapping[str, float]
    details: Mapping[str, str]


@dataclass
class TrainingReport:
    """How a training went.

    Args:
        seconds: seconds of training, evaluations and those before a resume included.
        weights: which weights the model has, in words.
        epochs: epochs trained.
        updates: updates of the weights.
        items: items in the training data.
    """

    seconds: float
    weights: str
    epochs: float
    updates: int
    items: int

    def save(self, directory: str | Path) -> None:
        """Write it beside the model, for those who evaluate that later."""
        (Path(directory) / REPORT_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, directory: str | Path) -> TrainingReport | None:
        """What `save` wrote, or `None` if the model was not trained by a recipe."""
        path = Path(directory) / REPORT_FILE
        if not path.is_file():
            return None
        with reading(path, f"an object with the keys {', '.join(field.name for field in fields(cls))}"):
            return cls(**read_json(path))


class Task(ABC):
    """
    One kind of output, for one recipe. After `build` or `load` it holds the model.

    Args:
        recipe: the recipe; its sections are those of `kind`.
    """

    kind: ClassVar[RecipeKind]
    model: PreTrainedModel

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @abstractmethod
    def load_data(self, data_dir: str | Path) -> DatasetDict:
        """The splits as text and labels: train, validation and the test splits that the recipe names."""

    @abstractmethod
    def build(self, data: DatasetDict) -> None:
        """Fit tokenizers and label maps to the training data and make the model; its weights follow from the seed."""

    def try_predicting(self, split: Dataset) -> None:  # noqa: B027 - labels need no search
        """Refuse a search that does not work: before the training, not after it."""

    @abstractmethod
    def load(self, directory: str | Path) -> None:
        """Load model and tokenizers as `save_pretrained` and `save_processors` left them; a checkpoint will do."""

    def check_data(self, data: DatasetDict) -> None:  # noqa: B027 - most kinds take any data
        """Refuse data that a loaded model cannot be scored on."""

    @abstractmethod
    def load_ensemble(self, directories: Sequence[str | Path]) -> None:
        """Load several models that predict together, as one."""

    @abstractmethod
    def load_average(self, directories: Sequence[str | Path], output_dir: str | Path) -> None:
        """Load the mean of the weights of several checkpoints, and save it."""

    @abstractmethod
    def save_processors(self, directory: str | Path) -> None:
        """Save tokenizers and whatever else turns raw input into the model's, beside the model."""

    @abstractmethod
    def encode(self, split: Dataset, name: str) -> Dataset:
        """The model's inputs and labels of a split; `name` is what messages call it."""

    @abstractmethod
    def lengths(self, encoded: Dataset) -> list[tuple[int, int]]:
        """(source, target) length of every row of an encoded split, in what `max_tokens` counts."""

    @abstractmethod
    def collate(self, rows: list[dict[str, Any]]) -> Mapping[str, Any]:
        """A batch of encoded rows, padded."""

    def augment(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A training batch as the model sees it, changed at random if the recipe says so; here it is left alone."""
        return batch

    @abstractmethod
    def validation_scorer(self, validation: Dataset) -> Callable[[], dict[str, float]] | None:
        """What scores the validation data at each evaluation, beside the loss; `None`: nothing does."""

    @abstractmethod
    def evaluate(self, split: Dataset, predictions: Path) -> Scores:
        """Predict and score a split, and write the predictions to a tab-separated file."""

    def card_fields(self) -> dict[str, Any]:
        """Fields of the model card that only this kind of task knows."""
        return {}
