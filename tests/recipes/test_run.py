"""Whole runs of tiny recipes through the script: same numbers twice, resumed = uninterrupted, what is left behind."""

import csv
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, TrainerState, pipeline

from hf_rnn_seq2seq.data.splits import evenly_taken
from hf_rnn_seq2seq.evaluation.decoding import Hypothesis
from hf_rnn_seq2seq.recipes.command import main as run_command
from hf_rnn_seq2seq.recipes.options import OptionsError, write_yaml
from hf_rnn_seq2seq.recipes.recipe import Recipe, build_recipe
from hf_rnn_seq2seq.recipes.run import run_recipe, use_average
from hf_rnn_seq2seq.recipes.scoring import write_predictions
from hf_rnn_seq2seq.recipes.task_text import Seq2SeqTask, build_model, build_tokenizers
from hf_rnn_seq2seq.recipes.trainer_arguments import training_arguments
from hf_rnn_seq2seq.sharing.results import read_results


SCRIPT = Path(__file__).parents[2] / "scripts" / "run_seq2seq.py"

# Dropout, scheduled sampling and averaging, so that a run depends on every source of randomness there is.
CONTENT: dict[str, Any] = {
    "data": {
        "dataset_name": "toy:reverse",
        "toy": {"symbols": 4, "min_length": 2, "max_length": 5, "train": 60, "validation": 12, "test": 12},
    },
    "tokenizer": {"target": {"type": "character"}},
    "model": {
        "rnn_type": "gru",
        "embedding_size": 8,
        "encoder_hidden_size": 16,
        "decoder_hidden_size": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "hidden_dropout": 0.2,
    },
    "training": {
        "num_train_epochs": 2,
        "max_tokens": 64,
        "learning_rate": 0.01,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 3,
        "save_steps": 3,
        "teacher_forcing": {"schedule": "linear", "slope": 0.05, "minimum": 0.25},
        "average_checkpoints": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 5,
    },
    "generation": {"num_beams": 2, "num_return_sequences": 2},
    "evaluation": {"metrics": ["exact_match", "perplexity"], "best_metric": "loss", "validation_samples": 5},
    "card": {"title": "A test", "language": "en", "task": "reversing", "datasets": ["toy"]},
}


def content(**changes: Any) -> dict[str, Any]:
    """The content above with `section__key=value` changed, or a whole `section=value`."""
    changed: dict[str, Any] = json.loads(json.dumps(CONTENT))
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            changed[section][key] = value
        else:
            changed[section] = value
    return changed


def recipe(**changes: Any) -> Recipe:
    return build_recipe(content(**changes), "tiny")


def main(*arguments: str | Path) -> dict[str, float]:
    """The command line of `run_seq2seq.py`, in this process."""
    return run_command(Seq2SeqTask, None, [str(argument) for argument in arguments])


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A finished run of the script: its folder and its metrics. All checkpoints are kept."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(write_yaml(content(training__average_checkpoints=9)))
    return folder, main(folder / "tiny.yaml", "--output_dir", folder / "out", "--results", folder / "tiny.json")


