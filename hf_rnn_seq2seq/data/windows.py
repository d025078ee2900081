"""Windows of time series: so many rows to look back on, and the rows after them to forecast.

A series is split by its rows: training first, then validation, then test. A window belongs to the split that its
forecast lies in; what it looks back on may be rows of the split before. Windows are not stored: each is cut when it is
asked for. Needs the extra `train`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np


try:
    from datasets import Dataset, DatasetDict
except ImportError as error:
    raise ImportError("windows need datasets: pip install 'hf_rnn_seq2seq[train]'") from error
from .files import DataError, read_json, reading
from .option_checks import check_range
from .preprocessing import SERIES_FILE
from .splits import SPLITS, Dataset, DatasetDict
from .tables import Series, TableOptions, calendar, read_table


# The quantiles that are written and drawn: the band between them holds 80 % of a distribution.
BAND = (0.1, 0.9)


@dataclass
class SineOptions:
    """The sines of `dataset_name: toy:sine`: each series has a period and a height of its own, and noise.

    Args:
        series: number of series.
        rows: rows of each.
        least_period, most_period: of the sines, in rows.
        noise: standard deviation of what is added; the sines' heights are 1 to 3.
        seed: of all these.
    """

    series: int = 8
    rows: int = 600
    least_period: float = 12.0
    most_period: float = 36.0
    noise: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "series", "rows", least=1)
        check_range(self, "least_period", least=2)
        check_range(self, "noise", least=0)
        if self.most_period < self.least_period:
            raise ValueError(f"most_period: got {self.most_period}, wanted at least least_period={self.least_period}")


@dataclass
class ForecastDataOptions:
    """What is forecast, and from what (the section `data` of a forecasting recipe).

    Args:
        file: a long table, under --data_dir; or
        dataset_name: `toy:sine`, sines that are made up.
        table: how the table is written.
        columns: the columns to forecast, one channel each.
        features: columns that are known ahead of time, beside the calendar features of `table`.
        static_real_features: columns of numbers that are the same in all rows of a series.
        static_categorical_features: columns of names of classes, likewise.
        look_back: P, rows of the past that a window shows.
        horizon: T, rows ahead.
        shortest_past: forecasts begin where so many rows are behind, fewer than `look_back` padded; `None`: all of
            `look_back`.
        train, validation, test: rows of each split, in this order from the first row on; `train: null`: all that the
            others leave at the end. `validation: 0`, `test: 0`: no such split.
        train_stride: every so many-th window of the training data; of the others every one.
        toy: the sines.
    """

    columns: list[str] = field(default_factory=list)
    look_back: int = 48
    horizon: int = 24
    file: str | None = None
    dataset_name: Literal["toy:sine"] | None = None
    table: TableOptions = field(default_factory=TableOptions)
    features: list[str] = field(default_factory=list)
    static_real_features: list[str] = field(default_factory=list)
    static_categorical_features: list[str] = field(default_factory=list)
    shortest_past: int | None = None
    train: int | None = None
    validation: int = 0
    test: int = 0
    train_stride: int = 1
    toy: SineOptions = field(default_factory=SineOptions)

    def __post_init__(self) -> None:
        check_range(self, "look_back", "horizon", "train", "train_stride", least=1)
        check_range(self, "validation", "test", least=0)
        check_range(self, "shortest_past", least=1, most=self.look_back)
        if (self.file is None) == (self.dataset_name is None):
            raise ValueError(f"file: got {self.file!r} and dataset_name {self.dataset_name!r}, wanted one of them")
        if self.dataset_name == "toy:sine":
            self.columns = self.columns or ["value"]
        static = self.static_real_features + self.static_categorical_features
        names = self.columns + self.features + static
        if not self.columns or len(set(names)) < len(names):
            raise ValueError(
                f"columns: got {self.columns} with features {self.features} and static features {static}, wanted at "
                "least one, and each name once"
            )
        if static and self.dataset_name is not None:
            raise ValueError(f"dataset_name: got {self.dataset_name}, which has no static features {static}")

    @property
    def all_features(self) -> list[str]:
        """The columns that are known ahead of time."""
        return [*self.features, *self.table.calendar_features]

    @property
    def past_needed(self) -> int:
        """How many rows must be behind where a forecast begins."""
        return self.look_back if self.shortest_past is None else self.shortest_past


@dataclass
class ForecastWindows:
    """The series of a data set, and how windows are cut out of them; a transform of `datasets`.

    Args:
        options: sizes and columns.
        series: the series.
        classes: names of the classes of each static column that has them; none: those of the series, sorted.

    Raises:
        DataError: a series is of another class.
    """

    options: ForecastDataOptions
    series: list[Series]
    classes: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = [series.values(self.options.columns) for series in self.series]  # (N, C) each
        features = self.options.all_features
        self.features = [series.values(features) if features else None for series in self.series]  # (N, F) each
        incomplete = any(bool(np.isnan(values).any()) for values in self.values)
        self.is_masked = incomplete or self.options.past_needed < self.options.look_back
        numbers = self.options.static_real_features
        self.static_numbers = np.array([[s.static[name] for name in numbers] for s in self.series], dtype=np.float32)
        named = self.options.static_categorical_features
        own = {name: sorted({str(series.static[name]) for series in self.series}) for name in named}
        self.number_classes(self.classes or own)

    def number_classes(self, classes: dict[str, list[str]]) -> None:
        """Number the classes of the series by their places in these lists.

        Raises:
            DataError: a series is of another class.
        """
        for name in self.options.static_categorical_features:
            for series in self.series:
                if series.static[name] not in classes[name]:
                    raise DataError(
                        f"{series.place(0)}, column {name!r}, series {series.id!r}: got {series.static[name]!r}, "
                        f"wanted a class that the model was trained with: {', '.join(map(repr, classes[name]))}"
                    )
        self.classes = classes
        self.static_classes = np.array(
            [[names.index(str(series.static[name])) for name, names in classes.items()] for series in self.series],
            np.int64,
        )

    def __call__(self, rows: Mapping[str, Sequence[int]]) -> dict[str, list[np.ndarray]]:
        """Cut windows.

        Args:
            rows: `series`, numbers of series, and `start`, the first row of each forecast.

        Returns:
            The inputs of `RnnSeq2SeqForTimeSeriesPrediction`, an array a window. Where values are missing or a past is
            padded, there are masks, and zeros in their place.
        """
        windows = [self.window(series, start) for series, start in zip(rows["series"], rows["start"], strict=True)]
        return {name: [window[name] for window in windows] for name in (windows[0] if windows else ())}

    def window(self, number: int, start: int) -> dict[str, np.ndarray]:
        """Return one window by the name of each input; what lies behind the last row is not observed."""
        options, values = self.options, self.values[number]
        window = {
            "past_values": _rows(values, start - options.look_back, start),
            "future_values": _rows(values, start, start + options.horizon),
        }
        if self.is_masked:
            for side in ("past", "future"):
                observed = ~np.isnan(window[f"{side}_values"])
                window[f"{side}_values"] = np.where(observed, window[f"{side}_values"], 0)
                window[f"{side}_observed_mask"] = observed
        features = self.features[number]
        if features is not None:
            past = _rows(features, start - options.look_back, start)
            window["past_time_features"] = np.nan_to_num(past)  # NaN in the padding only
            window["future_time_features"] = _rows(features, start, start + options.horizon)
        if options.static_real_features:
            window["static_real_features"] = self.static_numbers[number]
        if options.static_categorical_features:
            window["static_categorical_features"] = self.static_classes[number]
        return window

    def observed_rows(self, number: int) -> int:
        """Return how many rows of a series there are up to the last one with a value to forecast.

        Raises:
            DataError: there is none.
        """
        there = np.flatnonzero(~np.isnan(self.values[number]).all(axis=1))
        if not len(there):
            series = self.series[number]
            raise DataError(
                f"{series.place(0)}, column {self.options.columns[0]!r}, series {series.id!r}: holds no value to go "
                "on from"
            )
        return int(there[-1]) + 1

    def bounds(self, number: int) -> dict[str, tuple[int, int]]:
        """Return first row and end of each split of a series.

        Raises:
            DataError: the series is too short.
        """
        options, series = self.options, self.series[number]
        held_out = options.validation + options.test
        train = len(series) - held_out if options.train is None else options.train
        least = max(train, 0) + held_out
        if options.train is None:
            least = options.past_needed + options.horizon + held_out
        if len(series) < least:
            raise DataError(
                f"{series.place(len(series) - 1)}, series {series.id!r}: ends after {len(series)} rows, wanted at "
                f"least {least} for train, validation={options.validation} and test={options.test} with "
                f"look_back={options.past_needed} and horizon={options.horizon}"
            )
        ends = np.cumsum([0, train, options.validation, options.test]).tolist()
        return {split: (ends[i], ends[i + 1]) for i, split in enumerate(SPLITS) if ends[i + 1] > ends[i]}

    def starts(self, number: int, split: str) -> range:
        """Return the first row of each forecast in a split of a series: all that lie in it, none dropped."""
        first, end = self.bounds(number).get(split, (0, 0))
        stride = self.options.train_stride if split == "train" else 1
        return range(max(first, self.options.past_needed), end - self.options.horizon + 1, stride)

    def training_rows(self) -> np.ndarray:
        """Return the rows of the training split of all series, (N, C): all that a scale may be fitted to."""
        return np.concatenate([values[slice(*self.bounds(i)["train"])] for i, values in enumerate(self.values)])

    def splits(self) -> DatasetDict:
        """Return the windows of each split, which are cut when they are asked for.

        Raises:
            DataError: a series is too short for a split, or a known feature is missing.
        """
        self.check_features()
        for name, never in zip(self.options.columns, np.isnan(self.training_rows()).all(axis=0)):
            if never:
                raise DataError(f"{self.series[0].file}: the column {name!r} holds no value in the rows of train")
        found = {}
        wanted = {"train": 1, "validation": self.options.validation, "test": self.options.test}
        for split in (name for name, rows in wanted.items() if rows):
            starts = [self.starts(i, split) for i in range(len(self.series))]
            for i, series in enumerate(self.series):
                if not starts[i]:
                    first, end = self.bounds(i)[split]
                    raise DataError(
                        f"{series.place(first)}, series {series.id!r}: the {end - first} rows of {split} hold no "
                        f"window, wanted at least look_back={self.options.past_needed} rows before a forecast of "
                        f"horizon={self.options.horizon}"
                    )
            numbers = {
                "series": np.repeat(np.arange(len(self.series)), [len(each) for each in starts]),
                "start": np.concatenate([np.asarray(each) for each in starts]),
            }
            found[split] = Dataset.from_dict(numbers).with_transform(self)
        return DatasetDict(found)

    def check_features(self) -> None:
        """Refuse a row of which nothing says what is known ahead of time."""
        for series, features in zip(self.series, self.features):
            if features is not None and bool(np.isnan(features).any()):
                row, column = np.argwhere(np.isnan(features))[0]
                raise DataError(
                    f"{series.place(row)}, column {self.options.all_features[column]!r}: the value is missing, but "
                    "what is known ahead of time is known of every row"
                )


def _rows(values: np.ndarray, first: int, end: int) -> np.ndarray:
    """Return the rows from first to end, NaN where there are none."""
    there = values[max(first, 0) : max(end, 0)]
    before, after = max(0, -first), end - max(first, 0) - len(there)
    if before == after == 0:
        return there
    return np.pad(there, ((before, max(after, 0)), (0, 0)), constant_values=math.nan)


def load_windows(
    options: ForecastDataOptions, data_dir: str | Path, classes: Mapping[str, list[str]] | None = None
) -> ForecastWindows:
    """Read the series of a data set; `classes` as of `ForecastWindows`.

    Raises:
        DataError: the file cannot be used; the message names file, row and column.
    """
    if options.dataset_name is not None:
        return ForecastWindows(options, list(sines(options.toy, options.columns)))
    assert options.file is not None
    path = Path(data_dir) / options.file
    static = options.static_real_features, options.static_categorical_features
    series = read_table(path, options.table, [*options.columns, *options.features], *static)
    return ForecastWindows(options, series, dict(classes or {}))


def sines(options: SineOptions, columns: Sequence[str]) -> Iterator[Series]:
    """Yield series of sines with noise, each with a period, a height and a phase of its own."""
    generator = np.random.default_rng(options.seed)
    rows = np.arange(options.rows)
    for number in range(options.series):
        made = {}
        for name in columns:
            period = generator.uniform(options.least_period, options.most_period)
            height, phase = generator.uniform(1, 3), generator.uniform(0, 2 * math.pi)
            noise = generator.normal(0, options.noise, options.rows)
            made[name] = height * np.sin(2 * math.pi * rows / period + phase) + noise
        yield Series(str(number), None, made, rows + 1, "toy:sine")


def forecast_inputs(windows: ForecastWindows, number: int, rows: int) -> dict[str, Any]:
    """Return the window that goes on after the first `rows` rows of a series; its future may lie behind the last one.

    Raises:
        DataError: the past is too short, or a known feature of the future is missing.
    """
    options, series = windows.options, windows.series[number]
    if rows < options.past_needed:
        raise DataError(
            f"{series.place(max(rows - 1, 0))}, series {series.id!r}: ends after {rows} rows, wanted at least "
            f"{options.past_needed} to look back on"
        )
    window = windows.window(number, rows)
    future = window.get("future_time_features")
    if future is not None and bool(np.isnan(future).any()):
        step, column = np.argwhere(np.isnan(future))[0]
        raise DataError(
            f"{series.file}, series {series.id!r}, column {options.all_features[column]!r}: step {step + 1} of the "
            f"forecast is missing, wanted what is known ahead of {options.horizon} rows: rows without "
            f"{', '.join(options.columns)} at the end of the file"
        )
    return {name: array for name, array in window.items() if not name.startswith(("future_values", "future_obs"))}


def with_rows_ahead(series: Series, options: TableOptions, count: int) -> Series:
    """Return a series with so many rows behind its last one, if any are asked for: times go on, values are missing."""
    if count <= 0:
        return series
    time = series.time
    if time is not None:
        if len(time) < 2:
            raise DataError(f"{series.place(0)}, series {series.id!r}: one row, wanted two to tell the step of time")
        step = np.sort(np.diff(time))[(len(time) - 1) // 2]  # the median, of dates too
        time = np.concatenate([time, time[-1] + step * np.arange(1, count + 1)])
    missing = np.full(count, math.nan)
    columns = {name: np.concatenate([values, missing]) for name, values in series.columns.items()}
    rows = np.concatenate([series.rows, series.rows[-1] + np.arange(1, count + 1)])
    longer = replace(series, time=time, columns=columns, rows=rows)
    if time is not None:
        longer.columns.update(calendar(longer, options))
    return longer


# ---- Tables of a saved model ------------------------------------------------------------------------------------

SAVED_OPTIONS = ("columns", "features", "static_real_features", "static_categorical_features", "shortest_past")


def load_series_options(directory: str | Path) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return what a saved forecaster was trained with: columns, features and table options; and its classes.

    Raises:
        FileNotFoundError: nothing says it.
        DataError: the file says something else.
    """
    path = Path(directory) / SERIES_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{directory} holds no {SERIES_FILE}: nothing says what the model reads")
    with reading(path, "an object with the keys columns, features and table"):
        said = read_json(path)
        # Folders of early versions say nothing of static features, and have none.
        saved = {name: list(said.get(name, ()) if "static" in name else said[name]) for name in SAVED_OPTIONS[:-1]}
        classes = {name: list(said["classes"][name]) for name in saved["static_categorical_features"]}
        more = {"table": TableOptions(**said["table"]), "shortest_past": said.get("shortest_past")}
        return {**saved, **more}, classes


def series_to_forecast(
    path: Path, config: Any, saved: Mapping[str, Any], classes: Mapping[str, list[str]]
) -> ForecastWindows:
    """Return the series of a table whose next rows a model is to forecast, with rows ahead of them.

    Args:
        path: the table.
        config: the model's.
        saved, classes: as `load_series_options` returns them.

    Raises:
        DataError: the table cannot be used; the message names file, row and column.
    """
    options = ForecastDataOptions(
        file=path.name, look_back=config.context_length, horizon=config.prediction_length, **saved
    )
    windows = load_windows(options, path.parent, classes)
    windows.check_features()
    numbers = range(len(windows.series))
    longer = [
        with_rows_ahead(series, options.table, windows.observed_rows(number) + options.horizon - len(series))
        for number, series in enumerate(windows.series)
    ]
    windows = ForecastWindows(options, longer, dict(classes))
    for number in numbers:
        forecast_inputs(windows, number, windows.observed_rows(number))
    return windows
