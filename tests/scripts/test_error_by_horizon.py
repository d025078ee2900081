"""The error by step of the horizon: it is the mean of what the metric says, and a whole tiny run of the script."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from hf_rnn_seq2seq.recipes.task import load_task
from hf_rnn_seq2seq.recipes.task_forecast import ForecastTask
from hf_rnn_seq2seq.sharing.results import read_results


ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts/studies/error_by_horizon.py"))
RECIPE = str(ROOT / "scripts/recipes/error_by_horizon.yaml")
# Sines in place of the table, and next to no training.
SMALL = [
    *("data.file=null", "data.dataset_name=toy:sine", "data.columns=[a,b]", "data.table={}", "data.look_back=24"),
    *("data.horizon=16", "data.train=null", "data.validation=30", "data.test=30", "data.toy={series: 2, rows: 130}"),
    *("forecast.season=12", "training.num_train_epochs=1", "training.report_to=none", "model.embedding_size=8"),
    *("model.encoder_hidden_size=8", "model.decoder_hidden_size=8", "evaluation.validation_samples=8"),
]


def test_a_tiny_run_writes_its_figures_and_its_picture(tmp_path: Path) -> None:
    results, picture = tmp_path / "horizon.json", tmp_path / "horizon.png"
    arguments = [RECIPE, "--output_dir", str(tmp_path / "runs"), "--set", *SMALL]
    metrics = SCRIPT["main"]([*arguments, "--results", str(results), "--picture", str(picture)])
    names = ("structure_1", "structure_2", "attention", "one_day_before")
    assert set(metrics) == {f"{name}_{end}_steps" for name in names for end in ("first", "last")}
    assert read_results(results).metrics == pytest.approx(metrics) and picture.stat().st_size > 5_000
    # Each structure is its own model: the models are kept, and scored again.
    assert len({metrics[f"{name}_last_steps"] for name in names[:3]}) == 3
    assert SCRIPT["main"]([*arguments, "--results", str(results), "--overwrite"]) == pytest.approx(metrics)
    with pytest.raises(SystemExit, match="holds a model of another recipe"):
        SCRIPT["main"]([*arguments, "model.embedding_size=10"])


def test_errors_by_step_are_those_of_the_metric() -> None:
    task = load_task(RECIPE, SMALL)
    assert isinstance(task, ForecastTask)
    data = task.load_data(".")
    task.build(data)
    model, naive = task.errors_by_step(data["test"])
    assert model.shape == (16,) and naive is not None
    scores = task.score(data["test"])
    assert model.mean() == pytest.approx(scores["mae"]) and naive.mean() == pytest.approx(scores["naive_mae"])
