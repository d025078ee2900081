"""Text-to-text data: reading pairs, grouping references, encoding.

A data set is a Hub name, local files (jsonl, csv, tsv, dialogues or two parallel text files, also gzipped) or a toy
task, and becomes a `datasets.DatasetDict` with the string columns `source` and `target`. Bad files are refused with
file and line number. Needs `datasets` (extra `train`); works with any sequence-to-sequence model.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from .dialogues import read_dialogues
from .entries import FileEntry, Files, entries_of
from .features import FEATURE_REPLACEMENTS, feature_names, warn_of_unknown_tags, with_features
from .files import DataError, file_columns, files_of, hub_columns, text_lines
from .hallucination import hallucinated
from .option_checks import check_choice, check_column, check_range, check_share
from .preprocessing import Preprocessing
from .slots import encode_with_slots, unknown_words
from .splits import Dataset, DatasetDict, SizeOptions, evenly_taken, first_samples
from .toy import LONGER_SPLIT, Pair, ToyOptions, toy_pairs


logger = logging.getLogger(__name__)

FORMATS = ("jsonl", "csv", "tsv", "dialog")
_ENTRY_KEYS = ("file", "source", "target")


@dataclass
class DataOptions(SizeOptions):
    """The data and how they are prepared (the `data` section of a recipe).

    Args:
        dataset_name: a Hub data set, or `toy:copy` and the like (see `ToyOptions`); `None`: local files.
        dataset_config: configuration of the Hub data set.
        train: a file, a list of files, or `{source: file, target: file}` for parallel text; for a Hub data set the
            split's name. `{file: file, features: ady, repeat: 4}` says more of a file, see `FileEntry`.
        validation: the same for the split that selects the model.
        test: the same for the split that is reported, or several by name: `{test_2016: ..., test_2017: ...}`.
        format: "jsonl", "csv", "tsv" or "dialog" (see `read_dialogues`); `None`: from the file name (`.gz` may
            follow). Ignored for parallel text.
        source_column: column name (dots reach into nested fields) or number, 1 being the first.
        target_column: the same for the target.
        feature_column: the same for features of the source, such as its inflection tags or its language: names with
            ";" between, or a list of names. Each becomes a token of its own in front of the source.
        header: whether the first line of csv and tsv names the columns; `None`: yes if a column is given by name.
        source_replacements: `[regular expression, replacement]` pairs, applied to every source one after the other
            as by `re.sub`.
        delexicalised_slots: placeholder -> regular expression whose first group is a slot's value in a source so
            rewritten: `{XNAME: 'name ([^,]+)'}`. The model learns and writes placeholders in the place of values,
            and every program puts the values of its source back.
        vocabulary_files: text files whose words the tokenizers see besides the training data, so that names that
            occur only there have an entry in the vocabulary, and can be copied.
        reverse_source: reverse the order of the source tokens (Sutskever et al. 2014, section 3.3).
        max_source_length: longest source in tokens, `</s>` included; longer training and validation pairs are dropped.
        max_target_length: the same for the target.
        group_references: validation and test lines with the same source become one item with several references.
        drop_validation_overlap: drop validation lines whose source also occurs in the training data.
        match_final_stop: make training targets end in a full stop where their source does, and only there. (Many
            translators write the full stop that a caption lacks, and a model learns to add it always.)
        hallucinated_samples: for inflection with few training pairs: so many more, made of them with other stems
            (Anastasopoulos & Neubig 2019; see `hallucination.py`).
        hallucination_seed: what they are made from.
        source_bpe_dropout: in training, probability that a merge is left out where sources are cut into subwords
            (Provilkov et al. 2020), for tokenizers of type bpe. Batches are then longer than `max_tokens` says.
        target_bpe_dropout: the same for targets.
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
    feature_column: str | int | None = None
    header: bool | None = None
    source_replacements: list[list[str]] = field(default_factory=list)
    delexicalised_slots: dict[str, str] = field(default_factory=dict)
    vocabulary_files: list[str] = field(default_factory=list)
    reverse_source: bool = False
    max_source_length: int | None = None
    max_target_length: int | None = None
    group_references: bool = False
    drop_validation_overlap: bool = False
    match_final_stop: bool = False
    hallucinated_samples: int = 0
    hallucination_seed: int = 0
    source_bpe_dropout: float = 0.0
    target_bpe_dropout: float = 0.0
    toy: ToyOptions = field(default_factory=ToyOptions)

    def __post_init__(self) -> None:
        check_choice(self, "format", FORMATS)
        for name in self.columns:
            check_column(name, getattr(self, name))
        if self.feature_column is not None:
            got, parallel = self.feature_column, any(entry.file is None for _, entry in self.entries)
            if parallel or self.is_toy or self.format == "dialog":
                kind = "parallel files" if parallel else "toy tasks" if self.is_toy else "dialogues"
                raise ValueError(f"feature_column: got {got!r}, but {kind} have no columns; leave it out")
        check_range(self, "max_source_length", "max_target_length", least=1)
        check_range(self, "hallucinated_samples", least=0)
        super().__post_init__()
        check_share(self, "source_bpe_dropout", "target_bpe_dropout", zero=True)
        _ = self.preprocessing  # refuses a bad regular expression, or a bad entry of a file
        for split, entry in self.entries:
            if entry.own_options:
                self.of_entry(entry, split)
        for name in self.test_files:
            if not name.isidentifier() or name in ("train", "validation", *_ENTRY_KEYS):
                raise ValueError(
                    f"test: got the name {name!r}, wanted names of letters, digits and _ other than train and "
                    "validation, or {source: file, target: file}"
                )

    @property
    def is_toy(self) -> bool:
        """Whether the data are made, and read nowhere."""
        return self.dataset_name is not None and self.dataset_name.startswith("toy:")

    @property
    def preprocessing(self) -> Preprocessing:
        """The changes to every source, which are saved with the model."""
        features = FEATURE_REPLACEMENTS if self.has_features else []
        return Preprocessing([*self.source_replacements, *features], self.reverse_source, self.delexicalised_slots)

    def of_entry(self, entry: FileEntry, split: str) -> "DataOptions":
        """Return the options that hold for a file of a split."""
        try:
            return replace(self, train=None, validation=None, test=None, **entry.own_options)
        except ValueError as error:
            raise ValueError(f"{split}: {entry.file}: {error}") from error

    @property
    def has_features(self) -> bool:
        """Whether sources have features: of a column, or of a file."""
        own = any(entry.features or entry.feature_column for _, entry in self.entries)
        return own or self.feature_column is not None

    @property
    def files(self) -> dict[str, Files]:
        """The files of each split that has some."""
        splits = {"train": self.train, "validation": self.validation, **self.test_files}
        return {split: files for split, files in splits.items() if files is not None}

    @property
    def entries(self) -> list[tuple[str, FileEntry]]:
        """Each file's split, and its entry."""
        return [(split, entry) for split, files in self.files.items() for entry in entries_of(files, split)]

    @property
    def columns(self) -> dict[str, str | int]:
        """The options that name columns, and what they say."""
        names = ("source_column", "target_column", "feature_column")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def test_files(self) -> dict[str, Files]:
        """The files of each test split by its name; "test" if there is one without a name."""
        if self.test is None:
            return {}
        if isinstance(self.test, dict) and not set(_ENTRY_KEYS) & set(self.test):
            return dict(self.test)
        return {"test": self.test}

    @property
    def test_splits(self) -> list[str]:
        """The names of the test splits that `load_data` returns."""
        if self.is_toy:
            return ["test", LONGER_SPLIT] if self.toy.test_longer else ["test"]
        return list(self.test_files)


