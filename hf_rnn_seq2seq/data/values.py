"""Series with values to predict: a value, or several, for each vector of a series, or for the series up to a row.

A long table (see `tables.py`) has the columns that the model reads and those that it predicts. What it predicts may
also be a countdown: how many rows are left until the series ends, as of a machine until it fails. Rows whose value is
missing are read, and neither trained on nor scored. Needs `datasets` (extra `train`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .files import DataError, read_json, text_lines
from .option_checks import check_range, check_share
from .outputs import write_json
from .preprocessing import COLUMNS_FILE
from .speech import make_dataset
from .splits import SPLITS, Dataset, DatasetDict, SizeOptions, first_samples, hold_out
from .tables import Series, TableOptions, read_table


TOY_SUM = "toy:sum"


@dataclass
class CountdownOptions:
    """The rows that are left of a series, as the value of each row.

    Args:
        name: what the value is called.
        most: the value of all rows before: nothing tells a machine that fails in 200 cycles from one that fails in
            300 (Heimes 2008). `None`: no limit.
        test_ends: file of numbers, one a series of the test data in their order: what is left after its last row.
            `None`: nothing.
    """

    name: str = "remaining"
    most: float | None = None
    test_ends: str | None = None

    def __post_init__(self) -> None:
        check_range(self, "most", least=1)


@dataclass
class SumOptions:
    """Size of the toy task `toy:sum`: the sum of all numbers so far, of series of random numbers.

    Args:
        min_length: shortest series.
        max_length: longest series.
        train: number of training series.
        validation: number of validation series.
        test: number of test series.
        seed: seed of the generator.
    """

    min_length: int = 2
    max_length: int = 10
    train: int = 400
    validation: int = 50
    test: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "min_length", "train", "validation", "test", least=1)
        if self.max_length < self.min_length:
            raise ValueError(f"max_length: got {self.max_length}, wanted at least min_length={self.min_length}")


@dataclass
class ValueColumns:
    """What a model reads and predicts: saved beside it.

    Args:
        target: "vector": values for each vector; "sequence": values for the series up to a row.
        features: the columns that it reads, calendar features among them.
        values: what it predicts.
        window: a value of a sequence is predicted from so many rows; `None`: from all of the series so far.
        table: how the tables are written.
    """

    target: str
    features: list[str]
    values: list[str]
    window: int | None
    table: dict[str, Any]

    def save(self, directory: str | Path) -> None:
        """Write the file beside a model."""
        write_json(Path(directory) / COLUMNS_FILE, asdict(self))

    @classmethod
    def load(cls, directory: str | Path) -> ValueColumns:
        """Return what `save` wrote; DataError, FileNotFoundError if it is not there or something else."""
        path = Path(directory) / COLUMNS_FILE
        if not path.is_file():
            raise FileNotFoundError(f"{directory} holds no {COLUMNS_FILE}: nothing says what the model reads")
        content = read_json(path)
        names = {option.name for option in fields(cls)}
        if not isinstance(content, dict) or set(content) != names:
            raise DataError(f"{path}: wanted an object with the keys {', '.join(sorted(names))}")
        return cls(**content)

    def read(self, path: Path, missing: bool = True) -> list[Series]:
        """Return the series of a table whose values are to be predicted.

        Args:
            path: the table.
            missing: whether the model reads rows of which a number is missing; else they are refused.
        """
        options = TableOptions(**self.table)
        series = read_table(path, options, [name for name in self.features if name not in options.calendar_features])
        if not missing:
            _check_complete(series, self.features)
        return series


@dataclass
class ValueDataOptions(TableOptions, SizeOptions):
    """Series with values to predict (the `data` section of a recipe).

    Args:
        target: "vector": values for each vector of a series; "sequence": values for the series up to a row.
        dataset_name: `toy:sum`: generated series; `None`: files.
        train: a file or a list of files.
        validation: the same for the split that selects the model.
        test: the same for the split that is reported.
        feature_columns: the columns that the model reads.
        value_columns: the columns that it predicts; a missing one is not observed.
        countdown: predict the rows that are left, in place of columns.
        validation_fraction: hold so large a share of the training series out, whole ones.
        validation_seed: seed of that choice.
        window: a sequence is the last so many rows; `None`: all rows of its series so far.
        rows: a sequence ends at "all" rows of a series, or at the "last" one.
        train_step: of the training data only every so-manieth sequence is read.
        toy: size of the generated data.
    """

    target: Literal["vector", "sequence"] = "vector"
    dataset_name: str | None = None
    train: str | list[str] | None = None
    validation: str | list[str] | None = None
    test: str | list[str] | None = None
    feature_columns: list[str] = field(default_factory=list)
    value_columns: list[str] = field(default_factory=list)
    countdown: CountdownOptions | None = None
    validation_fraction: float | None = None
    validation_seed: int = 0
    window: int | None = None
    rows: Literal["all", "last"] = "all"
    train_step: int = 1
    toy: SumOptions = field(default_factory=SumOptions)

    def __post_init__(self) -> None:
        TableOptions.__post_init__(self)
        SizeOptions.__post_init__(self)
        check_share(self, "validation_fraction")
        check_range(self, "window", "train_step", least=1)
        if self.target == "vector":
            for name, default in (("window", None), ("rows", "all"), ("train_step", 1)):
                if getattr(self, name) != default:
                    raise ValueError(f"{name}: got {getattr(self, name)!r} with target vector, wanted target sequence")
        if self.dataset_name not in (None, TOY_SUM):
            raise ValueError(f"dataset_name: got {self.dataset_name!r}, wanted {TOY_SUM} or null")
        if self.dataset_name is not None:
            self.feature_columns, self.value_columns = ["number"], ["sum"]
            return
        if self.train is None:
            raise ValueError("train: not set, wanted a file or a list of files")
        if self.validation is not None and self.validation_fraction is not None:
            raise ValueError(f"validation_fraction: given together with validation: {self.validation!r}")
        if not self.feature_columns and not self.calendar_features:
            raise ValueError("feature_columns: got none, wanted the columns that the model reads")
        if bool(self.value_columns) == (self.countdown is not None):
            raise ValueError(f"value_columns: got {self.value_columns}, wanted either these or a countdown")
        for name in ("feature_columns", "value_columns"):
            columns = getattr(self, name)
            if len(set(columns)) < len(columns):
                raise ValueError(f"{name}: got {columns}, wanted each column once")
        both = sorted({*self.value_columns} & {*self.feature_columns})
        if both:
            raise ValueError(f"value_columns: {both[0]!r} is among feature_columns: the model would read the answer")

    def columns(self) -> ValueColumns:
        """Return what the model reads and predicts."""
        table = {option.name: getattr(self, option.name) for option in fields(TableOptions)}
        values = [self.countdown.name] if self.countdown is not None else self.value_columns
        return ValueColumns(self.target, [*self.feature_columns, *self.calendar_features], values, self.window, table)


def _check_complete(series: Sequence[Series], columns: Sequence[str]) -> None:
    for one in series:
        for name in columns:
            rows = np.flatnonzero(np.isnan(one.columns[name]))
            if len(rows):
                raise DataError(
                    f"{one.place(rows[0])}, column {name!r}: the value is missing, wanted a number: the model has "
                    "standardise_features=False"
                )


def load_value_data(options: ValueDataOptions, data_dir: str | Path = ".", missing: bool = True) -> DatasetDict:
    """Read a recipe's series.

    Args:
        options: the `data` section.
        data_dir: folder that file names are relative to.
        missing: as of `ValueColumns.read`.

    Returns:
        The splits, a row a series: `id`, `rows`, the number of each row in its file, and `features` (N F,) and
        `values` (N C,), row after row, float32, NaN where one is missing.

    Raises:
        DataError: a file is missing or bad (the message names file, row and column), or a split has no value at all.
    """
    if options.dataset_name is not None:
        splits = _toy_sums(options.toy)
    else:
        splits = {
            split: _read_split(options, split, Path(data_dir))
            for split in SPLITS
            if getattr(options, split) is not None
        }
    if options.validation_fraction is not None:
        train = splits.pop("train")
        number = round(len(train) * options.validation_fraction)
        units, seed = range(len(train)), options.validation_seed
        rest, held_out = hold_out(train, units, number, seed, "data.validation_fraction")
        splits = {"train": rest, "validation": held_out, **splits}
    columns = options.columns()
    data = {}
    for split, series in first_samples(splits, options).items():
        for name in columns.values:
            if all(np.isnan(one.columns[name]).all() for one in series):
                raise DataError(f"data.{split}, {series[0].file}: the column {name!r} holds no value")
        if not missing:
            _check_complete(series, columns.features)
        data[split] = make_dataset(
            {"id": [one.id for one in series], "rows": [one.rows for one in series]},
            {kind: [one.values(getattr(columns, kind)) for one in series] for kind in ("features", "values")},
        )
    return DatasetDict(data)


def _read_split(options: ValueDataOptions, split: str, data_dir: Path) -> list[Series]:
    names = getattr(options, split)
    wanted = [*options.feature_columns, *options.value_columns]
    files = [data_dir / name for name in ([names] if isinstance(names, str) else names)]
    series = [one for file in files for one in read_table(file, options, wanted)]
    if options.countdown is not None:
        ends = options.countdown.test_ends if split == "test" else None
        left = [0.0] * len(series) if ends is None else _ends(data_dir / ends, len(series))
        for one, end in zip(series, left):
            countdown = end + np.arange(len(one) - 1, -1, -1, dtype=np.float64)
            one.columns[options.countdown.name] = np.minimum(countdown, options.countdown.most or np.inf)
    return series


def _ends(path: Path, count: int) -> list[float]:
    """Return the numbers of a file, one a line."""
    ends = []
    for number, line in enumerate(text_lines(path), start=1):
        try:
            ends.append(float(line))
        except ValueError:
            ends.append(np.nan)
        if not 0 <= ends[-1] < np.inf:
            raise DataError(f"{path}, line {number}: got {line!r}, wanted the number of rows that are left")
    if len(ends) != count:
        raise DataError(f"{path}: {len(ends)} numbers, but the test data has {count} series; wanted one a series")
    return ends


def _toy_sums(options: SumOptions) -> dict[str, list[Series]]:
    generator = random.Random(options.seed)
    splits: dict[str, list[Series]] = {}
    for split in SPLITS:
        splits[split] = []
        for number in range(getattr(options, split)):
            length = generator.randint(options.min_length, options.max_length)
            drawn = np.array([generator.uniform(-10, 10) for _ in range(length)])
            columns = {"number": drawn, "sum": drawn.cumsum()}
            splits[split].append(Series(f"{split}{number}", None, columns, np.arange(1, length + 1), TOY_SUM))
    return splits


def arrays(split: Dataset, columns: ValueColumns) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return features (N, F) and values (N, C) of each series of a split."""
    split = split.with_format("numpy")
    features = [numbers.reshape(-1, len(columns.features)) for numbers in split["features"]]
    return features, [numbers.reshape(-1, len(columns.values)) for numbers in split["values"]]


