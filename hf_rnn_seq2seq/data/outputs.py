"""Files and folders that a command writes: checked before the work begins, replaced in one step at its end.

Finished work is never lost to a command that fails, or that was not told to replace it (`--overwrite`). What is
written has a new name of its own until it is whole: nobody reads a half, and no link that somebody put there is
followed. Imports only the standard library.
"""

import errno
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


# The formats in which matplotlib draws without another program.
PICTURE_FORMATS = ("png", "svg", "pdf", "eps", "ps", "jpg", "jpeg", "tif", "tiff", "webp")


def check_output_file(path: str | Path, option: str, overwrite: bool) -> None:
    """Refuse a file that cannot be written, or is there and not to be overwritten; `option` is what named it."""
    path = Path(path)
    if path.is_dir():
        raise FileExistsError(f"{option}: {path} is a folder, wanted the name of a file")
    if path.exists() and not path.is_file():
        raise FileExistsError(f"{option}: {path} is a device or a pipe, wanted the name of a file")
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


# What an operating system says of a disk, and not of what was asked of it.
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@contextmanager
def writing(path: str | Path, partial: Path | None = None) -> Iterator[None]:
    """Name a failure to write: an OSError of `path` where the disk is full, read-only or broken.

    Libraries that write without Python report that in words of their own, or as nonsense; they are asked for the
    number of the error, and the disk is tried. `partial` is what `path` is called while it is written.
    """
    try:
        yield
    except OSError as error:
        name = error.filename
        hidden = isinstance(name, str | Path) and partial is not None and Path(name).is_relative_to(partial)
        if error.errno is not None and (hidden or (name is None and error.errno in _OF_DISKS)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    except (ValueError, TypeError, LookupError):
        raise
    except Exception as error:
        number = _disk_error(error, (partial or Path(path)).parent)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _disk_error(error: Exception, folder: Path) -> int | None:
    """Return the number of the operating system's error behind an error of a library."""
    told = re.search(r"(?:os error|errno|code:) ?(\d+)", str(error), re.IGNORECASE)
    if told and int(told[1]) in _OF_DISKS:
        return int(told[1])
    probe = _beside(folder / "probe")
    try:
        with _created(probe) as handle:
            handle.write(bytes(2**16))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as failure:
        return failure.errno
    finally:
        probe.unlink(missing_ok=True)
    return None


def _beside(path: Path) -> Path:
    """Return a name that nobody knows, in the folder of a path, with its end: a picture's kind follows from it."""
    return path.with_name(f".partial-{os.getpid()}-{secrets.token_hex(6)}-{path.name[-40:]}")


def _clear_beside(path: Path) -> None:
    """Delete what killed processes have left beside a file or folder that is whole now."""
    wanted = re.compile(rf"\.partial-(\d+)-[0-9a-f]{{12}}-{re.escape(path.name[-40:])}")
    for left in path.parent.iterdir():
        found = wanted.fullmatch(left.name)
        if found and not Path(f"/proc/{found[1]}").exists() and Path("/proc/self").exists():
            with suppress(OSError):
                remove(left)


def _created(path: Path) -> Any:
    """Return a new file, open for writing bytes, with the permissions of any other."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), "wb")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a file to write, which replaces `path` at the end, on the disk; if the work fails, `path` stays as it was.

    A link is replaced, and not followed.
    """
    path = Path(path)
    partial = _beside(path)
    with writing(path, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise FileExistsError(errno.EEXIST, "there is something that is no file", str(path))
        try:
            _created(partial).close()
            yield partial
            _to_disk(partial)
            partial.replace(path)
            _clear_beside(path)
        finally:
            partial.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


@contextmanager
def replacing_folder(path: str | Path, names: Iterable[str] = ()) -> Iterator[Path]:
    """Yield a folder to write, which takes the place of `path` at the end; if the work fails, `path` stays as it was.

    What `path` holds of other names than `names` is copied. A kill between the two renames leaves no folder `path`;
    what was there is then beside it, until the next one that writes has finished.
    """
    path = Path(path).resolve()  # a folder may be named by a link
    if os.path.ismount(path) or path in (here := Path.cwd(), *here.parents):
        raise FileExistsError(
            f"{path} cannot be replaced as a whole, it is in use: wanted another folder, or one in it"
        )
    partial, earlier = _beside(path), _beside(path)
    with writing(path, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.mkdir()
            yield partial
            if path.exists():
                _copy_others(path, partial, names)
                partial.chmod(stat.S_IMODE(path.stat().st_mode))
            for file in partial.rglob("*"):
                if file.is_file() and not file.is_symlink():
                    _to_disk(file)
            _swap(partial, path, earlier)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    _clear_beside(path)
    shutil.rmtree(earlier, ignore_errors=True)  # the new one is whole, whether or not the old one can be deleted


def _copy_others(old: Path, new: Path, names: Iterable[str]) -> None:
    for one in old.iterdir():
        if one.name in names:
            continue
        if one.is_dir() and not one.is_symlink():
            shutil.copytree(one, new / one.name, symlinks=True)
        else:
            shutil.copy2(one, new / one.name, follow_symlinks=False)


def _swap(new: Path, path: Path, earlier: Path) -> None:
    if path.exists():
        path.rename(earlier)
    try:
        new.rename(path)
    except BaseException:
        if earlier.exists():
            earlier.rename(path)
        raise


def write_whole(path: str | Path, text: str) -> None:
    """Write a UTF-8 file so that it is there with all its content, on the disk, or as it was before."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as handle:
        handle.write(text)


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
