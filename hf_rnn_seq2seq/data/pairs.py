"""Text-to-text data for training: reading pairs, grouping references, encoding.

A data set is a Hub name, local files (jsonl, csv, tsv, dialogues or two parallel text files, also gzipped) or a toy
task, and comes out as a `datasets.DatasetDict` with the string columns `source` and `target`. Bad files are refused
with file and line number. Needs `datasets` (extra `train`); must not import the model files, so that it works for any
sequence-to-sequence model.
"""

from __future__ import annotations

import logging
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

from .dialogues import read_dialogues
from .files import DataError, check_column, json_columns, reading, record_columns, table_columns, text_lines
from .preprocessing import Preprocessing
from .slots import encode_with_slots, unknown_words
from .toy import LONGER_SPLIT, Pair, ToyOptions, toy_pairs


logger = logging.getLogger(__name__)

FORMATS = ("jsonl", "csv", "tsv", "dialog")
SPLITS = ("train", "validation", "test")
# What one split is read from: a file, several, or two parallel ones.
Files: TypeAlias = str | list[str] | dict[str, str]
_PARALLEL_KEYS = {"source", "target"}


@dataclass
class DataOptions:
    """What is read and how it is prepared (the `data` section of a recipe).

    Args:
        dataset_name: a Hub data set, or `toy:copy` and the like (see `ToyOptions`); `None`: local files.
        dataset_config: configuration of the Hub data set.
        train: a file, a list of files, or `{source: file, target: file}` for parallel text; for a Hub data set the
            split's name.
        validation: the same for the split that selects the model.
        test: the same for the split that is reported, or several by name: `{test_2016: ..., test_2017: ...}`.
        format: "jsonl", "csv", "tsv" or "dialog" (see `read_dialogues`); `None`: from the file name (`.gz` may
            follow). Ignored for parallel text.
        source_column: column name (dots reach into nested fields) or number, 1 being the first.
        target_column: the same for the target.
        header: whether the first line of csv and tsv names the columns; `None`: yes if a column is given by name.
        source_replacements: `[regular expression, replacement]` pairs, applied to every source one after the other
            as by `re.sub`.
        vocabulary_files: text files whose words the tokenizers see besides the training data, so that names that
            occur only there have an entry in the vocabulary, and can be copied.
        reverse_source: reverse the order of the source tokens (Sutskever et al. 2014, section 3.3).
        max_source_length: longest source in tokens, `</s>` included; longer training and validation pairs are dropped.
        max_target_length: the same for the target.
        group_references: validation and test lines with the same source become one item with several references.
        drop_validation_overlap: drop validation lines whose source also occurs in the training data.
        match_final_stop: make training targets end in a full stop where their source does, and only there. (Many
            translators write the full stop that a caption lacks, and a model learns to add it always.)
        source_bpe_dropout: in training, probability that a merge is left out where sources are cut into subwords
            (Provilkov et al. 2020), for tokenizers of type bpe. Batches are then longer than `max_tokens` says.
        target_bpe_dropout: the same for targets.
        max_train_samples: use only the first so many training lines (for trials); likewise the next two.
        max_validation_samples: the same for validation lines.
        max_test_samples: the same for test lines.
        toy: size of a toy task.
    """

    dataset_name: str | None = None
    dataset_config: str | None = None
    train: Files | None = None
    validation: Files | None = None
    test: Files | dict[str, Files] | None = None
    format: str | None = None
    source_column: str | int = 1
    target_column: str | int = 2
    header: bool | None = None
    source_replacements: list[list[str]] = field(default_factory=list)
    vocabulary_files: list[str] = field(default_factory=list)
    reverse_source: bool = False
    max_source_length: int | None = None
    max_target_length: int | None = None
    group_references: bool = False
    drop_validation_overlap: bool = False
    match_final_stop: bool = False
    source_bpe_dropout: float = 0.0
    target_bpe_dropout: float = 0.0
    max_train_samples: int | None = None
    max_validation_samples: int | None = None
    max_test_samples: int | None = None
    toy: ToyOptions = field(default_factory=ToyOptions)

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(f"format: got {self.format!r}, wanted one of {', '.join(FORMATS)} or null")
        for name in ("source_column", "target_column"):
            check_column(name, getattr(self, name))
        for name in ("max_source_length", "max_target_length", *(f"max_{split}_samples" for split in SPLITS)):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}, wanted at least 1 or null")
        for name in ("source_bpe_dropout", "target_bpe_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted at least 0 and less than 1")
        _ = self.preprocessing  # refuses a bad regular expression
        for name in self.test_files:
            if not name.isidentifier() or name in ("train", "validation", *_PARALLEL_KEYS):
                raise ValueError(
                    f"test: got the name {name!r}, wanted names of letters, digits and _ other than train and "
                    "validation, or {source: file, target: file}"
                )

    @property
    def preprocessing(self) -> Preprocessing:
        """What is done to every source, and is saved with the model."""
        return Preprocessing(self.source_replacements, self.reverse_source)

    @property
    def test_files(self) -> dict[str, Files]:
        """What each test split is read from, under its name; "test" if there is one without a name."""
        if self.test is None:
            return {}
        if isinstance(self.test, dict) and not _PARALLEL_KEYS & set(self.test):
            return dict(self.test)
        return {"test": self.test}  # type: ignore[dict-item]  # mypy cannot see which dict it is

    @property
    def test_splits(self) -> list[str]:
        """Names of the test splits that `load_data` gives."""
        if self.dataset_name is not None and self.dataset_name.startswith("toy:"):
            return ["test", LONGER_SPLIT] if self.toy.test_longer else ["test"]
        return list(self.test_files)


