"""A recipe with features: the folder takes a source, a tab and its features in every program that reads it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import run
from transformers import AutoTokenizer

from hf_rnn_seq2seq.recipes.predict import main as predict
from hf_rnn_seq2seq.sharing.export import export_model
from hf_rnn_seq2seq.sharing.runtime import RnnSeq2SeqRuntime


# What is written depends on the tag alone: the word as it is, or with an ending.
STEMS = ["abab", "baba", "cabc", "bcab", "caca", "abcc"]
ROWS = [(stem, stem if tag == "SG" else f"{stem}s", f"N;{tag}") for stem in STEMS for tag in ("SG", "PL")]
FEATURES: dict[str, Any] = {
    "data__feature_column": 3, "data__hallucinated_samples": 40, "tokenizer__shared": True, "model__use_copy": True,
    "model__encoder_hidden_size": 24, "model__decoder_hidden_size": 24, "training__max_steps": 60,
    "training__eval_steps": 30, "training__save_steps": 30, "training__learning_rate": 0.03,
}  # fmt: skip
MONOTONIC = {**FEATURES, "model__attention_type": "hard_monotonic"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    for split in ("train", "dev", "test"):
        (folder / f"{split}.tsv").write_text("".join("\t".join(row) + "\n" for row in ROWS))
    return folder


def test_every_program_takes_a_source_with_its_features(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run("seq2seq", data_dir, "--output_dir", folder, **FEATURES)
    with (folder / "predictions_test.tsv").open(newline="") as handle:
        scored = [row["prediction"] for row in csv.DictReader(handle, delimiter="\t")]
    assert sum(word == wanted for word, (_, wanted, _) in zip(scored, ROWS, strict=True)) > len(ROWS) / 2
    sources = [f"{stem}\t{features}" for stem, _, features in ROWS]
    (tmp_path / "in.txt").write_text("".join(f"{source}\n" for source in sources))
    predict([str(folder), "--input_file", str(tmp_path / "in.txt"), "--output_file", str(tmp_path / "out.txt")])
    assert (tmp_path / "out.txt").read_text().splitlines() == scored
    runtime = RnnSeq2SeqRuntime.from_pretrained(export_model(folder, tmp_path / "exported", quantize=None))
    assert [ranked[0].text for ranked in runtime.generate(sources)] == scored
    tokens = AutoTokenizer.from_pretrained(folder)(sources[0])["input_ids"]
    assert len(tokens) == len("abab") + 3  # the two tags and the end


def test_a_model_that_sums_over_alignments_is_trained_and_decoded_but_not_exported(
    data_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    assert run("seq2seq", data_dir, "--output_dir", folder, **MONOTONIC)["exact_match"] > 50
    with pytest.raises(ValueError, match="attention_type='hard_monotonic' cannot be exported"):
        export_model(folder, tmp_path / "exported")
    with pytest.raises(SystemExit, match=r"training\.teacher_forcing: model\.attention_type hard_monotonic"):
        run(
            "seq2seq",
            data_dir,
            "--output_dir",
            tmp_path / "new",
            **MONOTONIC,
            training__teacher_forcing={"ratio": 0.5},
        )
