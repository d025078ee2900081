"""Forecasting by recipe: a tiny run end to end, what its folder holds, and forecasts of a table by its model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hf_rnn_seq2seq.data.files import DataError
from hf_rnn_seq2seq.evaluation import load_model
from hf_rnn_seq2seq.recipes.command import main as run_command
from hf_rnn_seq2seq.recipes.options import OptionsError, write_yaml
from hf_rnn_seq2seq.recipes.predict import main as predict
from hf_rnn_seq2seq.recipes.recipe import build_recipe
from hf_rnn_seq2seq.recipes.task_forecast import ForecastTask, naive_forecast
from hf_rnn_seq2seq.sharing.results import read_results


CONTENT: dict[str, Any] = {
    "data": {
        "file": "waves.csv",
        "table": {"id_column": "id", "time_column": "time", "calendar_features": ["hour"]},
        "columns": ["up", "down"],
        "look_back": 12,
        "horizon": 6,
        "validation": 20,
        "test": 20,
    },
    "forecast": {"season": 8, "samples": 40, "scores_in": "units"},
    "model": {
        "rnn_type": "gru", "embedding_size": 8, "encoder_hidden_size": 16, "decoder_hidden_size": 16,
        "encoder_layers": 1, "decoder_layers": 1, "segment_length": 3, "attention_type": "none",
        "distribution_output": "normal", "decode_at_once": True,
    },
    "training": {
        "num_train_epochs": 20, "per_device_train_batch_size": 16, "learning_rate": 0.02, "report_to": "none",
        "disable_tqdm": True, "logging_steps": 1000,
    },
    "evaluation": {
        "metrics": {"mae": "mae", "crps": "crps", "coverage": "coverage", "mase8": {"metric": "mase", "season": 8}},
        "best_metric": "crps", "validation_samples": 10,
    },
    "card": {"title": "Waves", "language": "en", "task": "forecasting", "datasets": ["waves"]},
}  # fmt: skip


def waves(path: Path, rows: int = 120, first: str = "") -> None:
    """Two series of waves of eight rows, about 100, and their mirror images."""
    generator = np.random.default_rng(0)
    lines = ["id,time,up,down"]
    for number, series in enumerate("ab"):
        for row in range(rows):
            value = 10 * math.sin(math.pi * row / 4 + number) + generator.normal(0, 0.5)
            time = f"2024-01-{1 + row // 24:02d} {row % 24:02d}:00"
            lines.append(f"{series},{time},{100 + value:.3f},{first or f'{100 - value:.3f}'}")
    path.write_text("\n".join(lines) + "\n")


def changed(**changes: Any) -> dict[str, Any]:
    """The content above with `section__key=value` changed."""
    content: dict[str, Any] = json.loads(json.dumps(CONTENT))
    for path, value in changes.items():
        section, _, key = path.partition("__")
        content.setdefault(section, {})[key] = value
    return content


def task_of(**changes: Any) -> ForecastTask:
    return ForecastTask(build_recipe(changed(**changes), "tiny", ForecastTask.kind))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    waves(folder / "waves.csv")
    return folder


@pytest.fixture(scope="module")
def run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "waves.yaml").write_text(write_yaml({"task": "forecast", **CONTENT}))
    arguments = [str(folder / "waves.yaml"), "--data_dir", str(data_dir), "--output_dir", str(folder / "out")]
    run_command(ForecastTask, None, [*arguments, "--results", str(folder / "results.json")])
    return folder


def test_a_run_learns_and_reports_both_forecasts(run: Path) -> None:
    metrics = read_results(run / "results.json").metrics
    assert metrics["mae"] < 2  # the noise has 0.5; the wave 10
    assert metrics["crps"] < metrics["mae"] and 40 < metrics["coverage"] <= 100
    assert {"naive_mae", "naive_crps", "naive_coverage", "mase8", "validation_crps"} <= set(metrics)
    assert 0.3 < metrics["naive_mae"] < 1 and metrics["mase8"] < 4


def test_predictions_follow_each_other_without_overlap(run: Path) -> None:
    lines = [line.split("\t") for line in (run / "out" / "predictions_test.tsv").read_text().splitlines()]
    assert lines[0] == ["series", "row", "step", "column", "truth", "forecast", "quantile_0.1", "quantile_0.9"]
    of_series = [line for line in lines[1:] if line[0] == "a" and line[3] == "up"]
    rows = [int(line[1]) for line in of_series]
    assert rows == list(range(rows[0], rows[0] + len(rows))) and len(rows) >= 12
    assert all(float(low) < float(mean) < float(high) for *_, mean, low, high in of_series)


def test_the_card_shows_a_forecast_and_how_to_make_one(run: Path) -> None:
    card = (run / "out" / "README.md").read_text()
    assert "pipeline_tag: time-series-forecasting" in card and "![A forecast" in card and "(forecast.png)" in card
    assert (run / "out" / "forecast.png").stat().st_size > 10_000
    snippet = card.partition("```python\n")[2].partition("```")[0]
    snippet = snippet.replace('"your-name/waves"', json.dumps(str(run / "out")))
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert names["futures"].shape == (1, 40, 6, 2)
    for words in ("Up to 12 steps of 2 channels", "3 steps are one segment", "a normal distribution of the value",
                  "salinas2020", "lin2023"):  # fmt: skip
        assert words in card


def test_the_scale_is_that_of_the_training_rows_alone(data_dir: Path, tmp_path: Path) -> None:
    """Whatever the rows of validation and test hold: a scaler that has seen one of them gives another number."""
    lines = (data_dir / "waves.csv").read_text().splitlines()
    scales = []
    for replaced in ("", "1e6"):
        kept = []
        for number, line in enumerate(lines):
            row = (number - 1) % 120
            fields = line.split(",")
            kept.append(",".join([*fields[:2], replaced, replaced]) if replaced and number and row >= 80 else line)
        (tmp_path / "waves.csv").write_text("\n".join(kept) + "\n")
        task = task_of()
        task.build(task.load_data(tmp_path))
        scales.append(torch.stack([task.model.value_scale.mean, task.model.value_scale.std]))
    torch.testing.assert_close(scales[0], scales[1], rtol=0, atol=0)
    values = (
        np.array([line.split(",")[2:] for line in lines[1:]], dtype=float).reshape(2, 120, 2)[:, :80].reshape(-1, 2)
    )
    wanted = torch.from_numpy(np.stack([values.mean(0), values.std(0)])).float()
    torch.testing.assert_close(scales[0], wanted, rtol=1e-5, atol=1e-5)


def test_a_saved_model_is_scored_as_it_was(run: Path, data_dir: Path) -> None:
    task = task_of()
    data = task.load_data(data_dir)
    task.load(run / "out")
    task.check_data(data)
    wanted = read_results(run / "results.json").metrics
    assert task.score(data["test"]) == {name: pytest.approx(wanted[name]) for name in task.score(data["test"])}
    other = task_of(data__horizon=5)
    other.load_data(data_dir)
    other.load(run / "out")
    with pytest.raises(OptionsError, match=r"data\.horizon: got 5, but the model was trained for 6"):
        other.check_data(data)
    with pytest.raises(OptionsError, match=r"data\.columns: the recipe says \['up'\], but the model"):
        task_of(data__columns=["up"]).load(run / "out")
    task.load_ensemble([run / "out"] * 2)
    task.check_data(data)
    together = task.score(data["test"])
    assert together["mae"] == pytest.approx(wanted["mae"]) and together["crps"] == pytest.approx(
        wanted["crps"], rel=0.2
    )


def test_values_and_one_after_the_other_train_too(data_dir: Path, tmp_path: Path) -> None:
    content = changed(
        model__distribution_output="none", model__decode_at_once=False, training__num_train_epochs=2,
        training__gradient_accumulation_steps=2, training__teacher_forcing={"ratio": 0.5},
        evaluation__metrics=["mae", "mse"], evaluation__best_metric="mae",
    )  # fmt: skip
    del content["card"]
    (tmp_path / "waves.yaml").write_text(write_yaml({"task": "forecast", **content}))
    arguments = [str(tmp_path / "waves.yaml"), "--data_dir", str(data_dir), "--output_dir", str(tmp_path / "out")]
    run_command(ForecastTask, None, arguments)
    assert load_model(ForecastTask.model_class, tmp_path / "out").config.decode_at_once is False


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"evaluation__metrics": ["wer"], "evaluation__best_metric": "loss"},
         "evaluation.metrics: wer is 'wer', wanted one of mse"),
        ({"model__distribution_output": "none"}, "evaluation.metrics: crps is of a distribution"),
        ({"model__distribution_output": "negative_binomial"}, "forecast.standardise: counts stay counts"),
        ({"evaluation__best_metric": "coverage"}, "evaluation.best_metric: more coverage is not better"),
        ({"forecast__season": 13}, "forecast.season: got 13, wanted at most the rows behind a forecast, 12"),
        ({"forecast__samples": 0}, "forecast.samples: got 0, wanted at least 1"),
        ({"model__prediction_length": 4},
         "model.prediction_length: cannot be set in a recipe; it follows from the data"),
        ({"data__look_back": 0}, "data.look_back: got 0"),
        ({"data__table": {"id_colum": "id"}}, "did you mean 'id_column'"),
    ],
)  # fmt: skip
def test_recipes_that_cannot_be_are_refused_by_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        task_of(**changes)


def test_a_series_that_is_too_short_is_refused_before_training(tmp_path: Path) -> None:
    waves(tmp_path / "waves.csv", rows=50)
    with pytest.raises(DataError, match=r"waves.csv, row 51, series 'a': ends after 50 rows, wanted at least 58"):
        task_of().load_data(tmp_path)


def test_naive_forecasts_repeat_the_last_season() -> None:
    past = np.tile(np.array([1.0, 5, 3]), 4)[None, :, None].repeat(2, 2)
    past[0, -1, 1] = np.nan  # taken from a season earlier
    forecast, samples = naive_forecast(past, 5, 3)
    np.testing.assert_array_equal(forecast[0], np.array([[1, 1], [5, 5], [3, 3], [1, 1], [5, 5]]))
    assert samples.shape == (1, 99, 5, 2)
    np.testing.assert_allclose(samples, forecast[:, None].repeat(99, 1))  # it never erred
    noisy = past + np.random.default_rng(0).normal(0, 1, (4000, 12, 2))
    forecast, samples = naive_forecast(noisy, 5, 3)
    spread = (samples.var(1).mean(0) ** 0.5)[:, 0]
    assert spread[0] == pytest.approx(2**0.5, rel=0.05) and spread[4] / spread[0] == pytest.approx(2**0.5, rel=0.01)


def predicted(model_dir: Path, table: Path, output: Path, *options: str) -> list[dict[str, Any]]:
    predict([str(model_dir), "--input_file", str(table), "--output_file", str(output), *options])
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_predict_goes_on_from_the_end_of_each_series(run: Path, tmp_path: Path) -> None:
    """With its calendar, and where the rows ahead are in the table, with what they say."""
    waves(tmp_path / "more.csv", rows=40)
    found = predicted(run / "out", tmp_path / "more.csv", tmp_path / "out.jsonl", "--batch_size", "1")
    assert [one["id"] for one in found] == ["a", "b"]
    assert found[0]["times"][0].startswith("2024-01-02T16:00") and len(found[0]["times"]) == 6
    for one in found:
        for column in ("up", "down"):
            low, high = (one["quantiles"][share][column] for share in ("0.1", "0.9"))
            assert all(a < b < c for a, b, c in zip(low, one["forecast"][column], high))
    wanted = [100 + 10 * math.sin(math.pi * row / 4) for row in range(40, 46)]
    np.testing.assert_allclose(found[0]["forecast"]["up"], wanted, atol=4)
    lines = (tmp_path / "more.csv").read_text().splitlines()
    ahead = [f"b,2024-01-02 {hour}:00,," for hour in range(16, 22)]
    (tmp_path / "ahead.csv").write_text("\n".join([*lines, *ahead]) + "\n")
    again = predicted(run / "out", tmp_path / "ahead.csv", tmp_path / "again.jsonl")
    assert [one["times"] for one in again] == [one["times"] for one in found]
    np.testing.assert_allclose(again[1]["forecast"]["up"], found[1]["forecast"]["up"], rtol=1e-5)


def test_predict_refuses_a_past_that_the_model_never_saw(run: Path, tmp_path: Path) -> None:
    waves(tmp_path / "short.csv", rows=11)
    with pytest.raises(SystemExit, match=r"short.csv, row 12, series 'a': ends after 11 rows, wanted at least 12"):
        predicted(run / "out", tmp_path / "short.csv", tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    "options, message",
    [
        ((), "reads tables: give --input_file and --output_file"),
        (("--input_file", "more.csv", "--output_file", "out.txt"), "--output_file: got out.txt, wanted a .jsonl"),
        (("--input_file", "more.csv", "--output_file", "out.jsonl", "--num_beams", "2"), "--num_beams: got 2, but"),
        (("--input_file", "none.csv", "--output_file", "out.jsonl"), "none.csv: no such file"),
    ],
)
def test_predict_refuses_what_is_no_table(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    waves(tmp_path / "more.csv", rows=40)
    with pytest.raises(SystemExit, match=message):
        predict([str(run / "out"), *options])