class Windows:
    """Sequences that end at rows of series, cut when they are asked for.

    Args:
        features: (N, F) of each series.
        values: (N, C) of each series, or `None`: there are none.
        window: rows of a sequence; `None`: all so far.
    """

    def __init__(
        self, features: Sequence[np.ndarray], values: Sequence[np.ndarray] | None, window: int | None
    ) -> None:
        self.features, self.values, self.window = features, values, window

    def cut(self, batch: dict[str, list[int]]) -> dict[str, list[np.ndarray]]:
        """Return `input_features` and `labels` of rows of a data set with the columns `series` and `end`."""
        places = list(zip(batch["series"], batch["end"]))
        window = self.window
        found = {
            "input_features": [
                self.features[series][max(0, end + 1 - window) if window else 0 : end + 1] for series, end in places
            ]
        }
        if self.values is not None:
            found["labels"] = [self.values[series][end] for series, end in places]
        return found

    def dataset(self, rows: Literal["all", "last"], step: int = 1) -> Dataset:
        """Return the sequences that end at all rows of each series or at its last, or at every so-manieth before it.

        Those without any value are left out.
        """
        found: dict[str, list[int]] = {"series": [], "end": []}
        for number, features in enumerate(self.features):
            for end in range(len(features) - 1, -1, -step if rows == "all" else -len(features)):
                if self.values is None or not np.isnan(self.values[number][end]).all():
                    found["series"].append(number)
                    found["end"].append(end)
        return Dataset.from_dict(found).with_transform(self.cut)
