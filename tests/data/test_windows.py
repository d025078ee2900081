"""Windows of series: every one of a split and none of another's, missing values, short pasts, what is known ahead."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_rnn_seq2seq.data.files import DataError
from hf_rnn_seq2seq.data.tables import TableOptions
from hf_rnn_seq2seq.data.windows import (
    ForecastDataOptions,
    ForecastWindows,
    forecast_inputs,
    load_windows,
    with_rows_ahead,
)


def table(folder: Path, rows: dict[str, int], missing: tuple[tuple[str, int], ...] = (), name: str = "t.csv") -> Path:
    """Hourly series of so many rows: x counts up from 1000 times the series' number, y is minus that."""
    lines = ["id,time,x,y"]
    for number, (series, count) in enumerate(rows.items()):
        for row in range(count):
            value = 1000 * number + row
            shown = "" if (series, row) in missing else str(value)
            lines.append(f"{series},2024-01-{1 + row // 24:02d} {row % 24:02d}:00,{shown},{-value}")
    path = folder / name
    with gzip.open(path, "wt") if name.endswith(".gz") else path.open("w") as file:
        file.write("\n".join(lines) + "\n")
    return path


def loaded(folder: Path, rows: dict[str, int], missing: tuple[tuple[str, int], ...] = (), **options: Any) -> Any:
    path = table(folder, rows, missing)
    options = {"columns": ["x", "y"], "look_back": 4, "horizon": 3, "validation": 5, "test": 6, **options}
    time = options.pop("table", {})
    return load_windows(
        ForecastDataOptions(file=path.name, table=TableOptions(id_column="id", time_column="time", **time), **options),
        folder,
    )


def test_a_split_has_every_window_whose_forecast_lies_in_it(tmp_path: Path) -> None:
    windows = loaded(tmp_path, {"a": 30, "b": 20})
    splits = windows.splits()
    wanted = {  # series, first and last row where a forecast begins
        "train": [(0, 4, 16), (1, 4, 6)],
        "validation": [(0, 19, 21), (1, 9, 11)],
        "test": [(0, 24, 27), (1, 14, 17)],
    }
    for split, ranges in wanted.items():
        places = splits[split].with_format(None)[:]
        assert list(zip(places["series"], places["start"])) == [(s, i) for s, a, b in ranges for i in range(a, b + 1)]
        for (number, start), window in zip(zip(places["series"], places["start"]), splits[split]):
            rows = 1000 * number + np.arange(start - 4, start + 3)
            np.testing.assert_array_equal(window["past_values"], np.stack([rows[:4], -rows[:4]], 1))
            np.testing.assert_array_equal(window["future_values"], np.stack([rows[4:], -rows[4:]], 1))
            assert window["past_values"].dtype == np.float32 and set(window) == {"past_values", "future_values"}


def test_windows_are_cut_when_they_are_asked_for(tmp_path: Path) -> None:
    split = loaded(tmp_path, {"a": 30}).splits()["train"]
    assert split.column_names == ["series", "start"]  # nothing else is stored
    assert len(split[[0, 5, 2]]["past_values"]) == 3


def test_rows_may_be_counted_from_the_start_and_the_rest_left_out(tmp_path: Path) -> None:
    """As of ETTh1: twelve months, four months, four months, and the rest is not used."""
    windows = loaded(tmp_path, {"a": 30}, train=10, train_stride=2)
    places = {name: split.with_format(None)["start"][:] for name, split in windows.splits().items()}
    assert places == {"train": [4, 6], "validation": [10, 11, 12], "test": [15, 16, 17, 18]}
    np.testing.assert_array_equal(windows.training_rows()[:, 0], np.arange(10))


def test_training_rows_have_no_row_of_validation_or_test(tmp_path: Path) -> None:
    windows = loaded(tmp_path, {"a": 30, "b": 20})
    kept = {*range(19), *(1000 + np.arange(9))}
    assert {int(value) for value in windows.training_rows()[:, 0]} == kept
    held_out = [value for name in ("validation", "test") for window in windows.splits()[name]
                for value in window["future_values"][:, 0]]  # fmt: skip
    assert not kept & {int(value) for value in held_out}


def test_missing_values_and_short_pasts_are_masked(tmp_path: Path) -> None:
    windows = loaded(tmp_path, {"a": 30}, missing=(("a", 3), ("a", 20)), shortest_past=2)
    first = windows.splits()["train"][0]
    np.testing.assert_array_equal(first["past_observed_mask"], [[0, 0], [0, 0], [1, 1], [1, 1]])
    np.testing.assert_array_equal(first["past_values"], [[0, 0], [0, 0], [0, 0], [1, -1]])
    np.testing.assert_array_equal(first["future_observed_mask"], [[1, 1], [0, 1], [1, 1]])
    np.testing.assert_array_equal(first["future_values"], [[2, -2], [0, -3], [4, -4]])
    assert np.isnan(windows.training_rows()[3, 0])


