"""Predicting for whole files: the hypotheses of `decode`, in the file's order, from every kind of file."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny import LIVELY, tiny_model, tiny_tokenizer
from tiny_runs import run, write_data
from transformers import GenerationConfig

from hf_rnn_seq2seq import (
    RnnSeq2SeqConfig,
    RnnSeq2SeqFeatureExtractor,
    RnnSeq2SeqForConditionalGeneration,
    RnnSeq2SeqForSpeechSeq2Seq,
)
from hf_rnn_seq2seq.data.files import table_columns
from hf_rnn_seq2seq.evaluation.decoding import Hypothesis, decode
from hf_rnn_seq2seq.recipes.predict import main


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
    model, tokenizer = RnnSeq2SeqForConditionalGeneration.from_pretrained(str(model_dir)), tiny_tokenizer()
    found = []
    for text in TEXTS:
        ids = tokenizer(text[::-1] if reverse else text)["input_ids"]
        found.append(decode(model, [ids], tokenizer, search(**options), with_scores=True)[0] if text.strip() else [])
    return found


def predict(model_dir: Path, source: Path, output: Path, *options: str) -> list[str]:
    arguments = [str(model_dir), "--input_file", str(source), "--output_file", str(output), "--part_size", "3"]
    main([*arguments, *options])
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
        main([str(model_dir), *options])
    assert message in str(stopped.value.code) + capsys.readouterr().err


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model of each other kind in a folder `<kind>`, beside their data."""
    folder = tmp_path_factory.mktemp("runs")
    write_data(folder)
    longer: dict[str, Any] = {"generation__min_new_tokens": 3}  # trained so little, it would say nothing
    for kind, changes in {"tagging": {}, "classification": {}, "speech": longer}.items():
        run(kind, folder, "--output_dir", folder / kind, **changes)
    return folder


def predictions(folder: Path, column: str) -> list[str]:
    """What the run itself predicted for its test data."""
    columns = table_columns(folder / "predictions_test.tsv", "tsv", {column: column}, header=True)
    return [value for _, (value,) in columns]


