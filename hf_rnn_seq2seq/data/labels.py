"""Labelled data: words with a label each, and texts with one label.

A data set is a Hub name or local files: jsonl, CoNLL columns, CoNLL-U for words; jsonl, csv, tsv for texts; also
gzipped. It becomes a `datasets.DatasetDict` with the columns `tokens` and `labels`, or `text` and `label`; labels are
strings. Bad files are refused with file and line number. Needs `datasets` (extra `train`).
"""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

from .files import (
    TOKENS_HEADER,
    DataError,
    file_columns,
    files_of,
    hub_columns,
    is_written_here,
    quoted_rows,
    split_blanks,
    text_lines,
)
from .option_checks import check_choice, check_column, check_share
from .splits import SPLITS, Dataset, DatasetDict, SizeOptions, first_samples, hold_out


logger = logging.getLogger(__name__)


@dataclass
class Item:
    """A text with its label, or tokens with a label each; `places` are file and line of each label, for messages."""

    input: str | list[str]
    labels: list[str]
    places: list[str]


@dataclass
class LabelledDataOptions(SizeOptions, ABC):
    """The options of both kinds of labelled data (the `data` section of a recipe).

    Args:
        dataset_name: a Hub data set; `None`: local files.
        dataset_config: configuration of the Hub data set.
        train: a file or a list of files; for a Hub data set the split's name.
        validation: the same for the split that selects the model.
        test: the same for the split that is reported.
        format: format of the files; `None`: from the file name (`.gz` may follow).
        validation_fraction: hold so large a share of the training data out as validation data, always the same items
            whatever the seed; for sets without a validation split. `None`: none.
        unseen_labels: a label of validation or test data that the training data lacks: "refuse" it, or "count_wrong":
            it has no part in the loss, and whatever the model predicts there is wrong.
        label_names: label in the data -> what the model calls it; `None`: the same.
    """

    dataset_name: str | None = None
    dataset_config: str | None = None
    train: str | list[str] | None = None
    validation: str | list[str] | None = None
    test: str | list[str] | None = None
    format: str | None = None
    validation_fraction: float | None = None
    unseen_labels: Literal["refuse", "count_wrong"] = "refuse"
    label_names: dict[str | int, str] | None = None

    formats: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        check_choice(self, "format", self.formats)
        check_share(self, "validation_fraction")
        if self.validation_fraction is not None and self.validation is not None:
            raise ValueError(f"validation_fraction: given together with validation: {self.validation!r}")
        super().__post_init__()
        for name, column in self.columns.items():
            check_column(name, column)
        if self.label_names is not None:
            # YAML reads 0 as a number, a file's label is a string.
            self.label_names = {str(label).strip(): name for label, name in self.label_names.items()}

    @property
    @abstractmethod
    def columns(self) -> Mapping[str, str | int]:
        """The columns of the input and of its labels, by their options."""

    @abstractmethod
    def item(self, value: Any, labels: Any, place: str) -> Item:
        """Return a checked item of the values of the two columns; `place` is file and line."""

    @abstractmethod
    def dataset(self, items: list[Item]) -> Dataset:
        """Return a split of the items."""

    def read(self, path: Path, file_format: str) -> Iterator[Item]:
        """Yield the items of a file of one of the `formats`."""
        header = getattr(self, "header", None)
        for place, (value, labels) in file_columns(path, file_format, self.columns, header):
            yield self.item(value, labels, place)


