"""Files and Hub data sets, read row by row: UTF-8, gzipped or not, as lines, columns of a table or JSON records.

Everything that reads files of a user goes through here, so that a bad file is refused in one way: with its name and
the number of the line. Needs only the standard library, and `datasets` for the Hub; imports nothing of this package.
"""

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
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast


# The headers of the tables that this package writes: these alone have fields in quotes, see `write_table`.
PAIRS_HEADER = ("source", "rank", "score", "prediction", "references")
TRANSCRIPTS_HEADER = ("id", "reference", "hypothesis")
TOKENS_HEADER = ("token", "label", "prediction")
TEXTS_HEADER = ("text", "label", "prediction")
SPOKEN_HEADER = ("id", "source", "vectors", "reference_vectors", "heard")
_HEADERS = (PAIRS_HEADER, TRANSCRIPTS_HEADER, TOKENS_HEADER, TEXTS_HEADER, SPOKEN_HEADER)
_WRITTEN_HEADERS = {"\t".join(header) for header in _HEADERS}

# Errors of libraries about a file that they cannot read. tokenizers and safetensors raise nothing more special than
# Exception.
_READING_ERRORS = (OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, NotImplementedError)
_DAMAGE = (zlib.error, lzma.LZMAError, zipfile.BadZipFile, csv.Error, MemoryError)


class DataError(ValueError):
    """Data that cannot be used; the message names the file and the line, or the option."""


# ---- Errors -----------------------------------------------------------------------------------------------------


# Characters that steer a terminal: all control characters but the line end and the tab.
_STEERING = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """Return a text for a terminal: names and data may hold what clears its screen, or is no character."""
    return text.translate(_STEERING).encode("utf-8", "backslashreplace").decode("utf-8")


def sentence(error: BaseException) -> str:
    """Return the message of an error on one line; its type where it has none."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def first_few(names: Sequence[str]) -> str:
    """Return the first few of many names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 ({error.reason} at byte {error.start}), wanted text in UTF-8"


@contextmanager
def reading(
    place: str | Path | Callable[[], str], wanted: str, any_error: bool = False, damage: str = "damaged"
) -> Iterator[None]:
    """Turn errors of libraries about a file into a `DataError`: where, what is wrong, what was wanted.

    Args:
        place: the file; or a function that returns file and line, called when something is wrong.
        wanted: what the file should be, such as "an npz file".
        any_error: turn errors of every type, for libraries that raise a bare `Exception`.
        damage: how a compressed file is called that cannot be decompressed.
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
            what = _not_utf8(error)
        elif isinstance(error, gzip.BadGzipFile | EOFError | zlib.error | lzma.LZMAError | zipfile.BadZipFile):
            what = f"{damage} ({sentence(error)})"
        else:
            what = sentence(error)
        raise DataError(f"{where}: {what}; wanted {wanted}") from error


# Bytes of a file that is read as a whole: the largest tokenizers have tens of millions.
_MOST_BYTES = 2**28


def read_text(path: str | Path, most: int = _MOST_BYTES) -> str:
    """Return the text of a UTF-8 file, with a byte order mark or without; a DataError names the line that is not
    UTF-8, or says that there are more than `most` bytes.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise DataError(f"{path}: {'a folder' if path.is_dir() else 'a device or a pipe'}, wanted a file")
    if path.stat().st_size > most:
        raise DataError(f"{path}: got {path.stat().st_size} bytes, wanted at most {most}")
    with reading(path, "a file that can be read"), path.open("rb") as handle:
        return "".join(_decoded_lines(handle, str(path)))


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file; errors as `read_text`'s, and the line of what is not JSON, NaN included."""
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({sentence(error)})") from error


def read_object(path: str | Path) -> dict[str, Any]:
    """Return the object in a JSON file, as `read_json`."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: got a JSON {type(content).__name__}, wanted an object")
    return content


def check_text(text: str, name: str) -> str:
    r"""Return the text; refuse half of a surrogate pair, as from JSON's `\ud800`, which has no UTF-8 form."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise DataError(f"{name} holds {code}, half of a surrogate pair: {text!r}; wanted text") from None
    return text


# ---- Lines ------------------------------------------------------------------------------------------------------


_LONGEST_LINE = 2**27  # characters: a few kilobytes of a compressed file can be gigabytes of one line


