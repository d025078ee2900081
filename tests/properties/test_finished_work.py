"""Finished work is never changed by a command that fails or was not told to: every script, every kind of task."""

from __future__ import annotations

import errno
import json
import os
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_model, tiny_tokenizer
from tiny_runs import CONTENTS, KINDS, TASKS, Runs, content, run, snapshot, write_data

from hf_rnn_seq2seq.data.outputs import (
    check_output_file,
    check_output_folder,
    replacing,
    replacing_folder,
    write_whole,
)
from hf_rnn_seq2seq.recipes import run_folder
from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.options import write_yaml
from hf_rnn_seq2seq.recipes.run_folder import EARLIER_FOLDER
from hf_rnn_seq2seq.sharing.card import save_model_card
from hf_rnn_seq2seq.sharing.export import export_model
from hf_rnn_seq2seq.training.trainer import RecipeTrainer


SCRIPTS = Path(__file__).parents[2] / "scripts"


def program(name: str, *arguments: str | Path) -> None:
    """A script of `scripts/`, in this process."""
    runpy.run_path(str(SCRIPTS / f"{name}.py"))["main"]([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def finished(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each kind a finished run with a results file, in a folder of its own."""
    return Runs(tmp_path_factory.mktemp, data_dir, with_results=True)


@pytest.fixture
def out(request: pytest.FixtureRequest, finished: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the finished run of the test's kind."""
    kind = request.node.callspec.params.get("kind", "seq2seq") if hasattr(request.node, "callspec") else "seq2seq"
    shutil.copytree(finished[kind], tmp_path / "out")
    return tmp_path / "out"


def refused(capsys: pytest.CaptureFixture[str], call: Any) -> str:
    """What a command that fails says, in one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        call()
    assert stopped.value.code not in (0, None)
    said = str(stopped.value.code) if isinstance(stopped.value.code, str) else capsys.readouterr().err
    return said


# ---- Training ---------------------------------------------------------------------------------------------------

# Wrong in many ways, some of which only show when the data has been read, encoded, or given to the Trainer.
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"model__encoder_hiden_size": 3}, "model.encoder_hiden_size: unknown key"),
    ({"modle__x": 3}, "modle: unknown section"),
    ({"evaluation__metrics": ["acuracy"]}, "evaluation.metrics: "),
    ({"evaluation__best_metric": "x"}, "evaluation.best_metric: "),
    ({"evaluation__splits": ["tset"]}, "evaluation.splits: got 'tset'"),
    ({"training__optim": "adamm"}, "training.optim: "),
    ({"training__report_to": "nowhere"}, "training.report_to: "),
    ({"training__save_steps": 3}, "training: "),
    ({"training__average_checkpoints": 2, "training__save_total_limit": 2}, "training.save_total_limit"),
    ({"training__gradient_accumulation_steps": 0}, "training.gradient_accumulation_steps: got 0, wanted at least 1"),
    ({"training__adam_beta1": 1.5}, "training.adam_beta1: got 1.5, wanted at least 0 and less than 1"),
    ({"training__optim": "galore_adamw"}, "training.optim"),
    ({"training__lr_scheduler_kwargs": {"foo": 1}}, "training.lr_scheduler_kwargs: "),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_overwrite_with_a_mistake_in_the_recipe_changes_nothing(
    kind: str, changes: dict[str, Any], message: str, out: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(out)
    said = refused(capsys, lambda: run(kind, data_dir, "--output_dir", out, "--overwrite", **changes))
    assert message in said
    assert snapshot(out) == before


@pytest.mark.parametrize("kind", ["seq2seq", "speech"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repetition_penalty": 0.0}, "generation.repetition_penalty: got 0.0, wanted more than 0"),
        ({"guidance_scale": 2.0}, "generation.guidance_scale: got 2.0, wanted 1"),
        ({"stop_strings": "a"}, "generation: got {'stop_strings': 'a'}, and that fails: "),
    ],
)
def test_overwrite_with_a_search_that_fails_changes_nothing(
    kind: str, changes: dict[str, Any], message: str, out: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(out)
    options = {f"generation__{name}": value for name, value in changes.items()}
    said = refused(capsys, lambda: run(kind, data_dir, "--output_dir", out, "--overwrite", **options))
    assert message in said
    assert snapshot(out) == before


# A file of each kind, and lines that cannot be used: the reader, or only the tokenizer, finds out.
BAD_LINES = [
    ("seq2seq", "train.tsv", "one"),
    ("seq2seq", "test.tsv", "\tx"),
    ("tagging", "train.jsonl", '{"tokens": []}'),
    ("classification", "test_labels.tsv", "unheard\tab"),
    ("speech", "manifest.tsv", "one"),
    *((kind, name, None) for kind, name in zip(TASKS, ["dev.tsv", "dev.jsonl", "dev_labels.tsv", "frames.npz"])),
    ("values", "train_table.csv", "one"),
    ("values", "dev_table.csv", None),
    ("forecast", "train_table.csv", "one"),
    ("forecast", "train_table.csv", None),
]


@pytest.mark.parametrize(("kind", "name", "line"), BAD_LINES)
def test_overwrite_with_bad_data_changes_nothing(
    kind: str, name: str, line: str | None, out: Path, data_dir: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(data_dir, data)
    if line is None:
        (data / name).unlink()
    else:
        (data / name).write_text((data / name).read_text() + line + "\n")
    before = snapshot(out)
    with pytest.raises((SystemExit, ValueError)):
        run(kind, data, "--output_dir", out, "--overwrite")
    assert snapshot(out) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_replaced_only_by_overwrite(
    kind: str, out: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(out)
    said = refused(capsys, lambda: run(kind, data_dir, "--output_dir", out))
    assert "holds checkpoints of an earlier run" in said and "--overwrite" in said
    assert snapshot(out) == before
    for checkpoint in out.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    before = snapshot(out)
    assert "of an earlier run" in refused(capsys, lambda: run(kind, data_dir, "--output_dir", out))
    said = refused(capsys, lambda: run(kind, data_dir, "--output_dir", out, "--resume", model__encoder_layers=2))
    assert "another recipe: model.encoder_layers (1 -> 2)" in said
    said = refused(capsys, lambda: run(kind, data_dir, "--output_dir", out, "--resume", training__max_steps=9))
    assert "another recipe: training.max_steps (4 -> 9)" in said
    said = refused(capsys, lambda: run(kind, data_dir, "--output_dir", out, "--resume", "--overwrite"))
    assert "--resume: leave out --overwrite" in said
    assert snapshot(out) == before
    # Nothing is left to train, so that it is only scored again.
    run(kind, data_dir, "--output_dir", out, "--resume")
    after = snapshot(out)
    assert {name for name in after if after[name] != before.get(name)} <= {"README.md"}
    run(kind, data_dir, "--output_dir", out, "--overwrite", training__seed=4)
    assert snapshot(out)["model.safetensors"] != before["model.safetensors"]
    assert not (out / EARLIER_FOLDER).exists()


@pytest.mark.parametrize("only", ["model.safetensors", "README.md", "predictions_test.tsv", "tokenizer.json"])
def test_any_part_of_finished_work_is_enough_to_refuse(
    only: str, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / only).write_text("work of an hour")
    before = snapshot(tmp_path)
    assert only in refused(capsys, lambda: run("seq2seq", data_dir, "--output_dir", tmp_path))
    assert only in refused(capsys, lambda: run("seq2seq", data_dir, "--output_dir", tmp_path, "--resume"))
    assert snapshot(tmp_path) == before


def test_what_does_not_belong_to_a_run_stays(data_dir: Path, out: Path) -> None:
    (out / "notes.txt").write_text("mine")
    (out / "mine.py").write_text("pass")
    (out / "best-checkpoint").mkdir()
    run("seq2seq", data_dir, "--output_dir", out, "--overwrite")
    assert (out / "notes.txt").read_text() == "mine" and (out / "mine.py").is_file()
    assert (out / "best-checkpoint").is_dir()


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_breaks_brings_the_earlier_run_back(
    kind: str, out: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(out)
    with monkeypatch.context() as patch:
        patch.setattr(RecipeTrainer, "training_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(kind, data_dir, "--output_dir", out, "--overwrite", training__seed=4)
    assert snapshot(out) == before


def test_a_training_that_breaks_late_goes_on_and_keeps_the_earlier_run_until_then(
    out: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(out)
    step = RecipeTrainer.training_step

    def breaks(trainer: RecipeTrainer, *arguments: Any) -> torch.Tensor:
        if trainer.state.global_step == 3:
            raise KeyboardInterrupt
        return step(trainer, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RecipeTrainer, "training_step", breaks)
        with pytest.raises(KeyboardInterrupt):
            run("seq2seq", data_dir, "--output_dir", out, "--overwrite", training__seed=4)
    kept = snapshot(out / EARLIER_FOLDER)
    assert {name: before[name] for name in kept} == kept and "model.safetensors" in kept
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-2"]
    assert "holds checkpoints" in refused(capsys, lambda: run("seq2seq", data_dir, "--output_dir", out))
    run("seq2seq", data_dir, "--output_dir", out, "--resume", training__seed=4)
    assert not (out / EARLIER_FOLDER).exists()
    assert snapshot(out)["model.safetensors"] != before["model.safetensors"]


def test_a_second_run_leaves_nothing_of_the_first(out: Path, data_dir: Path) -> None:
    assert (out / "target_tokenizer").is_dir() and (out / "README.md").is_file()
    changed = content("seq2seq", tokenizer__shared=True, evaluation__splits=["test"])
    del changed["card"]
    (data_dir / "shared.yaml").write_text(write_yaml(changed))
    options = ["--data_dir", data_dir, "--output_dir", out, "--overwrite"]
    main(TASKS["seq2seq"], None, [str(option) for option in (data_dir / "shared.yaml", *options)])
    for name in ("target_tokenizer", "README.md", "predictions_validation.tsv"):
        assert not (out / name).exists()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_in_place_of_the_output_folder_is_refused(
    name: str, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    for options in ([], ["--overwrite"], ["--resume"], ["--eval_only", "x"]):
        said = refused(capsys, lambda o=options: run("seq2seq", data_dir, "--output_dir", tmp_path / name, *o))
        assert ("--output_dir: " in said and "is a file" in said) or "got the file" in said
    assert snapshot(tmp_path).keys() == {"file"}


# ---- The best checkpoint of a resumed run -----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["moved", "copied", "other directory"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_with_nothing_left_to_train_takes_the_best_checkpoint(
    kind: str, way: str, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With such small steps the scores of symbols do not change, and the first of equal ones is the best; errors of
    # values change a little.
    metric = "loss" if kind == "speak" else next(iter(CONTENTS[kind]["evaluation"]["metrics"]))
    changes = {"training__learning_rate": 1e-6, "evaluation__best_metric": metric}
    monkeypatch.chdir(tmp_path)
    run(kind, data_dir, "--output_dir", "first", **changes)
    state = json.loads(Path("first/checkpoint-4/trainer_state.json").read_text())
    best = state["best_global_step"]
    assert best == 2 or kind in ("values", "forecast", "speak")
    assert Path(state["best_model_checkpoint"]).name == f"checkpoint-{best}"
    assert (
        snapshot(Path("first/checkpoint-2"))["model.safetensors"]
        != snapshot(Path("first/checkpoint-4"))["model.safetensors"]
    )
    where = tmp_path / "first"
    if way == "other directory":
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
    elif way == "moved":
        where = tmp_path / "second"
        Path("first").rename(where)
    else:
        where = tmp_path / "second"
        shutil.copytree("first", where)
        (tmp_path / "first" / f"checkpoint-{best}" / "model.safetensors").write_bytes(b"not these")
    (where / "model.safetensors").unlink()
    run(kind, data_dir, "--output_dir", where, "--resume", **changes)
    report = json.loads((where / "training_report.json").read_text())
    assert report["weights"] == "the best checkpoint"
    saved = load_file(where / "model.safetensors")
    wanted = load_file(where / f"checkpoint-{best}" / "model.safetensors")
    assert saved.keys() == wanted.keys() and all(torch.equal(saved[name], wanted[name]) for name in saved)


# ---- Evaluation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_replaces_neither_predictions_nor_a_model(
    kind: str, out: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    other, new = tmp_path / "other", tmp_path / "new"
    shutil.copytree(out, other)
    # The default folder is that of the run.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / kind).symlink_to(out)
    before, checkpoints = snapshot(tmp_path), sorted(out.glob("checkpoint-*"))
    average = ["--eval_only", *checkpoints, "--average"]
    for options, message in (
        (["--eval_only", other], "holds predictions_"),
        (["--eval_only", out, "--output_dir", out], "holds predictions_"),
        (["--eval_only", *checkpoints, "--output_dir", other], "holds predictions_"),
        (average, "--average needs --output_dir"),
        ([*average, "--output_dir", other], "holds checkpoint-"),
        ([*average, "--output_dir", out], "wanted another folder"),
        ([*average, "--output_dir", out, "--overwrite"], "wanted another folder"),
        ([*average, "--output_dir", checkpoints[0], "--overwrite"], "wanted another folder"),
        (["--eval_only", out, "--output_dir", new, "--results", out / "results.json"], "results.json is there alr"),
        (["--eval_only", out, "--output_dir", new, "--results", out], "wanted the name of a file"),
        (["--eval_only", out, "--output_dir", new, "--resume"], "--resume: leave out --eval_only"),
        (["--eval_only", tmp_path / "nowhere", "--output_dir", other, "--overwrite"], "nowhere"),
        (["--eval_only", *checkpoints, tmp_path / "nowhere", "--output_dir", other, "--overwrite"], "nowhere"),
        (["--eval_only", out, "--output_dir", other, "--overwrite", "--set", "evaluation.splits=[x]"], "got 'x'"),
    ):
        said = refused(capsys, lambda options=options: run(kind, data_dir, *options))
        assert message in said, options
        assert snapshot(tmp_path) == before, options
    # Where the user said, and what the user said.
    run(kind, data_dir, *average, "--output_dir", new)
    mean = snapshot(new)
    assert "model.safetensors" in mean and not any("partial" in name or "mean." in name for name in mean)
    run(kind, data_dir, "--eval_only", out, "--output_dir", other, "--overwrite")
    changed = {name for name, value in snapshot(other).items() if snapshot(out)[name] != value}
    assert all(name.startswith("predictions_") for name in changed)
    run(kind, data_dir, *average, "--output_dir", other, "--overwrite")
    assert snapshot(other)["model.safetensors"] == mean["model.safetensors"]
    assert not list(other.glob("checkpoint-*")) and not (other / "README.md").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_that_fails_leaves_all_predictions(
    kind: str, out: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    shutil.copytree(out, other)
    checkpoints = sorted(out.glob("checkpoint-*"))
    before = snapshot(tmp_path)
    evaluate = TASKS[kind].evaluate

    def fails_at_the_test(task: Any, split: Any, predictions: Path) -> Any:
        scores = evaluate(task, split, predictions)
        if "test" in predictions.name:
            raise RuntimeError("no score")
        return scores

    monkeypatch.setattr(TASKS[kind], "evaluate", fails_at_the_test)
    for options in (["--eval_only", out], ["--eval_only", *checkpoints, "--average"]):
        with pytest.raises(RuntimeError, match="no score"):
            run(kind, data_dir, *options, "--output_dir", other, "--overwrite")
        assert snapshot(tmp_path) == before


# ---- Suites -----------------------------------------------------------------------------------------------------


def suite(data_dir: Path, *options: str | Path, **changes: Any) -> dict[str, float]:
    changed = content("seq2seq", **changes)
    changed["training"].pop("seed")
    changed["runs"] = {"seeds": [1, 2]}
    (data_dir / "suite.yaml").write_text(write_yaml(changed))
    arguments = [data_dir / "suite.yaml", "--data_dir", data_dir, *options]
    return main(TASKS["seq2seq"], None, [str(argument) for argument in arguments])


def test_suites_are_replaced_only_by_overwrite(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, results = tmp_path / "out", tmp_path / "suite.json"
    metrics = suite(data_dir, "--output_dir", out, "--results", results)
    before = snapshot(tmp_path)
    absent = {"data__train": "absent.tsv"}
    for options, changes, message in (
        ([], {}, "holds an earlier run"),
        (["--overwrite"], {"model__encoder_hiden_size": 3}, "unknown key"),
        (["--overwrite"], absent, "absent.tsv: no such file"),
        (["--overwrite"], {"evaluation__splits": ["tset"]}, "got 'tset'"),
        (["--resume"], {"model__encoder_layers": 2}, "has another recipe"),
        (["--eval_only", out], {}, "holds an earlier run"),
        (["--eval_only", out, "--overwrite"], absent, "absent.tsv: no such file"),
        (["--eval_only", tmp_path / "nowhere", "--overwrite"], {}, "nowhere"),
    ):
        said = refused(
            capsys,
            lambda options=options, changes=changes: suite(
                data_dir, "--output_dir", out, "--results", results, *options, **changes
            ),
        )
        assert message in said, options
        assert snapshot(tmp_path) == before, (options, changes)
    # The second run is looked at before the first one is done.
    (tmp_path / "new" / "seed2").mkdir(parents=True)
    (tmp_path / "new" / "seed2" / "model.safetensors").write_text("x")
    assert "seed2 holds model.safetensors" in refused(
        capsys, lambda: suite(data_dir, "--output_dir", tmp_path / "new")
    )
    assert not (tmp_path / "new" / "seed1").exists()
    with monkeypatch.context() as patch:
        patch.setattr(RecipeTrainer, "training_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            suite(data_dir, "--output_dir", out, "--overwrite", model__encoder_layers=2)
    assert snapshot(out) == {name.removeprefix("out/"): v for name, v in before.items() if name.startswith("out/")}
    assert suite(data_dir, "--eval_only", out, "--output_dir", tmp_path / "evaluated") == metrics
    assert suite(data_dir, "--output_dir", out, "--overwrite", model__encoder_layers=2).keys() == metrics.keys()
    assert not list(out.rglob("*.earlier")) and not list(out.rglob(EARLIER_FOLDER))


def test_a_suite_that_breaks_late_goes_on_with_the_new_recipe(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    suite(data_dir, "--output_dir", out)
    step = RecipeTrainer.training_step

    def breaks(trainer: RecipeTrainer, *arguments: Any) -> torch.Tensor:
        if trainer.state.global_step == 3:
            raise RuntimeError("disk full")
        return step(trainer, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RecipeTrainer, "training_step", breaks)
        with pytest.raises(RuntimeError, match="disk full"):
            suite(data_dir, "--output_dir", out, "--overwrite", model__encoder_layers=2)
    assert not (out / "seed1" / "results.json").exists()
    with pytest.raises(SystemExit, match=r"seed2 has another recipe"):
        suite(data_dir, "--output_dir", out, "--resume", model__encoder_layers=2)
    shutil.rmtree(out / "seed2")
    suite(data_dir, "--output_dir", out, "--resume", model__encoder_layers=2)
    assert json.loads((out / "seed1" / "config.json").read_text())["encoder_layers"] == 2


# ---- Other programs ---------------------------------------------------------------------------------------------


def test_predictions_are_not_written_over_their_texts(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("ab\nba\n")
    (tmp_path / "link.txt").symlink_to(texts)
    (tmp_path / "there.txt").write_text("work\n")
    (tmp_path / "picture.png").write_text("work\n")
    before = snapshot(tmp_path)
    for arguments, message in (
        (["--input_file", texts, "--output_file", texts], "is the input file"),
        (["--input_file", texts, "--output_file", texts, "--overwrite"], "is the input file"),
        (["--input_file", texts, "--output_file", tmp_path / "link.txt", "--overwrite"], "is the input file"),
        (["--input_file", texts, "--output_file", tmp_path / "there.txt"], "is there already"),
        (
            ["--input_file", tmp_path / "no.txt", "--output_file", tmp_path / "there.txt", "--overwrite"],
            "no such file",
        ),
        (["ab", "--attention", tmp_path / "picture.png"], "picture.png is there already"),
        (["ab", "--attention", tmp_path], "wanted the name of a file"),
    ):
        assert message in refused(capsys, lambda arguments=arguments: program("predict", out, *arguments))
        assert snapshot(tmp_path) == before, arguments
    program("predict", out, "ab", "--attention", tmp_path / "picture.png", "--overwrite")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    program("predict", out, "--input_file", texts, "--output_file", tmp_path / "there.txt", "--overwrite")
    assert len((tmp_path / "there.txt").read_text().splitlines()) == 2


def test_an_export_takes_only_the_place_of_an_export(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exported, model = tmp_path / "exported", tmp_path / "tiny"
    tiny_model("luong", dtype=torch.float32).save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    program("export", out, exported, "--quantize", "none")
    (exported / "app.py").write_text("mine")
    assert (exported / "target_tokenizer").is_dir()
    (tmp_path / "file").write_text("x")
    before = snapshot(tmp_path)
    for arguments, message in (
        ([out, out], "is no export, and holds"),
        ([out, out, "--overwrite"], "is no export, and holds"),
        ([model, out, "--overwrite"], "is no export, and holds"),
        ([model, exported], "holds an earlier export"),
        ([tmp_path / "nowhere", exported, "--overwrite"], "nowhere holds no config.json"),
        ([model, tmp_path / "file"], "got the file"),
        ([model, tmp_path / "file" / "below"], "is a file"),
    ):
        assert message in refused(capsys, lambda arguments=arguments: program("export", *arguments))
        assert snapshot(tmp_path) == before, arguments
    with monkeypatch.context() as patch:
        patch.setattr("onnx.checker.check_model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export_model(model, exported, None)
        assert snapshot(tmp_path) == before
    program("export", model, exported, "--quantize", "none", "--overwrite")
    # Nothing of the earlier export is left, and what is none of it is.
    assert not (exported / "target_tokenizer").exists() and (exported / "app.py").read_text() == "mine"


def test_pictures_and_data_are_replaced_only_by_overwrite(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, results = tmp_path / "p.png", tmp_path / "r.json"
    for file in (picture, results, tmp_path / "validation.tsv"):
        file.write_text("work")
    before = snapshot(tmp_path)
    predictions = f"a={out / 'predictions_test.tsv'}"
    recipe = SCRIPTS / "recipes" / "weaknesses.yaml"
    for name, arguments in (
        ("studies/error_by_length", [picture, predictions]),
        ("studies/error_by_length", [picture, "a", "--overwrite"]),
        ("studies/error_by_length", [picture, predictions, "--smallest", "99", "--overwrite"]),
        ("studies/weaknesses", [recipe, "--output_dir", tmp_path / "w", "--picture", picture]),
        ("studies/weaknesses", [recipe, "--output_dir", tmp_path / "w", "--results", results]),
        ("benchmark/run", ["--quick", "--results", results]),
        ("benchmark/run", ["--quick", "--picture", picture]),
    ):
        refused(capsys, lambda name=name, arguments=arguments: program(name, *arguments))
        assert snapshot(tmp_path) == before, (name, arguments)
    program("studies/error_by_length", picture, predictions, "--smallest", "1", "--overwrite")
    assert picture.read_bytes().startswith(b"\x89PNG")

    splits = runpy.run_path(str(SCRIPTS / "cmudict_splits.py"))
    dictionary = tmp_path / "cmudict.dict"
    dictionary.write_text("".join(f"{word} A{n}\n" for n, word in enumerate(["a", "b", "c", "d", "e"])))
    monkeypatch.setitem(splits["main"].__globals__, "dictionary_file", lambda: dictionary)
    before = snapshot(tmp_path)
    for options in ([], ["--held_out", "9", "--overwrite"]):
        monkeypatch.setattr(sys, "argv", ["cmudict_splits.py", str(tmp_path), "--held_out", "1", *options])
        refused(capsys, splits["main"])
        assert snapshot(tmp_path) == before
    monkeypatch.setattr(sys, "argv", ["cmudict_splits.py", str(tmp_path), "--held_out", "1", "--overwrite"])
    splits["main"]()
    assert len((tmp_path / "train.tsv").read_text().splitlines()) == 3
    assert (tmp_path / "validation.tsv").read_text() != "work"


def test_weaknesses_do_not_take_the_models_of_another_recipe(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = {"task": "seq2seq", **content("seq2seq")}
    changed["data"] = {"dataset_name": "toy:copy", "toy": {"train": 20, "validation": 4, "test": 4, "max_length": 4}}
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(write_yaml(changed))
    weaknesses = runpy.run_path(str(SCRIPTS / "studies/weaknesses.py"))
    weaknesses["train"](str(recipe), [], tmp_path / "out")
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=r"holds a model of another recipe: model.encoder_layers \(1 -> 2\)"):
        weaknesses["train"](str(recipe), ["model.encoder_layers=2"], tmp_path / "out")
    assert snapshot(tmp_path) == before


def test_a_card_that_cannot_be_made_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("old")
    fields: dict[str, Any] = {"language": "en", "task": "x", "datasets": [], "metrics": {}, "recipe": None}
    with pytest.raises(ValueError, match="title must not be empty"):
        save_model_card(tmp_path, tiny_model(), title="", training_summary="", license="x", **fields)
    assert snapshot(tmp_path).keys() == {"README.md"} and (tmp_path / "README.md").read_text() == "old"


# ---- The parts --------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.txt"
    with replacing(file) as partial:
        partial.write_text("one")
        assert not file.exists()
    with pytest.raises(KeyboardInterrupt), replacing(file) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert snapshot(tmp_path / "new").keys() == {"a.txt"} and file.read_text() == "one"


def test_a_link_is_replaced_and_not_followed_and_permissions_are_those_of_any_file(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "plain").write_text("")
    write_whole(tmp_path / "a", "new")
    assert (tmp_path / "elsewhere").read_text() == "mine" and not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
    os.mkfifo(tmp_path / "pipe")
    for refuse in (
        lambda: write_whole(tmp_path / "pipe", "x"),
        lambda: check_output_file(tmp_path / "pipe", "x", True),
    ):
        with pytest.raises(FileExistsError, match="pipe"):
            refuse()


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), RuntimeError("io: Os { code: 28, kind: StorageFull }")]
)
def test_a_full_disk_is_named_with_the_file_that_was_to_be_written(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"a\.txt") as raised, replacing(tmp_path / "a.txt"):
        raise error
    assert raised.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="of something else"), replacing(tmp_path / "a.txt"):
        raise RuntimeError("of something else")


def test_a_folder_is_replaced_whole_or_not_at_all_and_keeps_what_is_not_its_own(tmp_path: Path) -> None:
    old = tmp_path / "out"
    (old / "sub").mkdir(parents=True)
    for name in ("own", "notes", "sub/more"):
        (old / name).write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing_folder(old, ["own"]) as folder:
        (folder / "own").write_text("half")
        raise KeyboardInterrupt
    assert {path.name for path in tmp_path.iterdir()} == {"out"} and (old / "own").read_text() == "old"
    with replacing_folder(old, ["own"]) as folder:
        (folder / "new").write_text("new")
    assert snapshot(old).keys() == {"new", "notes", "sub", "sub/more"} and {p.name for p in tmp_path.iterdir()} == {
        "out"
    }
    with pytest.raises(FileExistsError, match="is in use"), replacing_folder(Path.cwd().parent):
        pass


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(PermissionError, match="is not writable"):
        check_output_file(tmp_path / "a", "--results", overwrite=True)
    with pytest.raises(PermissionError, match="is not writable"):
        check_output_folder(tmp_path / "a", "--output_dir")


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_a_run_is_known_to_belong_to_it(kind: str, finished: dict[str, Path]) -> None:
    # What a run writes and its successor would not take away.
    folder = finished[kind]
    known = {path.name for path in run_folder.run_files(folder, with_card=True)} | {"results.json"}
    assert {path.name for path in folder.iterdir()} <= known
