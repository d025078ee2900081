"""Series with values to predict: columns, countdowns, whole series held out, windows cut when asked for, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_rnn_seq2seq.data.files import DataError
from hf_rnn_seq2seq.data.values import (
    CountdownOptions,
    SumOptions,
    ValueColumns,
    ValueDataOptions,
    Windows,
    arrays,
    load_value_data,
)


def options(**changes: Any) -> ValueDataOptions:
    defaults: dict[str, Any] = {
        "train": "train.csv", "id_column": "engine", "time_column": "cycle", "feature_columns": ["heat", "speed"],
        "value_columns": ["wear"],
    }  # fmt: skip
    return ValueDataOptions(**{**defaults, **changes})


def write(path: Path, lengths: list[int], start: float = 0) -> None:
    lines = ["engine,cycle,heat,speed,wear"]
    for engine, length in enumerate(lengths):
        for cycle in range(1, length + 1):
            wear = "" if cycle == 2 else start + cycle
            lines.append(f"e{engine},{cycle},{10 * engine + cycle},{-cycle},{wear}")
    path.write_text("\n".join(lines) + "\n")


def test_a_split_has_a_row_a_series(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [3, 2])
    write(tmp_path / "test.csv", [4])
    data = load_value_data(options(test="test.csv"), tmp_path)
    assert list(data) == ["train", "test"] and list(data["train"]["id"]) == ["e0", "e1"]
    features, values = arrays(data["train"], options().columns())
    assert features[1].tolist() == [[11, -1], [12, -2]]
    np.testing.assert_array_equal(values[0], [[1], [np.nan], [3]])
    assert data["test"]["rows"][0] == [2, 3, 4, 5]


def test_a_countdown_is_what_is_left(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [5])
    write(tmp_path / "test.csv", [3, 2])
    (tmp_path / "left.txt").write_text("7\n1\n")
    given = options(
        test="test.csv", value_columns=[], countdown=CountdownOptions("life", most=3, test_ends="left.txt")
    )
    data = load_value_data(given, tmp_path)
    assert given.columns().values == ["life"]
    assert list(data["train"]["values"][0]) == [3, 3, 2, 1, 0]
    assert list(data["test"]["values"][0]) == [3, 3, 3] and list(data["test"]["values"][1]) == [2, 1]
    for content, message in (("7\n", "1 numbers, but the test data has 2 series"), ("7\nx\n", "line 2: got 'x'")):
        (tmp_path / "left.txt").write_text(content)
        with pytest.raises(DataError, match=rf"left.txt.*{message}"):
            load_value_data(given, tmp_path)


def test_whole_series_are_held_out(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [3] * 10)
    data = load_value_data(options(validation_fraction=0.3), tmp_path)
    train, validation = set(data["train"]["id"]), set(data["validation"]["id"])
    assert len(train) == 7 and len(validation) == 3 and not train & validation
    other = load_value_data(options(validation_fraction=0.3, validation_seed=1), tmp_path)
    assert set(other["validation"]["id"]) != validation
    assert len(load_value_data(options(max_train_samples=4), tmp_path)["train"]) == 4


@pytest.mark.parametrize(("window", "rows", "step", "wanted"), [
    (None, "all", 1, [(0, 3), (0, 2), (0, 1), (0, 1)]),
    (2, "all", 1, [(1, 3), (0, 2), (0, 1), (0, 1)]),
    (2, "last", 1, [(1, 3), (0, 1)]),
    (None, "all", 2, [(0, 3), (0, 1), (0, 1)]),
])  # fmt: skip
def test_windows_end_at_rows_and_are_cut_when_asked_for(
    window: int | None, rows: Any, step: int, wanted: list[tuple[int, int]]
) -> None:
    features = [np.arange(6.0).reshape(3, 2), np.arange(2.0).reshape(1, 2) + 100]
    values = [np.array([[1.0], [2.0], [3.0]]), np.array([[9.0]])]
    found = Windows(features, values, window).dataset(rows, step)
    source = iter(found)
    series = [0] * (len(wanted) - 1) + [1]
    for (start, end), number, row in zip(wanted, series, source, strict=True):
        np.testing.assert_array_equal(row["input_features"], features[number][start:end])
        np.testing.assert_array_equal(row["labels"], values[number][end - 1])
    assert found.with_format(None).column_names == ["series", "end"]  # nothing is stored but the places


def test_a_row_without_a_value_ends_no_window() -> None:
    values = [np.array([[np.nan], [2.0]])]
    assert len(Windows([np.zeros((2, 1))], values, None).dataset("all")) == 1
    assert len(Windows([np.zeros((2, 1))], None, None).dataset("all")) == 2


def test_a_toy_task_adds_up() -> None:
    given = ValueDataOptions(dataset_name="toy:sum", toy=SumOptions(train=5, validation=2, test=3))
    data = load_value_data(given)
    assert {split: len(rows) for split, rows in data.items()} == {"train": 5, "validation": 2, "test": 3}
    features, values = arrays(data["test"], given.columns())
    np.testing.assert_allclose(values[0], features[0].cumsum(0), rtol=1e-5)


def test_columns_are_saved_beside_a_model_and_read_its_tables(tmp_path: Path) -> None:
    columns = options(calendar_features=[]).columns()
    columns.save(tmp_path)
    assert ValueColumns.load(tmp_path) == columns
    write(tmp_path / "new.csv", [3])
    (one,) = ValueColumns.load(tmp_path).read(tmp_path / "new.csv")
    assert one.values(columns.features).shape == (3, 2)
    (tmp_path / "columns.json").write_text("{}")
    with pytest.raises(DataError, match=r"columns.json: wanted an object with the keys features, table"):
        ValueColumns.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": None}, "train: not set"),
        ({"feature_columns": []}, "feature_columns: got none"),
        ({"value_columns": []}, "value_columns: got .*, wanted either these or a countdown"),
        ({"countdown": CountdownOptions()}, "value_columns: got .*, wanted either these or a countdown"),
        (
            {"value_columns": ["heat"]},
            "value_columns: 'heat' is among feature_columns: the model",
        ),
        ({"window": 3}, "window: got 3 with target vector, wanted target sequence"),
        ({"target": "sequence", "window": 0}, "window: got 0, wanted at least 1"),
        ({"dataset_name": "toy:product"}, "dataset_name: got 'toy:product', wanted toy:sum or null"),
        ({"validation": "dev.csv", "validation_fraction": 0.1}, "validation_fraction: given together with validation"),
        ({"validation_fraction": 1.5}, "validation_fraction: got 1.5, wanted between 0 and 1"),
    ],
)
def test_options_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(**changes)


def test_a_column_that_is_nowhere_or_empty_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [3])
    with pytest.raises(DataError, match=r"train.csv: the column 'rust' is missing"):
        load_value_data(options(value_columns=["rust"]), tmp_path)
    (tmp_path / "train.csv").write_text("engine,cycle,heat,speed,wear\ne,1,1,1,\n")
    with pytest.raises(DataError, match=r"data\.train, .*train.csv: the column 'wear' holds no value"):
        load_value_data(options(), tmp_path)
    (tmp_path / "train.csv").write_text("engine,cycle,heat,speed,wear\ne,1,1,1,1\ne,2,1,,1\n")
    load_value_data(options(), tmp_path)
    with pytest.raises(
        DataError, match=r"train.csv, row 3, column 'speed': the value is missing, wanted a number: the"
    ):
        load_value_data(options(), tmp_path, missing=False)
    with pytest.raises(ValueError, match="max_length: got 1, wanted at least min_length=2"):
        SumOptions(max_length=1)
