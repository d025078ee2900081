"""Values by recipe: tiny runs end to end, scales of training data alone, scores, predictions, cards, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from hf_rnn_seq2seq.data import DataError
from hf_rnn_seq2seq.data.values import arrays
from hf_rnn_seq2seq.recipes import load_task, run_recipe
from hf_rnn_seq2seq.recipes.command import main as run_command
from hf_rnn_seq2seq.recipes.options import OptionsError, write_yaml
from hf_rnn_seq2seq.recipes.predict import main as predict
from hf_rnn_seq2seq.recipes.task_values import ValueTask, predict_values
from hf_rnn_seq2seq.sharing import RnnValuesRuntime, export_model
from hf_rnn_seq2seq.training.checkpoints import checkpoints_of


CONTENT: dict[str, Any] = {
    "task": "values",
    "data": {
        "train": "train.csv", "validation": "dev.csv", "test": "test.csv", "id_column": "machine",
        "time_column": "hour", "feature_columns": ["load"], "value_columns": ["total"],
    },
    "model": {"encoder_hidden_size": 16, "encoder_layers": 1, "bidirectional_encoder": False},
    "training": {
        "num_train_epochs": 12, "max_tokens": 60, "learning_rate": 0.03, "report_to": "none", "disable_tqdm": True,
    },
    "evaluation": {"metrics": ["rmse", "mae"], "best_metric": "rmse", "batch_size": 4},
    "card": {"title": "Loads", "language": "en", "task": "running totals", "datasets": ["loads"]},
}  # fmt: skip
TARGETS = {"vector": {}, "sequence": {"data__target": "sequence", "data__window": 6}}


def write(path: Path, machines: int, seed: int) -> None:
    """The total of the loads so far of machines, in hours; some totals are missing."""
    generator = np.random.default_rng(seed)
    lines = ["machine,hour,load,total"]
    for machine in range(machines):
        loads = generator.normal(20, 5, size=int(generator.integers(2, 7)))
        for hour, (load, total) in enumerate(zip(loads, loads.cumsum())):
            lines.append(f"{path.stem}{machine},{hour},{load:.4f},{'' if hour == 1 and machine == 0 else total}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for seed, (name, machines) in enumerate({"train": 60, "dev": 8, "test": 9}.items()):
        write(folder / f"{name}.csv", machines, seed)
    return folder


def recipe(folder: Path, **changes: Any) -> Path:
    """The file of the content above with `section__key=value` changed."""
    content = json.loads(json.dumps(CONTENT))
    for path, value in changes.items():
        section, _, key = path.partition("__")
        content.setdefault(section, {})[key] = value
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(write_yaml(content))
    return folder / "tiny.yaml"


def built(data_dir: Path, folder: Path, **changes: Any) -> tuple[Any, Any]:
    task: Any = load_task(recipe(folder, **changes))
    data = task.load_data(data_dir)
    task.build(data)
    return task, data


@pytest.fixture(scope="module", params=TARGETS)
def run(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; its metrics lie beside."""
    folder = tmp_path_factory.mktemp(request.param)
    task = load_task(recipe(folder, **TARGETS[request.param]))
    metrics = run_recipe(task, data_dir, folder / "out", results=folder / "tiny.json")
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def metrics_of(run: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((run / "metrics.json").read_text())
    return found


def table(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_a_run_learns_and_its_numbers_are_those_of_its_predictions(run: Path) -> None:
    metrics = metrics_of(run)
    assert set(metrics) == {
        f"{split}{last}{name}" for split in ("", "validation_") for last in ("", "last_") for name in ("rmse", "mae")
    }
    assert metrics["rmse"] < 12  # the totals' standard deviation is about 30
    header, *rows = table(run / "out" / "predictions_test.tsv")
    assert header == ["series", "row", "column", "truth", "prediction"]
    pairs = [(float(truth), float(guess)) for *_, truth, guess in rows if truth != "nan"]
    errors = np.array([truth - guess for truth, guess in pairs])
    assert metrics["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-4)
    last = {row[0]: float(row[3]) - float(row[4]) for row in rows}  # of each series the last stays
    assert metrics["last_mae"] == pytest.approx(np.abs(list(last.values())).mean(), rel=1e-4)


def test_a_loaded_folder_takes_and_gives_the_users_units(run: Path, data_dir: Path) -> None:
    kind = AutoModelForTokenClassification if "vector" in run.name else AutoModelForSequenceClassification
    model = kind.from_pretrained(run / "out").eval()
    task: Any = load_task(run / "tiny.yaml")
    features, _ = arrays(task.load_data(data_dir)["test"], task.columns)
    values = model(input_features=torch.from_numpy(features[0])[None]).logits[0]
    _, *rows = table(run / "out" / "predictions_test.tsv")
    wanted = [float(row[4]) for row in rows if row[0] == "test0"]
    found = values[:, 0].tolist() if values.dim() == 2 else values.tolist()
    assert found == pytest.approx(wanted if values.dim() == 2 else wanted[-1:], rel=1e-4)


def test_evaluating_again_alone_together_and_as_a_mean(run: Path, data_dir: Path, tmp_path: Path) -> None:
    options = ["--data_dir", data_dir, "--output_dir", tmp_path / "again", "--eval_only", run / "out"]
    got = run_command(ValueTask, None, [str(option) for option in (run / "tiny.yaml", *options)])
    assert got == pytest.approx(metrics_of(run), rel=1e-6)
    folders = checkpoints_of(run / "out")
    for number, more in enumerate(([], ["--average"])):
        options = ["--data_dir", data_dir, "--output_dir", tmp_path / str(number), "--eval_only", *folders, *more]
        got = run_command(ValueTask, None, [str(option) for option in (run / "tiny.yaml", *options)])
        assert got["rmse"] < 15 and got.keys() == metrics_of(run).keys()


def test_a_table_is_predicted_to_a_file(run: Path, data_dir: Path, tmp_path: Path) -> None:
    lines = [line.rpartition(",")[0] for line in (data_dir / "test.csv").read_text().splitlines()]
    (tmp_path / "new.csv").write_text("\n".join(lines) + "\n")  # without what is to be predicted
    arguments = [str(run / "out"), "--input_file", str(tmp_path / "new.csv"), "--part_size", "2"]
    predict([*arguments, "--output_file", str(tmp_path / "out.jsonl")])
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    _, *rows = table(run / "out" / "predictions_test.tsv")
    assert [(one["id"], row) for one in found for row in one["rows"]][:5] == [("test0", 2 + row) for row in range(5)][
        : len(found[0]["rows"])
    ] + [("test1", 2 + len(found[0]["rows"]) + row) for row in range(5 - len(found[0]["rows"]))]
    predicted = {(one["id"], row): value for one in found for row, value in zip(one["rows"], one["total"])}
    for series, row, _, _, value in rows:
        assert predicted[series, int(row)] == pytest.approx(float(value), rel=1e-4)
    for options, message in (
        (["--output_file", str(tmp_path / "out.txt")], "wanted a .jsonl: a series has many values"),
        (["--output_file", str(tmp_path / "b.jsonl"), "--num_beams", "3"], "--num_beams: got 3"),
    ):
        with pytest.raises(SystemExit, match=message):
            predict([*arguments, *options])
    with pytest.raises(SystemExit, match="reads tables: give --input_file"):
        predict([str(run / "out"), "20.5"])


def test_the_card_says_what_the_values_are_and_shows_them(run: Path) -> None:
    card = (run / "out" / "README.md").read_text()
    assert "one value (`total`) in the units of the training data" in card
    assert "values of each vector" in card if "vector" in run.name else "values of the sequence" in card
    assert "| test | root mean squared error at the last row (`last_rmse`)" in card
    assert "](values.png)" in card and (run / "out" / "values.png").read_bytes().startswith(b"\x89PNG")
    code = card.split("```python\n")[1].split("```")[0].replace("your-name/loads", str(run / "out"))
    exec(compile(code, "card", "exec"), {"print": lambda *_: None})


def test_an_export_gives_the_predictions_of_the_run(run: Path, data_dir: Path, tmp_path: Path) -> None:
    export_model(run / "out", tmp_path / "exported", quantize=None)
    runtime = RnnValuesRuntime.from_pretrained(tmp_path / "exported")
    assert runtime.names == ["total"] and runtime.settings["features"] == ["load"]
    task: Any = load_task(run / "tiny.yaml")
    features, _ = arrays(task.load_data(data_dir)["test"], task.columns)
    _, *rows = table(run / "out" / "predictions_test.tsv")
    for name, source, values in zip(("test0", "test1"), features, runtime.predict(features[:2])):
        assert len(source) <= 6
        assert values.flatten()[-1] == pytest.approx([float(row[4]) for row in rows if row[0] == name][-1], rel=1e-4)


@pytest.mark.parametrize("target", TARGETS)
def test_scales_are_those_of_the_training_data_alone(target: str, data_dir: Path, tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.csv").write_bytes((data_dir / f"{name}.csv").read_bytes())
    task, data = built(tmp_path, tmp_path / "a", **TARGETS[target])
    features, values = (np.concatenate(part) for part in arrays(data["train"], task.columns))
    scales = [task.model.model.encoder.input_scale, task.model.output_scale]
    for scale, numbers in zip(scales, (features, values), strict=True):
        np.testing.assert_allclose(scale.mean, np.nanmean(numbers, 0), rtol=1e-6)
        np.testing.assert_allclose(scale.std, np.nanstd(numbers, 0), rtol=1e-5)
    for name in ("dev", "test"):  # one row that would move every scale that saw it
        with (tmp_path / f"{name}.csv").open("a") as file:
            file.write("odd,0,1000000,1000000\n")
    other = built(tmp_path, tmp_path / "b", **TARGETS[target])[0]
    for scale, same in zip(scales, [other.model.model.encoder.input_scale, other.model.output_scale], strict=True):
        assert torch.equal(scale.mean, same.mean) and torch.equal(scale.std, same.std)
    with (tmp_path / "train.csv").open("a") as file:
        file.write("odd,0,1000000,1000000\n")
    assert not torch.equal(built(tmp_path, tmp_path / "c", **TARGETS[target])[0].model.output_scale.mean, scale.mean)


def test_held_out_series_are_not_in_the_scales(data_dir: Path, tmp_path: Path) -> None:
    changes = {"data__validation": None, "data__validation_fraction": 0.2}
    task, data = built(data_dir, tmp_path, **changes)
    train = np.concatenate(arrays(data["train"], task.columns)[0])
    everything = np.concatenate([train, *arrays(data["validation"], task.columns)[0]])
    mean = task.model.model.encoder.input_scale.mean.item()
    assert mean == pytest.approx(train.mean(), rel=1e-6) and mean != pytest.approx(everything.mean(), rel=1e-5)


def test_batches_hold_what_is_observed(data_dir: Path, tmp_path: Path) -> None:
    task, data = built(data_dir, tmp_path)
    encoded = task.encode(data["train"], "train")
    batch = task.collate([encoded[0], encoded[1]])
    lengths = [length for length, _ in task.lengths(encoded)[:2]]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert batch["labels"].shape == (2, max(lengths), 1)
    assert int((batch["shift_labels"] != -100).sum()) == sum(lengths) - 1  # one total of the first machine is missing


@pytest.mark.parametrize("target", TARGETS)
def test_predicting_in_batches_is_predicting_alone(target: str, data_dir: Path, tmp_path: Path) -> None:
    task, data = built(data_dir, tmp_path, **TARGETS[target])
    features, _ = arrays(data["test"], task.columns)
    together = predict_values(task.model, features, task.columns, batch_size=5)
    for one, values in zip(features, together, strict=True):
        alone = predict_values(task.model, [one], task.columns, batch_size=1)[0]
        np.testing.assert_allclose(values, alone, rtol=1e-4)
        assert values.shape == (len(one), 1)
    last = predict_values(task.model, features, task.columns, batch_size=5, rows="last")
    if target == "sequence":
        assert all(np.isnan(values[:-1]).all() and not np.isnan(values[-1]).any() for values in last)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation__metrics": ["accuracy"], "evaluation__best_metric": "loss"}, "metrics: accuracy is 'accuracy'"),
        ({"evaluation__metrics": ["crps"], "evaluation__best_metric": "loss"}, "wanted one of mse, rmse, mae, phm"),
        ({"model__use_crf": True}, "use_crf"),
        ({"tokenizer__type": "word"}, "tokenizer.type: unknown key"),
        ({"model__num_labels": 3}, "model.num_labels: cannot be set in a recipe; it follows from the data"),
        ({"data__window": 5}, "data.window: got 5 with target vector"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=message):
        load_task(recipe(tmp_path, **changes))


def test_a_model_of_other_columns_is_refused(run: Path, data_dir: Path, tmp_path: Path) -> None:
    changes = {**TARGETS["vector" if "vector" in run.name else "sequence"], "data__feature_columns": ["hour"]}
    options = ["--data_dir", data_dir, "--output_dir", tmp_path / "out", "--eval_only", run / "out"]
    with pytest.raises((OptionsError, SystemExit), match="the recipe's features are"):
        run_command(ValueTask, None, [str(option) for option in (recipe(tmp_path, **changes), *options)])


def test_a_bad_row_is_named(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("machine,hour,load,total\nm,0,heavy,1\n")
    with pytest.raises(DataError, match=r"train.csv, row 2, column 'load': got 'heavy'"):
        built(tmp_path, tmp_path)
