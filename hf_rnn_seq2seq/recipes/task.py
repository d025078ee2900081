"""What one kind of output means to the run of a recipe: its data, model, batches and scores.

`run.py` trains and evaluates any `Task`; `TASKS` says where the kinds are. Needs the extra `train`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch

from ..data.files import DataError, read_json, reading
from ..data.outputs import write_json
from ..data.splits import Dataset, DatasetDict
from ..evaluation.saved_model import average_models, load_ensemble, load_model, saved_classes
from .options import OptionsError
from .recipe import Recipe, RecipeError, RecipeKind, build_recipe, read_recipe


REPORT_FILE = "training_report.json"
# What the key `task` of a recipe may say -> the file and the class of it.
TASKS = {
    "seq2seq": ("task_text", "Seq2SeqTask"),
    "speech": ("task_speech", "SpeechTask"),
    "speak": ("task_speak", "SpeakTask"),
    "token_classification": ("task_labels", "TokenClassificationTask"),
    "sequence_classification": ("task_labels", "SequenceClassificationTask"),
    "values": ("task_values", "ValueTask"),
    "forecast": ("task_forecast", "ForecastTask"),
}


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

    `seconds` are those of evaluations and those before a resume, too; `weights` says in words which the model has;
    `updates` are those of the weights, `items` the training data; `skipped` updates were left out as not finite;
    `derived` are the values of `auto`, `remarks` sentences on a run that was too short.
    """

    seconds: float
    weights: str
    epochs: float
    updates: int
    items: int
    skipped: int = 0
    derived: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def save(self, directory: str | Path) -> None:
        """Write it beside the model, for those who evaluate that later."""
        write_json(Path(directory) / REPORT_FILE, asdict(self))

    @classmethod
    def load(cls, directory: str | Path) -> TrainingReport | None:
        """What `save` wrote, or `None` if the model was not trained by a recipe."""
        path = Path(directory) / REPORT_FILE
        if not path.is_file():
            return None
        with reading(path, f"an object with the keys {', '.join(each.name for each in fields(cls))}"):
            return cls(**read_json(path))


def task_class(name: Any) -> type[Task]:
    """Return the class of the task that a recipe names."""
    if not isinstance(name, str) or name not in TASKS:
        got = "missing" if name is None else f"got {name!r}"
        raise RecipeError(f"task: {got}, wanted one of {', '.join(TASKS)}")
    file, class_name = TASKS[name]
    found: type[Task] = getattr(import_module(f".{file}", __package__), class_name)
    return found


def check_folder(option: str, folder: str | None) -> None:
    """Refuse a folder that a recipe names and that holds no model."""
    if folder is not None:
        try:
            saved_classes(Path(folder))
        except (OSError, DataError) as error:
            raise RecipeError(f"{option}: {error}") from error


def to_accelerator(model: torch.nn.Module, recipe: Recipe) -> None:
    """Move a model to where its recipe computes."""
    if torch.accelerator.is_available() and not recipe.training.get("use_cpu", False):
        model.to(torch.accelerator.current_accelerator())


@contextmanager
def _eval_only() -> Iterator[None]:
    """Name the option of the command line that a refusal is about."""
    try:
        yield
    except ValueError as error:
        raise OptionsError(f"--eval_only: {error}") from error


class Task(ABC):
    """One kind of output, for one recipe, whose sections are those of `kind`. After `build` or `load` it holds the
    model.
    """

    kind: ClassVar[RecipeKind]
    model_class: ClassVar[Any]
    ensemble_class: ClassVar[Any]
    model: Any

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @abstractmethod
    def load_data(self, data_dir: str | Path) -> DatasetDict:
        """The splits as text and labels: train, validation and the test splits that the recipe names."""

    def number_of_items(self, train: Dataset) -> int:
        """How many training items there are for `auto`."""
        return len(train)

    def derive_from_texts(self, train: Dataset) -> dict[str, str]:
        """What `auto` stands for that texts decide, by `section.key`."""
        return {}

    @abstractmethod
    def build(self, data: DatasetDict) -> None:
        """Fit tokenizers and label maps to the training data and make the model; its weights follow from the seed."""

    def try_predicting(self, split: Dataset) -> None:  # noqa: B027 - labels need no search
        """Refuse a search that does not work: before the training, not after it."""

    def training_split(self, split: Dataset) -> Dataset:
        """What the model is trained on, of the training split: all of it, and what a teacher adds."""
        return split

    @abstractmethod
    def load_processors(self, directory: str | Path) -> None:
        """Load what `save_processors` saved; refuse what prepares inputs otherwise than the recipe says."""

    def load(self, directory: str | Path) -> None:
        """Load a saved model and what goes with it; a checkpoint will do."""
        self.load_processors(directory)
        self.model = load_model(self.model_class, directory)

    def check_data(self, data: DatasetDict) -> None:  # noqa: B027 - most kinds take any data
        """Refuse data that a loaded model cannot be scored on."""

    def load_ensemble(self, directories: Sequence[str | Path]) -> None:
        """Load several models that predict together, as one."""
        with _eval_only():
            self.model = load_ensemble(directories, self.ensemble_class)
        self.load_processors(directories[0])

    def load_average(self, directories: Sequence[str | Path], output_dir: str | Path) -> None:
        """Load the mean of the weights of several checkpoints, and save it with what goes with it."""
        with _eval_only():
            average_models(directories, output_dir, self.model_class)
        self.load_processors(directories[0])
        self.save_processors(output_dir)
        self.model = load_model(self.model_class, output_dir)

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

    def draw(self, directory: Path) -> None:  # noqa: B027 - most kinds have no picture
        """Draw the picture of the model card into the folder of the model, once a split is evaluated."""

    def card_fields(self) -> dict[str, Any]:
        """Fields of the model card that only this kind of task knows."""
        return {}


def load_task(path: str | Path, overrides: Iterable[str] = ()) -> Task:
    """Return the task of a recipe file, checked, with overrides: what `run_recipe` runs; OptionsError if it cannot be
    used.
    """
    content = read_recipe(path, overrides)
    task = task_class(content.get("task"))
    return task(build_recipe(content, Path(path).stem, task.kind))
