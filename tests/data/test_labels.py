"""Reading labelled data: the same items from every format, splits, and errors that name file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_rnn_seq2seq.data.files import DataError
from hf_rnn_seq2seq.data.labels import (
    SequenceLabelDataOptions,
    TokenLabelDataOptions,
    label_map,
    load_labelled_data,
)
from hf_rnn_seq2seq.recipes.options import OptionsError, build_options


SENTENCES = [(["Anna", "flies", "to", "Rome"], ["B-PER", "O", "O", "B-LOC"]), (["no", "#"], ["O", "O"])]
JSONL = "".join(json.dumps({"tokens": tokens, "tags": tags}) + "\n" for tokens, tags in SENTENCES)
CONLL = "-DOCSTART- -X- O\n\nAnna x B-PER\nflies x O\nto x O\nRome x B-LOC\n\n\nno x O\n# x O\n"
CONLLU = (
    "# text = Anna flies\n1-2\tAnnaflies\t_\t_\n1\tAnna\t_\tB-PER\n2\tflies\t_\tO\n3\tto\t_\tO\n3.1\t_\t_\t_\n"
    "4\tRome\t_\tB-LOC\n\n# text = no #\n1\tno\t_\tO\n2\t#\t_\tO\n"
)


def tokens_of(folder: Path, name: str, text: str | bytes, **options: Any) -> Dataset:
    content = text.encode() if isinstance(text, str) else text
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return load_labelled_data(TokenLabelDataOptions(train=name, **options), folder)["train"]


def texts_of(folder: Path, name: str, text: str, **options: Any) -> Dataset:
    (folder / name).write_text(text, encoding="utf-8")
    return load_labelled_data(SequenceLabelDataOptions(train=name, **options), folder)["train"]


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("a.jsonl", JSONL, {}),
        ("a.jsonl.gz", JSONL, {}),
        ("a.txt", JSONL, {"format": "jsonl"}),
        ("a.conll", CONLL, {"tokens_column": 1, "labels_column": 3}),
        ("a.conllu", CONLLU, {"tokens_column": 2, "labels_column": 4}),
    ],
)
def test_every_format_gives_the_same_sentences(tmp_path: Path, name: str, text: str, options: dict[str, Any]) -> None:
    rows = tokens_of(tmp_path, name, text, **options)
    assert [(row["tokens"], row["labels"]) for row in rows] == SENTENCES


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("a.tsv", '1\tso "good"\n0\tbad , bad\n', {"text_column": 2, "label_column": 1}),
        ("a.csv", 'text,label\n"so ""good""",1\n"bad , bad",0\n', {}),
        ("a.jsonl", '{"text": "so \\"good\\"", "label": 1}\n{"text": ["bad", ",", "bad"], "label": "0"}\n', {}),
    ],
)
def test_every_format_gives_the_same_texts(tmp_path: Path, name: str, text: str, options: dict[str, Any]) -> None:
    rows = texts_of(tmp_path, name, text, **options)
    assert [(row["text"], row["label"]) for row in rows] == [('so "good"', "1"), ("bad , bad", "0")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"tokens": ["a"], "tags": ["O", "O"]}', "line 1: 1 tokens but 2 labels, wanted as many"),
        ("a.jsonl", JSONL + '{"tokens": [], "tags": []}', "line 3: empty sentence"),
        ("a.jsonl", JSONL + "{", "line 3: not JSON"),
        ("a.jsonl", "[]", "line 1: a JSON list, wanted an object"),
        ("a.jsonl", '{"tokens": ["a"]}', r"line 1: data.labels_column is 'tags', the record has \['tokens'\]"),
        ("a.jsonl", '{"tokens": "a b", "tags": ["O"]}', "line 1: the tokens are str, wanted a list"),
        ("a.jsonl", '{"tokens": ["a", " "], "tags": ["O", "O"]}', "line 1: token 2 is ' ', wanted a text"),
        ("a.jsonl", '{"tokens": ["a"], "tags": [null]}', "line 1: label 1 is None, wanted a text"),
        ("a.jsonl", b'{"tokens": ["\xff"], "tags": ["O"]}', "line 1: not UTF-8"),
        ("a.jsonl", "", "data.train: 'a.jsonl' holds no item"),
        ("a.txt", JSONL, "the name tells no format; end it in .jsonl, .conll, .conllu"),
    ],
)
def test_bad_sentences_are_named(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tokens_of(tmp_path, name, text)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a O\n\nb\n", {}, "a.conll, line 3: 1 columns, wanted at least 2"),
        ("a\tO\n\tO\n", {}, "a.conll, line 2: the token is '', wanted a text"),
        ("a O\n", {"labels_column": "tags"}, "data.labels_column is 'tags', CoNLL columns have numbers"),
    ],
)
def test_bad_columns_are_named(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        tokens_of(tmp_path, "a.conll", text, **{"tokens_column": 1, "labels_column": 2, **options})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\ta\n0\t \n", "a.tsv, line 2: the text is ' ', wanted a text that is not empty"),
        ("1\ta\n\tb\n", "a.tsv, line 2: label is '', wanted a text that is not empty"),
        ("1\ta\n0\n", "a.tsv, line 2: 1 columns, wanted 2"),
    ],
)
def test_bad_texts_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        texts_of(tmp_path, "a.tsv", text, text_column=2, label_column=1)


