"""Checks of options, for the dataclasses of recipes: each refused value is named, with what was wanted.

Imports only the standard library.
"""

import math
from collections.abc import Iterable


_FILES = ("train", "validation", "test", "manifest", "frames", "file")


def _or_null(options: object, name: str) -> str:
    return " or null" if getattr(type(options), name, "") is None else ""


def check_range(options: object, *names: str, least: float, most: float | None = None) -> None:
    """Refuse numbers below `least` or above `most`, `None` excepted; the ValueError begins with the option's name."""
    for name in names:
        value = getattr(options, name)
        if value is None or (least <= value and (most is None or value <= most)):
            continue
        wanted = f"at least {least}" if most is None else f"{least} to {most}"
        raise ValueError(f"{name}: got {value}, wanted {wanted}{_or_null(options, name)}")


def check_share(options: object, *names: str, zero: bool = False) -> None:
    """Refuse shares that are not between 0 and 1, `None` excepted; `zero`: 0 is one, too."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not (0 < value < 1 or (zero and value == 0)):
            wanted = "at least 0 and less than 1" if zero else "between 0 and 1"
            raise ValueError(f"{name}: got {value}, wanted {wanted}")


def check_choice(options: object, name: str, choices: Iterable[str]) -> None:
    """Refuse a value that is none of the choices, `None` excepted."""
    value = getattr(options, name)
    if value is not None and value not in choices:
        raise ValueError(f"{name}: got {value!r}, wanted one of {', '.join(choices)}{_or_null(options, name)}")


def check_column(name: str, column: str | int) -> None:
    """Refuse a column number below 1, which Python would count from the end."""
    if isinstance(column, int) and column < 1:
        raise ValueError(f"{name}: got {column}, wanted a name or a number from 1 on")


def check_values(options: object) -> None:
    """
    Refuse what no option takes, of all of a dataclass: NaN, infinity, seeds that random generators do not take, empty
    names, and files that are none where null says so.
    """
    for name, value in vars(options).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name}: got {value}, wanted a finite number")
        if name.split("_")[-1] == "seed" and value is not None and not 0 <= value < 2**32:
            raise ValueError(f"{name}: got {value}, wanted at least 0 and less than 2**32")
        members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        is_empty = any(isinstance(member, str) and not member for member in members) or (
            name in _FILES and not members
        )
        if is_empty and value != getattr(type(options), name, None):
            raise ValueError(f"{name}: got {value!r}, wanted names that are not empty{_or_null(options, name)}")
