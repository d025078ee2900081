"""Doors of the rooms: public names that are imported when they are first asked for, since files need different extras.

Imports only the standard library.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def door(room: str, public: Mapping[str, str]) -> tuple[list[str], Callable[[str], Any]]:
    """Return `__all__` and `__getattr__` of a room; `public`: a file of it -> the public names that it defines."""
    file_of = {name: file for file, names in public.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in file_of:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(import_module(f".{file_of[name]}", room), name)

    return list(file_of), get