# ---- Reading files ----------------------------------------------------------------------------------------------


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
    for number, (source, target) in table_columns(path, file_format, columns, options.header):
        yield _checked(path, number, source, target)


def _read_jsonl(path: Path, options: DataOptions) -> Iterator[Pair]:
    columns = {"source_column": options.source_column, "target_column": options.target_column}
    for number, (source, target) in json_columns(path, columns):
        yield _checked(path, number, source, target)


def _read_parallel(source_path: Path, target_path: Path) -> Iterator[Pair]:
    both = zip_longest(text_lines(source_path), text_lines(target_path))
    for number, (source, target) in enumerate(both, start=1):
        if source is None or target is None:
            short, long = (source_path, target_path) if source is None else (target_path, source_path)
            raise DataError(
                f"{short} ends after line {number - 1}, but {long} goes on: parallel files need equal lengths"
            )
        yield _checked(source_path, number, source, target)


def _read_files(files: Files, options: DataOptions, data_dir: Path) -> Iterator[Pair]:
    if isinstance(files, dict):
        if set(files) != _PARALLEL_KEYS:
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
        elif file_format == "dialog":
            for number, source, target in read_dialogues(path):
                yield _checked(path, number, source, target)
        else:
            raise DataError(
                f"{path}: the name tells no format; end it in .jsonl, .csv or .tsv (.gz may follow), set data.format, "
                "or give parallel text as {source: file, target: file}"
            )


# ---- Whole data sets --------------------------------------------------------------------------------------------


def _hub_pairs(options: DataOptions, files: Files, split: str) -> Iterator[Pair]:
    name = f"{options.dataset_name}, split {files}"
    if not isinstance(files, str):
        raise DataError(f"data.{split}: got {files!r}, wanted the name of a split of {options.dataset_name}")
    columns = {"source_column": options.source_column, "target_column": options.target_column}
    with reading(name, "a data set that datasets can load", any_error=True):
        rows = load_dataset(options.dataset_name, options.dataset_config, split=files)
    for number, record in enumerate(rows, start=1):
        try:
            source, target = record_columns(record, columns)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        yield _checked(Path(name), number, source, target)


