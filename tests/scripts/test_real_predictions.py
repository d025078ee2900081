"""Predictions as users get them: tables that read back exactly, arguments in range, a line for each line."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import LIVELY, tiny_model, tiny_tokenizer
from transformers import GenerationConfig

from hf_rnn_seq2seq.data.files import PAIRS_HEADER, TEXTS_HEADER, TRANSCRIPTS_HEADER, table_columns, write_table
from hf_rnn_seq2seq.data.labels import SequenceLabelDataOptions, TokenLabelDataOptions, load_labelled_data
from hf_rnn_seq2seq.data.pairs import DataOptions, load_data
from hf_rnn_seq2seq.data.preprocessing import Preprocessing
from hf_rnn_seq2seq.evaluation.attention_plot import plot_attention
from hf_rnn_seq2seq.evaluation.decoding import Hypothesis
from hf_rnn_seq2seq.recipes.predict import TextPredictor, main, read_inputs
from hf_rnn_seq2seq.recipes.scoring import write_predictions
from hf_rnn_seq2seq.recipes.task_labels import SequenceClassificationTask, TokenClassificationTask
from hf_rnn_seq2seq.sharing.export import export_model
from hf_rnn_seq2seq.sharing.runtime import RnnSeq2SeqRuntime


SYMBOLS = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# What UTF-8 can say, with more of what tables trip over.
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\t\n\r\"',\\| \u2028\u00a0\ufeff"))
words = texts.filter(str.strip)
labels = st.text(st.characters(categories=["L", "N", "P"]), min_size=1)


@pytest.fixture(autouse=True, scope="module")
def _no_progress_bars() -> None:
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model = tiny_model("luong", dtype=torch.float32)
    model.generation_config = GenerationConfig(**SYMBOLS, **LIVELY, num_beams=2, max_new_tokens=6)
    model.save_pretrained(str(folder))
    tiny_tokenizer().save_pretrained(str(folder))
    return folder


# ---- Tables -----------------------------------------------------------------------------------------------------


def by_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return [row for row in csv.reader(handle, delimiter="\t") if row]


@few
@given(rows=st.lists(st.tuples(words, texts, st.lists(texts, min_size=1, max_size=2)), min_size=1, max_size=4))
def test_predictions_of_texts_read_back_exactly(rows: list[tuple[str, str, list[str]]], tmp_path: Path) -> None:
    path = tmp_path / "predictions_test.tsv"
    sources, predictions, references = (list(column) for column in zip(*rows, strict=True))
    write_predictions(path, sources, references, [[Hypothesis(text, (), -0.5)] for text in predictions])
    wanted = [[s, "1", "-0.5000", p, " | ".join(r)] for s, p, r in rows]
    columns: dict[str, str | int] = {name: name for name in PAIRS_HEADER}
    assert [row for _, row in table_columns(path, "tsv", columns, header=None)] == wanted
    assert by_csv(path) == [list(PAIRS_HEADER), *wanted]
    options = DataOptions(train=path.name, source_column="source", target_column="prediction")
    data = load_data(options, tmp_path)["train"].to_list()
    assert data == [{"source": s, "target": p} for s, p, _ in rows]
    assert read_inputs(path, "references", TextPredictor) == [row[-1] for row in wanted]


@few
@given(rows=st.lists(st.tuples(texts, texts, texts), max_size=4))
def test_transcripts_read_back_exactly(rows: list[tuple[str, str, str]], tmp_path: Path) -> None:
    path = tmp_path / "predictions_test.tsv"
    write_table(path, TRANSCRIPTS_HEADER, rows)
    columns: dict[str, str | int] = {name: name for name in TRANSCRIPTS_HEADER}
    assert [tuple(row) for _, row in table_columns(path, "tsv", columns, header=None)] == rows
    assert by_csv(path) == [list(TRANSCRIPTS_HEADER), *map(list, rows)]


def write_lines(task: Any, path: Path, split: dict[str, list[Any]], predicted: list[Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        handle.writelines(task.prediction_lines(SimpleNamespace(), split, predicted))


@few
@given(rows=st.lists(st.tuples(words, labels, labels), min_size=1, max_size=4))
def test_predictions_of_labels_read_back_exactly(rows: list[tuple[str, str, str]], tmp_path: Path) -> None:
    path = tmp_path / "predictions_test.tsv"
    split = {"text": [row[0] for row in rows], "label": [row[1] for row in rows]}
    write_lines(SequenceClassificationTask, path, split, [row[2] for row in rows])
    assert by_csv(path) == [list(TEXTS_HEADER), *map(list, rows)]
    for number, name in enumerate(("label", "prediction"), start=1):
        data = load_labelled_data(SequenceLabelDataOptions(train=path.name, label_column=name), tmp_path)["train"]
        assert data.to_list() == [{"text": row[0], "label": row[number]} for row in rows]


@few
@given(items=st.lists(st.lists(st.tuples(words, labels, labels), min_size=1, max_size=3), min_size=1, max_size=3))
def test_predictions_of_tokens_read_back_exactly(items: list[list[tuple[str, str, str]]], tmp_path: Path) -> None:
    path = tmp_path / "predictions_test.tsv"
    split = {
        "tokens": [[row[0] for row in item] for item in items],
        "labels": [[row[1] for row in item] for item in items],
    }
    write_lines(TokenClassificationTask, path, split, [[row[2] for row in item] for item in items])
    for number in (1, 2):
        options = TokenLabelDataOptions(train=path.name, format="conll", tokens_column=1, labels_column=number + 1)
        data = load_labelled_data(options, tmp_path)["train"].to_list()
        assert data == [{"tokens": [r[0] for r in item], "labels": [r[number] for r in item]} for item in items]
    columns: dict[str, str | int] = {"x": "token", "y": "prediction"}
    flat = [[token, guess] for item in items for token, _, guess in item]
    assert [row for _, row in table_columns(path, "tsv", columns, header=None)] == flat


def test_tables_of_others_have_no_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('source\ttarget\n"Hello," he said.\t"Hallo"\n')
    data = load_data(DataOptions(train="a.tsv", source_column="source", target_column="target"), tmp_path)["train"]
    assert data.to_list() == [{"source": '"Hello," he said.', "target": '"Hallo"'}]


# ---- predict.py -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0", "-3", "1.5", "many", ""])
@pytest.mark.parametrize("option", ["--num_beams", "--num_return_sequences", "--batch_size", "--part_size"])
def test_numbers_out_of_range_are_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["no model", "abc", f"{option}={value}"])
    assert stopped.value.code == 2
    assert f"argument {option}: got {value!r}, wanted a whole number, at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("beams", [[], ["--num_beams", "4"]])
def test_more_hypotheses_than_beams_are_refused(beams: list[str], model_dir: Path) -> None:
    with pytest.raises(SystemExit, match=rf"--num_return_sequences: got 9, wanted at most the {4 if beams else 2} of"):
        main([str(model_dir), "abc", "--num_return_sequences", "9", *beams])


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("a.csv", "0", r"--column is 0 \(numbers count from 1\), the file has 2 columns"),
        ("a.csv", "-1", r"--column is -1 \(numbers count from 1\), the file has 2 columns"),
        ("a.tsv", "3", "--column is 3, the file has 2 columns"),
        ("a.csv", "²", "--column is '²', the file has"),
        ("a.jsonl", "x", "--column is 'x', the record has"),
    ],
)
def test_a_column_that_is_not_there_is_refused(
    name: str, column: str, message: str, model_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_text({"csv": "a,b\n", "tsv": "a\tb\n", "jsonl": '{"a": "b"}\n'}[name.partition(".")[2]])
    files = ["--input_file", str(tmp_path / name), "--output_file", str(tmp_path / "out.txt")]
    with pytest.raises(SystemExit, match=message):
        main([str(model_dir), *files, f"--column={column}"])


INPUTS = {
    "plain": b"abc\n\nh\n",
    "a byte order mark": b"\xef\xbb\xbfabc\n\nh\n",
    "Windows": b"abc\r\n\r\nh\r\n",
    "old Mac": b"abc\r\rh\r",
    "blanks": b"abc\n \t \nh",
}


@pytest.mark.parametrize("case", INPUTS)
def test_there_is_a_line_for_each_line_of_the_input(
    case: str, model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(model_dir), "abc", "", "h"])
    wanted = capsys.readouterr().out
    first, blank, last = wanted.splitlines()
    assert first.startswith("abc ") and blank == "" and last.startswith("h ")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(INPUTS[case]), encoding="ascii"))
    main([str(model_dir)])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        line.split() for line in wanted.splitlines()
    ]


def test_an_input_of_blank_lines_and_one_that_is_no_text(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n"))
    main([str(model_dir)])
    assert capsys.readouterr().out == "\n\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"abc\n\xff\n")))
    with pytest.raises(SystemExit, match="standard input, line 2: not UTF-8"):
        main([str(model_dir)])
    with pytest.raises(SystemExit, match="the text holds U\\+DCFF, half of a surrogate pair"):
        main([str(model_dir), "a\udcff"])


@pytest.mark.parametrize("name", ["picture", "picture.png", "a.b/picture", "picture.svg"])
def test_a_picture_has_the_name_that_it_was_given(
    name: str, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(model_dir), "abc", "--attention", str(tmp_path / name)])
    assert f"drawn to {tmp_path / name}\n" in capsys.readouterr().out
    start = b"<?xml" if name.endswith("svg") else b"\x89PNG"
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    with pytest.raises(ValueError, match=r"a\.doc', wanted a name that ends in \.png"):
        plot_attention([[1.0]], "a", "b", path=tmp_path / "a.doc")


def test_a_model_without_attention_has_no_picture(tmp_path: Path) -> None:
    tiny_model("sutskever", dtype=torch.float32).save_pretrained(str(tmp_path))
    tiny_tokenizer().save_pretrained(str(tmp_path))
    with pytest.raises(SystemExit, match=r"--attention: the model in .* has no attention"):
        main([str(tmp_path), "abc", "--attention", str(tmp_path / "a.png")])


# ---- The runtime ------------------------------------------------------------------------------------------------


def test_the_runtime_invents_nothing_where_replacements_leave_nothing(model_dir: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_dir, model)
    GenerationConfig(**SYMBOLS, max_new_tokens=6).save_pretrained(str(model))
    Preprocessing([["[0-9]+", " "]]).save(model)
    folder = export_model(model, tmp_path / "out", quantize=None)
    runtime = RnnSeq2SeqRuntime.from_pretrained(folder)
    for text in ("77", "", " "):
        with pytest.raises(ValueError, match="source 1 is empty"):
            runtime.generate(["abc", text])
    command = [sys.executable, "-I", str(folder / "rnn_seq2seq_runtime.py")]
    done = subprocess.run(command, input=b"abc\n77\nabc7\n", capture_output=True, check=True)
    answers = [runtime.generate(text)[0][0].text if text else "" for text in ("abc", "", "abc7")]
    assert done.stdout.decode().splitlines() == answers
    done = subprocess.run([*command, os.fsdecode(b"\x80")], capture_output=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith(b"error: input, wanted UTF-8: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input_file", "a.txt", "--output_file", "b.txt", "--column", "0"], "--column: got '0', but a.txt has no"),
        (["--input_file", "a.tsv", "--output_file", "b.txt", "--column", ""], "--column: got ''"),
        (["abc", "--column", "2"], "--column is for --input_file"),
        (["abc", "--scores"], "--scores is for --input_file"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["no model", *arguments])
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_the_runtime_answers_line_by_line(model_dir: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_dir, model)
    GenerationConfig(**SYMBOLS, num_beams=2, max_new_tokens=6).save_pretrained(str(model))
    folder = export_model(model, tmp_path / "out", quantize=None)
    runtime = RnnSeq2SeqRuntime.from_pretrained(folder)
    first, last = (str(runtime.generate(text)[0][0].text) for text in ("abc", "h"))
    command = [sys.executable, "-I", str(folder / "rnn_seq2seq_runtime.py")]
    # One process for the byte order mark and all line ends.
    lines = b"\xef\xbb\xbfabc\n\nh\r\n \t\nabc\rh"
    done = subprocess.run(command, input=lines, capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == [first, "", last, "", first, last]
    done = subprocess.run([*command, "abc", "", "h"], capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == [first, "", last]
    done = subprocess.run(command, input=b"\xff\n", capture_output=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith(b"error: input, wanted UTF-8: ")
    with pytest.raises(ValueError, match="batch_size must be at least 1; got -1"):
        runtime.generate("abc", batch_size=-1)
    (folder / "encoder.onnx").write_bytes(b"no graph")
    done = subprocess.run(command, input=b"abc\n", capture_output=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith(b"error: ") and b"Traceback" not in done.stderr
