"""Files of a split that differ: languages, columns, parallel text, weights; and the errors that name an entry."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from hf_rnn_seq2seq.data import DataOptions, load_data


def files_in(folder: Path) -> None:
    """Write the same five pairs a1..e1 -> A..E in four forms."""
    (folder / "one.tsv").write_text("".join(f"{x}1\t{x.upper()}\n" for x in "abcde"))
    with gzip.open(folder / "two.csv.gz", "wt") as file:
        file.write("said,word,tags\n" + "".join(f"{x.upper()},{x}1,V\n" for x in "abcde"))
    (folder / "three.src").write_text("".join(f"{x}1\n" for x in "abcde"))
    (folder / "three.tgt").write_text("".join(f"{x.upper()}\n" for x in "abcde"))


PARALLEL = {"source": "three.src", "target": "three.tgt"}
CSV = {"file": "two.csv.gz", "source_column": "word", "target_column": "said"}


def test_files_of_several_forms_become_one_split_with_a_language_each(tmp_path: Path) -> None:
    files_in(tmp_path)
    train: list[Any] = [
        {"file": "one.tsv", "features": "x"},
        {**CSV, "features": "y", "feature_column": "tags"},
        {**PARALLEL, "features": "z"},
        "one.tsv",
    ]
    options = DataOptions(train=train, test={"named": {"file": "one.tsv", "features": "y"}})
    data = load_data(options, tmp_path)
    tags = ["<x>"] * 5 + ["<y><V>"] * 5 + ["<z>"] * 5 + [""] * 5
    assert data["train"]["source"][:] == [f"{tag}{x}1" for tag, x in zip(tags, "abcde" * 4, strict=True)]
    assert data["train"]["target"][:] == list("ABCDE" * 4)
    assert data["named"]["source"][:] == [f"<y>{x}1" for x in "abcde"]
    assert options.preprocessing.text("word\ty") == "<y>word"


@pytest.mark.parametrize("entry", [{"file": "one.tsv"}, CSV, PARALLEL], ids=["tsv", "csv", "parallel"])
def test_small_files_are_repeated_in_training_alone_and_large_ones_are_taken_from_evenly(
    tmp_path: Path, entry: dict[str, Any]
) -> None:
    files_in(tmp_path)
    chosen = {**entry, "repeat": 2, "max_samples": 2}
    data = load_data(DataOptions(train=[chosen, entry], validation=chosen, test=[chosen]), tmp_path)
    assert data["train"]["target"][:] == [*"ACAC", *"ABCDE"]
    assert data["validation"]["target"][:] == data["test"]["target"][:] == ["A", "C"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"file": "one.tsv", "language": "x"}, "train: got the key 'language' in .*wanted some of file, source"),
        ({"features": "x"}, r"train: .*got the files \[\], wanted \{file: name\}"),
        ({"file": "one.tsv", **PARALLEL}, "train: .*got the files .*source"),
        ({"source": "three.src"}, r"train: .*got the files \['source'\]"),
        ({**PARALLEL, "header": True}, "train: .*header: parallel files have no columns"),
        ({"file": "one.tsv", "repeat": 0}, "train: .*repeat: got 0, wanted at least 1"),
        ({"file": "one.tsv", "repeat": "2"}, "train: .*repeat: got '2', wanted"),
        ({"file": "one.tsv", "max_samples": 0}, "train: .*max_samples: got 0, wanted at least 1"),
        ({"file": "one.tsv", "source_column": 0}, "train: .*source_column: got 0"),
        ({"file": "one.tsv", "format": "txt"}, "train: .*format: got 'txt', wanted one of jsonl"),
        ({"file": "one.tsv", "features": "<x>"}, "train: .*features: got the feature '<x>'"),
        ({"file": "one.tsv", "features": "x;"}, "train: .*features: got the feature ''"),
        ({"file": "one.tsv", "features": "unk"}, "train: .*features: got the feature 'unk'"),
    ],
    ids=str,
)
def test_a_bad_entry_is_refused_before_anything_is_read(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataOptions(train=[entry])