def load_data(options: DataOptions, data_dir: str | Path = ".") -> DatasetDict:
    """Read a recipe's data.

    Args:
        options: the `data` section.
        data_dir: folder that file names are relative to.

    Returns:
        The splits that the options name ("train", "validation" and `options.test_splits`), each with the string
        columns `source` and `target`, one row a line.

    Raises:
        DataError: a file is missing or bad (the message names file and line), or nothing is left to train on.
    """
    pairs: dict[str, list[Pair]] = {}
    if options.dataset_name is not None and options.dataset_name.startswith("toy:"):
        pairs = toy_pairs(options.dataset_name.removeprefix("toy:"), options.toy)
    else:
        named = {"train": options.train, "validation": options.validation, **options.test_files}
        for split, files in named.items():
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
    for split, rows in pairs.items() if options.source_replacements else ():
        pairs[split] = [(options.preprocessing.text(source), target) for source, target in rows]
        for (before, _), (source, _) in zip(rows, pairs[split], strict=True):
            if not source.strip():
                raise DataError(f"data.source_replacements: leaves nothing of the {split} source {before!r}")
    if options.drop_validation_overlap and "validation" in pairs:
        trained = {source for source, _ in pairs["train"]}
        kept = [pair for pair in pairs["validation"] if pair[0] not in trained]
        dropped = len(pairs["validation"]) - len(kept)
        logger.info("validation: dropped %d of %d lines whose source is in train", dropped, len(pairs["validation"]))
        if not kept:
            raise DataError("data.drop_validation_overlap: no validation line is left, every source is in train")
        pairs["validation"] = kept
    if options.match_final_stop:
        matched = [(source, stopped_as(source, target)) for source, target in pairs["train"]]
        changed = sum(new != old for new, old in zip(matched, pairs["train"], strict=True))
        logger.info("train: changed %d of %d targets to end in a full stop as their source", changed, len(matched))
        pairs["train"] = matched
    for split in pairs:
        kind = split if split in SPLITS else "test"
        pairs[split] = pairs[split][: getattr(options, f"max_{kind}_samples")]
    return DatasetDict(
        {
            split: Dataset.from_dict({"source": [p[0] for p in rows], "target": [p[1] for p in rows]})
            for split, rows in pairs.items()
        }
    )


def stopped_as(source: str, target: str) -> str:
    """The target with its last full stop taken away, or one added, so that it ends in one as the source does."""
    source, stripped = source.rstrip(), target.rstrip()
    if source.endswith(".") == stripped.endswith("."):
        return target
    if stripped.endswith("."):
        return stripped.rstrip(".").rstrip() or target
    return stripped + (" ." if source.endswith(" .") else ".")


def vocabulary_texts(options: DataOptions, data_dir: str | Path = ".") -> list[str]:
    """The lines of `vocabulary_files`, for the training of the tokenizers.

    Args:
        options: the `data` section.
        data_dir: folder that file names are relative to.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    return [line for name in options.vocabulary_files for line in text_lines(Path(data_dir) / name)]


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


def encode_sources(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, reverse: bool = False, config: Any = None
) -> list[list[int]]:
    """Token ids of source texts.

    Args:
        texts: the sources.
        tokenizer: the source tokenizer; its post-processor appends `</s>` or not.
        reverse: reverse the tokens of the text; an `</s>` stays at the end.
        config: the model's configuration; if it has `copy_slots`, unknown words get slots.

    Returns:
        One list of ids a text.
    """
    words = unknown_words(texts, tokenizer, config)
    ids = encode_with_slots(texts, tokenizer, words, config)
    if not reverse:
        return ids
    # Special tokens keep their places: only the text between them is turned round.
    bare = encode_with_slots(texts, tokenizer, words, config, add_special_tokens=False)
    return [inner[::-1] + full[len(inner) :] for full, inner in zip(ids, bare, strict=True)]


def encode_dataset(
    dataset: Dataset,
    source_tokenizer: PreTrainedTokenizerBase,
    target_tokenizer: PreTrainedTokenizerBase,
    options: DataOptions,
    name: str = "train",
    config: Any = None,
) -> Dataset:
    """Turn the text columns into model inputs, and drop pairs that are too long.

    Args:
        dataset: a split with the columns `source` and `target`.
        source_tokenizer: encodes the source, with `</s>` if it was trained so.
        target_tokenizer: encodes the target; one `</s>` is appended here.
        options: reversal and largest lengths.
        name: what log and error messages call the split.
        config: the model's configuration; if it has `copy_slots`, the source's unknown words get slots on both sides.

    Returns:
        Columns `input_ids`, `attention_mask`, `labels`. The number of dropped pairs is logged.

    Raises:
        DataError: every pair was too long.
    """
    eos = target_tokenizer.eos_token_id

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        sources = encode_sources(batch["source"], source_tokenizer, options.reverse_source, config)
        words = unknown_words(batch["source"], source_tokenizer, config)
        targets = encode_with_slots(batch["target"], target_tokenizer, words, config, add_special_tokens=False)
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
