"""What stands around a run: its processes that decide alike, the lock of its folder, a disk that fails.

Knows nothing of recipes and models.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout

from ..data.outputs import check_output_folder


T = TypeVar("T")

LOCK_FILE = ".lock"
# A killed run's data-loading processes, which have its lock too, look every 5 seconds whether it is there.
_LOCK_SECONDS = 10
# What a disk says that is full, past its quota, mounted to be read, or broken.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
# Libraries written in Rust and C++ say the number in words; torch says only that it could not write.
_NUMBER = re.compile(r"(?:os error|errno) (\d+)", re.IGNORECASE)
_TORCH = ("iostream error", "unexpected pos", "PytorchStreamWriter")


def on_first_process(work: Callable[[], T]) -> T:
    """Return what `work` returns in the first of several processes, or raise what it raises there, in all of them."""
    if not torch.distributed.is_initialized():
        return work()
    outcome: list[Any] = [None, None]
    if torch.distributed.get_rank() == 0:
        try:
            outcome[0] = work()
        except Exception as error:
            outcome[1] = error
    torch.distributed.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


@contextmanager
def only_process_in(folder: str | Path, option: str = "--output_dir") -> Iterator[None]:
    """The time in which this process alone works in a folder, which is made; a killed process leaves it free.

    Raises:
        BlockingIOError: another process is at work there.
    """
    folder = Path(folder)
    check_output_folder(folder, option)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE, timeout=_LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(f"{option}: another process is at work in {folder}: wait for it, or stop it") from None
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK_FILE).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # there is something in it
            for path in made:
                path.rmdir()


def disk_error(error: BaseException | None) -> tuple[int, str | None] | None:
    """Return the number that a failing disk gave, and the file if it is known; `None` for any other error."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    for each in chain:
        found = _NUMBER.search(str(each))
        number = each.errno if isinstance(each, OSError) and each.errno else int(found[1]) if found else None
        if number in _OF_THE_DISK:
            files = (str(one.filename) for one in chain if isinstance(one, OSError) and one.filename)
            return number, next(files, None)
    if any(words in str(each) for each in chain for words in _TORCH):
        return errno.EIO, None
    return None


@contextmanager
def naming_disk_errors(folder: str | Path, advice: Callable[[], str]) -> Iterator[None]:
    """Turn the errors of all libraries about a full or failing disk into an `OSError` that says so, and `advice`."""
    try:
        yield
    except Exception as error:
        found = disk_error(error)
        if found is None:
            raise
        number, file = found
        raise OSError(number, f"{os.strerror(number)}; {advice()}", file or str(folder)) from error