def test_words_are_tagged_as_the_run_tags_them(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (runs / "tagging" / "predictions_test.tsv").open() as handle:
        wanted = [line.rstrip("\n").split("\t")[2] for line in list(handle)[1:] if line.strip()]
    records = [json.loads(line) for line in predict(runs / "tagging", runs / "test.jsonl", runs / "tags.jsonl")]
    assert [tag for record in records for tag in record["tags"]] == wanted
    sentences = [" ".join(record["tokens"]) for record in records]
    (runs / "words.txt").write_text("".join(f"{line}\n" for line in [*sentences, " "]))
    lines = predict(runs / "tagging", runs / "words.txt", runs / "tags.txt")
    assert lines == [*(" ".join(record["tags"]) for record in records), ""]
    capsys.readouterr()
    main([str(runs / "tagging"), sentences[0], " "])
    words = zip(records[0]["tokens"], records[0]["tags"], strict=True)
    assert capsys.readouterr().out == " ".join(f"{word}/{tag}" for word, tag in words) + "\n\n"
    scores = ["--input_file", str(runs / "words.txt"), "--output_file", str(runs / "s.jsonl"), "--scores"]
    with pytest.raises(SystemExit, match=r"error: --scores: got True, but the model in .* has no such thing"):
        main([str(runs / "tagging"), *scores])
    for option in (["--num_beams", "2"], ["--num_return_sequences", "2"], ["--attention", str(runs / "a.png")]):
        with pytest.raises(SystemExit, match=f"error: {option[0]}: got .* has no such thing"):
            main([str(runs / "tagging"), sentences[0], *option])


def test_texts_get_their_likeliest_labels(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = [str(runs / "classification"), "--column", "2", "--input_file", str(runs / "test_labels.tsv")]
    main([*columns, "--output_file", str(runs / "labels.txt")])
    best = (runs / "labels.txt").read_text().splitlines()
    with (runs / "classification" / "predictions_test.tsv").open() as handle:
        assert best == [line.rstrip("\n").split("\t")[2] for line in list(handle)[1:]]
    main([*columns, "--output_file", str(runs / "labels.jsonl"), "--num_return_sequences", "2", "--scores"])
    for label, line in zip(best, (runs / "labels.jsonl").read_text().splitlines(), strict=True):
        record = json.loads(line)
        assert record["predictions"] == [label, {"yes": "no", "no": "yes"}[label]]
        assert record["scores"] == sorted(record["scores"], reverse=True)
        assert sum(map(math.exp, record["scores"])) == pytest.approx(1, abs=1e-3)
    capsys.readouterr()
    main([str(runs / "classification"), "is ab", "", "is cc"])
    first, blank, last = capsys.readouterr().out.splitlines()
    assert first.startswith("is ab  ") and blank == "" and last.split()[-1] in ("yes", "no")
    with pytest.raises(SystemExit, match="wanted at most the 2 labels"):
        main([str(runs / "classification"), "is ab", "--num_return_sequences", "3"])


def test_speech_is_recognised_from_frames(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = slice(40, 48)  # the last lines of the manifest
    wanted = predictions(runs / "speech", "hypothesis")
    assert all(wanted)
    lines = predict(runs / "speech", runs / "frames.npz", runs / "said.txt")
    assert len(lines) == 48 and lines[test] == wanted
    first = predict(runs / "speech", runs / "frames.npz", runs / "said.jsonl", "--scores")[0]
    assert json.loads(first)["source"] == f"{runs / 'frames.npz'}[0]" and len(json.loads(first)["scores"]) == 1
    capsys.readouterr()
    main([str(runs / "speech"), f"{runs / 'frames.npz'}[40]", ""])
    assert capsys.readouterr().out.splitlines()[0].split(maxsplit=2)[2] == wanted[0]
    for name, message in (("a.wav", "reads frames in an .npz file"), (f"{runs / 'frames.npz'}[99]", "0 to 47")):
        with pytest.raises(SystemExit, match=message):
            main([str(runs / "speech"), name])


def test_speech_is_recognised_from_audio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile = pytest.importorskip("soundfile")
    sizes = {"encoder_hidden_size": 8, "decoder_hidden_size": 8, "embedding_size": 8, "vocab_size": 12}
    extractor = RnnSeq2SeqFeatureExtractor(num_mel_bins=8)
    model = RnnSeq2SeqForSpeechSeq2Seq(RnnSeq2SeqConfig(**sizes, input_feature_size=extractor.feature_size)).eval()
    model.generation_config = search()
    for part in (model, extractor, tiny_tokenizer()):
        part.save_pretrained(str(tmp_path / "model"))
    (tmp_path / "audio").mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, (3, 8000)).astype(np.float32)
    for number, samples in enumerate(noise):
        soundfile.write(tmp_path / "audio" / f"{number}.wav", samples, 16000, subtype="FLOAT")
    (tmp_path / "audio" / "list.tsv").write_text("file\tspeaker\n0.wav\tx\n1.wav\tx\n2.wav\ty\n")
    options = ["--column", "file", "--num_return_sequences", "2"]
    lines = predict(tmp_path / "model", tmp_path / "audio" / "list.tsv", tmp_path / "out.jsonl", *options)
    features = list(extractor(list(noise), sampling_rate=16000, padding=False)["input_features"])
    for record, ranked in zip(
        map(json.loads, lines), decode(model, features, tiny_tokenizer(), search(num_return_sequences=2)), strict=True
    ):
        assert record["predictions"] == [hypothesis.text for hypothesis in ranked]
    capsys.readouterr()
    main([str(tmp_path / "model"), str(tmp_path / "audio" / "0.wav")])
    assert json.loads(lines[0])["predictions"][0] in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no such audio file"):
        main([str(tmp_path / "model"), "9.wav"])
