"""Bad tables at every door that reads tables: what is wrong is named with file, row and column.

    python tests/chaos/bad_input_tables.py [DOOR ...]

Doors: training (`run`), scoring (`run --eval_only`) and `predict` of a forecaster and of a model of values, and the
demo of a forecaster; each in every format. The runtimes of exported models read arrays, `bad_input_calls.py`.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1])]

import numpy as np
import pandas as pd
import pytest
from bad_input import Case, of_a_command, of_the_api, tried

from hf_rnn_seq2seq.recipes.command import main as run_recipe
from hf_rnn_seq2seq.recipes.options import write_yaml
from hf_rnn_seq2seq.recipes.predict import main as predict
from hf_rnn_seq2seq.sharing.demo_models import ForecastModel


Row = dict[str, Any]
FORMATS = ("csv", "tsv", "jsonl", "parquet", "npz", "csv.gz")
TEXTS = ("csv", "tsv", "csv.gz")
SIZES = {"embedding_size": 8, "encoder_hidden_size": 8, "encoder_layers": 1}
TRAINING = {"max_steps": 1, "per_device_train_batch_size": 4, "report_to": "none", "disable_tqdm": True}
TABLE = {"id_column": "id", "time_column": "time"}
RECIPES: dict[str, dict[str, Any]] = {
    "forecast": {
        "task": "forecast",
        "data": {"file": "good.csv", "table": {**TABLE, "calendar_features": ["hour"]}, "columns": ["load", "total"],
                 "features": ["known"], "static_real_features": ["height"], "static_categorical_features": ["kind"],
                 "look_back": 4, "horizon": 2, "validation": 3, "test": 3},
        "model": {**SIZES, "decoder_hidden_size": 8, "decoder_layers": 1, "distribution_output": "normal"},
        "training": TRAINING,
        "evaluation": {"metrics": ["mae"], "splits": ["test"]},
    },
    "values": {
        "task": "values",
        "data": {**TABLE, "train": "good.csv", "test": "good.csv", "feature_columns": ["load", "known"],
                 "value_columns": ["total"]},
        "model": {**SIZES, "standardise_features": False},
        "training": TRAINING,
        "evaluation": {"metrics": ["mae"], "splits": ["test"]},
    },
}  # fmt: skip
# The columns that each door reads.
VALUES = ("id", "time", "load", "known")
READS = {"forecast": (*VALUES, "total", "height", "kind"), "values": (*VALUES, "total")}


def good_rows(ahead: int = 0) -> list[Row]:
    """Two series of 14 hours, of the last `ahead` of which only what is known ahead of time is there."""
    return [
        {
            "id": name,
            "time": f"2024-01-01 {hour:02d}:00",
            "load": float(hour * 7 % 5) if hour < 14 - ahead else None,
            "total": float(hour) if hour < 14 - ahead else None,
            "known": float(hour % 2),
            "height": height,
            "kind": kind,
        }
        for name, height, kind in (("é", 1.5, "up"), ("b", 2.5, "down"))
        for hour in range(14)
    ]


# ---- Files ------------------------------------------------------------------------------------------------------


def as_text(rows: list[Row], sign: str = ",") -> str:
    def field(value: Any) -> str:
        text = "" if value is None else str(value)
        return '"' + text.replace('"', '""') + '"' if sign in text else text

    lines = [list(rows[0]), *(row.values() for row in rows)] if rows else []
    return "".join(sign.join(map(field, line)) + "\n" for line in lines)


def column(rows: list[Row], name: str, kind: str) -> Any:
    """A column as the format can hold it: of one type."""
    values = [row.get(name) for row in rows]
    if len({type(value) for value in values if value is not None}) > 1:
        values = [None if value is None else str(value) for value in values]
    if kind != "npz":
        return values
    if any(isinstance(value, str) for value in values):
        return np.array(["" if value is None else value for value in values])
    return np.array([np.nan if value is None else value for value in values])


def write(path: Path, rows: list[Row]) -> None:
    kind = path.name.partition(".")[2]
    columns = {name: column(rows, name, kind) for name in (rows[0] if rows else ())}
    if kind == "parquet":
        pd.DataFrame(columns).to_parquet(path)
    elif kind == "npz":
        np.savez(path, **columns)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        content = lines if kind == "jsonl" else as_text(rows, "\t" if kind == "tsv" else ",")
        path.write_bytes(gzip.compress(content.encode()) if kind.endswith(".gz") else content.encode())


def with_text(change: Callable[[str], str | bytes]) -> Callable[[Path, list[Row]], None]:
    """A fault of what a file of text is written like."""

    def spoil(path: Path, rows: list[Row]) -> None:
        write(path, rows)
        is_zipped = path.suffix == ".gz"
        content = change((gzip.decompress if is_zipped else bytes)(path.read_bytes()).decode())
        raw = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(raw) if is_zipped else raw)

    return spoil


def with_rows(change: Callable[[list[Row]], Any]) -> Callable[[Path, list[Row]], None]:
    """A fault of what the rows say; the change is in place, or returns others."""

    def spoil(path: Path, rows: list[Row]) -> None:
        changed = change(rows)
        write(path, changed if isinstance(changed, list) else rows)

    return spoil


def with_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path, list[Row]], None]:
    def spoil(path: Path, rows: list[Row]) -> None:
        write(path, rows)
        path.write_bytes(change(path.read_bytes()))

    return spoil


# ---- Faults -----------------------------------------------------------------------------------------------------


class Fault(NamedTuple):
    name: str
    spoil: Callable[[Path, list[Row]], None]
    row: int | None = None  # the bad one, from 0 on
    column: str | None = None  # the bad one
    formats: tuple[str, ...] = FORMATS
    tasks: tuple[str, ...] = ("forecast", "values")
    doors: tuple[str, ...] = ("train", "score", "predict", "demo")


def put(row: int, name: str, value: Any) -> Callable[[Path, list[Row]], None]:
    return with_rows(lambda rows: rows[row].update({name: value}))


def everywhere(name: str, value: Callable[[int], Any]) -> Callable[[Path, list[Row]], None]:
    return with_rows(lambda rows: [row.update({name: value(n)}) for n, row in enumerate(rows)] and None)


def without(name: str) -> Callable[[Path, list[Row]], None]:
    return with_rows(lambda rows: [row.pop(name) for row in rows] and None)


def in_line(number: int, change: Callable[[str], str]) -> Callable[[str], str]:
    def changed(text: str) -> str:
        lines = text.split("\n")
        lines[number] = change(lines[number])
        return "\n".join(lines)

    return changed


def more_columns(text: str, name: str) -> str:
    first, *lines = text.splitlines()
    sign = "\t" if "\t" in first else ","
    return "".join(f"{line}\n" for line in (first + sign + name, *(line + sign + "1" for line in lines)))


def npz_with(path: Path, rows: list[Row], **arrays: Any) -> None:
    np.savez(path, **{**{name: column(rows, name, "npz") for name in rows[0]}, **arrays})


def swapped(rows: list[Row]) -> None:
    rows[2]["time"], rows[3]["time"] = rows[3]["time"], rows[2]["time"]


def faults() -> Iterator[Fault]:
    for name in ("load", "total", "known", "height"):
        yield Fault("text in a number column", put(3, name, "hot"), 3, name)
        yield Fault("inf", put(20, name, float("inf")), 20, name)
        yield Fault("more than single precision holds", put(4, name, 1e300), 4, name)
        yield Fault("true", everywhere(name, lambda n: n > 3), 0, name, ("jsonl", "parquet", "npz"))
        yield Fault("a list", put(3, name, [1.0]), 3, name, ("jsonl",))
        yield Fault("an object", put(3, name, {"a": 1}), 3, name, ("jsonl",))
        yield Fault("dates", everywhere(name, lambda n: pd.Timestamp(n, unit="s")), 0, name, ("parquet",))
        yield Fault("dates", everywhere(name, lambda n: np.datetime64(n, "s")), 0, name, ("npz",))
        yield Fault("complex", everywhere(name, lambda n: complex(n, 1)), 0, name, ("npz",))
        yield Fault("decimal comma", put(3, name, "1,5"), 3, name)
        yield Fault("a unit", put(3, name, "5 kW"), 3, name)
    for name, value in (("load", None), ("known", None), ("load", "NaN"), ("known", "NA")):
        tasks = ("values",) if name == "load" else ("forecast", "values")
        yield Fault(f"{value} without a mask", put(3, name, value), 3, name, tasks=tasks)
        yield Fault(f"{value} without a mask, last row", put(27, name, value), 27, name, tasks=tasks)
    yield Fault("no value at all", everywhere("load", lambda _: None), 0, "load", tasks=("values",))
    yield Fault(
        "no value at all",
        everywhere("total", lambda _: None),
        None,
        "total",
        tasks=("values",),
        doors=("train", "score"),
    )
    yield Fault(
        "no value in a series",
        with_rows(lambda rows: [row.update(load=None, total=None) for row in rows[14:]] and None),
        14,
        "load",
        tasks=("forecast",),
        doors=("predict", "demo"),
    )
    yield Fault("no value of a column", everywhere("total", lambda _: None), None, "total", tasks=("forecast",),
                doors=("train", "score"))  # fmt: skip
    yield Fault("out of order", with_rows(swapped), 3, "time")
    yield Fault("a time twice", put(3, "time", "2024-01-01 02:00"), 3, "time")
    yield Fault("a row twice", with_rows(lambda rows: [*rows[:4], *rows[3:]]), 4, "time")
    for value in (None, "", "soon", "2024-13-01 00:00", "2024-01-01 25:00", "01.01.2024 03:00", "2024-02-30 01:00"):
        yield Fault(f"time {value!r}", put(3, "time", value), 3, "time")
    for value in (
        5,
        5.5,
        True,
        "5",
        "2024-01-01 03:00+01:00",
        "2024-01-01 03:00Z",
        "9999999-01-01 00:00",
        "3 o'clock",
    ):
        formats = FORMATS if isinstance(value, str) else ("jsonl",)
        yield Fault(f"time {value!r}", put(3, "time", value), 3, "time", formats)
    zones = ("+01:00", "+02:00")
    yield Fault(
        "two time zones", everywhere("time", lambda n: f"2024-01-01 {n % 14:02d}:00{zones[n > 20]}"), 21, "time"
    )
    yield Fault("numbers for dates", everywhere("time", lambda n: n % 14), 0, "time", tasks=("forecast",))
    yield Fault("inf for a time", everywhere("time", lambda n: n % 14 if n % 14 < 13 else float("inf")), 13, "time",
                tasks=("values",))  # fmt: skip
    yield Fault("text among numbers", everywhere("time", lambda n: n % 14 if n != 5 else "soon"), 5, "time",
                tasks=("values",))  # fmt: skip
    yield Fault("true for times", everywhere("time", lambda n: n % 2 == 1), 0, "time", ("jsonl", "parquet", "npz"))
    yield Fault("id missing", put(3, "id", None), 3, "id")
    for name in READS["forecast"]:
        yield Fault("column missing", without(name), None, name)
        yield Fault("column missing in one row", with_rows(lambda rows, n=name: rows[3].pop(n)), 3, name, ("jsonl",))
        yield Fault("column twice", with_text(lambda text, n=name: more_columns(text, n)), None, name, TEXTS)
        yield Fault("key twice", with_text(in_line(3, lambda line, n=name: f'{{"{n}": 1, {line[1:]}')), 3, name,
                    ("jsonl",))  # fmt: skip
        yield Fault("two dimensions", lambda path, rows, n=name: npz_with(path, rows, **{n: np.zeros((28, 2))}),
                    None, name, ("npz",))  # fmt: skip
        yield Fault("another length", lambda path, rows, n=name: npz_with(path, rows, **{n: np.zeros(27)}),
                    None, name, ("npz",))  # fmt: skip
        yield Fault("objects", lambda path, rows, n=name: npz_with(path, rows,
                    **{n: np.array([row[n] for row in rows], dtype=object)}), None, name, ("npz",))  # fmt: skip
    of_text = (*TEXTS, "jsonl")
    yield Fault("empty", with_bytes(lambda _: b""))
    yield Fault("header only", with_text(lambda text: text.split("\n")[0] + "\n"), formats=TEXTS)
    yield Fault("no row", lambda path, rows: pd.DataFrame(rows[:0], columns=list(rows[0])).to_parquet(path),
                formats=("parquet",))  # fmt: skip
    yield Fault("no row", lambda path, rows: np.savez(path, **{name: np.zeros(0) for name in rows[0]}),
                formats=("npz",))  # fmt: skip
    yield Fault("blank lines only", with_text(lambda _: "\n\n\n"), formats=of_text)
    yield Fault("header missing", with_text(lambda text: text.partition("\n")[2]), None, "id", TEXTS,
                doors=("train", "score", "predict"))  # fmt: skip
    yield Fault("ragged: short", with_text(in_line(4, lambda line: line[: line.rindex(",")] if "," in line else
                line[: line.rindex("\t")])), 3, formats=TEXTS)  # fmt: skip
    yield Fault("ragged: long", with_text(in_line(4, lambda line: line + (",1" if "," in line else "\t1"))), 3,
                formats=TEXTS)  # fmt: skip
    yield Fault("ragged: last", with_text(lambda text: text + ("b,2024" if "," in text else "b\t2024")), 28,
                formats=TEXTS)  # fmt: skip
    for sign in ";", "|", " ":
        yield Fault(f"delimiter {sign!r}", with_text(lambda text, s=sign: text.replace(",", s).replace("\t", s)), None,
                    "id", TEXTS, doors=("train", "score", "predict"))  # fmt: skip
    yield Fault("a quote without its end", with_text(in_line(4, lambda line: '"' + line)), formats=TEXTS)
    yield Fault("latin-1", with_text(lambda text: text.encode("latin-1")), 0, formats=TEXTS)
    yield Fault("utf-16", with_text(lambda text: text.encode("utf-16")), formats=of_text)
    yield Fault("null byte", with_text(in_line(4, lambda line: line.replace(".0", "\0.0", 1))), formats=("csv",),
                doors=("train", "score", "predict"))  # fmt: skip
    yield Fault("no JSON", with_text(in_line(3, lambda line: line[:-1])), 3, formats=("jsonl",))
    yield Fault("a list a line", with_text(in_line(3, lambda _: "[1, 2]")), 3, formats=("jsonl",))
    yield Fault("one array of records", with_text(lambda text: f"[{','.join(text.splitlines())}]"), 0,
                formats=("jsonl",))  # fmt: skip
    yield Fault("cut short", with_bytes(lambda content: content[: len(content) // 2]),
                formats=("parquet", "npz", "csv.gz"))  # fmt: skip
    yield Fault("no such format", with_bytes(lambda _: b"\x89PNG\r\n\x1a\n\0\0\xff\xfe" * 9))
    yield Fault("a static number changes", put(3, "height", 9.0), 3, "height")
    yield Fault("a static class changes", put(3, "kind", "left"), 3, "kind")
    yield Fault("a static number is missing", put(3, "height", None), 3, "height")
    yield Fault("a static class is missing", put(3, "kind", None), 3, "kind")
    yield Fault("unknown class", with_rows(lambda rows: [row.update(kind="left") for row in rows[14:]] and None), 14,
                "kind", tasks=("forecast",), doors=("score", "predict", "demo"))  # fmt: skip
    yield Fault("shorter than the look-back", with_rows(lambda rows: rows[:17]), 16, tasks=("forecast",))
    yield Fault("shorter than a forecast", with_rows(lambda rows: rows[:19]), 18, tasks=("forecast",),
                doors=("train", "score"))  # fmt: skip
    for row in 12, 13:
        yield Fault(f"known of {13 - row} rows ahead", put(row, "load", 1.0), None, "known", tasks=("forecast",),
                    doors=("predict", "demo"))  # fmt: skip


# ---- Doors ------------------------------------------------------------------------------------------------------


@functools.cache
def trained() -> Path:
    """A folder with a model of each task, and the table that they were trained on."""
    folder = Path(tempfile.mkdtemp(prefix="bad_tables_"))
    write(folder / "good.csv", good_rows())
    for task in RECIPES:
        written_recipe(folder, task, "good.csv")
        command(folder, folder, task, "--output_dir", str(folder / task))
    return folder


def written_recipe(folder: Path, task: str, name: str) -> None:
    content = json.loads(json.dumps(RECIPES[task]).replace("good.csv", name))
    (folder / f"{task}.yaml").write_text(write_yaml(content))


def command(folder: Path, data: Path, task: str, *options: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            run_recipe(None, None, [str(folder / f"{task}.yaml"), "--data_dir", str(data), *options], "run")
        except SystemExit as error:
            raise SystemExit(error.code if isinstance(error.code, str) else said.getvalue()) from error


def at_door(door: str, task: str, folder: Path, path: Path) -> None:
    models, output = trained(), str(folder / "out")
    if door == "demo":
        shown = ForecastModel(models / task)
        shown.forecast(shown.upload(path))
    elif door == "predict":
        predict([str(models / task), "--input_file", str(path), "--output_file", f"{output}.jsonl", "--overwrite"])
    else:
        written_recipe(folder, task, path.name)
        scored = ["--eval_only", str(models / task)] if door == "score" else []
        command(folder, folder, task, "--output_dir", output, "--overwrite", *scored)


DOORS = {f"{door} {task}": (door, task) for task in RECIPES for door in ("train", "score", "predict")}
DOORS["demo forecast"] = ("demo", "forecast")


def good_of(name: str) -> Callable[[], list[Row]]:
    """Return what makes the rows that a door takes."""
    door, task = DOORS[name]
    return functools.partial(good_rows, 2 if task == "forecast" and door in ("predict", "demo") else 0)


def check_good(name: str) -> None:
    """Raise what a door says of good tables: what it refuses of the others is their fault."""
    folder = Path(tempfile.mkdtemp(prefix="good_table_"))
    for kind in FORMATS:
        write(folder / f"good.{kind}", good_of(name)())
        at_door(*DOORS[name], folder, folder / f"good.{kind}")


def tables(name: str) -> Iterator[Case]:
    """Every fault in every format, at one door."""
    door, task = DOORS[name]
    trained()
    read = set(READS[task]) - ({"total"} if (door, task) == ("predict", "values") else set())
    folder = Path(tempfile.mkdtemp(prefix="bad_table_"))
    good = good_of(name)
    for fault in faults():
        if task not in fault.tasks or door not in fault.doors or fault.column not in (None, *read):
            continue
        for kind in FORMATS:
            if kind not in fault.formats:
                continue
            path = folder / f"bad.{kind}"

            def run(fault: Fault = fault, path: Path = path) -> None:
                path.unlink(missing_ok=True)
                fault.spoil(path, good())
                at_door(door, task, path.parent, path)

            # The demo shows every format as a table with a line of names.
            rows = [] if fault.row is None else [fault.row + (2 if kind in TEXTS else 1)]
            rows += [fault.row + 2] if door == "demo" and fault.row is not None else []
            files = [path.name, "the table"] if door == "demo" else [path.name]
            found = f" & '{fault.column}'" if fault.column is not None else ""
            words = [f"{file} & {line} {row}{found}" for file in files for row in rows for line in ("row", "line")]
            yield Case(
                f"{name}, {kind}: {fault.name}, {fault.column}", tuple(words or [f + found for f in files]), run
            )


def judge(case: Case) -> str:
    return (of_the_api if case.name.startswith("demo") else of_a_command)(case)


CASES: dict[str, Callable[[], Iterator[Case]]] = {name: functools.partial(tables, name) for name in DOORS}


@pytest.mark.chaos
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", CASES)
def test_all(part: str) -> None:
    check_good(part)
    assert not tried(CASES[part](), judge)


if __name__ == "__main__":
    for part in sys.argv[1:] or CASES:
        check_good(part)
        tried(CASES[part](), judge)
