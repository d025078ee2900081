"""Text files read line by line: UTF-8, gzipped or not, as lines, columns of a table or JSON records.

Everything that reads training data from files goes through here, so that a bad file is refused in one way: with its
name and the number of the line. Needs only the standard library; imports nothing of this package.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class DataError(ValueError):
    """Data that cannot be used; the message names the file and the line, or the option."""


def text_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file, gzipped or not, without their line ends. Only \\n and \\r\\n end a line."""
    if not path.is_file():
        raise DataError(f"{path}: no such file (files are looked up under --data_dir)")
    number = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as handle:
        try:
            for number, raw in enumerate(handle, start=1):
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield text.removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start})") from error
        except (EOFError, gzip.BadGzipFile) as error:
            raise DataError(f"{path}, after line {number}: broken gzip file ({error})") from error


def _table_rows(path: Path, file_format: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a csv file (quoted as in RFC 4180) or a tsv file (never quoted)."""
    if file_format == "tsv":
        for number, line in enumerate(text_lines(path), start=1):
            yield number, line.split("\t")
        return
    reader = csv.reader((line + "\n" for line in text_lines(path)), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def table_columns(
    path: Path, file_format: str, columns: Mapping[str, str | int], header: bool | None
) -> Iterator[tuple[int, list[str]]]:
    """Chosen columns of a csv or tsv file.

    Args:
        path: the file.
        file_format: "csv" or "tsv".
        columns: option of the section `data` -> name or number of a column.
        header: whether the first line names the columns; `None`: yes if a column is given by name.

    Returns:
        Line number and values, in the order of `columns`, of each line.
    """
    named = any(isinstance(column, str) for column in columns.values())
    header = named if header is None else header
    if named and not header:
        raise DataError(f"{path}: columns are given by name {dict(columns)}, but data.header is false")
    indices: list[int] = []
    width = 0
    for number, row in _table_rows(path, file_format):
        if not indices:
            width = len(row)
            for name, column in columns.items():
                if isinstance(column, int) and column <= width:
                    indices.append(column - 1)
                elif isinstance(column, str) and column in row:
                    indices.append(row.index(column))
                else:
                    found = row if header else f"{width} columns"
                    raise DataError(f"{path}, line {number}: data.{name} is {column!r}, the file has {found}")
            if header:
                continue
        if len(row) != width:
            raise DataError(f"{path}, line {number}: {len(row)} columns, wanted {width} as in the first line")
        yield number, [row[index] for index in indices]


def _lookup(record: Any, column: str | int) -> Any:
    """The value of a column, `translation.en` reaching into a nested record; KeyError if it is missing."""
    if not isinstance(column, str):
        raise KeyError(column)
    if column in record:
        return record[column]
    value = record
    for key in column.split("."):
        if not isinstance(value, dict):
            raise KeyError(column)
        value = value[key]
    return value


def record_columns(record: Any, columns: Mapping[str, str | int]) -> list[Any]:
    """Chosen values of a record.

    Args:
        record: of a JSON line or of a Hub data set.
        columns: option of the section `data` -> name of a column.
    """
    values = []
    for name, column in columns.items():
        try:
            values.append(_lookup(record, column))
        except KeyError as error:
            raise DataError(f"data.{name} is {column!r}, the record has {sorted(record)}") from error
    return values


def json_columns(path: Path, columns: Mapping[str, str | int]) -> Iterator[tuple[int, list[Any]]]:
    """Line number and chosen values, in the order of `columns`, of each line of a JSON lines file."""
    for number, line in enumerate(text_lines(path), start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: a JSON {type(record).__name__}, wanted an object")
        try:
            yield number, record_columns(record, columns)
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
