"""The models: all files of this folder, and no others, travel to the Hub with a model. Its classes are at the top.

Public here is the switch of what makes them fast: `plain` and the table `ACCELERATIONS`.
"""

from importlib import import_module
from typing import Any


_PUBLIC = {"ACCELERATIONS": "fast", "plain": "fast"}  # public name -> the file that defines it
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
