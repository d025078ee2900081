"""What the two classifiers share as tasks: tokenizer, label map, an encoder trained elsewhere, prediction, scores.

The kinds are in `token_classification_task.py` and `sequence_classification_task.py`. Needs the extras `train` and
`metrics`; must not be imported by the model files.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase, set_seed

from ..data.files import DataError
from ..data.labels import label_map, load_labelled_data
from ..data.preprocessing import Preprocessing
from ..data.tokenizers import TokenizerOptions, load_tokenizers, train_tokenizer
from ..data.word_vectors import set_word_vectors
from ..evaluation.classifier_ensemble import RnnSeq2SeqSequenceClassificationEnsemble as SequenceEnsemble
from ..evaluation.classifier_ensemble import RnnSeq2SeqTokenClassificationEnsemble as TokenEnsemble
from ..evaluation.metrics import load_metric
from ..evaluation.saved_model import average_models, load_ensemble, load_model
from ..model.configuration_rnn_seq2seq import RnnSeq2SeqConfig
from ..model.modeling_classification import RnnSeq2SeqForSequenceClassification, RnnSeq2SeqForTokenClassification
from .options import OptionsError
from .recipe import RecipeError
from .scoring import check_metrics, evenly_taken
from .task import Scores, Task


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


logger = logging.getLogger(__name__)


@dataclass
class ClassifierTokenizerOptions(TokenizerOptions):
    """The tokenizer of a classifier: by default words, without `</s>` behind them.

    Args:
        word_vectors: text file of pretrained word vectors (word2vec, GloVe, fastText), under --data_dir, which the
            embeddings start from; `None`: none.
    """

    type: str = "word"
    add_eos: bool = False
    word_vectors: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.word_vectors is not None and self.type != "word":
            raise ValueError(f"word_vectors: type {self.type} has no words to give vectors to, wanted type word")

    def stand_in_sizes(self) -> dict[str, int | None]:
        """Vocabulary sizes for checking a model's options before there is a tokenizer."""
        return {"vocab_size": 1000, "character_vocab_size": 100 if self.characters else None}


@dataclass
class PretrainedOptions:
    """Where a classifier's encoder comes from.

    Args:
        encoder: directory of a model of this family whose encoder and source tokenizer are taken, for instance a
            translation model, relative to the working directory; the sizes are that model's. `None`: a fresh encoder.
    """

    encoder: str | None = None


