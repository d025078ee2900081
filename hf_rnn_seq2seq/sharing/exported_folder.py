"""A folder that an export wrote, as its runtime reads it: one whole export, and nothing that lies outside.

A folder may be half of one export and half of another, or come from a stranger. The runtimes are files that run alone:
an export puts this text into its copy of a runtime, where that imports it. Imports nothing else of this package.
"""

from __future__ import annotations

import hashlib
import json
import numbers
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np


MANIFEST = "manifest.json"  # name -> size and hash of each file of an export
MOST_BYTES = 2**31  # of a file: what a graph can have
MOST = 2**24  # symbols, steps and sizes that settings may ask for


def read_export(
    folder: Path, config: str, formats: Sequence[int], names: Sequence[str], named: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the settings in an exported folder, and the content of its files by name.

    Args:
        folder: the folder.
        config: the file of the settings.
        formats: those that the runtime reads; folders of the last one have a manifest.
        names: other files that have to be there.
        named: settings that name a file, or none.

    Raises:
        FileNotFoundError: a file is missing, or is none.
        ValueError: the folder is of another format, or a file is not what was exported, or lies elsewhere.
    """
    home = folder.resolve()
    # A cache of the Hub has links to files beside it.
    roots = (home, home.parents[1] / "blobs") if home.parent.name == "snapshots" else (home,)

    def read(name: str) -> bytes:
        # Path.resolve raises a RuntimeError for a link to itself
        path = Path(os.path.realpath(home / str(name))) if str(name).isprintable() else Path("/")
        if not any(path.is_relative_to(root) for root in roots):
            raise ValueError(f"{folder}: the file {name!r} lies outside the folder, wanted one in it")
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no {name}: it is not a folder that export wrote")
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{folder / name}: got {path.stat().st_size} bytes, wanted at most {MOST_BYTES}")
        return path.read_bytes()

    files = {config: read(config)}
    settings = json_object(files[config], folder / config)
    got = settings.get("format")
    if type(got) is not int or got not in formats:
        raise ValueError(f"{folder / config}: got format {got!r}, wanted {' or '.join(map(str, formats))}")
    manifest = json_object(read(MANIFEST), folder / MANIFEST) if got == formats[-1] else None
    for name in (*names, *filter(None, map(settings.get, named)), *(manifest or ())):
        files[name] = read(name)
    for name, content in files.items():
        if manifest is not None and manifest.get(name) != entry_of(content):
            raise ValueError(
                f"{folder / name} is not what {MANIFEST} says: the folder is no whole export, export again"
            )
    return settings, files


def entry_of(content: bytes) -> dict[str, Any]:
    """Return what a manifest says of a file."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def json_object(content: bytes, place: Path) -> dict[str, Any]:
    """Return a JSON object; a ValueError, which names the place: it is none, has NaN or a key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key is given twice")
        return found

    def no_number(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number of JSON")

    try:
        found = json.loads(content, object_pairs_hook=unique, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{place}: got a JSON {type(found).__name__}, wanted an object")
    return found


def check_settings(settings: Mapping[str, Any], place: Path, **kinds: tuple[type, ...]) -> None:
    """Refuse settings of another type than these, and whole numbers below 1 or beyond all reason."""
    for name, types in kinds.items():
        value = settings.get(name)
        if type(value) not in types or (type(value) is int and not 1 <= value <= MOST):
            words = " or ".join(f"a whole number from 1 to {MOST}" if kind is int else kind.__name__ for kind in types)
            raise ValueError(f"{place}: {name} is {str(value)[:80]!r}, wanted {words}")


def check_whole(name: str, value: Any, least: int, most: int = MOST) -> None:
    """Refuse an argument that is no whole number from `least` to `most`; numpy's are some, True is none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be a whole number; got {value!r}")
    if not least <= int(value) <= most:
        raise ValueError(
            f"{name} must be at {f'least {least}' if int(value) < least else f'most {most}'}; got {value}"
        )


def place_of(folder: Any, num_threads: Any) -> Path:
    """Return the path of an exported folder; refuse what is none, and threads that are no number of them."""
    if not isinstance(folder, str | os.PathLike) or not str(folder):
        raise ValueError(f"folder must be the path of an exported folder; got {folder!r}")
    check_whole("num_threads", num_threads, 1, 1024)
    return Path(folder)


def array_of(name: str, value: Any, whole: bool, missing: bool = False) -> np.ndarray:
    """Return an argument as an array, of integers that count from 0, if they are `whole`, or of single precision.

    Raises:
        ValueError: it holds something else, or values that are infinite or, unless they may be `missing`, NaN.
    """
    try:
        found = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} is no array ({error})") from error
    if found.dtype.kind not in ("iu" if whole else "iuf") and found.size:
        words = "whole numbers" if whole else "numbers, and nan for a missing one" if missing else "numbers"
        raise ValueError(f"{name} holds values of type {found.dtype}, wanted {words}")
    with np.errstate(over="ignore"):
        found = found.astype(np.int64 if whole else np.float32)
    wrong = found < 0 if whole else np.isinf(found) if missing else ~np.isfinite(found)
    if wrong.any():
        place = np.argwhere(wrong)[0].tolist()
        wanted = "0 or more" if whole else "a finite number" + (", or NaN where it is missing" if missing else "")
        raise ValueError(f"{name}{place} is {found[tuple(place)]}, wanted {wanted}")
    return found


def opened(place: Path, load: Callable[[], Any]) -> Any:
    """Return what a library makes of a file's content; a ValueError, which names the file, for whatever it raises."""
    try:
        return load()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        raise ValueError(f"{place}: it cannot be loaded ({' '.join(str(error).split())[:500]})") from error


def printable(text: str) -> str:
    """Return a text for a terminal, without what steers it."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda control: f"\\x{ord(control[0]):02x}", text)
