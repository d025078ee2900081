"""What is known of a series as a whole: from the table's columns through training, prediction, ensemble and export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hf_rnn_seq2seq import RnnSeq2SeqForTimeSeriesPrediction
from hf_rnn_seq2seq.data.files import DataError
from hf_rnn_seq2seq.evaluation import RnnSeq2SeqTimeSeriesEnsemble, load_ensemble, load_model
from hf_rnn_seq2seq.recipes.command import main as run_command
from hf_rnn_seq2seq.recipes.options import write_yaml
from hf_rnn_seq2seq.recipes.predict import main as predict
from hf_rnn_seq2seq.recipes.task_forecast import ForecastTask
from hf_rnn_seq2seq.sharing import RnnSeriesRuntime, export_model
from hf_rnn_seq2seq.training import checkpoints_of


CONTENT: dict[str, Any] = {
    "data": {
        "file": "levels.csv", "table": {"id_column": "id", "time_column": "t"}, "columns": ["level"],
        "static_real_features": ["height"], "static_categorical_features": ["kind"],
        "look_back": 1, "horizon": 2, "validation": 4, "test": 4,
    },
    "model": {
        "rnn_type": "gru", "embedding_size": 12, "encoder_hidden_size": 12, "decoder_hidden_size": 12,
        "encoder_layers": 1, "decoder_layers": 1, "segment_length": 1, "decode_at_once": True,
        "window_normalization": "last",
    },
    "training": {
        "max_steps": 60, "per_device_train_batch_size": 32, "learning_rate": 0.03, "report_to": "none",
        "disable_tqdm": True, "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 30, "save_steps": 30,
    },
    "evaluation": {"metrics": ["mae"]},
}  # fmt: skip


def table(path: Path, kinds: str = "ud", heights: tuple[float, ...] = (1000.0, 3000.0)) -> Path:
    """Levels that step by their height in 1000s, up or down by their kind: one row of the past does not tell it.

    `kinds`: their first letters.
    """
    lines = ["id,t,level,height,kind"]
    names = {"u": "up", "d": "down"}
    for number in range(4 * len(kinds)):
        kind, height = kinds[number % len(kinds)], heights[number // len(kinds) % len(heights)]
        step = height / 1000 * (1 if kind == "u" else -1)
        lines += [f"{number},{t},{number + step * t:.3f},{height},{names.get(kind, kind)}" for t in range(26)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("static")
    table(folder / "levels.csv")
    (folder / "tiny.yaml").write_text(write_yaml({"task": "forecast", **CONTENT}))
    arguments = ["tiny.yaml", "--data_dir", ".", "--output_dir", "out"]
    run_command(ForecastTask, None, [*(str(folder / a) if a[0] != "-" else a for a in arguments)])
    return folder


def of_static(model: Any, height: float, kind: int) -> list[float]:
    """The forecast of a level that has been still."""
    inputs = {"static_real_features": torch.tensor([[height]]), "static_categorical_features": torch.tensor([[kind]])}
    return model.forecast(torch.full((1, 1, 1), 5.0), **inputs).flatten().tolist()


def test_a_model_learns_from_what_is_known_of_a_series(run: Path) -> None:
    said = json.loads((run / "out" / "series.json").read_text())
    assert said["classes"] == {"kind": ["down", "up"]}
    model = load_model(RnnSeq2SeqForTimeSeriesPrediction, run / "out")
    assert (model.static_scale.mean.item(), model.static_scale.std.item()) == (2000, 1000)
    down, up = of_static(model, 1000.0, 0), of_static(model, 1000.0, 1)
    assert of_static(model, 3000.0, 1)[1] > up[1] > 5 > down[1] > of_static(model, 3000.0, 0)[1]


def lines_of(run: Path, path: Path, tmp_path: Path) -> list[dict[str, Any]]:
    predict([str(run / "out"), "--input_file", str(path), "--output_file", str(tmp_path / "out.jsonl")])
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def test_prediction_export_and_runtime_read_them(run: Path, tmp_path: Path) -> None:
    """A table of one class alone, whose number is not its place in that table."""
    found = lines_of(run, table(tmp_path / "new.csv", "u"), tmp_path)
    past = np.array([[[number + step * t] for t in (25,)] for number, step in ((0, 1), (1, 3))])
    export_model(run / "out", tmp_path / "exported", quantize=None)
    runtime = RnnSeriesRuntime.from_pretrained(tmp_path / "exported")
    static = {"static_real_features": [[1000], [3000]], "static_categorical_features": [["up"], ["up"]]}
    forecast = runtime.forecast(past, **static)["forecast"]
    wanted = [item["forecast"]["level"] for item in found[:2]]
    np.testing.assert_allclose(forecast[..., 0], wanted, rtol=1e-4, atol=1e-4)
    numbered = runtime.forecast(past, **{**static, "static_categorical_features": [[1], [1]]})["forecast"]
    np.testing.assert_array_equal(numbered, forecast)
    for wrong, message in (
        ({"static_categorical_features": [["up"], ["left"]]}, r"\[1, 0\] is 'left', wanted 'down', 'up'"),
        ({"static_categorical_features": [[2], [1]]}, r"\[0, 0\] is 2, wanted 0 to 1"),
        ({"static_categorical_features": [[1, 1], [1, 1]]}, r"shape \(2, 2\), wanted \(batch, 1\)"),
        ({"static_real_features": [[1000], [np.nan]]}, r"static_real_features\[1, 0\] is nan, wanted a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            runtime.forecast(past, **{**static, **wrong})
    with pytest.raises(ValueError, match=r"past_values\[1, 0, 0\] is inf, wanted a finite number, or NaN"):
        runtime.forecast(np.where(past > 50, np.inf, past), **static)


def test_an_evaluation_numbers_classes_as_the_model_does(run: Path, tmp_path: Path) -> None:
    """Of data in which one class alone is left; of one model, an ensemble and a mean."""
    table(tmp_path / "levels.csv", "u")
    command = [str(run / "tiny.yaml"), "--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    folders = [str(path) for path in checkpoints_of(run / "out")]
    assert len(folders) == 2
    for models in ([str(run / "out")], folders, [*folders, "--average"]):
        metrics = run_command(ForecastTask, None, [*command, "--overwrite", "--eval_only", *models])
        assert metrics["mae"] < 0.3
    ensemble = load_ensemble(folders, RnnSeq2SeqTimeSeriesEnsemble)
    alone = [of_static(member, 1000.0, 1) for member in ensemble.members]
    np.testing.assert_allclose(of_static(ensemble, 1000.0, 1), np.mean(alone, 0), rtol=1e-6)


@pytest.mark.parametrize(
    ("row", "line", "message"),
    [
        (2, "0,2,1,1000.0,down", r"row 4, column 'kind', series '0': got 'down' after 'up', wanted the same"),
        (2, "0,2,1,1001,up", r"row 4, column 'height', series '0': got 1001.0 after 1000.0, wanted the same"),
        (2, "0,2,1,,up", r"row 4, column 'height': the value is missing"),
        (2, "0,2,1,1000.0,", r"row 4, column 'kind': the value is missing"),
        (2, "0,2,1,tall,up", r"row 4, column 'height': got 'tall', wanted a number"),
        (None, "left", r"row 2, column 'kind', series '0': got 'left', wanted a class that the model .*'down', 'up'"),
    ],
)
def test_what_is_not_of_a_series_is_refused_by_row_and_column(
    run: Path, tmp_path: Path, row: int | None, line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path / "new.csv", "u")
    lines = path.read_text().splitlines()
    lines = [text.replace("up", line) for text in lines] if row is None else lines
    if row is not None:
        lines[row + 1] = line
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises((DataError, SystemExit), match=message):
        lines_of(run, path, tmp_path)


def test_a_column_that_is_not_there_or_named_twice_is_refused(run: Path, tmp_path: Path) -> None:
    command = [str(run / "tiny.yaml"), "--data_dir", str(run), "--output_dir", str(tmp_path / "out"), "--set"]
    for change, message in (
        (
            "data.static_real_features=[weight]",
            "levels.csv: the column 'weight' is missing; the file has id, t, level",
        ),
        ("data.static_categorical_features=[height]", "each name once"),
        ("data.static_categorical_features=[level]", "each name once"),
    ):
        with pytest.raises((ValueError, SystemExit), match=message):
            run_command(ForecastTask, None, [*command, change])
