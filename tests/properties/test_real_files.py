"""Files as users have them: line ends, blanks, columns, damage, special symbols in text; refused alike."""

from __future__ import annotations

import dataclasses
import gzip
import io
import lzma
import os
import re
import runpy
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import LIVELY, tiny_model, tiny_tokenizer
from transformers import GenerationConfig

from hf_rnn_seq2seq.data.files import (
    DataError,
    json_columns,
    printable,
    read_text,
    reading,
    table_columns,
    text_lines,
)
from hf_rnn_seq2seq.data.labels import SequenceLabelDataOptions, TokenLabelDataOptions, load_labelled_data
from hf_rnn_seq2seq.data.pairs import DataOptions, load_data
from hf_rnn_seq2seq.data.speech import SpeechDataOptions, Utterance, load_speech_data, read_audio, read_frames
from hf_rnn_seq2seq.data.tokenizers import (
    SPECIAL_TOKENS,
    TOKENIZER_TYPES,
    TokenizerOptions,
    normalized,
    train_tokenizer,
)
from hf_rnn_seq2seq.evaluation.metrics import METRICS, load_metric
from hf_rnn_seq2seq.recipes.command import main as run_command
from hf_rnn_seq2seq.recipes.options import OptionsError
from hf_rnn_seq2seq.recipes.recipe import SEQ2SEQ, build_recipe
from hf_rnn_seq2seq.recipes.scoring import Scorer, greater_is_better
from hf_rnn_seq2seq.recipes.task_labels import SequenceClassificationTask, TokenClassificationTask
from hf_rnn_seq2seq.recipes.task_speech import SpeechTask
from hf_rnn_seq2seq.recipes.task_text import Seq2SeqTask


SCRIPTS = Path(__file__).parents[2] / "scripts"
PREDICT = runpy.run_path(str(SCRIPTS / "predict.py"))
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# What UTF-8 can say, with more of what tables and line readers trip over.
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\t\n\r\"',\\| \u2028\u00a0\x85\x1c"))


@pytest.fixture(autouse=True, scope="module")
def _no_progress_bars() -> None:
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model = tiny_model("luong", dtype=torch.float32)
    ids = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
    model.generation_config = GenerationConfig(**ids, **LIVELY, num_beams=2, max_new_tokens=6)
    model.save_pretrained(str(folder))
    tiny_tokenizer().save_pretrained(str(folder))
    return folder


def sentences(folder: Path, name: str, text: str | bytes, tokens: int = 1, labels: int = 2) -> list[tuple]:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    options = TokenLabelDataOptions(train=name, tokens_column=tokens, labels_column=labels)
    return [(row["tokens"], row["labels"]) for row in load_labelled_data(options, folder)["train"]]


