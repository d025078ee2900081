"""Text files read line by line: UTF-8, gzipped or not, as lines, columns of a table or JSON records.

Everything that reads files of a user goes through here, so that a bad file is refused in one way: with its name and
the number of the line. Needs only the standard library; imports nothing of this package.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast


# The headers of the tables that this package writes: these alone have fields in quotes, see `write_table`.
PAIRS_HEADER = ("source", "rank", "score", "prediction", "references")
TRANSCRIPTS_HEADER = ("id", "reference", "hypothesis")
TOKENS_HEADER = ("token", "label", "prediction")
TEXTS_HEADER = ("text", "label", "prediction")
_WRITTEN = ("\t".join(header) for header in (PAIRS_HEADER, TRANSCRIPTS_HEADER, TOKENS_HEADER, TEXTS_HEADER))
_WRITTEN_HEADERS = frozenset(_WRITTEN)

# What libraries raise about a file that they cannot read. tokenizers and safetensors raise nothing more special than
# Exception.
_READING_ERRORS = (OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, NotImplementedError)
_DAMAGE = (zlib.error, lzma.LZMAError, zipfile.BadZipFile, csv.Error, MemoryError)


class DataError(ValueError):
    """Data that cannot be used; the message names the file and the line, or the option."""


# ---- Errors -----------------------------------------------------------------------------------------------------


def sentence(error: BaseException) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def reading(
    place: str | Path | Callable[[], str], wanted: str, any_error: bool = False, damage: str = "damaged"
) -> Iterator[None]:
    """Turn what libraries raise about a file into a `DataError`: where, what is wrong, what was wanted.

    Args:
        place: the file; or a function that gives file and line, called when something is wrong.
        wanted: what the file should be, such as "an npz file".
        any_error: turn every kind of error: for libraries that raise a bare `Exception`.
        damage: what a compressed file is called that cannot be decompressed.

    Raises:
        DataError: as said. One from within goes through unchanged.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        if not any_error and not isinstance(error, (*_READING_ERRORS, *_DAMAGE)):
            raise
        where = place() if callable(place) else place
        if isinstance(error, UnicodeDecodeError):
            what = f"not UTF-8 ({error.reason} at byte {error.start})"
        elif isinstance(error, gzip.BadGzipFile | EOFError | zlib.error | lzma.LZMAError | zipfile.BadZipFile):
            what = f"{damage} ({sentence(error)})"
        else:
            what = sentence(error)
        raise DataError(f"{where}: {what}; wanted {wanted}") from error


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, with a byte order mark or without.

    Raises:
        FileNotFoundError: no such file.
        DataError: a folder, not readable, or not UTF-8 (the message names the line).
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir():
        raise DataError(f"{path}: a folder, wanted a file")
    with reading(path, "a file that can be read"):
        content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 ({error.reason} at byte {error.start})") from error


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError, DataError: as `read_text`; also not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({sentence(error)})") from error


def check_text(text: str, name: str) -> str:
    """The text, or a `DataError` if it is none: half of a surrogate pair has no UTF-8 form.

    Args:
        text: from JSON (`"\\ud800"`), or from a command line that is not UTF-8.
        name: what a message calls it.
    """
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            code = f"U+{ord(text[error.start]):04X}"
            raise DataError(f"{name} holds {code}, half of a surrogate pair: {text!r}; wanted text") from None
    return text


# ---- Lines ------------------------------------------------------------------------------------------------------


def _raw_lines(handle: BinaryIO) -> Iterator[bytes]:
    r"""Lines with their ends, which are \n, \r\n or \r: of a file, decompressed or not, read as it is needed."""
    held = b""
    for block in iter(lambda: handle.read1(1 << 16), b""):  # type: ignore[attr-defined]  # buffered, as all of ours are
        lines = (held + block).splitlines(keepends=True)
        # A \r at the end of a block may have its \n in the next one.
        held = lines.pop() if not lines[-1].endswith(b"\n") else b""
        yield from lines
    yield from held.splitlines(keepends=True)


