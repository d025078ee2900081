"""Data for training: reading pairs, grouping references, encoding.

A data set is a Hub name, local files (jsonl, csv, tsv or two parallel text files, also gzipped) or a toy task, and
comes out as a `datasets.DatasetDict` with the string columns `source` and `target`. Bad files are refused with file
and line number. Needs `datasets` (extra `train`); must not import the model files, so that it works for any
sequence-to-sequence model.
"""

from __future__ import annotations

import csv
import gzip
import json
import logging
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeAlias


try:
    from datasets import Dataset, DatasetDict, load_dataset
except ImportError as error:
    raise ImportError("reading data needs datasets: pip install 'hf_rnn_seq2seq[train]'") from error
from transformers import PreTrainedTokenizerBase


logger = logging.getLogger(__name__)

FORMATS = ("jsonl", "csv", "tsv")
TOY_TASKS = ("copy", "reverse")
SPLITS = ("train", "validation", "test")
Pair: TypeAlias = tuple[str, str]


class DataError(ValueError):
    """Data that cannot be used; the message names the file and the line, or the option."""


@dataclass
class ToyOptions:
    """Size of a generated toy task: `dataset_name: toy:copy` or `toy:reverse`.

    Args:
        symbols: number of different letters, 1 to 26.
        min_length: shortest string.
        max_length: longest string.
        train: number of training strings.
        validation: number of validation strings.
        test: number of test strings; the three splits share no string.
        seed: seed of the generator.
    """

    symbols: int = 8
    min_length: int = 1
    max_length: int = 8
    train: int = 4000
    validation: int = 200
    test: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.symbols <= 26:
            raise ValueError(f"symbols: got {self.symbols}, wanted 1 to 26")
        if not 1 <= self.min_length <= self.max_length:
            raise ValueError(
                f"max_length: got {self.max_length}, wanted at least min_length={self.min_length}, and that 1"
            )


@dataclass
class DataOptions:
    """What is read and how it is prepared (the `data` section of a recipe).

    Args:
        dataset_name: a Hub data set, or `toy:copy` / `toy:reverse`; `None`: local files.
        dataset_config: configuration of the Hub data set.
        train: a file, a list of files, or `{source: file, target: file}` for parallel text; for a Hub data set the
            split's name.
        validation: the same for the split that selects the model.
        test: the same for the split that is reported.
        format: "jsonl", "csv" or "tsv"; `None`: from the file name (`.gz` may follow). Ignored for parallel text.
        source_column: column name (dots reach into nested fields) or number, 1 being the first.
        target_column: the same for the target.
        header: whether the first line of csv and tsv names the columns; `None`: yes if a column is given by name.
        reverse_source: reverse the order of the source tokens (Sutskever et al. 2014, section 3.3).
        max_source_length: longest source in tokens, `</s>` included; longer training and validation pairs are dropped.
        max_target_length: the same for the target.
        group_references: validation and test lines with the same source become one item with several references.
        drop_validation_overlap: drop validation lines whose source also occurs in the training data.
        max_train_samples: use only the first so many training lines (for trials); likewise the next two.
        max_validation_samples: the same for validation lines.
        max_test_samples: the same for test lines.
        toy: size of a toy task.
    """

    dataset_name: str | None = None
    dataset_config: str | None = None
    train: str | list[str] | dict[str, str] | None = None
    validation: str | list[str] | dict[str, str] | None = None
    test: str | list[str] | dict[str, str] | None = None
    format: str | None = None
    source_column: str | int = 1
    target_column: str | int = 2
    header: bool | None = None
    reverse_source: bool = False
    max_source_length: int | None = None
    max_target_length: int | None = None
    group_references: bool = False
    drop_validation_overlap: bool = False
    max_train_samples: int | None = None
    max_validation_samples: int | None = None
    max_test_samples: int | None = None
    toy: ToyOptions = field(default_factory=ToyOptions)

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(f"format: got {self.format!r}, wanted one of {', '.join(FORMATS)} or null")
        for name in ("source_column", "target_column"):
            column = getattr(self, name)
            if isinstance(column, int) and column < 1:
                raise ValueError(f"{name}: got {column}, wanted a name or a number from 1 on")
        for name in ("max_source_length", "max_target_length", *(f"max_{split}_samples" for split in SPLITS)):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, wanted at least 1 or null")