def stopped(run: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence with which a program ends."""
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code not in (None, 0)
    said = str(end.value.code) if isinstance(end.value.code, str) else capsys.readouterr().err.splitlines()[-1]
    assert "error: " in said and "Traceback" not in said
    return said


# ---- Lines and blanks -------------------------------------------------------------------------------------------


@few
@given(
    lines=st.lists(st.tuples(texts.map(lambda t: t.replace("\r", "").replace("\n", "")),
                             st.sampled_from(["\n", "\r\n", "\r"])), min_size=1),
    packed=st.booleans(),
)  # fmt: skip
def test_lines_end_where_python_says_and_nowhere_else(
    lines: list[tuple[str, str]], packed: bool, tmp_path: Path
) -> None:
    # "\r" before an empty line that ends in "\n" would be one end.
    content = "".join(text + end for text, end in lines).encode()
    path = tmp_path / ("lines.txt.gz" if packed else "lines.txt")
    path.write_bytes(gzip.compress(content) if packed else content)
    wanted = list(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig"))
    assert list(text_lines(path)) == [line.removesuffix("\n") for line in wanted]


@pytest.mark.parametrize("size", [1 << 16, (1 << 16) - 1])
def test_a_line_end_may_lie_between_two_blocks(size: int, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * (size - 1) + b"\r\ny\r")
    assert list(text_lines(tmp_path / "a.txt")) == ["x" * (size - 1), "y"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_format_reads_every_line_end(end: str, tmp_path: Path) -> None:
    contents = {
        "a.tsv": "a\tb\nc\td\n",
        "a.csv": 'a,b\n"c",d\n',
        "a.jsonl": '{"1": "a", "2": "b"}\n{"1": "c", "2": "d"}\n',
    }
    for name, text in contents.items():
        (tmp_path / name).write_text(text.replace("\n", end), newline="")
        columns: dict[str, Any] = {"source_column": "1", "target_column": "2"} if name == "a.jsonl" else {}
        data = load_data(DataOptions(train=name, **columns), tmp_path)["train"]
        assert data.to_list() == [{"source": "a", "target": "b"}, {"source": "c", "target": "d"}]
    conll = "a X\nb Y\n\nc X\n".replace("\n", end)
    assert sentences(tmp_path, "a.conll", conll) == [(["a", "b"], ["X", "Y"]), (["c"], ["X"])]


@pytest.mark.parametrize("blank", ["\u00a0", "\u3000", "\u2028", "\x85", "\x1c"])
@pytest.mark.parametrize("separator", [" ", "\t", "  "])
def test_conll_fields_end_at_blanks_and_tabs_alone(blank: str, separator: str, tmp_path: Path) -> None:
    line = separator.join([f"10{blank}000", "CD", "B-NP"])
    assert sentences(tmp_path, "a.conll", f"{line}\n", labels=3) == [([f"10{blank}000"], ["B-NP"])]


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_a_surplus_column_is_refused(separator: str, tmp_path: Path) -> None:
    lines = [["a", "b", "O"], ["a", "b", "c", "O"]]
    with pytest.raises(DataError, match=r"a\.conll, line 2: 4 columns, wanted 3 as in the first line"):
        sentences(tmp_path, "a.conll", "".join(separator.join(line) + "\n" for line in lines), labels=2)


@pytest.mark.parametrize("identifier", [" 4", "4a", "_", "4 ", "-", "1-", "٤", "1.2.3"])
def test_conllu_skips_ranges_and_empty_nodes_only(
    identifier: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = "1-2\tab\t_\n1\ta\tX\n2\tb\tY\n2.1\t_\t_\n"
    with caplog.at_level("INFO"):
        assert sentences(tmp_path, "a.conllu", good, 2, 3) == [(["a", "b"], ["X", "Y"])]
    assert "left out 2 multiword tokens and empty nodes" in caplog.text
    with pytest.raises(DataError, match=r"line 5: the ID is .*, wanted a number, 1-2"):
        sentences(tmp_path, "a.conllu", f"{good}{identifier}\tc\tX\n", 2, 3)


# ---- Columns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, -1, -2])
@pytest.mark.parametrize(
    ("options", "name"),
    [
        (DataOptions, "source_column"),
        (DataOptions, "target_column"),
        (TokenLabelDataOptions, "tokens_column"),
        (TokenLabelDataOptions, "labels_column"),
        (SequenceLabelDataOptions, "text_column"),
        (SequenceLabelDataOptions, "label_column"),
    ],
)
def test_a_column_counts_from_one(options: Any, name: str, number: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{name}: got {number}, wanted a name or a number from 1 on"):
        options(**{name: number})
    (tmp_path / "a.tsv").write_text("a\tb\n")
    with pytest.raises(DataError, match=rf"data\.{name} is {number} \(numbers count from 1\), the file has 2 columns"):
        list(table_columns(tmp_path / "a.tsv", "tsv", {name: number}, None))


@pytest.mark.parametrize("file_format", ["tsv", "csv"])
def test_a_name_that_two_columns_have_is_refused(file_format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{file_format}"
    path.write_text("a\tb\ta\n1\t2\t3\n".replace("\t", "\t" if file_format == "tsv" else ","))
    assert list(table_columns(path, file_format, {"x": "b"}, None)) == [(2, ["2"])]
    with pytest.raises(DataError, match=r"line 1: data\.x is 'a', but 2 columns have this name"):
        list(table_columns(path, file_format, {"x": "a"}, None))
    (tmp_path / "a.jsonl").write_text('{"a": "1", "a": "2"}\n')
    with pytest.raises(DataError, match=r"line 1: not JSON \(the key 'a' is given twice\)"):
        list(json_columns(tmp_path / "a.jsonl", {"x": "a"}))


def test_a_pipe_is_not_waited_for_and_no_terminal_is_steered(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="a device or a pipe, wanted a file"):
        read_text(tmp_path / "pipe")
    (tmp_path / "long").write_text("12345")
    with pytest.raises(DataError, match="got 5 bytes, wanted at most 4"):
        read_text(tmp_path / "long", most=4)
    assert printable("\x1b[2J\x9b\tä\n\udcff") == "\\x1b[2J\\x9b\tä\n\\udcff"


# ---- Errors of libraries ----------------------------------------------------------------------------------------


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


NOISE = "".join(f"{n * 7919 % 1000}\t{n}\n" for n in range(5000)).encode()
DAMAGED: dict[str, tuple[str, bytes | None]] = {
    "a flipped byte": ("a.tsv.gz", flipped(gzip.compress(NOISE))),
    "cut": ("a.tsv.gz", gzip.compress(NOISE)[:-20]),
    "latin-1": ("a.tsv", "ä\tb\n".encode("latin-1")),
    "a folder": ("a.tsv", None),
    "half of a pair": ("a.jsonl", b'{"1": "\\ud800", "2": "b"}\n'),
    "a number too long": ("a.jsonl", b'{"1": "a", "2": ' + b"9" * 5000 + b"}\n"),
    "brackets without end": ("a.jsonl", b"[" * 100_000 + b"\n"),
    "a field too long": ("a.csv", b"a," + b"b" * 200_000 + b"\n"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_by_name(case: str, tmp_path: Path) -> None:
    name, content = DAMAGED[case]
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(content)
    columns: dict[str, Any] = {"source_column": "1", "target_column": "2"} if name == "a.jsonl" else {}
    with pytest.raises(DataError, match=name):
        load_data(DataOptions(train=name, **columns), tmp_path)
    labels: dict[str, Any] = {"text_column": 1, "label_column": 2} if name != "a.jsonl" else {
        "text_column": "1", "label_column": "2"}  # fmt: skip
    with pytest.raises(DataError, match=name):
        load_labelled_data(SequenceLabelDataOptions(train=name, **labels), tmp_path)


def utterance(name: str) -> Utterance:
    return Utterance("m.tsv, line 2", "train", "1", "", "yes", name, np.empty(0))


@pytest.mark.parametrize("compression", ["gz", "xz", "bz2"])
def test_a_damaged_archive_is_refused_by_name(compression: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(np.random.default_rng(0).bytes(20000))
    with tarfile.open(tmp_path / "a.tar", f"w:{compression}") as archive:
        archive.add(tmp_path / "a.wav", "a.wav")
    (tmp_path / "a.tar").write_bytes(flipped((tmp_path / "a.tar").read_bytes()))
    with pytest.raises(DataError, match=r"a\.tar: not a readable folder or tar archive|not readable as audio"):
        read_audio([utterance("a.wav")], tmp_path / "a.tar", 8000)


@pytest.mark.parametrize("name", ["a.raw", "a.wav", "a.flac", "a.mp3", "a.txt"])
def test_what_is_no_audio_is_refused_with_the_manifests_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(bytes(64))
    with pytest.raises(DataError, match=rf"m\.tsv, line 2: '{name}' in .*: not readable as audio.*wanted wav, flac"):
        read_audio([utterance(name)], tmp_path, 8000)


def test_damaged_frames_are_refused_by_name(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", feats=np.random.default_rng(0).normal(size=(500, 4)), offsets=[0, 500])
    whole = (tmp_path / "a.npz").read_bytes()
    np.save(tmp_path / "b.npy", np.zeros(3))
    for content in (flipped(whole), whole[:100], b"", b"text", (tmp_path / "b.npy").read_bytes()):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.npz: .*wanted an npz file with the arrays feats and offsets"):
            read_frames([utterance("")], tmp_path / "a.npz")


def test_errors_of_libraries_become_one_sentence_and_bugs_do_not() -> None:
    for error in (
        lzma.LZMAError("Corrupt input data"),
        OSError(13, "Permission denied"),
        EOFError(),
        ValueError("a\nb"),
    ):
        with pytest.raises(DataError, match=r"^f: [^\n]+; wanted a thing$"), reading("f", "a thing"):
            raise error
    with pytest.raises(AttributeError), reading("f", "a thing"):
        raise AttributeError
    with pytest.raises(DataError, match=r"^as it was$"), reading("f", "a thing", any_error=True):
        raise DataError("as it was")


RECIPES: dict[str, tuple[bytes | None, str]] = {
    "a folder": (None, "r.yaml: a folder, wanted a file"),
    "latin-1": ("data:\n  train: ä\n".encode("latin-1"), "r.yaml, line 2: not UTF-8"),
    "no yaml": (b"data: [", "r.yaml: not YAML"),
    "no such day": (b"data: 2024-13-45\n", "r.yaml: YAML with a value that cannot be used"),
    "a list as key": (b"? [a, b]\n: c\n", "r.yaml: "),
}


@pytest.mark.parametrize("task", [Seq2SeqTask, SpeechTask, TokenClassificationTask, SequenceClassificationTask])
@pytest.mark.parametrize("case", RECIPES)
def test_a_recipe_that_cannot_be_read_is_refused(
    case: str, task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = RECIPES[case]
    monkeypatch.chdir(tmp_path)
    if content is None:
        Path("r.yaml").mkdir()
    else:
        Path("r.yaml").write_bytes(content)
    assert message in stopped(lambda: run_command(task, None, ["r.yaml"]), capsys)
    assert not Path("runs").exists()


def test_what_cannot_be_written_is_refused_before_work(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    model, folder, file = str(model_dir), str(tmp_path), str(tmp_path / "file")
    speech, export_main = SCRIPTS / "recipes/toy_copy.yaml", runpy.run_path(str(SCRIPTS / "export.py"))["main"]
    recipe = [str(speech), "--output_dir", str(tmp_path / "out")]
    before = {path: path.stat().st_mtime_ns for path in model_dir.rglob("*")}
    for run, message in (
        (lambda: run_command(Seq2SeqTask, None, [*recipe, "--results", folder]), "--results: got the folder"),
        (lambda: run_command(Seq2SeqTask, None, [*recipe, "--results", f"{file}/x"]), f"{file} is a file"),
        (lambda: run_command(Seq2SeqTask, None, [recipe[0], "--output_dir", file]), "--output_dir: got the file"),
        (lambda: export_main([model, model]), "is no export, and holds"),
        (lambda: export_main([model, f"{model}/x/.."]), "is no export, and holds"),
        (lambda: export_main([model, file]), "output_dir: got the file"),
        (lambda: export_main([folder, f"{folder}/new"]), "holds no config.json"),
        (lambda: PREDICT["main"]([model, "abc", "--attention", folder]), "--attention: got the folder"),
        (lambda: PREDICT["main"]([model, "abc", "--attention", f"{folder}/a.doc"]), "wanted a name that ends in .png"),
        (lambda: PREDICT["main"]([folder, "abc"]), "holds no tokenizer.json"),
    ):
        assert message in stopped(run, capsys)
    assert {path: path.stat().st_mtime_ns for path in model_dir.rglob("*")} == before
    assert not (tmp_path / "out").exists() and not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_model_is_refused_by_name(
    name: str, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_dir, tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(b"{\xff")
    said = stopped(lambda: PREDICT["main"]([str(tmp_path / "model"), "abc"]), capsys)
    assert str(tmp_path / "model") in said and "wanted" in said


def test_a_text_file_is_read_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("\ufeffä\r\n".encode())
    assert read_text(tmp_path / "a") == "ä\r\n"
    with pytest.raises(FileNotFoundError, match="b: no such file"):
        read_text(tmp_path / "b")


# ---- Special symbols in text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TOKENIZER_TYPES)
@pytest.mark.parametrize("lowercase", [False, True])
def test_special_symbols_in_a_text_are_text(kind: str, lowercase: bool) -> None:
    options = TokenizerOptions(kind, 300 if kind in ("bpe", "unigram") else None, lowercase=lowercase)
    text = f"a {' '.join(SPECIAL_TOKENS)} b</s> </s>"
    tokenizer = train_tokenizer([text.upper() if lowercase else text, "a b c d e f g h"], options)
    *ids, end = tokenizer(text)["input_ids"]
    assert end == tokenizer.eos_token_id and not set(ids) & {0, 1, 2, 3}
    assert tokenizer.decode(ids) == text
    assert normalized([text], tokenizer) == [text]
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    # One that the training has not seen is an unknown word, or spelt.
    plain = train_tokenizer(["a b c d e f g h <>/s"], options)("a </s> b")["input_ids"]
    assert plain.count(plain[-1]) == 1 and len(plain) >= 4


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_training_data_with_special_symbols_is_trained_on(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a </s> b\t<s> c\n<unk> d\t<pad>\n")
    tokenizer = {"type": kind} if kind == "word" else {"type": kind, "vocab_size": 270}
    content = {"data": {"train": "a.tsv"}, "tokenizer": {"source": tokenizer, "target": tokenizer},
               "model": {"encoder_hidden_size": 8, "decoder_hidden_size": 8, "embedding_size": 8}}  # fmt: skip
    task = Seq2SeqTask(build_recipe(content, "r"))
    data = task.load_data(tmp_path)
    task.build(data)
    for row in task.encode(data["train"], "train"):
        for ids in (row["input_ids"], row["labels"]):
            assert ids[-1] == 3 and not set(ids[:-1]) & {0, 1, 2, 3}


# ---- Counts -----------------------------------------------------------------------------------------------------


def test_manifest_lines_of_an_unknown_split_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = ["id\ttranscript\tsplit", "1\ta\ttrain", "2\tb\ttrian", "3\tc\ttrian", "4\td\t", "5\te\ttest"]
    (tmp_path / "m.tsv").write_text("\n".join(lines) + "\n")
    np.savez(tmp_path / "f.npz", feats=np.zeros((5, 2)), offsets=np.arange(6))
    load_speech_data(SpeechDataOptions(manifest="m.tsv", frames="f.npz"), tmp_path, 8000)
    assert "3 of 5 lines are of a split that is not used (1 of '', 2 of 'trian')" in caplog.text


def test_white_space_around_labels_makes_no_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.tsv").write_text("pos\tx\npos \ty\n neg\tz\nneg\u00a0\tz\n")
    options = SequenceLabelDataOptions(train="a.tsv", text_column=2, label_column=1)
    assert load_labelled_data(options, tmp_path)["train"]["label"][:] == ["pos", "pos", "neg", "neg"]
    assert "train: stripped white space from 3 labels" in caplog.text
    assert sentences(tmp_path, "a.conll", "a\tX \nb\tX\n") == [(["a", "b"], ["X", "X"])]


# ---- Metrics ----------------------------------------------------------------------------------------------------


NORMALISING: list[dict[str, Any]] = [
    *({"normalization": form} for form in ("NFC", "NFD", "NFKC", "NFKD")),
    *({"lowercase": True}, {"fold_digits": True}, {"type": "word"}, {"type": "bpe", "vocab_size": 280}),
    {"type": "bpe", "vocab_size": 280, "add_prefix_space": True, "normalization": "NFD", "lowercase": True},
]


@pytest.mark.parametrize("options", NORMALISING, ids=str)
def test_a_perfect_model_scores_perfectly(options: dict[str, Any]) -> None:
    targets = ["Żółć  é 12", "Å \ufb01 한국어", "</s> ü", "e\u0301 \uff38"]
    target = train_tokenizer(targets, TokenizerOptions(**options), "target")
    metrics = ["per", "wer", "cer", "exact_match", "g2p_wer", "bleu", "chrf", "token_accuracy"]
    recipe = build_recipe({"data": {"train": "x"}, "evaluation": {"metrics": metrics}}, "r")
    scorer = Scorer(recipe, SimpleNamespace(config=None), target, target)
    right = [target.decode(ids[:-1]) for ids in target(targets)["input_ids"]]
    numbers, _ = scorer.metrics(targets, [[text] for text in targets], right)
    errors = {"per", "wer", "cer", "g2p_wer"}
    assert numbers == {name: pytest.approx(0.0 if name in errors else 100.0) for name in metrics}


@pytest.mark.parametrize("name", ["loss", "eval_loss", "runtime", "epoch", "validation_bleu"])
def test_a_metric_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(OptionsError, match=rf"evaluation\.metrics: got the name '{name}', wanted another one"):
        build_recipe({"data": {"train": "x"}, "evaluation": {"metrics": {name: "bleu"}}}, "r")


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_the_better_direction_is_the_metrics_own_whatever_its_name(metric: str) -> None:
    evaluation = {"metrics": {"my_loss": metric}, "best_metric": "my_loss"}
    values = ("mse", "rmse", "mae", "mase", "smape", "crps", "phm")
    wanted = metric not in ("wer", "cer", "per", "g2p_wer", "perplexity", *values)
    kind = dataclasses.replace(SEQ2SEQ, metrics=())  # of whatever task
    assert greater_is_better(build_recipe({"data": {"train": "x"}, "evaluation": evaluation}, "r", kind)) == wanted


@pytest.mark.parametrize(
    "error", [RuntimeError("install mecab\n"), ImportError("sentencepiece"), OSError("no network")]
)
def test_a_tokenizer_of_bleu_that_does_not_work_is_refused_with_the_recipe(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("sacrebleu.BLEU.corpus_score", fails)
    evaluation = {"metrics": {"bleu": {"metric": "bleu", "tokenize": "ja-mecab"}}}
    with pytest.raises(
        OptionsError, match=r"metrics: bleu: tokenize: got 'ja-mecab', which does not work here: [^\n]+$"
    ):
        build_recipe({"data": {"train": "x"}, "evaluation": evaluation}, "r")


def f1(predictions: list[str], references: list[str], **options: Any) -> float:
    result = load_metric("entity_f1", **options).compute(predictions=[predictions], references=[references])
    assert result is not None
    return float(result["entity_f1"])


def test_entity_f1_counts_in_the_scheme_of_the_labels() -> None:
    # Two entities of one token each are not one of two.
    assert f1(["U-X", "U-X"], ["B-X", "L-X"]) == 0
    assert f1(["B-X", "L-X", "O"], ["B-X", "L-X", "O"]) == 100
    for same in (["B-X", "E-X", "S-X", "O"], ["I-X", "E-X", "I-X", "O"], ["B-X", "I-X", "O"]):
        assert f1(same, same) == 100
    assert f1(["S-X", "S-X"], ["B-X", "E-X"]) == 0 == f1(["E-X", "E-X"], ["I-X", "E-X"])


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (["X-PER", "O"], {}),
        (["PER", "O"], {}),
        (["b-PER", "O"], {}),
        (["M-PER", "O"], {}),
        (["B-PER", "L-PER", "E-PER"], {}),
        (["O-PER"], {}),
        (["S-PER", "O"], {"scheme": "IOB2"}),
        (["B-PER"], {"scheme": "IOE2"}),
        (["E-PER"], {"scheme": "BILOU"}),
        (["X-PER"], {"scheme": "IOBES"}),
    ],
)
def test_labels_that_mark_no_entities_are_refused_before_training(
    labels: list[str], options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"entity_f1 got the label '.*', wanted O or labels that begin with"):
        f1(labels, labels, **options)
    (tmp_path / "a.conll").write_text("".join(f"w {label}\n" for label in labels))
    evaluation = {"metrics": {"f1": {"metric": "entity_f1", **options}}}
    data = {"train": "a.conll", "tokens_column": 1, "labels_column": 2}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"data": data, "evaluation": evaluation}))
    arguments = [str(tmp_path / "r.yaml"), "--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    said = stopped(lambda: run_command(TokenClassificationTask, None, arguments), capsys)
    assert "evaluation.metrics: f1: entity_f1 got the label" in said


@pytest.mark.parametrize(
    ("task", "metric", "name", "text"),
    [
        (SequenceClassificationTask, "entity_f1", "a.jsonl", '{"text": "a", "label": "B-X"}\n'),
        (SequenceClassificationTask, "perplexity", "a.jsonl", '{"text": "a", "label": "B-X"}\n'),
        (TokenClassificationTask, "bleu", "a.jsonl", '{"tokens": ["a"], "tags": ["O"]}\n'),
        (Seq2SeqTask, "entity_f1", "a.tsv", "a\tb\n"),
        (SequenceClassificationTask, "bleu", "a.jsonl", '{"text": "a", "label": "B-X"}\n'),
        (SequenceClassificationTask, "chrf", "a.jsonl", '{"text": "a", "label": "B-X"}\n'),
    ],
)
def test_a_metric_of_another_kind_of_task_is_refused_with_the_recipe(
    task: Any, metric: str, name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    content = {"data": {"train": name, "test": name}, "evaluation": {"metrics": [metric]}}
    known = ", ".join(task.kind.metrics)
    message = f"evaluation.metrics: {metric} is '{metric}', wanted one of {known} for {task.kind.task}"
    with pytest.raises(OptionsError, match=re.escape(message)):
        build_recipe(content, "r", task.kind)


def test_a_metric_that_cannot_count_the_data_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a\t \n")
    content = {"data": {"train": "a.tsv", "test": "a.tsv"}, "evaluation": {"metrics": ["wer"]}}
    with pytest.raises(DataError, match=r"evaluation\.metrics: wer: "):
        Seq2SeqTask(build_recipe(content, "r")).load_data(tmp_path)