def test_a_second_run_gives_the_same_numbers(run: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    folder, metrics = run
    assert main(folder / "tiny.yaml", "--output_dir", tmp_path) == metrics
    assert same_weights(folder / "out", tmp_path)
    for name in ("predictions_test.tsv", "predictions_validation.tsv"):
        assert (folder / "out" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_another_seed_gives_another_model(run: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    folder, _ = run
    main(folder / "tiny.yaml", "--output_dir", tmp_path, "--set", "training.seed=6", "--set", "evaluation.splits=[]")
    assert not same_weights(folder / "out", tmp_path)


@pytest.mark.parametrize("kept", [3, 9])
def test_resuming_in_the_middle_of_an_epoch_gives_the_same_weights(
    kept: int, run: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    folder, metrics = run
    steps = sorted(int(path.name.split("-")[1]) for path in (folder / "out").glob("checkpoint-*"))
    per_epoch = steps[-1] // 2
    # One in the first epoch and one in the second, neither at its end.
    assert kept in steps and kept % per_epoch and steps[-1] > 9 > per_epoch > 3
    for step in steps:
        if step <= kept:
            shutil.copytree(folder / "out" / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    shutil.copy(folder / "out" / "recipe.yaml", tmp_path)
    # The process was killed while it wrote the next one.
    broken = tmp_path / f"checkpoint-{min(step for step in steps if step > kept)}"
    shutil.copytree(folder / "out" / broken.name, broken)
    (broken / "optimizer.pt").write_bytes(b"half of it")
    assert main(folder / "tiny.yaml", "--output_dir", tmp_path, "--resume") == metrics
    assert same_weights(folder / "out", tmp_path)
    last = f"checkpoint-{steps[-1]}"
    assert same_weights(folder / "out" / last, tmp_path / last)


def test_resuming_behind_the_last_of_max_steps_trains_no_more(tmp_path: Path) -> None:
    changes = {"max_steps": 7, "eval_steps": 7, "save_steps": 7, "average_checkpoints": 0}
    recipe_file = tmp_path / "tiny.yaml"
    recipe_file.write_text(write_yaml(content(training={**CONTENT["training"], **changes})))
    metrics = main(recipe_file, "--output_dir", tmp_path / "out")
    shutil.copytree(tmp_path / "out" / "checkpoint-7", tmp_path / "again" / "checkpoint-7")  # killed before the end
    assert main(recipe_file, "--output_dir", tmp_path / "again", "--resume") == metrics
    assert same_weights(tmp_path / "out", tmp_path / "again")
    report = json.loads((tmp_path / "again" / "training_report.json").read_text())
    assert report["updates"] == 7


def test_a_run_is_not_mixed_with_another(
    run: tuple[Path, dict[str, float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = run
    shutil.copytree(folder / "out", tmp_path / "out")
    again = [folder / "tiny.yaml", "--output_dir", tmp_path / "out"]
    with pytest.raises(SystemExit, match=r"error: .*out holds checkpoints of an earlier run: give --resume"):
        main(*again)
    with pytest.raises(
        SystemExit, match=r"--resume: .* another recipe: model\.embedding_size \(8 -> 9\), training\.seed"
    ):
        main(*again, "--resume", "--set", "model.embedding_size=9", "training.seed=7")
    with pytest.raises(SystemExit, match=r"another recipe: evaluation\.best_metric \('loss' -> 'exact_match'\)"):
        main(*again, "--resume", "--set", "evaluation.best_metric=exact_match")
    # A finished run has nothing left to train; how long it goes on may be changed.
    main(*again, "--resume", "--set", "evaluation.splits=[]", "training.logging_steps=1")
    assert same_weights(folder / "out", tmp_path / "out")
    main(*again, "--overwrite", "--set", "training.num_train_epochs=1", "evaluation.splits=[]")
    assert len(list((tmp_path / "out").glob("checkpoint-*"))) < len(list((folder / "out").glob("checkpoint-*")))


def test_longer_training_goes_on_from_a_finished_run(run: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    folder, _ = run
    shutil.copytree(folder / "out", tmp_path / "out")
    main(
        folder / "tiny.yaml", "--output_dir", tmp_path / "out", "--resume",
        "--set", "training.num_train_epochs=3", "evaluation.splits=[]",
    )  # fmt: skip
    assert not same_weights(folder / "out", tmp_path / "out")


def test_evaluating_a_saved_model_gives_the_numbers_of_the_run(
    run: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    folder, metrics = run
    assert main(folder / "tiny.yaml", "--eval_only", folder / "out", "--output_dir", tmp_path) == metrics
    assert not list(tmp_path.glob("*.safetensors"))


def test_what_a_run_leaves_behind(run: tuple[Path, dict[str, float]]) -> None:
    folder, metrics = run
    out = folder / "out"
    results = read_results(folder / "tiny.json")
    assert results.metrics == metrics
    assert set(metrics) == {"exact_match", "perplexity", "validation_exact_match", "validation_perplexity"}
    assert results.recipe == "tiny" and results.seeds == [5] and results.training_seconds > 0
    model = AutoModelForSeq2SeqLM.from_pretrained(out)
    assert results.parameters == model.num_parameters()
    assert "# A test" in (out / "README.md").read_text() and "tiny.yaml" in (out / "README.md").read_text()

    rows = list(csv.DictReader((out / "predictions_test.tsv").open(newline=""), delimiter="\t"))
    assert len(rows) == 24 and [row["rank"] for row in rows[:4]] == ["1", "2", "1", "2"]
    assert all(row["references"] == row["source"][::-1] and float(row["score"]) < 0 for row in rows)
    right = sum(row["prediction"] == row["references"] for row in rows if row["rank"] == "1")
    assert metrics["exact_match"] == pytest.approx(100 * right / 12)

    # Whoever loads the model gets the recipe's search, and one hypothesis.
    tokenizer = AutoTokenizer.from_pretrained(out)
    target_tokenizer = AutoTokenizer.from_pretrained(out, subfolder="target_tokenizer")
    sequences = model.generate(**tokenizer([rows[0]["source"]], return_tensors="pt"))
    assert target_tokenizer.batch_decode(sequences, skip_special_tokens=True) == [rows[0]["prediction"]]
    assert model.generation_config.num_beams == 2
    write = pipeline("seq2seq-generation", model=str(out))
    assert [hypotheses[0]["generated_text"] for hypotheses in write([row["source"] for row in rows[:8:2]])] == [
        row["prediction"] for row in rows[:8:2]
    ]


def test_the_mean_of_the_best_checkpoints_competes_with_the_best(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        run_recipe(Seq2SeqTask(recipe(evaluation__splits=[])), ".", tmp_path)
    last = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    log = json.loads((last / "trainer_state.json").read_text())["log_history"]
    losses = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    best = sorted(losses, key=lambda step: losses[step])[:2]
    # Two to average; the two newest to go on from, and the best at that time, which was the first once.
    kept = {f"checkpoint-{step}" for step in best} | {f"checkpoint-{step}" for step in sorted(losses)[-2:]}
    found = {path.name for path in tmp_path.glob("checkpoint-*")}
    assert kept <= found and len(found) <= len(kept) + 1
    averaged = "the model has the weights of the mean of checkpoint-" in caplog.text
    assert averaged != ("scores worse on the validation data" in caplog.text)
    one, two = (load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors") for step in best)
    for name, found in load_file(tmp_path / "model.safetensors").items():
        torch.testing.assert_close(found, (one[name] + two[name]) / 2 if averaged else one[name])


@pytest.mark.parametrize(("loss", "wanted"), [(0.5, 2.0), (0.9, 2.0), (0.91, 3.0)])
def test_the_mean_is_used_unless_it_scores_worse(loss: float, wanted: float, tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 3.0)
    state = TrainerState(best_metric=0.9)
    for step, weight in ((1, 1.0), (2, 3.0)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        save_file({"weight": torch.tensor([[weight]])}, tmp_path / f"checkpoint-{step}" / "model.safetensors")
        state.log_history.append({"step": step, "eval_loss": 1.0 - step / 20})
    arguments = SimpleNamespace(output_dir=str(tmp_path), greater_is_better=False)
    trainer = SimpleNamespace(model=model, args=arguments, state=state, evaluate=lambda: {"eval_loss": loss})
    said = use_average(trainer, recipe())  # type: ignore[arg-type]
    assert model.weight.item() == wanted
    assert said.startswith("the mean of checkpoint-2, checkpoint-1" if wanted == 2.0 else "the best checkpoint;")


def test_the_best_of_all_evaluations_is_the_model(tmp_path: Path) -> None:
    changed = recipe(training__average_checkpoints=0, training__learning_rate=0.5, evaluation__splits=[])
    run_recipe(Seq2SeqTask(changed), ".", tmp_path)
    last = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    state = json.loads((last / "trainer_state.json").read_text())
    losses = {entry["step"]: entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry}
    best = min(losses, key=lambda step: losses[step])
    assert same_weights(tmp_path, tmp_path / f"checkpoint-{best}")
    # Left are the two newest, and the best when each was saved.
    steps = sorted(losses)
    bests = {min(steps[:end], key=lambda step: losses[step]) for end in (len(steps) - 1, len(steps))}
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {f"checkpoint-{s}" for s in {*bests, *steps[-2:]}}


def test_a_split_that_the_data_does_not_have_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"evaluation\.splits: got 'tset', the data has validation, test"):
        recipe(evaluation__splits=["tset"])


def test_training_stops_early(tmp_path: Path) -> None:
    changed = content(training__early_stopping_patience=2, training__learning_rate=0.0, training__num_train_epochs=9)
    run_recipe(Seq2SeqTask(build_recipe({**changed, "evaluation": {"splits": []}}, "tiny")), ".", tmp_path)
    assert (tmp_path / "checkpoint-9").is_dir() and not (tmp_path / "checkpoint-12").exists()


def test_local_files_with_several_references_and_a_shared_subword_vocabulary(tmp_path: Path) -> None:
    for split, lines in {"train": ["ab\tA B", "cd\tC D"] * 20, "test": ["ab\tno", "cd\tC D", "ab\tA B"]}.items():
        (tmp_path / f"{split}.tsv").write_text("\n".join(lines))
    settings = recipe(
        data={"train": "train.tsv", "test": "test.tsv", "group_references": True, "reverse_source": True},
        tokenizer={"shared": True, "source": {"type": "bpe", "vocab_size": 270}},
        training={"num_train_epochs": 30, "max_tokens": 64, "learning_rate": 0.02, "report_to": "none",
                  "disable_tqdm": True, "save_strategy": "no", "bf16": True},
        evaluation={"metrics": {"right": "exact_match"}},
    )  # fmt: skip
    # Without validation data: no best checkpoint, and only the test data is reported.
    assert run_recipe(Seq2SeqTask(settings), tmp_path, tmp_path / "out") == {"right": 100.0}
    assert not (tmp_path / "out" / "target_tokenizer").exists()
    rows = list(csv.DictReader((tmp_path / "out" / "predictions_test.tsv").open(newline=""), delimiter="\t"))
    assert [(row["source"], row["references"]) for row in rows if row["rank"] == "1"] == [
        ("ab", "no | A B"),
        ("cd", "C D"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["copy", "reverse"])
def test_toy_recipes_are_solved(task: str, tmp_path: Path) -> None:
    path = SCRIPT.parent / "recipes" / f"toy_{task}.yaml"
    metrics = main(path, "--output_dir", tmp_path, "--set", "training.report_to=none")
    assert metrics["exact_match"] == 100.0


@pytest.mark.slow
def test_two_processes_share_the_data_and_report_once(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(write_yaml(content()))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT)]
    command += [
        str(tmp_path / "tiny.yaml"),
        "--output_dir",
        str(tmp_path / "out"),
        "--results",
        str(tmp_path / "r.json"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nexact_match = ") == 1
    # Half as many updates as one process makes, of twice the data.
    state = json.loads(max((tmp_path / "out").glob("*/trainer_state.json")).read_text())
    assert state["global_step"] == 6
    assert read_results(tmp_path / "r.json").metrics.keys() >= {"exact_match", "validation_exact_match"}


def test_errors_of_the_command_line_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(write_yaml(content(data__trian="x")))
    with pytest.raises(SystemExit, match=r"^error: data\.trian: unknown key; did you mean 'train'"):
        main(tmp_path / "bad.yaml", "--output_dir", tmp_path / "out")
    (tmp_path / "files.yaml").write_text(write_yaml({"data": {"train": "absent.tsv"}}))
    with pytest.raises(SystemExit, match=r"^error: .*absent\.tsv: no such file"):
        main(tmp_path / "files.yaml", "--output_dir", tmp_path / "out")
    with pytest.raises(SystemExit, match=r"^error: --eval_only: .*out holds no config\.json"):
        main(tmp_path / "files.yaml", "--eval_only", tmp_path / "out", "--set", "data.dataset_name=toy:copy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__save_total_limit": 3}, r"^training\.save_total_limit: leave it out"),
        (
            {"training__eval_strategy": "epoch"},
            r"^training: --load_best_model_at_end requires the save and eval strat",
        ),
    ],
)
def test_training_arguments_that_do_not_fit_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=message):
        training_arguments(recipe(**changes), tmp_path, has_validation=True)


def test_averaging_the_best_needs_validation_data(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"^training\.average_which: best needs data\.validation"):
        training_arguments(recipe(), tmp_path, has_validation=False)
    arguments = training_arguments(recipe(training__average_which="last"), tmp_path, has_validation=False)
    assert not arguments.load_best_model_at_end


@pytest.mark.parametrize(
    ("metric", "greater"),
    [("loss", False), ("wer", False), ("perplexity", False), ("bleu", True), ("exact_match", True)],
)
def test_the_direction_of_the_best_metric_follows_from_its_name(metric: str, greater: bool, tmp_path: Path) -> None:
    metrics = {} if metric == "loss" else {"mine": metric}
    options = {"metrics": metrics, "best_metric": "mine" if metrics else "loss"}
    arguments = training_arguments(recipe(evaluation=options), tmp_path, has_validation=True)
    assert arguments.greater_is_better is greater


def test_the_longest_hypothesis_follows_from_the_data_unless_it_is_said() -> None:
    split = Dataset.from_dict({"source": ["ab"], "target": ["ba"]})
    for settings, wanted in ((recipe(), 15), (recipe(generation={"max_new_tokens": 7}), 7)):
        model = build_model(settings, *build_tokenizers(settings, split), longest_target=10)
        assert model.generation_config.max_new_tokens == wanted


@pytest.mark.parametrize(
    ("count", "number", "wanted"),
    [(10, 5, [0, 2, 4, 6, 8]), (3, None, [0, 1, 2]), (3, 9, [0, 1, 2]), (7, 1, [0]), (5, 3, [0, 1, 3])],
)
def test_validation_items_are_taken_evenly(count: int, number: int | None, wanted: list[int]) -> None:
    assert evenly_taken(count, number) == wanted


def test_predictions_keep_tabs_and_line_ends(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.tsv", ["a\tb"], [["x\ny", "z"]], [[Hypothesis('"q"', (4,), -0.5)]])
    (row,) = csv.DictReader((tmp_path / "p.tsv").open(newline="", encoding="utf-8"), delimiter="\t")
    assert row == {"source": "a\tb", "rank": "1", "score": "-0.5000", "prediction": '"q"', "references": "x\ny | z"}


def test_an_ensemble_and_a_mean_of_checkpoints_are_evaluated(
    run: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    folder, _ = run
    checkpoints = sorted((folder / "out").glob("checkpoint-*"))[:2]
    evaluation = [folder / "tiny.yaml", "--eval_only", *checkpoints]
    ensemble = main(*evaluation, "--output_dir", tmp_path / "ensemble")
    mean = main(*evaluation, "--average", "--output_dir", tmp_path / "mean")
    assert set(ensemble) == set(mean) and ensemble != mean
    # The mean is a model of its own, the ensemble is not.
    assert (tmp_path / "mean" / "model.safetensors").is_file()
    assert not (tmp_path / "ensemble" / "model.safetensors").exists()
    assert main(folder / "tiny.yaml", "--eval_only", tmp_path / "mean", "--output_dir", tmp_path / "again") == mean


def test_a_recipe_of_several_runs_gives_their_mean_and_can_be_resumed(tmp_path: Path) -> None:
    changed = content(training__num_train_epochs=1, card=None)
    del changed["training"]["seed"]
    (tmp_path / "tiny.yaml").write_text(write_yaml({**changed, "runs": {"seeds": [1, 2]}}))
    arguments = [tmp_path / "tiny.yaml", "--output_dir", tmp_path / "out", "--results", tmp_path / "tiny.json"]
    metrics = main(*arguments)
    assert {"perplexity", "perplexity_std", "exact_match"} < set(metrics)
    assert read_results(tmp_path / "tiny.json").seeds == [1, 2]
    each = [read_results(tmp_path / "out" / f"seed{seed}" / "results.json").metrics["perplexity"] for seed in (1, 2)]
    assert metrics["perplexity"] == pytest.approx(sum(each) / 2) and each[0] != each[1]
    weights = (tmp_path / "out" / "seed1" / "model.safetensors").stat().st_mtime_ns
    assert main(*arguments, "--resume") == metrics
    assert (tmp_path / "out" / "seed1" / "model.safetensors").stat().st_mtime_ns == weights
    with pytest.raises(SystemExit, match="holds an earlier run"):
        main(*arguments)


def test_what_is_scored_is_what_was_saved(tmp_path: Path) -> None:
    # In mixed precision the trained object and the loaded one would differ in the last digits of a score.
    settings = recipe(training__bf16=True, evaluation__metrics=["perplexity"])
    metrics = run_recipe(Seq2SeqTask(settings), ".", tmp_path / "out")
    again = run_recipe(Seq2SeqTask(settings), ".", tmp_path / "again", eval_only=[tmp_path / "out"])
    assert again == metrics


def test_trackers_are_named_in_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    out, short = tmp_path / "out", {"max_steps": 3, "logging_steps": 1, "average_checkpoints": 1}
    training = {**CONTENT["training"], **short, "report_to": ["tensorboard", "trackio"]}
    changed = content(training=training, evaluation__splits=[], evaluation__best_metric="loss")
    run_recipe(Seq2SeqTask(build_recipe(changed, "curves")), tmp_path, out)
    assert list(out.glob("runs/*/events.out.tfevents*"))
    with closing(sqlite3.connect(tmp_path / "trackio" / "curves.db")) as database:
        logged = [json.loads(row) for (row,) in database.execute("SELECT metrics FROM metrics")]
    assert any("train/loss" in row for row in logged)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("trackio", "pip install 'hf_rnn_seq2seq[trackio]'"),
        ("tensorboard", "pip install 'hf_rnn_seq2seq[train]'"),
        ("wandb", "pip install wandb"),
    ],
)
def test_a_tracker_that_is_not_installed_is_refused_with_what_to_install(
    name: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"transformers.integrations.integration_utils.is_{name}_available", lambda: False)
    recipe = build_recipe(content(training__report_to=["none", name]), "curves")
    with pytest.raises(OptionsError, match=rf"training\.report_to: got {name}, which is not installed: .*"):
        training_arguments(recipe, tmp_path, True)
    with pytest.raises(OptionsError, match=re.escape(advice)):
        training_arguments(recipe, tmp_path, True)