def test_what_is_known_ahead_comes_along(tmp_path: Path) -> None:
    options = {"columns": ["x"], "features": ["y"], "table": {"calendar_features": ["hour"]}, "shortest_past": 3}
    windows = loaded(tmp_path, {"a": 30}, **options)
    window = windows.splits()["train"][0]
    hours = np.arange(7) - 1
    np.testing.assert_allclose(
        window["future_time_features"], np.stack([-hours[4:], hours[4:] / 23 - 0.5], 1), rtol=1e-6
    )
    np.testing.assert_allclose(
        window["past_time_features"][1:], np.stack([-hours[1:4], hours[1:4] / 23 - 0.5], 1), rtol=1e-6
    )
    np.testing.assert_array_equal(window["past_time_features"][0], 0)  # padding


def test_rows_ahead_have_times_and_a_calendar_and_no_values(tmp_path: Path) -> None:
    options = {"columns": ["x"], "table": {"calendar_features": ["hour"]}}
    windows = loaded(tmp_path, {"a": 30}, **options)
    longer = with_rows_ahead(windows.series[0], windows.options.table, 3)
    assert [str(time)[:16] for time in longer.time[-3:]] == [f"2024-01-02T{hour:02d}:00" for hour in (6, 7, 8)]
    assert np.isnan(longer.columns["x"][-3:]).all() and len(longer) == 33
    np.testing.assert_allclose(longer.columns["hour"][-3:], np.array([6, 7, 8]) / 23 - 0.5)
    ahead = forecast_inputs(ForecastWindows(windows.options, [longer]), 0, 30)
    assert set(ahead) == {"past_values", "past_observed_mask", "past_time_features", "future_time_features"}
    np.testing.assert_array_equal(ahead["past_values"][:, 0], np.arange(26, 30))


def test_a_gzipped_table_without_an_id_is_one_series(tmp_path: Path) -> None:
    path = table(tmp_path, {"a": 30}, name="t.csv.gz")
    options = ForecastDataOptions(file=path.name, columns=["x"], look_back=4, horizon=3)
    assert len(load_windows(options, tmp_path).splits()["train"]) == 30 - 4 - 3 + 1


def test_sines_are_made_up_and_stay_the_same() -> None:
    options = ForecastDataOptions(dataset_name="toy:sine", look_back=20, horizon=10, test=50)
    first, again = (load_windows(options, "nowhere") for _ in range(2))
    np.testing.assert_array_equal(first.values[3], again.values[3])
    assert len(first.series) == 8 and 0.9 < np.abs(first.values[0]).max() < 3.3


@pytest.mark.parametrize(
    "rows, missing, options, message",
    [
        ({"a": 30, "b": 17}, (), {}, r"t.csv, row 48, series 'b': ends after 17 rows, wanted at least 18"),
        ({"a": 30}, (), {"train": 25}, r"series 'a': ends after 30 rows, wanted at least 36"),
        ({"a": 30}, (), {"validation": 2}, r"the 2 rows of validation hold no window"),
        ({"a": 30}, (("a", 7),), {"columns": ["y"], "features": ["x"]},
         r"t.csv, row 9, column 'x': the value is missing, but what is known ahead"),
        ({"a": 30}, (), {"columns": ["z"]}, r"the column 'z' is missing; the file has id, time, x, y"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used_is_refused_by_row_and_column(
    tmp_path: Path, rows: dict[str, int], missing: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        loaded(tmp_path, rows, missing, **options).splits()


def test_times_out_of_order_are_refused_by_row(tmp_path: Path) -> None:
    path = table(tmp_path, {"a": 30})
    lines = path.read_text().splitlines()
    lines[5], lines[6] = lines[6], lines[5]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"t.csv, row 7, column 'time', series 'a': .* comes after"):
        load_windows(
            ForecastDataOptions(file=path.name, columns=["x"], table=TableOptions(id_column="id", time_column="time")),
            tmp_path,
        )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"file": None}, "wanted one of them"),
        ({"dataset_name": "toy:sine"}, "wanted one of them"),
        ({"columns": []}, "columns: got .* wanted at least one"),
        ({"features": ["x"]}, "and each name once"),
        ({"horizon": 0}, "horizon: got 0, wanted at least 1"),
        ({"shortest_past": 9}, "shortest_past: got 9, wanted 1 to 4"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ForecastDataOptions(**{"file": "t.csv", "columns": ["x"], "look_back": 4, "horizon": 3, **options})


def test_a_past_that_is_too_short_to_go_on_from_is_refused(tmp_path: Path) -> None:
    windows = loaded(tmp_path, {"a": 30})
    with pytest.raises(DataError, match=r"row 4, series 'a': ends after 3 rows, wanted at least 4 to look back on"):
        forecast_inputs(windows, 0, 3)
