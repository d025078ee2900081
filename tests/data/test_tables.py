"""Long tables in every format give the same series; what is wrong is named with file, row and column."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hf_rnn_seq2seq.data.files import DataError
from hf_rnn_seq2seq.data.tables import CALENDAR_FEATURES, TABLE_FORMATS, TableOptions, read_table


# Two series of different length, whose rows are mixed; one value is missing.
ROWS = [("b", 1, 0.5, 10), ("a", 1, 1.5, 20), ("b", 2, None, 30), ("b", 4, 2.5, 40), ("a", 3, -1.0, 50)]
NAMES = ["engine", "cycle", "heat", "speed"]
IN_ORDER = TableOptions(id_column="engine", time_column="cycle")


def text(rows: list[Any], separator: str = ",") -> str:
    return "".join(separator.join("" if field is None else str(field) for field in row) + "\n" for row in rows)


def write(path: Path, rows: list[Any] = ROWS) -> Path:
    """A table in the format that the name says."""
    columns = {name: [row[number] for row in rows] for number, name in enumerate(NAMES)}
    kind = path.name.removesuffix(".gz").rsplit(".")[-1]
    if kind == "parquet":
        pd.DataFrame(columns).to_parquet(path)
    elif kind == "npz":
        np.savez(path, **{n: np.array([np.nan if v is None else v for v in c]) for n, c in columns.items()})
    else:
        lines = "".join(json.dumps(dict(zip(NAMES, row))) + "\n" for row in rows)
        content = lines if kind == "jsonl" else text([NAMES, *rows], "," if kind == "csv" else "\t")
        (gzip.open if path.suffix == ".gz" else open)(path, "wt").write(content)
    return path


@pytest.mark.parametrize("name", [*(f"t.{kind}" for kind in TABLE_FORMATS), "t.csv.gz", "t.jsonl.gz"])
def test_every_format_gives_the_same_series(tmp_path: Path, name: str) -> None:
    found = read_table(write(tmp_path / name), IN_ORDER, ["speed", "heat"])
    assert [series.id for series in found] == ["b", "a"] and [len(series) for series in found] == [3, 2]
    assert found[0].time is not None and found[0].time.tolist() == [1, 2, 4]
    np.testing.assert_array_equal(found[0].columns["heat"], [0.5, np.nan, 2.5])
    np.testing.assert_array_equal(found[1].values(["speed", "heat"]), np.array([[20, 1.5], [50, -1]], np.float32))
    # Lines of a text are counted with its header.
    assert found[1].rows.tolist() == ([3, 6] if ".csv" in name or ".tsv" in name else [2, 5])


def test_a_file_without_ids_and_times_is_one_series_in_order(tmp_path: Path) -> None:
    (series,) = read_table(write(tmp_path / "t.csv"), TableOptions(), ["speed"])
    assert series.id == "t.csv" and series.time is None and series.columns["speed"].tolist() == [10, 20, 30, 40, 50]


def test_a_file_without_a_header_has_names_and_a_separator_from_options(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("1 1  0.5 10 \n\n1 2  0.7 20 \n2 1 0.1 30\n")  # as C-MAPSS has blanks at ends
    options = TableOptions(id_column="engine", time_column="cycle", format="csv", separator=" ", column_names=NAMES)
    one, two = read_table(path, options, ["heat", "speed"])
    assert one.values(["heat", "speed"]).tolist() == [[0.5, 10], [np.float32(0.7), 20]]
    assert one.rows.tolist() == [1, 3] and two.place(0) == f"{path}, row 4"


def test_sort_sorts_each_series(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ROWS[::-1])
    with pytest.raises(DataError, match=r"t.csv, row 5, column 'cycle', series 'a': 1.0 comes after 3.0; sort: true"):
        read_table(path, IN_ORDER, ["speed"])
    found = read_table(path, TableOptions(id_column="engine", time_column="cycle", sort=True), ["speed"])
    assert found[1].columns["speed"].tolist() == [10, 30, 40] and found[1].rows.tolist() == [6, 4, 3]


def test_calendar_features_are_scaled_parts_of_dates(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("date,x\n2016-01-31 00:59:00,1\n2016-12-04 23:00:00,2\n")
    options = TableOptions(time_column="date", calendar_features=list(CALENDAR_FEATURES))
    (series,) = read_table(path, options, ["x"])
    assert series.columns["hour"].tolist() == [-0.5, 0.5] and series.columns["month"].tolist() == [-0.5, 0.5]
    assert series.columns["minute"].tolist() == [0.5, -0.5] and series.columns["weekday"].tolist() == [0.5, 0.5]
    assert series.columns["day"].tolist() == [0.5, 3 / 30 - 0.5]
    assert series.columns["day_of_year"].tolist() == [30 / 365 - 0.5, 338 / 365 - 0.5]
    assert series.columns["week"].tolist() == [3 / 52 - 0.5, 47 / 52 - 0.5]


def test_dates_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("date,x\n01.02.2020 05:00,1\n02.02.2020 05:00,2\n")
    options = TableOptions(time_column="date", time_format="%d.%m.%Y %H:%M")
    (series,) = read_table(path, options, ["x"])
    assert series.time is not None and series.time[1] == np.datetime64("2020-02-02T05:00")
    path.write_text("date,x\n2020-02-01T23:00+02:00,1\n2020-02-02T00:00+02:00,2\n")
    (series,) = read_table(path, TableOptions(time_column="date", calendar_features=["hour"]), ["x"])
    assert series.columns["hour"].tolist() == [0.5, -0.5]  # of the clock on that wall


HEAD = "engine,cycle,heat,speed\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEAD + "a,1,hot,3\n", r"t.csv, row 2, column 'heat': got 'hot', wanted a number"),
        (HEAD + "a,1,1,3\n\na,2,inf,3\n", r"t.csv, row 4, column 'heat': got 'inf', wanted a number"),
        (HEAD + "a,1,1,3\n,2,1,3\n", r"t.csv, row 3, column 'engine': the id is missing"),
        (HEAD + "a,1,1e39,3\n", r"t.csv, row 2, column 'heat': got '1e39', wanted a number, of single precision"),
        (HEAD + "a,1,1,3\na,inf,1,3\n", r"t.csv, row 3, column 'cycle': got 'inf', wanted a number, as in row 2"),
        (HEAD + "a,1,1,3\na,soon,1,3\n", r"t.csv, row 3, column 'cycle': got 'soon', wanted a number, as in row 2"),
        (
            HEAD + "a,2020-01-01T00:00+01:00,1,3\na,2020-01-01T02:00+02:00,1,3\n",
            r"t.csv, row 3, column 'cycle': got .*\+02:00', wanted a date of the time zone of row 2, '2020-01-01T00",
        ),
        (
            HEAD + "a,2020-01-13,1,3\na,14/01/2020,1,3\n",
            r"row 3, column 'cycle': got '14/01/2020', wanted a date that is written as that of row 2, '2020-01-13'",
        ),
        (HEAD + "a,,1,3\n", r"t.csv, row 2, column 'cycle': the time is missing"),
        (HEAD + "a,soon,1,3\n", r"t.csv, row 2, column 'cycle': got 'soon', wanted a number or a date"),
        (HEAD + "a,1,1,3\na,1,1,3\n", r"t.csv, row 3, column 'cycle', series 'a': 1.0 is there twice"),
        (HEAD + "a,1,1\n", r"t.csv, row 2: 3 columns, wanted 4"),
        (HEAD + "a,1,1,3,4\n", r"t.csv, row 2: 5 columns, wanted 4"),
        ("engine,cycle,heat\na,1,1\n", r"t.csv: the column 'speed' is missing; the file has engine, cycle, heat"),
        (HEAD.replace("speed", "heat"), r"t.csv: the column 'heat' is there 2 times"),
        (HEAD, r"t.csv: holds no row"),
        ("", r"t.csv: the column 'engine' is missing; the file has no column"),
    ],
)
def test_a_bad_table_is_refused_with_its_place(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "t.csv", IN_ORDER, ["heat", "speed"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"PK"), r"t.npz: .*wanted a npz file"),
        (lambda path: np.savez(path, engine=np.zeros((2, 2))), r"the column 'cycle' is missing; the file has engine"),
        (
            lambda path: np.savez(path, **dict.fromkeys(NAMES, np.zeros((2, 2)))),
            r"t.npz: the array 'engine' has shape \(2, 2\), wanted one dimension",
        ),
        (
            lambda path: np.savez(path, **dict.fromkeys(NAMES[1:], np.zeros(2)), engine=np.zeros(3)),
            "t.npz: the array 'cycle' has 2 values, but 'engine' 3",
        ),
        (lambda path: None, r"t.npz: no such file"),
    ],
)
def test_a_bad_npz_file_is_refused(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(tmp_path / "t.npz")
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "t.npz", IN_ORDER, ["heat", "speed"])


def test_a_number_is_no_date_and_a_date_no_number(tmp_path: Path) -> None:
    write(tmp_path / "t.csv")
    with_hours = TableOptions(id_column="engine", time_column="cycle", calendar_features=["hour"])
    with pytest.raises(DataError, match=r"row 2, column 'cycle': got '1', wanted a date, which calendar_features are"):
        read_table(tmp_path / "t.csv", with_hours, ["speed"])
    pd.DataFrame({"x": pd.to_datetime(["2020-01-01"])}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"row 1, column 'x': got Timestamp.*, wanted a number"):
        read_table(tmp_path / "t.parquet", TableOptions(), ["x"])
    np.savez(tmp_path / "t.npz", x=np.array([1, 2 + 1j]))
    with pytest.raises(DataError, match=r"row 1, column 'x': got .*, wanted a number"):
        read_table(tmp_path / "t.npz", TableOptions(), ["x"])


def test_names_in_bytes_are_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", engine=np.array([b"a", b"b"]), x=np.array([1.0, 2.0]))
    assert [series.id for series in read_table(tmp_path / "t.npz", TableOptions(id_column="engine"), ["x"])] == [*"ab"]


def test_a_byte_order_mark_and_other_line_ends_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfx,y\r\n1,2\r\n")
    assert read_table(tmp_path / "t.csv", TableOptions(), ["x"])[0].columns["x"].tolist() == [1]


def test_a_bad_json_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"x": 1}\n{"x": true}\n')
    with pytest.raises(DataError, match=r"t.jsonl, row 2, column 'x': got True, wanted a number"):
        read_table(tmp_path / "t.jsonl", TableOptions(), ["x"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xlsx"}, "format: got 'xlsx', wanted one of csv"),
        ({"time_column": "t", "calendar_features": ["moon"]}, "calendar_features: got 'moon', wanted some of minute"),
        ({"separator": "::"}, "separator: got '::', wanted one sign, or null"),
        ({"sort": True}, "sort: got True without time_column"),
        ({"column_names": ["a", "a"]}, "column_names: got .*, wanted names that differ"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TableOptions(**options)
