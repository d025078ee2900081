"""Files and folders that a command writes: checked before the work begins, replaced in one step at its end.

Finished work is never lost to a command that fails, or that was not told to replace it (`--overwrite`). Imports only
the standard library.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


# The formats in which matplotlib draws without another program.
PICTURE_FORMATS = ("png", "svg", "pdf", "eps", "ps", "jpg", "jpeg", "tif", "tiff", "webp")


def check_output_file(path: str | Path, option: str, overwrite: bool) -> None:
    """Refuse a file that cannot be written, or is there and not to be overwritten; `option` is what named it."""
    path = Path(path)
    if path.is_dir():
        raise FileExistsError(f"{option}: {path} is a folder, wanted the name of a file")
    _check_folder_above(path, option)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{option}: {path} is there already: give --overwrite to replace it, or another name")


def check_output_folder(path: str | Path, option: str) -> None:
    """Refuse a folder that cannot be made; `option` is what named it."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{option}: {path} is a file, wanted a folder")
    _check_folder_above(path, option)


def _check_folder_above(path: Path, option: str) -> None:
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise FileExistsError(f"{option}: {path} cannot be written, {above} is a file")
    if not os.access(above, os.W_OK):
        raise PermissionError(f"{option}: {path} cannot be written, {above} is not writable")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a file to write, which replaces `path` at the end; if the work fails, `path` stays as it was."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")  # the kind of a picture follows from its suffix
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: str | Path, text: str) -> None:
    """Write a UTF-8 file so that it is there with all its content, on the disk, or as it was before."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file, as `write_whole`."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def is_first_process() -> bool:
    """Return whether this is the one of several processes (torchrun) that speaks and tidies up for all."""
    return os.environ.get("RANK", "0") == "0"


def remove(path: Path) -> None:
    """Delete a file or a whole folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def picture_format(path: str | Path) -> str:
    """Return the format of a picture by the end of its name, png if there is none; ValueError for an unknown one.

    Given to `savefig`, it keeps matplotlib from appending an end, so that the file has the name that it was given.
    """
    name = Path(path).suffix.removeprefix(".").lower() or "png"
    if name not in PICTURE_FORMATS:
        raise ValueError(f"got {str(path)!r}, wanted a name that ends in .{', .'.join(PICTURE_FORMATS)}")
    return name