def _numbered_lines(handle: BinaryIO, name: str) -> Iterator[str]:
    """Decoded lines with their ends; errors name the line."""
    number = 0
    wanted = "a file that can be read to its end"
    with reading(lambda: f"{name}, after line {number}", wanted, damage="broken gzip file"):
        for number, raw in enumerate(_raw_lines(handle), start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                message = f"{name}, line {number}: not UTF-8 ({error.reason} at byte {error.start})"
                raise DataError(message) from error
            if text or number > 1:  # a byte order mark alone is no line
                yield text


def _lines_with_ends(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file, gzipped or not, with their line ends."""
    if path.is_dir():
        raise DataError(f"{path}: a folder, wanted a file")
    if not path.is_file():
        raise DataError(f"{path}: no such file (files are looked up under --data_dir)")
    with reading(path, "a file that can be read"), path.open("rb") as handle:
        raw = cast(BinaryIO, gzip.GzipFile(fileobj=handle)) if path.suffix == ".gz" else handle
        yield from _numbered_lines(raw, str(path))


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def text_lines(path: Path) -> Iterator[str]:
    r"""Lines of a UTF-8 file, gzipped or not, without their line ends. \n, \r\n and \r end a line, nothing else."""
    return map(_without_end, _lines_with_ends(path))


def input_lines() -> Iterator[str]:
    """Lines of the standard input, as those of a file: UTF-8 whatever the locale, without a byte order mark."""
    # What stands in for it may be text already, as in a notebook.
    stream = getattr(sys.stdin, "buffer", None) or io.BytesIO(sys.stdin.read().encode("utf-8"))
    return map(_without_end, _numbered_lines(stream, "standard input"))


def split_blanks(line: str) -> list[str]:
    """Fields between blanks and tabs. Other white space, such as the blank of `10<U+00A0>000`, is part of a field."""
    return re.findall(r"[^ \t]+", line)


# ---- Tables -----------------------------------------------------------------------------------------------------


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if re.search('["\t\n\r]', field) else field


def table_line(fields: Iterable[str]) -> str:
    """A line of tab-separated fields; one with a quote, a tab or a line end in it stands in quotes, as in RFC 4180."""
    return "\t".join(map(_quoted, fields)) + "\n"


def write_table(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a tab-separated file with one of the headers above, which `table_columns` reads back exactly."""
    with Path(path).open("w", encoding="utf-8", newline="") as handle:
        handle.writelines(map(table_line, (header, *rows)))


def is_written_here(path: Path) -> bool:
    """Whether a table is one that this package wrote: it has such a header, and its fields may stand in quotes."""
    return next(text_lines(path), None) in _WRITTEN_HEADERS


def quoted_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a table with fields in quotes, as in RFC 4180; no fields of a blank line."""
    reader = csv.reader(_lines_with_ends(path), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def _table_rows(path: Path, file_format: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a csv file (quoted as in RFC 4180) or a tsv file (never quoted, but by ourselves)."""
    if file_format == "csv":
        yield from quoted_rows(path, ",")
    elif is_written_here(path):
        # A blank line stands between sentences.
        yield from ((number, row) for number, row in quoted_rows(path, "\t") if row)
    else:
        for number, line in enumerate(text_lines(path), start=1):
            yield number, line.split("\t")


def check_column(name: str, column: str | int) -> None:
    """Refuse a column number below 1, which Python would count from the end; ValueError."""
    if isinstance(column, int) and column < 1:
        raise ValueError(f"{name}: got {column}, wanted a name or a number from 1 on")


def _option(name: str) -> str:
    """What messages call the option of a column: a key of the section `data`, or an option of a script."""
    return name if name.startswith("--") else f"data.{name}"


def _index(name: str, column: str | int, row: list[str], header: bool, place: str) -> int:
    """The place of a column in a row, by its name in the header or by its number from 1 on."""
    if isinstance(column, int) and 1 <= column <= len(row):
        return column - 1
    if isinstance(column, str) and row.count(column) > 1:
        count = row.count(column)
        raise DataError(f"{place}: {_option(name)} is {column!r}, but {count} columns have this name: {row}")
    if isinstance(column, str) and column in row:
        return row.index(column)
    found = row if header else f"{len(row)} columns"
    wanted = " (numbers count from 1)" if isinstance(column, int) and column < 1 else ""
    raise DataError(f"{place}: {_option(name)} is {column!r}{wanted}, the file has {found}")


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
            place = f"{path}, line {number}"
            indices = [_index(name, column, row, header, place) for name, column in columns.items()]
            if header:
                continue
        if len(row) != width:
            raise DataError(f"{path}, line {number}: {len(row)} columns, wanted {width} as in the first line")
        yield number, [row[index] for index in indices]


# ---- Records ----------------------------------------------------------------------------------------------------


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
            raise DataError(f"{_option(name)} is {column!r}, the record has {sorted(record)}") from error
        for text in values[-1] if isinstance(values[-1], list) else values[-1:]:
            if isinstance(text, str):
                check_text(text, f"{_option(name)} {column!r}")
    return values


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key given twice Python would keep the last value."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return record


def json_columns(path: Path, columns: Mapping[str, str | int]) -> Iterator[tuple[int, list[Any]]]:
    """Line number and chosen values, in the order of `columns`, of each line of a JSON lines file."""
    for number, line in enumerate(text_lines(path), start=1):
        try:
            record = json.loads(line, object_pairs_hook=_unique_keys)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON ({sentence(error)})") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: a JSON {type(record).__name__}, wanted an object")
        try:
            yield number, record_columns(record, columns)
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