def _label(value: Any, place: str, number: str = "") -> str:
    """Return a label as a string; a whole number is one, too."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: label{number} is {value!r}, wanted a text that is not empty")
    return value


@dataclass
class TokenLabelDataOptions(LabelledDataOptions):
    """Words with a label each.

    Args:
        tokens_column: the words: the name of a column of jsonl and Hub data (a list of texts), the number of a CoNLL
            column, 1 being the first.
        labels_column: the same for the labels. Columns of CoNLL-U are FORM 2, UPOS 4, XPOS 5.
    """

    tokens_column: str | int = "tokens"
    labels_column: str | int = "tags"

    formats = ("jsonl", "conll", "conllu")

    @property
    def columns(self) -> Mapping[str, str | int]:
        return {"tokens_column": self.tokens_column, "labels_column": self.labels_column}

    def item(self, value: Any, labels: Any, place: str) -> Item:
        for name, column in (("tokens", value), ("labels", labels)):
            if not isinstance(column, list):
                raise DataError(f"{place}: the {name} are {type(column).__name__}, wanted a list")
        if not value:
            raise DataError(f"{place}: empty sentence")
        if len(value) != len(labels):
            raise DataError(f"{place}: {len(value)} tokens but {len(labels)} labels, wanted as many")
        for number, token in enumerate(value, start=1):
            if not isinstance(token, str) or not token.strip():
                raise DataError(f"{place}: token {number} is {token!r}, wanted a text that is not empty")
        checked = [_label(label, place, f" {number}") for number, label in enumerate(labels, start=1)]
        return Item(value, checked, [place] * len(checked))

    def read(self, path: Path, file_format: str) -> Iterator[Item]:
        if file_format == "jsonl":
            return super().read(path, file_format)
        return self._read_conll(path, universal=file_format == "conllu")

    def _read_conll(self, path: Path, universal: bool) -> Iterator[Item]:
        """Yield sentences of lines of columns, a blank line between them.

        In CoNLL-U (`universal`) comments (#), multiword tokens (1-2) and empty nodes (8.1) are skipped.
        """
        for name, column in self.columns.items():
            if not isinstance(column, int):
                raise DataError(f"{path}: data.{name} is {column!r}, CoNLL columns have numbers, from 1 on")
        indices = [column - 1 for column in self.columns.values() if isinstance(column, int)]
        sentence: list[tuple[str, str, str]] = []
        width = skipped = 0
        for number, fields in chain(self._rows(path, universal), [(0, [])]):  # a blank line after the last sentence
            place = f"{path}, line {number}"
            if not fields:
                if sentence:
                    yield Item(*(list(column) for column in zip(*sentence, strict=True)))
                sentence = []
                continue
            if len(fields) <= max(indices):
                raise DataError(f"{place}: {len(fields)} columns, wanted at least {max(indices) + 1}")
            width = width or len(fields)
            if len(fields) != width:
                raise DataError(f"{place}: {len(fields)} columns, wanted {width} as in the first line: {fields}")
            if universal and not re.fullmatch("[0-9]+", fields[0]):
                if not re.fullmatch(r"[0-9]+[-.][0-9]+", fields[0]):
                    raise DataError(
                        f"{place}: the ID is {fields[0]!r}, wanted a number, 1-2 (a multiword token) or 8.1 (an empty "
                        "node)"
                    )
                skipped += 1
                continue
            token, label = (fields[index] for index in indices)
            if not token.strip():
                raise DataError(f"{place}: the token is {token!r}, wanted a text that is not empty")
            sentence.append((token, _label(label, place), place))
        if skipped:
            logger.info("%s: left out %d multiword tokens and empty nodes, whose words have lines", path, skipped)

    def _rows(self, path: Path, universal: bool) -> Iterator[tuple[int, list[str]]]:
        """Yield (line number, fields) of each line that is no comment; no fields of a blank one."""
        if is_written_here(path):  # predictions
            rows = quoted_rows(path, "\t")
            number, header = next(rows)
            if tuple(header) != TOKENS_HEADER:
                raise DataError(f"{path}, line {number}: a table of texts, wanted a token a line")
            yield from rows
            return
        for number, line in enumerate(text_lines(path), start=1):
            blanks = split_blanks(line)
            if not line.startswith("-DOCSTART-") and not (universal and line.startswith("#")):
                yield number, line.split("\t") if blanks and "\t" in line else blanks

    def dataset(self, items: list[Item]) -> Dataset:
        return Dataset.from_dict({"tokens": [item.input for item in items], "labels": [item.labels for item in items]})


@dataclass
class SequenceLabelDataOptions(LabelledDataOptions):
    """Texts with one label.

    Args:
        text_column: name of a column of jsonl, Hub, csv or tsv data, or number of a column of csv and tsv, 1 being the
            first: the text, which in jsonl and Hub data may also be a list of words.
        label_column: the same for the label, which may be a number.
        header: whether the first line of csv and tsv names the columns; `None`: yes if a column is given by name.
    """

    text_column: str | int = "text"
    label_column: str | int = "label"
    header: bool | None = None

    formats = ("jsonl", "csv", "tsv")

    @property
    def columns(self) -> Mapping[str, str | int]:
        return {"text_column": self.text_column, "label_column": self.label_column}

    def item(self, value: Any, labels: Any, place: str) -> Item:
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            value = " ".join(value)
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{place}: the text is {value!r}, wanted a text that is not empty")
        return Item(value, [_label(labels, place)], [place])

    def dataset(self, items: list[Item]) -> Dataset:
        return Dataset.from_dict({"text": [item.input for item in items], "label": [item.labels[0] for item in items]})


def _items(options: LabelledDataOptions, names: str | list[str], split: str, data_dir: Path) -> Iterator[Item]:
    """Yield the items of a split."""
    if options.dataset_name is not None:
        hub = hub_columns(options.dataset_name, options.dataset_config, names, options.columns, f"data.{split}")
        yield from (options.item(value, labels, place) for place, (value, labels) in hub)
        return
    for path, file_format in files_of(names, data_dir, options.formats, options.format, ", or set data.format"):
        yield from options.read(path, file_format)


def _name_labels(items: list[Item], names: Mapping[str | int, str] | None, split: str) -> None:
    """Strip labels of white space (`pos` and `pos ` are one class), and replace them by the model's names of them."""
    changed = 0
    for item in items:
        for number, (label, place) in enumerate(zip(item.labels, item.places, strict=True)):
            stripped = label.strip()
            changed += stripped != label
            if names is not None and stripped not in names:
                known = ", ".join(map(str, names))
                raise DataError(f"{place}: label {stripped!r} is not in data.label_names ({known})")
            item.labels[number] = stripped if names is None else names[stripped]
    if changed:
        logger.warning("%s: stripped white space from %d labels", split, changed)


def _check_labels(items: list[Item], known: set[str], split: str, refuse: bool) -> None:
    """Refuse or report labels that are not in the label map."""
    unseen: dict[str, str] = {}
    for item in items:
        for label, place in zip(item.labels, item.places, strict=True):
            if label not in known:
                unseen.setdefault(label, place)
    if unseen and refuse:
        label, place = next(iter(unseen.items()))
        raise DataError(
            f"{place}: label {label!r} is not in the label map, which is that of the training data "
            f"({', '.join(sorted(known))}); data.unseen_labels: count_wrong counts it as an error of the model"
        )
    if unseen:
        logger.warning("%s: labels that the training data lacks count as wrong: %s", split, ", ".join(sorted(unseen)))


def load_labelled_data(options: LabelledDataOptions, data_dir: str | Path = ".") -> DatasetDict:
    """Read the `data` section of a recipe; file names are relative to `data_dir`.

    Returns:
        The splits that the options name ("train", "validation", "test"), with the columns `tokens` and `labels`, or
            `text` and `label`.

    Raises:
        DataError: a file is missing or bad (the message names file and line), nothing is left to train on, or a label
            of another split does not occur in the training data.
    """
    if options.train is None:
        raise DataError("data.train: not set, wanted a file, a list of files or a split name")
    splits: dict[str, list[Item]] = {}
    for split in SPLITS:
        names = getattr(options, split)
        if names is None:
            continue
        splits[split] = list(_items(options, names, split, Path(data_dir)))
        if not splits[split]:
            raise DataError(f"data.{split}: {names!r} holds no item")
        _name_labels(splits[split], options.label_names, split)
    if options.validation_fraction is not None:
        train = splits.pop("train")
        number = round(len(train) * options.validation_fraction)
        rest, held_out = hold_out(train, range(len(train)), number, 0, "data.validation_fraction")
        splits = {"train": rest, "validation": held_out, **splits}
    splits = first_samples(splits, options)
    known = {label for item in splits["train"] for label in item.labels}
    for split, items in splits.items():
        _check_labels(items, known, split, options.unseen_labels == "refuse")
    return DatasetDict({split: options.dataset(items) for split, items in splits.items()})


def label_map(labels: Iterable[str]) -> list[str]:
    """Return the labels by number: "O" (no entity) first if there is one, the others sorted."""
    return sorted(set(labels), key=lambda label: (label != "O", label))
