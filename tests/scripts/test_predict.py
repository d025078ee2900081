"""Predicting for whole files: the hypotheses of `decode`, in the file's order, from every kind of file."""

from __future__ import annotations

import gzip
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import LIVELY, tiny_model, tiny_tokenizer
from transformers import GenerationConfig

from hf_rnn_seq2seq.evaluation.decoding import Hypothesis, decode


SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts/predict.py"))
TEXTS = ["abc", "h", "", "gfedcba", "abc", "dd", "  ", "hgh"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model = tiny_model("luong", dtype=torch.float32)
    model.generation_config = search()
    model.save_pretrained(str(folder))
    tiny_tokenizer().save_pretrained(str(folder))
    return folder


def search(**options: Any) -> GenerationConfig:
    ids = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
    return GenerationConfig(**ids, **LIVELY, num_beams=3, max_new_tokens=8, length_penalty=0.0, **options)


def wanted(model_dir: Path, reverse: bool = False, **options: Any) -> list[list[Hypothesis]]:
    """Each text's hypotheses, found alone; a blank text has none."""
    model, tokenizer = SCRIPT["AutoModelForSeq2SeqLM"].from_pretrained(str(model_dir)), tiny_tokenizer()
    found = []
    for text in TEXTS:
        ids = tokenizer(text[::-1] if reverse else text)["input_ids"]
        found.append(decode(model, [ids], tokenizer, search(**options), with_scores=True)[0] if text.strip() else [])
    return found


def predict(model_dir: Path, source: Path, output: Path, *options: str) -> list[str]:
    arguments = [str(model_dir), "--input_file", str(source), "--output_file", str(output), "--part_size", "3"]
    SCRIPT["main"]([*arguments, *options])
    return output.read_text(encoding="utf-8").splitlines()


def write(path: Path, name: str) -> tuple[Path, list[str]]:
    """The texts as a file of a kind, and the options that it needs."""
    file = path / name
    contents: dict[str, tuple[str, list[str]]] = {
        "in.txt": ("".join(f"{text}\n" for text in TEXTS), []),
        "in.txt.gz": ("".join(f"{text}\n" for text in TEXTS), []),
        "in.jsonl": ("".join(json.dumps({"source": text, "id": 1}) + "\n" for text in TEXTS), []),
        "other.jsonl": ("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), ["--column", "text"]),
        "in.csv": ("id,text\n" + "".join(f'7,"{text}"\n' for text in TEXTS), ["--column", "text"]),
        "in.tsv": ("".join(f"{text}\tx\n" for text in TEXTS), []),
    }
    text, options = contents[name]
    with gzip.open(file, "wt") if name.endswith("gz") else file.open("w") as handle:
        handle.write(text)
    return file, options


@pytest.mark.parametrize("name", ["in.txt", "in.txt.gz", "in.jsonl", "other.jsonl", "in.csv", "in.tsv"])
def test_a_file_is_predicted_in_its_order(name: str, model_dir: Path, tmp_path: Path) -> None:
    source, options = write(tmp_path, name)
    best = [ranked[0].text if ranked else "" for ranked in wanted(model_dir)]
    assert len(set(best)) > 4
    assert predict(model_dir, source, tmp_path / "out.txt", *options) == best
    records = [json.loads(line) for line in predict(model_dir, source, tmp_path / "out.jsonl", *options)]
    assert records == [
        {"source": text, "predictions": [found] if text.strip() else []} for text, found in zip(TEXTS, best)
    ]


def test_lists_of_hypotheses_with_scores(model_dir: Path, tmp_path: Path) -> None:
    source, _ = write(tmp_path, "in.txt")
    lines = predict(model_dir, source, tmp_path / "out.jsonl", "--num_return_sequences", "3", "--scores")
    for line, ranked in zip(lines, wanted(model_dir, num_return_sequences=3), strict=True):
        assert json.loads(line)["predictions"] == [hypothesis.text for hypothesis in ranked]
        assert json.loads(line)["scores"] == pytest.approx([hypothesis.score for hypothesis in ranked], abs=2e-4)


def test_a_model_of_reversed_sources_reads_them_reversed(model_dir: Path, tmp_path: Path) -> None:
    source, _ = write(tmp_path, "in.txt")
    recipe = model_dir / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"data": {"reverse_source": True}}))
    try:
        lines = predict(model_dir, source, tmp_path / "out.txt")
    finally:
        recipe.unlink()
    turned = [ranked[0].text if ranked else "" for ranked in wanted(model_dir, reverse=True)]
    assert lines == turned != [ranked[0].text if ranked else "" for ranked in wanted(model_dir)]


def test_another_model_does_not_go_on_with_the_parts_of_the_first(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = write(tmp_path, "in.txt")
    parts = tmp_path / "out.txt.parts"
    parts.mkdir()
    (parts / "job.json").write_text(json.dumps({"model": "another"}))
    with pytest.raises(SystemExit, match="parts of another job: model was 'another' and is"):
        predict(model_dir, source, tmp_path / "out.txt")
    assert len(predict(model_dir, source, tmp_path / "out.txt", "--overwrite")) == len(TEXTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input_file", "in.txt"], "--input_file and --output_file need each other"),
        (["word", "--input_file", "in.txt", "--output_file", "o.txt"], "leave out texts and --attention"),
        (["--input_file", "in.txt", "--output_file", "o.csv"], "wanted a name that ends in .txt or .jsonl"),
        (["--input_file", "in.txt", "--output_file", "o.txt", "--scores"], "name a .jsonl"),
        (["--input_file", "in.txt", "--output_file", "o.txt"], r"in.txt: no such file"),
        (["--input_file", "in.doc", "--output_file", "o.txt"], "got in.doc, wanted a name that ends in .txt, .jsonl"),
        (["--input_file", "bad.jsonl", "--output_file", "o.txt"], "bad.jsonl, line 2: got 3, wanted a text"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    options: list[str], message: str, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text('{"source": "a"}\n{"source": 3}\n')
    with pytest.raises(SystemExit) as stopped:
        SCRIPT["main"]([str(model_dir), *options])
    assert message in str(stopped.value.code) + capsys.readouterr().err