# ---- Reading ----------------------------------------------------------------------------------------------------


def _checked(place: str, row: Sequence[Any], common: Sequence[str] = ()) -> Pair:
    """Return the pair of a row, or refuse what is no text.

    Args:
        place: file and line.
        row: source, target, and features of its own if they have a column.
        common: features of all rows of the file, which go first.
    """
    source, target, *own = row
    for name, value in (("source", source), ("target", target)):
        if not isinstance(value, str):
            raise DataError(f"{place}: the {name} is {type(value).__name__}, wanted a string")
    if not source.strip():
        raise DataError(f"{place}: empty source")
    return with_features(source, [*common, *feature_names(own[0] if own else None, place)], place), target


def _parallel_rows(source_path: Path, target_path: Path) -> Iterator[tuple[str, Sequence[Any]]]:
    both = zip_longest(text_lines(source_path), text_lines(target_path))
    for number, (source, target) in enumerate(both, start=1):
        if source is None or target is None:
            short, long = (source_path, target_path) if source is None else (target_path, source_path)
            raise DataError(
                f"{short} ends after line {number - 1}, but {long} goes on: parallel files need equal lengths"
            )
        yield f"{source_path}, line {number}", (source, target)


def _entry_rows(
    options: DataOptions, entry: FileEntry, split: str, data_dir: Path
) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield place, source, target and features, if they have a column, of each row of a file."""
    if entry.file is None:
        assert entry.source is not None and entry.target is not None  # as it has checked
        yield from _parallel_rows(data_dir / entry.source, data_dir / entry.target)
        return
    own = options.of_entry(entry, split)
    otherwise = ", set data.format, or give parallel text as {source: file, target: file}"
    for path, file_format in files_of(entry.file, data_dir, FORMATS, own.format, otherwise):
        if file_format == "dialog":
            yield from ((f"{path}, line {number}", pair) for number, *pair in read_dialogues(path))
        else:
            yield from file_columns(path, file_format, own.columns, own.header)


def _split_pairs(options: DataOptions, files: Files, split: str, data_dir: Path) -> list[Pair]:
    if options.dataset_name is not None:
        name, config = options.dataset_name, options.dataset_config
        return [_checked(*row) for row in hub_columns(name, config, files, options.columns, f"data.{split}")]
    pairs: list[Pair] = []
    for entry in entries_of(files, split):
        common = feature_names(entry.features, split)
        rows = [_checked(*row, common) for row in _entry_rows(options, entry, split, data_dir)]
        taken = [rows[number] for number in evenly_taken(len(rows), entry.max_samples)]
        pairs += taken * (entry.repeat if split == "train" else 1)
    return pairs


def _read_splits(options: DataOptions, data_dir: Path) -> dict[str, list[Pair]]:
    if options.dataset_name is not None and options.is_toy:
        return toy_pairs(options.dataset_name.removeprefix("toy:"), options.toy)
    if options.train is None:
        raise DataError("data.train: not set, wanted a file, a list of files or a split name")
    pairs: dict[str, list[Pair]] = {}
    for split, files in options.files.items():
        pairs[split] = _split_pairs(options, files, split, data_dir)
        if not pairs[split]:
            raise DataError(f"data.{split}: {files!r} holds no line")
    return pairs


def _rewritten(pairs: list[Pair], preprocessing: Preprocessing, split: str) -> list[Pair]:
    rewritten = [(preprocessing.text(source), target) for source, target in pairs]
    for (before, _), (source, _) in zip(pairs, rewritten, strict=True):
        if not source.strip():
            raise DataError(f"data.source_replacements: leaves nothing of the {split} source {before!r}")
    return rewritten


def load_data(options: DataOptions, data_dir: str | Path = ".") -> DatasetDict:
    """Read the `data` section of a recipe; file names are relative to `data_dir`.

    Returns:
        The splits that the options name ("train", "validation" and `options.test_splits`), each with the string
            columns `source` and `target`, one row a line.

    Raises:
        DataError: a file is missing or bad (the message names file and line), or nothing is left to train on.
    """
    pairs = _read_splits(options, Path(data_dir))
    if options.preprocessing.source_replacements:
        pairs = {split: _rewritten(rows, options.preprocessing, split) for split, rows in pairs.items()}
    if options.drop_validation_overlap and "validation" in pairs:
        total = len(pairs["validation"])
        trained = {source for source, _ in pairs["train"]}
        pairs["validation"] = [pair for pair in pairs["validation"] if pair[0] not in trained]
        dropped = total - len(pairs["validation"])
        logger.info("validation: dropped %d of %d lines whose source is in train", dropped, total)
        if dropped == total:
            raise DataError("data.drop_validation_overlap: no validation line is left, every source is in train")
    if options.match_final_stop:
        matched = [(source, stopped_as(source, target)) for source, target in pairs["train"]]
        changed = sum(new != old for new, old in zip(matched, pairs["train"], strict=True))
        logger.info("train: changed %d of %d targets to end in a full stop as their source", changed, len(matched))
        pairs["train"] = matched
    data = DatasetDict()
    pairs = first_samples(pairs, options)
    if options.hallucinated_samples:
        pairs["train"] += hallucinated(pairs["train"], options.hallucinated_samples, options.hallucination_seed)
    for split, rows in pairs.items():
        data[split] = Dataset.from_dict({"source": [s for s, _ in rows], "target": [t for _, t in rows]})
    return data


def stopped_as(source: str, target: str) -> str:
    """Return the target with its last full stop taken away, or one added, so that it ends in one as the source."""
    source, stripped = source.rstrip(), target.rstrip()
    if source.endswith(".") == stripped.endswith("."):
        return target
    if stripped.endswith("."):
        return stripped.rstrip(".").rstrip() or target
    return stripped + (" ." if source.endswith(" .") else ".")


def vocabulary_texts(options: DataOptions, data_dir: str | Path = ".") -> list[str]:
    """Return the lines of `vocabulary_files`, for the training of the tokenizers."""
    return [line for name in options.vocabulary_files for line in text_lines(Path(data_dir) / name)]


def evaluation_items(dataset: Dataset, group_references: bool) -> tuple[list[str], list[list[str]]]:
    """Return the sources of a split, which are decoded, and for each the list of its references.

    With `group_references` an item is a different source, in order of first appearance, otherwise a line.
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
    """Return the token ids of each source text.

    Args:
        texts: the sources.
        tokenizer: the source tokenizer; its post-processor appends `</s>` or not. Of one of both sides, which may
            rewrite its sources itself, that of the sources alone: texts are encoded as they are.
        reverse: reverse the tokens of the text; an `</s>` stays at the end.
        config: the model's configuration; if it has `copy_slots`, unknown words get slots.
    """
    tokenizer = getattr(tokenizer, "source_tokenizer", tokenizer)
    warn_of_unknown_tags(texts, tokenizer)
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
    """Return a split as model inputs `input_ids`, `attention_mask`, `labels`, without pairs that are too long.

    Args:
        dataset: a split with the columns `source` and `target`; messages call it `name`.
        source_tokenizer, target_tokenizer: the first appends `</s>` if it was trained so; targets get theirs here.
        options: reversal and largest lengths; a DataError if no pair is left.
        config: the model's configuration; if it has `copy_slots`, the source's unknown words get slots on both sides.
    """
    longest = [limit or math.inf for limit in (options.max_source_length, options.max_target_length)]

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        texts = options.preprocessing.delexicalised(batch["source"])
        sources = encode_sources(texts, source_tokenizer, options.reverse_source, config)
        words = unknown_words(texts, source_tokenizer, config)
        written = options.preprocessing.delexicalised(batch["source"], batch["target"])
        targets = encode_with_slots(written, target_tokenizer, words, config, add_special_tokens=False)
        labels = [[*ids, target_tokenizer.eos_token_id] for ids in targets]
        kept = [(s, t) for s, t in zip(sources, labels, strict=True) if len(s) <= longest[0] and len(t) <= longest[1]]
        columns = {"input_ids": [s for s, _ in kept], "attention_mask": [[1] * len(s) for s, _ in kept]}
        return {**columns, "labels": [t for _, t in kept]}

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
    """Return the (source, target) length in tokens of every row of an encoded split."""
    return [(len(row["input_ids"]), len(row["labels"])) for row in encoded]
