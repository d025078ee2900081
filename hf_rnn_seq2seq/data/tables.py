"""Long tables of numbers over time: rows of (series, time, columns), as sensors and forecasters write them.

A table is a file: csv, tsv or jsonl, gzipped or not, parquet, or npz with an array a column. It becomes one record a
series: the columns as arrays over time. A value may be missing, which is NaN; what is no number is refused with file,
row and column, and so are times that go backwards. Needs pandas and pyarrow, which come with `datasets` (extra
`train`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np


try:
    import pandas as pd
except ImportError as error:
    raise ImportError("reading tables needs pandas: pip install 'hf_rnn_seq2seq[train]'") from error

from .files import DataError, format_of, json_columns, quoted_rows, reading, sentence, split_blanks, text_lines
from .option_checks import check_choice


TABLE_FORMATS = ("csv", "tsv", "jsonl", "parquet", "npz")
# How a file writes a value that is missing, beside an empty field, null and NaN.
_MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "None")
_FLAGS = bool | np.bool_
_MOST = float(np.finfo(np.float32).max)  # of the models' numbers
# Each scaled to [-0.5, 0.5] by its range, as in GluonTS (Alexandrov 2020).
_CALENDAR: dict[str, tuple[Callable[[pd.DatetimeIndex], pd.Index], int, int]] = {
    "minute": (lambda time: time.minute, 0, 59),
    "hour": (lambda time: time.hour, 0, 23),
    "weekday": (lambda time: time.day_of_week, 0, 6),
    "day": (lambda time: time.day, 1, 31),
    "day_of_year": (lambda time: time.day_of_year, 1, 366),
    "week": (lambda time: time.isocalendar().week, 1, 53),
    "month": (lambda time: time.month, 1, 12),
}
CALENDAR_FEATURES = tuple(_CALENDAR)


@dataclass
class TableOptions:
    """How a long table is written.

    Args:
        id_column: the column that says which series a row belongs to; `None`: the file is one series.
        time_column: the column of numbers or of dates that orders a series; `None`: rows are in order.
        format: format of the files; `None`: from the file name (`.gz` may follow).
        separator: the sign between the fields of csv and tsv; " ": any number of blanks; `None`: a comma, a tab.
        column_names: the names of all columns, in order, of csv and tsv files without a header; `None`: the first line
            names them.
        time_format: how dates are written, as for `datetime.strptime`; `None`: as pandas reads them.
        sort: sort each series by time; otherwise times that go backwards are refused.
        calendar_features: features of dates, of `CALENDAR_FEATURES`, each scaled to -0.5 to 0.5.
    """

    id_column: str | None = None
    time_column: str | None = None
    format: str | None = None
    separator: str | None = None
    column_names: list[str] | None = None
    time_format: str | None = None
    sort: bool = False
    calendar_features: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_choice(self, "format", TABLE_FORMATS)
        for name in self.calendar_features:
            if name not in _CALENDAR:
                raise ValueError(f"calendar_features: got {name!r}, wanted some of {', '.join(_CALENDAR)}")
        if self.separator is not None and len(self.separator) != 1:
            raise ValueError(f"separator: got {self.separator!r}, wanted one sign, or null")
        for option in ("sort", "calendar_features", "time_format"):
            if getattr(self, option) and self.time_column is None:
                raise ValueError(
                    f"{option}: got {getattr(self, option)!r} without time_column, wanted the times' column"
                )
        names = self.column_names or []
        if len(set(names)) < len(names):
            raise ValueError(f"column_names: got {names}, wanted names that differ")


@dataclass
class Series:
    """One series of a table, N rows.

    Args:
        id: what the id column says, as text; the file's name if there is none.
        time: (N,) times, float64 or datetime64; `None` if there is no time column.
        columns: column -> (N,) values, float64, NaN where one is missing; calendar features among them.
        rows: (N,) number of each row in the file: its line in a file of text, otherwise counted from 1.
        file: the file's name, for messages.
        static: column -> what is known of the series as a whole: a number, or the name of a class.
    """

    id: str
    time: np.ndarray | None
    columns: dict[str, np.ndarray]
    rows: np.ndarray
    file: str
    static: dict[str, float | str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, row: int) -> str:
        """Return file and row of the row with this index, for messages."""
        return f"{self.file}, row {self.rows[row]}"

    def values(self, columns: Sequence[str]) -> np.ndarray:
        """Return some columns side by side, (N, C) float32."""
        return np.stack([self.columns[name] for name in columns], axis=1).astype(np.float32)


def read_table(
    path: str | Path,
    options: TableOptions,
    columns: Sequence[str],
    static_numbers: Sequence[str] = (),
    static_classes: Sequence[str] = (),
) -> list[Series]:
    """Read a long table.

    Args:
        path: the file.
        options: how it is written.
        columns: the columns of numbers that are wanted.
        static_numbers: columns of numbers that are the same in all rows of a series.
        static_classes: columns of names of classes, likewise.

    Returns:
        A record a series, in the order in which they begin.

    Raises:
        DataError: a file or a column is missing, a value is no number, an id is missing, times go backwards or repeat,
            what is static is missing or changes within a series, or there is no row. The message names file, row and
            column.
    """
    path = Path(path)
    special = [name for name in (options.id_column, options.time_column) if name is not None]
    for name in (*columns, *static_numbers, *static_classes):
        if name in options.calendar_features:
            raise DataError(f"{path}: the column {name!r} has the name of a calendar feature: leave one of them out")
    frame = read_columns(path, options, list(dict.fromkeys([*special, *columns, *static_numbers, *static_classes])))
    if not len(frame):
        raise DataError(f"{path}: holds no row")
    numbers = {name: _numbers(frame[name], path) for name in columns}
    static = {name: _numbers(_filled(frame[name], path), path) for name in static_numbers}
    static |= {name: _filled(frame[name], path).astype(str).to_numpy() for name in static_classes}
    time = None if options.time_column is None else _times(frame[options.time_column], options, path)
    ids = _ids(frame, options.id_column, path)
    rows = frame.index.to_numpy()
    found = []
    for name, places in ids.groupby(ids, sort=False).indices.items():
        if time is not None and options.sort:
            places = places[np.argsort(time[places], kind="stable")]
        times = None if time is None else time[places]
        chosen = {key: column[places] for key, column in numbers.items()}
        series = Series(str(name), times, chosen, rows[places], str(path))
        _check_order(series, options)
        series.static = {key: _constant(column[places], key, series) for key, column in static.items()}
        if options.calendar_features:
            series.columns.update(calendar(series, options))
        found.append(series)
    return found


# ---- Files ------------------------------------------------------------------------------------------------------


def read_columns(path: Path, options: TableOptions, wanted: list[str]) -> pd.DataFrame:
    """Return the wanted columns of a table as they are written; the index is the number of a row, for messages.

    Raises:
        DataError: the file cannot be read, or has not these columns.
    """
    file_format = format_of(path, TABLE_FORMATS, options.format, ", or give the option format")
    if file_format == "jsonl":
        rows = list(json_columns(path, dict(zip(map(repr, wanted), wanted))))
        return pd.DataFrame([values for _, values in rows], [number for number, _ in rows], wanted, dtype=object)
    if not path.is_file():
        raise DataError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}, wanted a {file_format} file")
    with reading(path, f"a {file_format} file"):
        if file_format == "npz":
            with np.load(path, allow_pickle=False) as arrays:
                _check_columns(path, wanted, arrays.files)
                columns = {name: _flat(path, name, arrays) for name in wanted}
            for name, array in columns.items():
                if len(array) != len(columns[wanted[0]]):
                    there = f"{len(array)} values, but {wanted[0]!r} {len(columns[wanted[0]])}"
                    raise DataError(f"{path}: the array {name!r} has {there}; wanted a value a row of each")
            frame = pd.DataFrame(columns)
        elif file_format == "parquet":
            frame = pd.read_parquet(path)
            _check_columns(path, wanted, list(frame))
        else:
            return _text_frame(path, file_format, options, wanted)
    return frame[wanted].set_axis(range(1, len(frame) + 1))


def _text_frame(path: Path, file_format: str, options: TableOptions, wanted: list[str]) -> pd.DataFrame:
    separator = options.separator or {"csv": ",", "tsv": "\t"}[file_format]
    lines: Iterable[tuple[int, list[str]]]
    if separator == " ":
        lines = ((number, split_blanks(line)) for number, line in enumerate(text_lines(path), start=1))
    else:
        lines = quoted_rows(path, separator)
    filled = ((number, fields) for number, fields in lines if fields)
    names = options.column_names or next(filled, (0, []))[1]
    _check_columns(path, wanted, names)
    rows, numbers = [], []
    for number, fields in filled:
        if len(fields) != len(names):
            raise DataError(f"{path}, row {number}: {len(fields)} columns, wanted {len(names)}")
        rows.append(fields)
        numbers.append(number)
    return pd.DataFrame(rows, numbers, names, dtype=object)[wanted]


def _check_columns(path: Path, wanted: Sequence[str], there: list[str]) -> None:
    for name in wanted:
        if there.count(name) != 1:
            what = "is missing" if name not in there else f"is there {there.count(name)} times"
            raise DataError(
                f"{path}: the column {name!r} {what}; the file has {', '.join(map(str, there)) or 'no column'}"
            )


def _flat(path: Path, name: str, arrays: Any) -> np.ndarray:
    with reading(f"{path}: the array {name!r}", "numbers or texts"):
        array: np.ndarray = arrays[name]
        array = array.astype(str) if array.dtype.kind == "S" else array
    if array.ndim != 1:
        raise DataError(f"{path}: the array {name!r} has shape {array.shape}, wanted one dimension: a value a row")
    return array


# ---- Columns ----------------------------------------------------------------------------------------------------


def _is_missing(column: pd.Series) -> pd.Series:
    return column.isna() | column.isin(_MISSING)


def _numbers(column: pd.Series, path: Path) -> np.ndarray:
    """Return a column as float64, NaN where a value is missing."""
    missing = _is_missing(column)
    # pandas would take True for 1, a date for its nanoseconds, and of a complex number the real part.
    counts = column.map(lambda value: isinstance(value, str | Real | Decimal) and not isinstance(value, _FLAGS))
    numbers = pd.to_numeric(column.astype(object).where(counts & ~missing, None), errors="coerce").astype("float64")
    wrong = (numbers.isna() & ~missing) | (numbers.abs() > _MOST)
    if wrong.any():
        row = wrong.idxmax()
        what = "of single precision, " if numbers.abs()[row] < np.inf else ""
        raise DataError(
            f"{path}, row {row}, column {column.name!r}: got {column[row]!r}, wanted a number, {what}or nothing where "
            "it is missing"
        )
    return numbers.to_numpy()


def _times(column: pd.Series, options: TableOptions, path: Path) -> np.ndarray:
    """Return times as datetime64, or as numbers where they are that."""

    def refuse(wrong: pd.Series, wanted: str) -> None:
        if wrong.any():
            row = wrong.idxmax()
            raise DataError(f"{path}, row {row}, column {column.name!r}: got {column[row]!r}, wanted {wanted}")

    missing = _is_missing(column)
    if missing.any():
        raise DataError(f"{path}, row {missing.idxmax()}, column {column.name!r}: the time is missing")
    refuse(column.map(lambda value: isinstance(value, _FLAGS)), "a number or a date")
    first = column.index[0]
    if options.time_format is None and not pd.api.types.is_datetime64_any_dtype(column):
        numbers = pd.to_numeric(column, errors="coerce")
        if pd.notna(numbers[first]):
            if options.calendar_features:
                refuse(numbers.notna(), "a date, which calendar_features are of")
            refuse(~np.isfinite(numbers), f"a number, as in row {first}")
            return numbers.to_numpy(dtype=np.float64)
    try:
        dates = pd.to_datetime(column, format=options.time_format, errors="coerce")
    except ValueError as error:  # of several time zones
        each = column.map(lambda value: pd.to_datetime(value, format=options.time_format, errors="coerce"))
        zones = each.map(lambda date: None if date is pd.NaT else date.utcoffset())
        refuse(zones.ne(zones[first]) | each.isna(), f"a date of the time zone of row {first}, {column[first]!r}")
        raise DataError(f"{path}, column {column.name!r}: {sentence(error)}; wanted dates of one time zone") from error
    if pd.notna(dates[first]):
        refuse(dates.isna(), f"a date that is written as that of row {first}, {column[first]!r}")
    refuse(dates.isna(), "a number or a date" if options.time_format is None else f"a date as {options.time_format!r}")
    return dates.dt.tz_localize(None).to_numpy()  # the calendar is that of the place where it was written


def _ids(frame: pd.DataFrame, column: str | None, path: Path) -> pd.Series:
    if column is None:
        return pd.Series(path.name, frame.index)
    return _filled(frame[column], path, "the id").astype(str)


def _filled(column: pd.Series, path: Path, what: str = "the value") -> pd.Series:
    """Return a column of which nothing may be missing."""
    missing = _is_missing(column)
    if missing.any():
        raise DataError(f"{path}, row {missing.idxmax()}, column {column.name!r}: {what} is missing")
    return column


def _constant(column: np.ndarray, name: str, series: Series) -> float | str:
    """Return what a column says in every row of a series."""
    values: list[float | str] = column.tolist()
    for row, value in enumerate(values):
        if value != values[0]:
            raise DataError(
                f"{series.place(row)}, column {name!r}, series {series.id!r}: got {value!r} after {values[0]!r}, "
                "wanted the same in all rows of a series: the column is static"
            )
    return values[0]


def _check_order(series: Series, options: TableOptions) -> None:
    """Refuse times that go backwards or repeat."""
    if series.time is None:
        return
    wrong = np.flatnonzero(series.time[1:] <= series.time[:-1])
    if len(wrong):
        row = int(wrong[0]) + 1
        before, time = series.time[row - 1], series.time[row]
        what = "is there twice" if before == time else f"comes after {before}; sort: true sorts them"
        raise DataError(f"{series.place(row)}, column {options.time_column!r}, series {series.id!r}: {time} {what}")


def calendar(series: Series, options: TableOptions) -> dict[str, np.ndarray]:
    """Return the calendar features of a series' times, (N,) each."""
    dates = pd.DatetimeIndex(series.time)
    found = {}
    for name in options.calendar_features:
        part, least, most = _CALENDAR[name]
        found[name] = (np.asarray(part(dates), dtype=np.float64) - least) / (most - least) - 0.5
    return found
