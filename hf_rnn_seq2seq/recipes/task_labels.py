"""The two classifiers as tasks: a label for each word (by a softmax or a CRF, Huang et al. 2015), or one for the text.

Tokenizer, label map, an encoder trained elsewhere, prediction and scores. Needs the extras `train` and `metrics`.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from ..data.files import TEXTS_HEADER, TOKENS_HEADER, DataError, table_line
from ..data.labels import SequenceLabelDataOptions, TokenLabelDataOptions, label_map, load_labelled_data
from ..data.preprocessing import Preprocessing
from ..data.splits import Dataset, DatasetDict, evenly_taken
from ..data.tokenizers import TokenizerOptions, load_tokenizers, train_tokenizer
from ..data.word_vectors import set_word_vectors
from ..evaluation.decoding import IGNORE_INDEX
from ..evaluation.ensemble import RnnSeq2SeqSequenceClassificationEnsemble as SequenceEnsemble
from ..evaluation.ensemble import RnnSeq2SeqTokenClassificationEnsemble as TokenEnsemble
from ..evaluation.metrics import LABEL_METRICS
from ..model.configuration_rnn_seq2seq import RnnSeq2SeqConfig
from ..model.modeling_classification import RnnSeq2SeqForSequenceClassification, RnnSeq2SeqForTokenClassification
from .labelling import Labeller
from .recipe import Recipe, RecipeError, RecipeKind
from .scoring import check_metrics, compute_metrics
from .task import Scores, Task, check_folder


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


def _kind(task: str, data: type, metrics: tuple[str, ...]) -> RecipeKind:
    more = {"pretrained": PretrainedOptions}
    return RecipeKind(task, data, ClassifierTokenizerOptions, more=more, metrics=metrics)


class ClassificationTask(Labeller, Task):
    """A label for each token, or one for the text. After `build` or `load` it also holds the tokenizer."""

    model: RnnSeq2SeqForTokenClassification | RnnSeq2SeqForSequenceClassification | TokenEnsemble | SequenceEnsemble
    data_dir: Path

    @property
    def batch_size(self) -> int:  # type: ignore[override]  # read only, as the recipe says
        return self.recipe.evaluation.batch_size

    @abstractmethod
    def texts(self, split: Dataset) -> list[str]:
        """What the tokenizer reads, one text an item."""

    @abstractmethod
    def references(self, split: Dataset) -> list[Any]:
        """The labels as the metrics take them, one entry an item."""

    @abstractmethod
    def predict(self, split: Dataset) -> list[Any]:
        """The model's labels for each item of a split, of the same form as `references`."""

    def _labels(self, split: Dataset) -> list[str]:
        items = self.references(split)
        return label_map(label for item in items for label in ([item] if isinstance(item, str) else item))

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        check_folder("pretrained.encoder", recipe.more["pretrained"].encoder)

    def load_data(self, data_dir: str | Path) -> DatasetDict:
        self.data_dir = Path(data_dir)
        data = load_labelled_data(self.recipe.data, data_dir)
        labels = [row for split in data.values() for row in self.references(split)]
        check_metrics(self.recipe, labels, labels)
        return data

    def build(self, data: DatasetDict) -> None:
        labels = self._labels(data["train"])
        if len(labels) < 2:
            raise DataError(f"data.train: the only label is {labels[0]!r}, wanted at least two")
        names = {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}
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

    def load_processors(self, directory: str | Path) -> None:
        self.tokenizer = load_tokenizers(directory)[0]

    def check_data(self, data: DatasetDict) -> None:
        for split in data if self.recipe.data.unseen_labels == "refuse" else ["train"]:
            unknown = [label for label in self._labels(data[split]) if label not in self.label2id]
            if unknown:
                raise DataError(
                    f"data.{split}: has the labels {', '.join(unknown)}, which the model does not know; its labels "
                    f"are {', '.join(self.label2id)}"
                )

    def save_processors(self, directory: str | Path) -> None:
        self.tokenizer.save_pretrained(directory)

    def lengths(self, encoded: Dataset) -> list[tuple[int, int]]:
        return [(length, length) for length in map(len, encoded["input_ids"])]

    def validation_scorer(self, validation: Dataset) -> Callable[[], dict[str, float]] | None:
        options = self.recipe.evaluation
        if not options.metric_specs or options.validation_samples == 0:
            return None
        taken = validation.select(evenly_taken(len(validation), options.validation_samples))
        references = self.references(taken)
        return lambda: compute_metrics(self.recipe, self.predict(taken), references)[0]

    def evaluate(self, split: Dataset, predictions: Path) -> Scores:
        predicted = self.predict(split)
        with predictions.open("w", encoding="utf-8", newline="") as handle:
            handle.writelines(self.prediction_lines(split, predicted))
        return Scores(*compute_metrics(self.recipe, predicted, self.references(split)))

    @abstractmethod
    def prediction_lines(self, split: Dataset, predicted: list[Any]) -> Iterator[str]:
        """The lines of the predictions file, a header first."""