def test_a_label_that_train_lacks_is_refused_with_its_line_or_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "train.conll").write_text("a O\nb B-x\n")
    (tmp_path / "dev.conll").write_text("a O\n\nc O\nb B-y\n")
    files: dict[str, Any] = {"train": "train.conll", "validation": "dev.conll"}
    columns: dict[str, Any] = {"tokens_column": 1, "labels_column": 2}
    message = r"dev.conll, line 4: label 'B-y' is not in the label map.*\(B-x, O\); data.unseen_labels: count_wrong"
    with pytest.raises(DataError, match=message):
        load_labelled_data(TokenLabelDataOptions(**files, **columns), tmp_path)
    data = load_labelled_data(TokenLabelDataOptions(**files, **columns, unseen_labels="count_wrong"), tmp_path)
    assert data["validation"]["labels"][1] == ["O", "B-y"]
    assert "validation: labels that the training data lacks count as wrong: B-y" in caplog.text


def test_a_share_of_the_training_data_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("".join(f"{n % 2}\ttext {n}\n" for n in range(40)))
    options = SequenceLabelDataOptions(train="a.tsv", text_column=2, label_column=1, validation_fraction=0.25)
    data = load_labelled_data(options, tmp_path)
    train, held_out = list(data["train"]["text"]), list(data["validation"]["text"])
    assert (len(train), len(held_out)) == (30, 10)
    assert sorted(train + held_out) == sorted(f"text {n}" for n in range(40))
    assert list(load_labelled_data(options, tmp_path)["validation"]["text"]) == held_out
    options.validation_fraction = 0.001
    with pytest.raises(DataError, match=r"validation_fraction: cannot hold out 0 of 40, which leaves one side empty"):
        load_labelled_data(options, tmp_path)


def test_labels_get_names_and_unnamed_ones_are_refused(tmp_path: Path) -> None:
    options = build_options(
        SequenceLabelDataOptions,
        {"train": "a.tsv", "text_column": 2, "label_column": 1, "label_names": {0: "bad", 1: "good"}},
        "data",
    )
    (tmp_path / "a.tsv").write_text("1\ta\n0\tb\n")
    assert list(load_labelled_data(options, tmp_path)["train"]["label"]) == ["good", "bad"]
    (tmp_path / "a.tsv").write_text("1\ta\n2\tb\n")
    with pytest.raises(DataError, match=r"a.tsv, line 2: label '2' is not in data.label_names \(0, 1\)"):
        load_labelled_data(options, tmp_path)


def test_hub_data_with_class_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = Features(
        {"words": datasets.Sequence(Value("string")), "ner": datasets.Sequence(ClassLabel(names=["O", "B-x"]))}
    )
    rows = Dataset.from_dict({"words": [["a", "b"], []], "ner": [[0, 1], []]}, features=features)
    splits = {"train": rows.select([0]), "test": rows}
    monkeypatch.setattr("datasets.load_dataset", lambda name, config, split: splits[split])
    options: dict[str, Any] = {"dataset_name": "some/set", "tokens_column": "words", "labels_column": "ner"}
    data = load_labelled_data(TokenLabelDataOptions(**options, train="train"), tmp_path)
    assert data["train"][0] == {"tokens": ["a", "b"], "labels": ["O", "B-x"]}
    with pytest.raises(DataError, match="some/set, split test, row 2: empty sentence"):
        load_labelled_data(TokenLabelDataOptions(**options, train="train", test="test"), tmp_path)


def test_hub_data_with_one_class_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    monkeypatch.setattr("datasets.load_dataset", lambda name, config, split: rows)
    data = load_labelled_data(SequenceLabelDataOptions(dataset_name="some/set", train="train"), tmp_path)
    assert list(data["train"]["label"]) == ["pos", "neg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xml"}, "data.format: got 'xml', wanted one of jsonl, conll, conllu or null"),
        ({"validation_fraction": 1.0}, "data.validation_fraction: got 1.0, wanted between 0 and 1"),
        ({"validation_fraction": 0.1, "validation": "b"}, "data.validation_fraction: given together with validation"),
        ({"max_train_samples": 0}, "data.max_train_samples: got 0"),
        ({"unseen_labels": "ignore"}, "data.unseen_labels: wanted one of refuse, count_wrong"),
        ({"label_column": 1}, "data.label_column: unknown key; did you mean 'labels_column'"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        build_options(TokenLabelDataOptions, {"train": "a", **options}, "data")


def test_the_label_map_begins_with_no_entity() -> None:
    assert label_map(["I-x", "O", "B-x", "O"]) == ["O", "B-x", "I-x"]
    assert label_map(["b", "a"]) == ["a", "b"]


def test_data_without_train_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.train: not set"):
        load_labelled_data(TokenLabelDataOptions(validation="absent.jsonl"), tmp_path)
    with pytest.raises(DataError, match="no such file"):
        load_labelled_data(TokenLabelDataOptions(train="missing.jsonl"), tmp_path)
