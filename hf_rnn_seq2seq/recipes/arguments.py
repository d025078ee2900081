"""Arguments of the scripts: numbers within their range, files that can be written, and errors as one sentence.

Refused by argparse, with the name of the argument, before anything is read or computed. Needs only the standard
library.
"""

import argparse
import logging
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..data.files import DataError, printable, sentence
from ..data.outputs import check_output_file, is_first_process, picture_format


def whole_number(least: int) -> Callable[[str], int]:
    """A type for argparse: a whole number that is at least `least`."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"got {text!r}, wanted a whole number, at least {least}")
        return value

    return number


def number(least: float, most: float = math.inf) -> Callable[[str], float]:
    """A type for argparse: a finite number that is more than `least` and at most `most`."""

    def finite(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (least < value <= most and math.isfinite(value)):
            raise argparse.ArgumentTypeError(f"got {text!r}, wanted a finite number, more than {least:g}")
        return value

    return finite


def folder_of_model(text: str) -> str:
    """A type for argparse: the name of a folder; what it holds is seen when it is read."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted the folder of a model")
    return text


def file_to_write(text: str) -> Path:
    """A type for argparse: a file that is there or can be made; not a folder, nor within what is a file."""
    path = Path(text)
    if not text or path.is_dir() or text.endswith("/"):
        raise argparse.ArgumentTypeError(f"got the folder {text!r}, wanted the name of a file")
    _check_parents(path)
    return path


def folder_to_write(text: str) -> Path:
    """A type for argparse: a folder that is there or can be made."""
    path = Path(text)
    if not text or (path.exists() and not path.is_dir()):
        raise argparse.ArgumentTypeError(f"got the file {text!r}, wanted the name of a folder")
    _check_parents(path)
    return path


def picture_to_write(text: str) -> Path:
    """A type for argparse: a file as `file_to_write`, of a format that can be drawn."""
    path = file_to_write(text)
    try:
        picture_format(path)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


def check_files_to_write(parser: argparse.ArgumentParser, args: argparse.Namespace, *options: str) -> None:
    """End the program where the file of an option that was given is there, and --overwrite was not."""
    try:
        for option in options:
            if getattr(args, option):
                check_output_file(getattr(args, option), f"--{option}", args.overwrite)
    except OSError as error:
        parser.error(str(error))


def _check_parents(path: Path) -> None:
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise argparse.ArgumentTypeError(f"got {str(path)!r}, but {parent} is a file, wanted a folder there")
            return


def start_logging() -> None:
    """Show on stderr what is done, and when."""
    level = logging.INFO if is_first_process() else logging.WARNING
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=level)


class _Printable(logging.Formatter):
    """Messages without what steers a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@contextmanager
def one_sentence(*more: type[Exception]) -> Iterator[None]:
    """End the program with one sentence and status 1 where options, files or data, or what `more` errors name, cannot
    be used.
    """
    try:
        yield
        sys.stdout.flush()  # a full disk behind the standard output is known now
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        sys.exit(printable(f"error: {place}{sentence(error)}"))
    except Exception as error:
        if not isinstance(error, (DataError, *more)):
            raise
        sys.exit(printable(f"error: {error}"))