def _decoded_lines(handle: BinaryIO, name: str) -> Iterator[str]:
    r"""Yield lines with their ends, which are \n, \r\n or \r; errors name the line."""
    number = 0
    wanted = "a file that can be read to its end"
    # Bytes that are not UTF-8 become surrogates, so that their line is known.
    decoded = io.TextIOWrapper(handle, "utf-8-sig", "surrogateescape", newline="")
    with reading(lambda: f"{name}, after line {number}", wanted, damage="broken gzip file"):
        try:
            for number, line in enumerate(iter(partial(decoded.readline, _LONGEST_LINE), ""), start=1):
                if len(line) == _LONGEST_LINE:
                    raise DataError(f"{name}, line {number}: got more than {_LONGEST_LINE} characters, wanted fewer")
                try:
                    line.encode("utf-8", "surrogateescape").decode("utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"{name}, line {number}: {_not_utf8(error)}") from error
                yield line
        finally:
            decoded.detach()  # garbage collection would close the standard input


def _lines_with_ends(path: Path) -> Iterator[str]:
    if path.is_dir():
        raise DataError(f"{path}: a folder, wanted a file")
    if not path.is_file():
        raise DataError(f"{path}: no such file (files are looked up under --data_dir)")
    with reading(path, "a file that can be read"), path.open("rb") as handle:
        raw = cast(BinaryIO, gzip.GzipFile(fileobj=handle)) if path.suffix == ".gz" else handle
        yield from _decoded_lines(raw, str(path))


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def text_lines(path: Path) -> Iterator[str]:
    r"""Yield lines of a UTF-8 file, gzipped or not, without their ends, which are \n, \r\n or \r and nothing else."""
    return map(_without_end, _lines_with_ends(path))


def input_lines() -> Iterator[str]:
    """Yield lines of the standard input, as those of a file: UTF-8 whatever the locale, without a byte order mark."""
    # It may be replaced by a text stream, as in a notebook.
    stream = getattr(sys.stdin, "buffer", None) or io.BytesIO(sys.stdin.read().encode("utf-8"))
    return map(_without_end, _decoded_lines(stream, "standard input"))


def on_one_line(text: str) -> str:
    """Return the text with a blank for each line end: an output has one line for each input."""
    return text.translate({ord("\r"): " ", ord("\n"): " "})


def split_blanks(line: str) -> list[str]:
    """Return fields between blanks and tabs. Other white space, such as U+00A0 in a number, is part of a field."""
    return re.findall(r"[^ \t]+", line)


# ---- Tables -----------------------------------------------------------------------------------------------------


def table_line(fields: Iterable[str]) -> str:
    """Return a line of tab-separated fields, in quotes as in RFC 4180 where one holds a quote, a tab or a line end."""
    quoted = ('"' + field.replace('"', '""') + '"' if re.search('["\t\n\r]', field) else field for field in fields)
    return "\t".join(quoted) + "\n"


def write_table(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a tab-separated file with one of the headers above, which `table_columns` reads back exactly."""
    with Path(path).open("w", encoding="utf-8", newline="") as handle:
        handle.writelines(map(table_line, (header, *rows)))


def is_written_here(path: Path) -> bool:
    """Return whether this package wrote a table: it has such a header, and its fields may stand in quotes."""
    return next(text_lines(path), None) in _WRITTEN_HEADERS


def quoted_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of a table with fields in quotes, as in RFC 4180; no fields of a blank line."""
    reader = csv.reader(_lines_with_ends(path), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def _table_rows(path: Path, file_format: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of a csv file (quoted) or a tsv file (only quoted if this package wrote it)."""
    if file_format == "csv":
        yield from quoted_rows(path, ",")
    elif is_written_here(path):
        # A blank line stands between sentences.
        yield from ((number, row) for number, row in quoted_rows(path, "\t") if row)
    else:
        yield from ((number, line.split("\t")) for number, line in enumerate(text_lines(path), start=1))


def _option(name: str) -> str:
    """Return how messages call the option of a column: a key of the section `data`, or an option of a script."""
    return name if name.startswith("--") else f"data.{name}"


def _index(name: str, column: str | int, row: list[str], header: bool, place: str) -> int:
    """Return the place of a column in a row, by its name in the header or by its number from 1 on."""
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
    """Yield line number and chosen values, in the order of `columns`, of each line of a csv or tsv file.

    Args:
        path: the file.
        file_format: "csv" or "tsv".
        columns: option of the section `data` -> name or number of a column.
        header: whether the first line names the columns; `None`: yes if a column is given by name.
    """
    named = any(isinstance(column, str) for column in columns.values())
    header = named if header is None else header
    if named and not header:
        raise DataError(f"{path}: columns are given by name {dict(columns)}, but data.header is false")
    indices: list[int] = []
    width = 0
    for number, row in _table_rows(path, file_format):
        place = f"{path}, line {number}"
        if not indices:
            width = len(row)
            indices = [_index(name, column, row, header, place) for name, column in columns.items()]
            if header:
                continue
        if len(row) != width:
            raise DataError(f"{place}: {len(row)} columns, wanted {width} as in the first line")
        yield number, [row[index] for index in indices]


# ---- Records ----------------------------------------------------------------------------------------------------


def _lookup(record: Any, column: str | int) -> Any:
    """Return the value of a column, `translation.en` reaching into a nested record; KeyError if it is missing."""
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


def _record_columns(record: Any, columns: Mapping[str, str | int], place: str) -> list[Any]:
    """Return chosen values of a record of a JSON line or of a Hub data set."""
    values = []
    for name, column in columns.items():
        option = _option(name)
        try:
            values.append(_lookup(record, column))
        except KeyError as error:
            raise DataError(f"{place}: {option} is {column!r}, the record has {sorted(record)}") from error
        for text in values[-1] if isinstance(values[-1], list) else values[-1:]:
            if isinstance(text, str):
                check_text(text, f"{place}: {option} {column!r}")
    return values


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; of a key given twice Python would keep the last value."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return record


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def json_columns(path: Path, columns: Mapping[str, str | int]) -> Iterator[tuple[int, list[Any]]]:
    """Yield line number and chosen values, in the order of `columns`, of each line of a JSON lines file."""
    for number, line in enumerate(text_lines(path), start=1):
        place = f"{path}, line {number}"
        try:
            record = json.loads(line, object_pairs_hook=_unique_keys)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not JSON ({sentence(error)})") from error
        if not isinstance(record, dict):
            raise DataError(f"{place}: a JSON {type(record).__name__}, wanted an object")
        yield number, _record_columns(record, columns, place)


# ---- Any of these -----------------------------------------------------------------------------------------------


def format_of(path: Path, wanted: Sequence[str], given: str | None = None, otherwise: str = "") -> str:
    """Return the format of a file: the given one, or what its name ends in (`.gz` may follow).

    A format that is not wanted is refused; `otherwise` ends the message, with other ways.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.removeprefix(".")
    found = given or {"json": "jsonl"}.get(suffix, suffix)
    if found not in wanted:
        raise DataError(
            f"{path}: the name tells no format; end it in .{', .'.join(wanted)} (.gz may follow){otherwise}"
        )
    return found


def files_of(
    names: str | Iterable[str], data_dir: Path, wanted: Sequence[str], given: str | None, otherwise: str
) -> Iterator[tuple[Path, str]]:
    """Yield path and format (see `format_of`) of each file of a split, which names one or several."""
    for name in [names] if isinstance(names, str) else names:
        yield data_dir / name, format_of(data_dir / name, wanted, given, otherwise)


def file_columns(
    path: Path, file_format: str, columns: Mapping[str, str | int], header: bool | None
) -> Iterator[tuple[str, list[Any]]]:
    """Yield place (file and line) and chosen values of each row of a jsonl, csv or tsv file; as `table_columns`."""
    is_json = file_format == "jsonl"
    rows = json_columns(path, columns) if is_json else table_columns(path, file_format, columns, header)
    yield from ((f"{path}, line {number}", values) for number, values in rows)


def hub_columns(
    name: str, config: str | None, split: Any, columns: Mapping[str, str | int], option: str
) -> Iterator[tuple[str, list[Any]]]:
    """Yield place and chosen values of each row of a split of the Hub; class labels as their names.

    `columns` is as for `table_columns`; `option` names the split, for messages.
    """
    from datasets import ClassLabel, load_dataset

    if not isinstance(split, str):
        raise DataError(f"{option}: got {split!r}, wanted the name of a split of {name}")
    with reading(f"{name}, split {split}", "a data set that datasets can load", any_error=True):
        rows = load_dataset(name, config, split=split)
    features = [rows.features.get(column) for column in columns.values()]
    features = [getattr(feature, "feature", feature) for feature in features]  # of each of a list of labels
    for number, record in enumerate(rows, start=1):
        place = f"{name}, split {split}, row {number}"
        values = _record_columns(record, columns, place)
        named = [f.int2str(v) if isinstance(f, ClassLabel) else v for f, v in zip(features, values, strict=True)]
        yield place, named
