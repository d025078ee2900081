"""Distillation: a student is trained on what its teachers answer, and bad teachers are refused with the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import content, run, write_data

from hf_rnn_seq2seq.recipes.predict import main as predict
from hf_rnn_seq2seq.recipes.recipe import build_recipe
from hf_rnn_seq2seq.recipes.task_text import Seq2SeqTask


# A teacher that reverses words of a few letters, most of the time.
TAUGHT: dict[str, Any] = {
    "model__encoder_hidden_size": 32, "model__decoder_hidden_size": 32, "training__max_steps": 40,
    "training__eval_steps": 20, "training__save_steps": 20, "training__learning_rate": 0.02,
}  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taught")
    write_data(folder)
    run("seq2seq", folder, "--output_dir", folder / "teacher", **TAUGHT)
    run("seq2seq", folder, "--output_dir", folder / "other", **TAUGHT, training__seed=4)
    return folder


def training_pairs(data_dir: Path, **teacher: Any) -> list[tuple[str, str]]:
    """What a student of these teachers is trained on."""
    task = Seq2SeqTask(build_recipe(content("seq2seq", training__teacher=teacher), "student"))
    split = task.training_split(task.load_data(data_dir)["train"])
    return list(zip(split["source"], split["target"], strict=True))


def test_the_teachers_best_answers_stand_beside_the_references(data_dir: Path, tmp_path: Path) -> None:
    teacher = str(data_dir / "teacher")
    references = [tuple(line.split("\t")) for line in (data_dir / "train.tsv").read_text().splitlines()]
    pairs = training_pairs(data_dir, models=[teacher], num_beams=3, num_return_sequences=2)
    words = list(dict.fromkeys(source for source, _ in references))
    assert pairs[: len(references)] == references
    (tmp_path / "in.txt").write_text("".join(f"{word}\n" for word in words))
    files = ["--input_file", str(tmp_path / "in.txt"), "--output_file", str(tmp_path / "out.jsonl")]
    predict([teacher, *files, "--num_beams", "3", "--num_return_sequences", "2"])
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    answers = [(record["source"], answer) for record in records for answer in record["predictions"]]
    assert len(answers) == 2 * len(words)
    assert pairs[len(references) :] == answers
    alone = training_pairs(data_dir, models=[teacher], num_beams=3, num_return_sequences=2, keep_references=False)
    assert alone == pairs[len(references) :]


def test_a_student_of_an_ensemble_is_trained_on_twice_the_pairs(data_dir: Path, tmp_path: Path) -> None:
    models = [str(data_dir / "teacher"), str(data_dir / "other")]
    changes = {**TAUGHT, "training__teacher": {"models": models, "keep_references": False}}
    scores = run("seq2seq", data_dir, "--output_dir", tmp_path / "student", **changes)
    assert scores["exact_match"] > 50  # answers of two models that are right more often than not
    assert '"items": 8' in (tmp_path / "student" / "training_report.json").read_text()


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"models": []}, r"training\.teacher\.models: got none, wanted at least one folder"),
        ({"models": ["nowhere"]}, r"training\.teacher\.models: nowhere holds no config\.json"),
        ({"num_beams": 3}, r"training\.teacher\.models: missing, wanted a list"),
        ({"models": ["x"], "num_beams": 0}, r"training\.teacher\.num_beams: got 0, wanted 1 to 1000"),
        (
            {"models": ["x"], "num_return_sequences": 6},
            r"training\.teacher\.num_return_sequences: got 6, wanted 1 to 5",
        ),
    ],
)
def test_bad_teachers_are_refused_with_the_recipe(data_dir: Path, teacher: dict[str, Any], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        run("seq2seq", data_dir, "--output_dir", data_dir / "refused", training__teacher=teacher)
    assert not (data_dir / "refused").exists()


def test_a_teacher_of_other_sources_or_another_task_is_refused(data_dir: Path) -> None:
    teacher = {"models": [str(data_dir / "teacher")]}
    changes: dict[str, Any] = {"training__teacher": teacher, "data__source_replacements": [["a", "b"]]}
    with pytest.raises(SystemExit, match=r"training\.teacher\.models: .* source_replacements \(\), the recipe's data"):
        run("seq2seq", data_dir, "--output_dir", data_dir / "refused", **changes)
    with pytest.raises(SystemExit, match=r"training\.teacher: answers are text, wanted task seq2seq, got token_class"):
        run("tagging", data_dir, "--output_dir", data_dir / "refused", training__teacher=teacher)