# ---- Reading files ----------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file, gzipped or not, without their line ends. Only \\n and \\r\\n end a line."""
    if not path.is_file():
        raise DataError(f"{path}: no such file (files are looked up under --data_dir)")
    number = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as handle:
        try:
            for number, raw in enumerate(handle, start=1):
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield text.removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start})") from error
        except (EOFError, gzip.BadGzipFile) as error:
            raise DataError(f"{path}, after line {number}: broken gzip file ({error})") from error


def _rows(path: Path, file_format: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a csv file (quoted as in RFC 4180) or a tsv file (never quoted)."""
    if file_format == "tsv":
        for number, line in enumerate(_lines(path), start=1):
            yield number, line.split("\t")
        return
    reader = csv.reader((line + "\n" for line in _lines(path)), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def _checked(path: Path, number: int, source: object, target: object) -> Pair:
    """The pair as strings, or a `DataError` that names the line."""
    for name, value in (("source", source), ("target", target)):
        if not isinstance(value, str):
            raise DataError(f"{path}, line {number}: the {name} is {type(value).__name__}, wanted a string")
    assert isinstance(source, str) and isinstance(target, str)
    if not source.strip():
        raise DataError(f"{path}, line {number}: empty source")
    return source, target


def _read_table(path: Path, file_format: str, options: DataOptions) -> Iterator[Pair]:
    columns = {"source_column": options.source_column, "target_column": options.target_column}
    named = any(isinstance(column, str) for column in columns.values())
    header = named if options.header is None else options.header
    if named and not header:
        raise DataError(f"{path}: columns are given by name {columns}, but data.header is false")
    indices: list[int] = []
    width = 0
    for number, row in _rows(path, file_format):
        if not indices:
            width = len(row)
            for name, column in columns.items():
                if isinstance(column, int) and column <= width:
                    indices.append(column - 1)
                elif isinstance(column, str) and column in row:
                    indices.append(row.index(column))
                else:
                    found = row if header else f"{width} columns"
                    raise DataError(f"{path}, line {number}: data.{name} is {column!r}, the file has {found}")
            if header:
                continue
        if len(row) != width:
            raise DataError(f"{path}, line {number}: {len(row)} columns, wanted {width} as in the first line")
        yield _checked(path, number, row[indices[0]], row[indices[1]])


def _lookup(record: Any, column: str | int) -> Any:
    """The value of a column, `translation.en` reaching into a nested record; KeyError if it is missing."""
    if not isinstance(column, str):
        raise KeyError(column)
    if column in record:
        return record[column]
    value = record
    for key in column.split("."):
        if not isinstance(value, dict):
            raise KeyError(column)
        value = value[key]
    return value


def _pair_of(record: Any, options: DataOptions) -> tuple[Any, Any]:
    columns = {"source_column": options.source_column, "target_column": options.target_column}
    values = []
    for name, column in columns.items():
        try:
            values.append(_lookup(record, column))
        except KeyError as error:
            raise DataError(f"data.{name} is {column!r}, the record has {sorted(record)}") from error
    return values[0], values[1]


def _read_jsonl(path: Path, options: DataOptions) -> Iterator[Pair]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: a JSON {type(record).__name__}, wanted an object")
        try:
            source, target = _pair_of(record, options)
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        yield _checked(path, number, source, target)


def _read_parallel(source_path: Path, target_path: Path) -> Iterator[Pair]:
    both = zip_longest(_lines(source_path), _lines(target_path))
    for number, (source, target) in enumerate(both, start=1):
        if source is None or target is None:
            short, long = (source_path, target_path) if source is None else (target_path, source_path)
            raise DataError(
                f"{short} ends after line {number - 1}, but {long} goes on: parallel files need equal lengths"
            )
        yield _checked(source_path, number, source, target)


def _read_files(files: str | list[str] | dict[str, str], options: DataOptions, data_dir: Path) -> Iterator[Pair]:
    if isinstance(files, dict):
        if set(files) != {"source", "target"}:
            raise DataError(f"data: parallel files are {{source: file, target: file}}, got the keys {sorted(files)}")
        yield from _read_parallel(data_dir / files["source"], data_dir / files["target"])
        return
    for name in [files] if isinstance(files, str) else files:
        path = data_dir / name
        suffix = Path(name.removesuffix(".gz")).suffix
        file_format = options.format or {".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv"}.get(suffix)
        if file_format == "jsonl":
            yield from _read_jsonl(path, options)
        elif file_format in ("csv", "tsv"):
            yield from _read_table(path, file_format, options)
        else:
            raise DataError(
                f"{path}: the name tells no format; end it in .jsonl, .csv or .tsv (.gz may follow), set data.format, "
                "or give parallel text as {source: file, target: file}"
            )


# ---- Whole data sets --------------------------------------------------------------------------------------------


def toy_pairs(task: str, options: ToyOptions) -> dict[str, list[Pair]]:
    """Random strings to copy or to reverse; the splits share no string.

    Args:
        task: "copy" or "reverse".
        options: sizes, lengths and seed.

    Returns:
        The pairs of each split.

    Raises:
        DataError: unknown task, or there are not enough different strings.
    """
    if task not in TOY_TASKS:
        raise DataError(f"data.dataset_name: no toy task {task!r}, wanted one of {', '.join(TOY_TASKS)}")
    letters = string.ascii_lowercase[: options.symbols]
    sizes = {"train": options.train, "validation": options.validation, "test": options.test}
    wanted = sum(sizes.values())
    possible = sum(options.symbols**length for length in range(options.min_length, options.max_length + 1))
    # Half of all strings, so that drawing without repetition ends soon.
    if 2 * wanted > possible:
        raise DataError(
            f"data.toy: {wanted} strings wanted, but only {possible} exist; use more symbols or longer strings"
        )
    generator = random.Random(options.seed)
    strings: dict[str, None] = {}
    while len(strings) < wanted:
        length = generator.randint(options.min_length, options.max_length)
        strings["".join(generator.choices(letters, k=length))] = None
    drawn = list(strings)
    # Short strings run out first, so the end of the list holds longer ones: shuffle before cutting it into splits.
    generator.shuffle(drawn)
    pairs: dict[str, list[Pair]] = {}
    start = 0
    for split, size in sizes.items():
        part = drawn[start : start + size]
        pairs[split] = [(text, text if task == "copy" else text[::-1]) for text in part]
        start += size
    return pairs


def _hub_pairs(options: DataOptions, files: str | list[str] | dict[str, str], split: str) -> Iterator[Pair]:
    name = f"{options.dataset_name}, split {files}"
    if not isinstance(files, str):
        raise DataError(f"data.{split}: got {files!r}, wanted the name of a split of {options.dataset_name}")
    for number, record in enumerate(load_dataset(options.dataset_name, options.dataset_config, split=files), start=1):
        try:
            source, target = _pair_of(record, options)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        yield _checked(Path(name), number, source, target)


def load_data(options: DataOptions, data_dir: str | Path = ".") -> DatasetDict:
    """Read a recipe's data.

    Args:
        options: the `data` section.
        data_dir: folder that file names are relative to.

    Returns:
        The splits that the options name ("train", "validation", "test"), each with the string columns `source` and
        `target`, one row a line.

    Raises:
        DataError: a file is missing or bad (the message names file and line), or nothing is left to train on.
    """
    pairs: dict[str, list[Pair]] = {}
    if options.dataset_name is not None and options.dataset_name.startswith("toy:"):
        pairs = toy_pairs(options.dataset_name.removeprefix("toy:"), options.toy)
    else:
        for split in SPLITS:
            files = getattr(options, split)
            if files is None:
                continue
            reader = (
                _read_files(files, options, Path(data_dir))
                if options.dataset_name is None
                else _hub_pairs(options, files, split)
            )
            pairs[split] = list(reader)
            if not pairs[split]:
                raise DataError(f"data.{split}: {files!r} holds no line")
    if "train" not in pairs:
        raise DataError("data.train: not set, wanted a file, a list of files or a split name")
    if options.drop_validation_overlap and "validation" in pairs:
        trained = {source for source, _ in pairs["train"]}
        kept = [pair for pair in pairs["validation"] if pair[0] not in trained]
        dropped = len(pairs["validation"]) - len(kept)
        logger.info("validation: dropped %d of %d lines whose source is in train", dropped, len(pairs["validation"]))
        if not kept:
            raise DataError("data.drop_validation_overlap: no validation line is left, every source is in train")
        pairs["validation"] = kept
    for split in pairs:
        pairs[split] = pairs[split][: getattr(options, f"max_{split}_samples")]
    return DatasetDict(
        {
            split: Dataset.from_dict({"source": [p[0] for p in rows], "target": [p[1] for p in rows]})
            for split, rows in pairs.items()
        }
    )


def evaluation_items(dataset: Dataset, group_references: bool) -> tuple[list[str], list[list[str]]]:
    """What is decoded and scored: sources, and for each its references.

    Args:
        dataset: a split with the columns `source` and `target`.
        group_references: one item a different source, in order of first appearance, instead of one item a line.

    Returns:
        The sources, and as many lists of references.
    """
    sources, targets = list(dataset["source"]), list(dataset["target"])
    if not group_references:
        return sources, [[target] for target in targets]
    grouped: dict[str, list[str]] = {}
    for source, target in zip(sources, targets, strict=True):
        references = grouped.setdefault(source, [])
        if target not in references:
            references.append(target)
    return list(grouped), list(grouped.values())


# ---- Encoding ---------------------------------------------------------------------------------------------------


def encode_sources(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, reverse: bool = False) -> list[list[int]]:
    """Token ids of source texts.

    Args:
        texts: the sources.
        tokenizer: the source tokenizer; its post-processor appends `</s>` or not.
        reverse: reverse the tokens of the text; an `</s>` stays at the end.

    Returns:
        One list of ids a text.
    """
    ids: list[list[int]] = tokenizer(list(texts), return_attention_mask=False)["input_ids"]
    if not reverse:
        return ids
    # Special tokens keep their places: only the text between them is turned round.
    bare: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return [inner[::-1] + full[len(inner) :] for full, inner in zip(ids, bare, strict=True)]


def encode_dataset(
    dataset: Dataset,
    source_tokenizer: PreTrainedTokenizerBase,
    target_tokenizer: PreTrainedTokenizerBase,
    options: DataOptions,
    name: str = "train",
) -> Dataset:
    """Turn the text columns into model inputs, and drop pairs that are too long.

    Args:
        dataset: a split with the columns `source` and `target`.
        source_tokenizer: encodes the source, with `</s>` if it was trained so.
        target_tokenizer: encodes the target; one `</s>` is appended here.
        options: reversal and largest lengths.
        name: what log and error messages call the split.

    Returns:
        Columns `input_ids`, `attention_mask`, `labels`. The number of dropped pairs is logged.

    Raises:
        DataError: every pair was too long.
    """
    eos = target_tokenizer.eos_token_id

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        sources = encode_sources(batch["source"], source_tokenizer, options.reverse_source)
        targets = target_tokenizer(batch["target"], add_special_tokens=False, return_attention_mask=False)["input_ids"]
        labels = [[*ids, eos] for ids in targets]
        kept = [
            row
            for row in range(len(sources))
            if (options.max_source_length is None or len(sources[row]) <= options.max_source_length)
            and (options.max_target_length is None or len(labels[row]) <= options.max_target_length)
        ]
        return {
            "input_ids": [sources[row] for row in kept],
            "attention_mask": [[1] * len(sources[row]) for row in kept],
            "labels": [labels[row] for row in kept],
        }

    encoded = dataset.map(
        encode,
        batched=True,
        remove_columns=dataset.column_names,
        keep_in_memory=True,
        load_from_cache_file=False,
        desc=f"encoding {name}",
    )
    dropped = len(dataset) - len(encoded)
    if dropped:
        logger.warning("%s: dropped %d of %d pairs longer than max_*_length", name, dropped, len(dataset))
    if not len(encoded):
        raise DataError(
            f"{name}: all {len(dataset)} pairs are longer than data.max_source_length={options.max_source_length} or "
            f"data.max_target_length={options.max_target_length}"
        )
    return encoded


def pair_lengths(encoded: Dataset) -> list[tuple[int, int]]:
    """(source, target) length in tokens of every row of an encoded split."""
    return [(len(row["input_ids"]), len(row["labels"])) for row in encoded]