class ClassificationTask(Task):
    """A label for each token, or one for the text. After `build` or `load` it also holds the tokenizer."""

    model_class: ClassVar[type[RnnSeq2SeqForTokenClassification | RnnSeq2SeqForSequenceClassification]]
    ensemble_class: ClassVar[type[TokenEnsemble | SequenceEnsemble]]
    model: RnnSeq2SeqForTokenClassification | RnnSeq2SeqForSequenceClassification | TokenEnsemble | SequenceEnsemble
    tokenizer: PreTrainedTokenizerBase
    data_dir: Path

    @abstractmethod
    def texts(self, split: Dataset) -> list[str]:
        """What the tokenizer reads, one text an item."""

    @abstractmethod
    def references(self, split: Dataset) -> list[Any]:
        """The labels as the metrics take them, one entry an item."""

    @abstractmethod
    def predict(self, split: Dataset) -> list[Any]:
        """The model's labels for each item of a split, of the same form as `references`."""

    def load_data(self, data_dir: str | Path) -> DatasetDict:
        self.data_dir = Path(data_dir)
        data = load_labelled_data(self.recipe.data, data_dir)
        labels = [row for split in data.values() for row in self.references(split)]
        check_metrics(self.recipe, labels, labels)
        return data

    def build(self, data: DatasetDict) -> None:
        references = self.references(data["train"])
        labels = label_map(label for item in references for label in ([item] if isinstance(item, str) else item))
        if len(labels) < 2:
            raise DataError(f"data.train: the only label is {labels[0]!r}, wanted at least two")
        names: dict[str, Any] = {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: number for number, label in enumerate(labels)},
        }
        encoder = self.recipe.more["pretrained"].encoder
        set_seed(self.recipe.seed)
        if encoder is not None:
            self._build_on(encoder, names)
            return
        options: ClassifierTokenizerOptions = self.recipe.tokenizer
        self.tokenizer = train_tokenizer(self.texts(data["train"]), options)
        characters = {"character_vocab_size": len(self.tokenizer.character_vocab)} if options.characters else {}
        ids = {name: getattr(self.tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        config = self.recipe.model_config(vocab_size=len(self.tokenizer), **characters, **ids, **names)
        set_seed(self.recipe.seed)
        self.model = self.model_class(config)
        if options.word_vectors is not None:
            coverage = set_word_vectors(self.model, self.tokenizer, self.data_dir / options.word_vectors)
            logger.info("word vectors: %.1f %% of the vocabulary have one", 100 * coverage)

    def _build_on(self, directory: str, names: dict[str, Any]) -> None:
        """Take tokenizer and encoder of a saved model; the head is new."""
        if self.recipe.content.get("tokenizer"):
            raise RecipeError("tokenizer: leave the section out, pretrained.encoder brings its tokenizer")
        try:
            self.tokenizer = load_tokenizers(directory)[0]
            preprocessing = Preprocessing.load(directory) or Preprocessing()
        except (FileNotFoundError, ValueError) as error:
            raise RecipeError(f"pretrained.encoder: {error}") from error
        for name in Preprocessing().differences(preprocessing):
            raise RecipeError(
                f"pretrained.encoder: the encoder in {directory} was trained with data.{name}="
                f"{getattr(preprocessing, name)!r}, and a classifier reads its texts as they are"
            )
        config = RnnSeq2SeqConfig.from_pretrained(directory, **self.recipe.model, **names)
        try:
            # The annotations of transformers know nothing of output_loading_info.
            loaded: Any = self.model_class.from_pretrained(directory, config=config, output_loading_info=True)
        except RuntimeError as error:
            # transformers compares the shapes, and has listed those that differ.
            raise RecipeError(f"model: its options do not fit the encoder in {directory}; {error}") from error
        self.model, loading = loaded
        new = sorted(loading["missing_keys"])
        lacking = [name for name in new if name.startswith("model.")]
        if lacking:
            raise RecipeError(f"pretrained.encoder: {directory} lacks the weights {', '.join(lacking)} of an encoder")
        logger.info("encoder of %s; new are only: %s", directory, ", ".join(new) or "no parameters")

    @property
    def id2label(self) -> dict[int, str]:
        """Number -> label of the model."""
        return cast("dict[int, str]", self.model.config.id2label)

    @property
    def label2id(self) -> dict[str, int]:
        """Label -> number of the model."""
        return cast("dict[str, int]", self.model.config.label2id)

    def load(self, directory: str | Path) -> None:
        self.tokenizer = load_tokenizers(directory)[0]
        self.model = load_model(self.model_class, directory)

    def check_data(self, data: DatasetDict) -> None:
        for split in data if self.recipe.data.unseen_labels == "refuse" else ["train"]:
            references = self.references(data[split])
            labels = label_map(label for item in references for label in ([item] if isinstance(item, str) else item))
            unknown = [label for label in labels if label not in self.label2id]
            if unknown:
                raise DataError(
                    f"data.{split}: has the labels {', '.join(unknown)}, which the model does not know; its labels "
                    f"are {', '.join(self.label2id)}"
                )

    def load_ensemble(self, directories: Sequence[str | Path]) -> None:
        try:
            self.model = load_ensemble(directories, self.ensemble_class)
        except ValueError as error:
            raise OptionsError(f"--eval_only: {error}") from error
        self.tokenizer = load_tokenizers(directories[0])[0]

    def load_average(self, directories: Sequence[str | Path], output_dir: str | Path) -> None:
        try:
            average_models(directories, output_dir, self.model_class)
        except ValueError as error:
            raise OptionsError(f"--eval_only: {error}") from error
        self.load(output_dir)

    def save_processors(self, directory: str | Path) -> None:
        self.tokenizer.save_pretrained(directory)

    def lengths(self, encoded: Dataset) -> list[tuple[int, int]]:
        return [(length, length) for length in map(len, encoded["input_ids"])]

    def pad(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows of the model's inputs, padded, as tensors; `labels` of one number a row may be among them.

        The tokenizer could pad the characters too, but making a tensor of its nested lists takes half as long as
        training on it.
        """
        words = [row.pop("character_ids") for row in rows if "character_ids" in row]
        batch: dict[str, torch.Tensor] = dict(DataCollatorWithPadding(self.tokenizer)(rows))
        if words:
            real = batch["attention_mask"].bool()
            lengths = torch.zeros_like(batch["input_ids"])
            lengths[real] = torch.tensor([len(word) for row in words for word in row])
            places = torch.arange(int(lengths.max()))
            characters = torch.full((*real.shape, len(places)), cast("int", self.tokenizer.pad_token_id))
            characters[places < lengths[..., None]] = torch.tensor([c for row in words for word in row for c in word])
            batch["character_ids"] = characters
        return batch

    def batches(self, encoded: Sequence[Mapping[str, Any]]) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """The rows of batches, and the model's inputs, in evaluation mode; rows of like length go together.

        Args:
            encoded: what the tokenizer gave for each item.
        """
        order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]["input_ids"]))
        size = self.recipe.evaluation.batch_size
        training = self.model.training
        self.model.eval()
        try:
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                batch = self.pad([dict(encoded[row]) for row in rows])
                with torch.no_grad():
                    yield rows, {name: tensor.to(self.model.device) for name, tensor in batch.items()}
        finally:
            self.model.train(training)

    def tokenize(self, texts: list[str], name: str) -> list[dict[str, Any]]:
        """The model's inputs of each text, neither padded nor tensors.

        Raises:
            DataError: the tokenizer finds nothing in a text.
        """
        inputs = self.tokenizer(texts)
        rows = [dict(zip(inputs, values, strict=True)) for values in zip(*inputs.values(), strict=True)]
        for number, (row, text) in enumerate(zip(rows, texts, strict=True), start=1):
            if not row["input_ids"]:
                raise DataError(f"{name}: item {number} has no token: {text!r}")
        return rows

    def metrics(self, references: list[Any], predictions: list[Any]) -> Scores:
        """The recipe's metrics."""
        numbers: dict[str, float] = {}
        details: dict[str, str] = {}
        for reported, (name, options) in self.recipe.evaluation.metric_specs.items():
            result = load_metric(name, **options).compute(predictions=predictions, references=references)
            for key, value in (result or {}).items():
                key = key.replace(name, reported, 1)
                if isinstance(value, str):
                    details[key] = value
                else:
                    numbers[key] = float(value)
        return Scores(numbers, details)

    def validation_scorer(self, validation: Dataset) -> Callable[[], dict[str, float]] | None:
        options = self.recipe.evaluation
        if not options.metric_specs or options.validation_samples == 0:
            return None
        taken = validation.select(evenly_taken(len(validation), options.validation_samples))
        references = self.references(taken)
        return lambda: dict(self.metrics(references, self.predict(taken)).numbers)

    def evaluate(self, split: Dataset, predictions: Path) -> Scores:
        predicted = self.predict(split)
        references = self.references(split)
        with predictions.open("w", encoding="utf-8", newline="") as handle:
            handle.writelines(self.prediction_lines(split, predicted))
        return self.metrics(references, predicted)

    @abstractmethod
    def prediction_lines(self, split: Dataset, predicted: list[Any]) -> Iterator[str]:
        """The lines of the predictions file, a header first."""