class TokenClassificationTask(ClassificationTask):
    """A label for each word of a sentence."""

    kind = _kind("token_classification", TokenLabelDataOptions, LABEL_METRICS)
    model_class = RnnSeq2SeqForTokenClassification
    ensemble_class = TokenEnsemble
    model: RnnSeq2SeqForTokenClassification | TokenEnsemble

    def texts(self, split: Dataset) -> list[str]:
        return [" ".join(tokens) for tokens in split["tokens"]]

    def references(self, split: Dataset) -> list[list[str]]:
        return list(split["labels"])

    def encode(self, split: Dataset, name: str) -> Dataset:
        rows = self.tokenize(self.texts(split), name)
        ids = self.label2id
        for row, starts, labels in zip(rows, self.word_starts(split["tokens"], name), split["labels"], strict=True):
            row["labels"] = [IGNORE_INDEX] * len(row["input_ids"])
            for start, label in zip(starts, labels, strict=True):
                row["labels"][start] = ids.get(label, IGNORE_INDEX)
        return type(split).from_list(rows)

    def collate(self, rows: list[dict[str, Any]]) -> Mapping[str, Any]:
        labels = [label for row in rows for label in row["labels"]]
        batch = self.pad([{name: value for name, value in row.items() if name != "labels"} for row in rows])
        batch["labels"] = torch.full_like(batch["input_ids"], IGNORE_INDEX)
        batch["labels"][batch["attention_mask"].bool()] = torch.tensor(labels)
        return batch

    def predict(self, split: Dataset) -> list[list[str]]:
        return self.tags(split["tokens"])

    def prediction_lines(self, split: Dataset, predicted: list[Any]) -> Iterator[str]:
        """One line a word, and a blank line after each sentence."""
        yield table_line(TOKENS_HEADER)
        for words, labels, guesses in zip(split["tokens"], split["labels"], predicted, strict=True):
            for fields in zip(words, labels, guesses, strict=True):
                yield table_line(fields)
            yield "\n"


class SequenceClassificationTask(ClassificationTask):
    """One label for each text."""

    kind = _kind("sequence_classification", SequenceLabelDataOptions, LABEL_METRICS[:2])
    model_class = RnnSeq2SeqForSequenceClassification
    ensemble_class = SequenceEnsemble
    model: RnnSeq2SeqForSequenceClassification | SequenceEnsemble

    def texts(self, split: Dataset) -> list[str]:
        return list(split["text"])

    def references(self, split: Dataset) -> list[str]:
        return list(split["label"])

    def encode(self, split: Dataset, name: str) -> Dataset:
        rows = self.tokenize(self.texts(split), name)
        ids = self.label2id
        return type(split).from_list(
            [{**row, "labels": ids.get(label, IGNORE_INDEX)} for row, label in zip(rows, split["label"], strict=True)]
        )

    def collate(self, rows: list[dict[str, Any]]) -> Mapping[str, Any]:
        return self.pad(rows)

    def predict(self, split: Dataset) -> list[str]:
        return [ranked[0][0] for ranked in self.classes(self.texts(split))]

    def prediction_lines(self, split: Dataset, predicted: list[Any]) -> Iterator[str]:
        """One line a text."""
        yield table_line(TEXTS_HEADER)
        for fields in zip(split["text"], split["label"], predicted, strict=True):
            yield table_line(fields)
