"""Options: turning mappings into dataclasses with every key and type checked.

What `recipe.py` is made with; knows nothing of recipes. Not by the validators of huggingface_hub, which check the
model's configuration: they refuse 1 where a number is wanted, take any text for an enumeration (fields of
`Seq2SeqTrainingArguments` are such), and their messages have no path of keys.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Literal, TypeVar, Union

from ..data.strict_yaml import OptionsError, read_yaml, write_yaml


T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" with the known name most like a misspelt one, or nothing."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _alternatives(arguments: tuple[Any, ...]) -> list[Any]:
    """The members of a union. transformers writes `SomeEnum | str` where it takes the enum's values as text."""
    enumerated = any(isinstance(argument, type) and issubclass(argument, Enum) for argument in arguments)
    return [argument for argument in arguments if not (enumerated and argument is str)]


def _matches(value: Any, hint: Any) -> bool:
    """Whether a YAML value fits a type annotation."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_matches(value, argument) for argument in _alternatives(arguments))
    if origin is Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, list) and all(_matches(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            _matches(key, arguments[0]) and _matches(item, arguments[1]) for key, item in value.items()
        )
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return value in [member.value for member in hint]
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    """A type annotation in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        # "a number" says what "a whole number" says, and more.
        words = dict.fromkeys(_describe(argument) for argument in _alternatives(arguments))
        if "a number" in words:
            words.pop("a whole number", None)
        return " or ".join(words)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is list:
        return f"a list, each {_describe(arguments[0])}"
    if origin is dict or hint is dict:
        return "a mapping"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(str(member.value) for member in hint)
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "null"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def check_types(values: Mapping[str, Any], hints: Mapping[str, Any], path: str, reserved: Mapping[str, str]) -> None:
    """Refuse unknown keys, keys set elsewhere (`reserved`: where) and values of other types than `hints` says.

    Raises:
        OptionsError: as said; it names `path`, the section.
    """
    for name, value in values.items():
        if name in reserved:
            raise OptionsError(f"{path}.{name}: cannot be set in a recipe; {reserved[name]}")
        if name not in hints:
            known = [known for known in hints if known not in reserved]
            raise OptionsError(f"{path}.{name}: unknown key{nearest(str(name), known)}")
        if not _matches(value, hints[name]):
            raise OptionsError(
                f"{path}.{name}: wanted {_describe(hints[name])}, got {value!r} (type {type(value).__name__})"
            )


def check_least(values: Mapping[str, Any], least: Mapping[str, float], path: str) -> None:
    """Refuse numbers below the least that makes sense, and infinite ones.

    Args:
        values: the keys given, of the right types.
        least: key -> its smallest value.
        path: the section, for messages.

    Raises:
        OptionsError: as said.
    """
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise OptionsError(f"{path}.{name}: got {value}, wanted a finite number")
        if isinstance(value, int | float) and value < least.get(name, value):
            raise OptionsError(f"{path}.{name}: got {value}, wanted at least {least[name]}")


def _dataclass_in(hint: Any) -> Any:
    """The dataclass that an annotation holds, or `None`."""
    for candidate in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(candidate):
            return candidate
    return None


def build_options(cls: type[T], values: Any, path: str) -> T:
    """An options dataclass from a mapping, nested ones included; `path` is the section, for messages.

    The dataclass's `__post_init__` starts its messages with the name of the option.

    Raises:
        OptionsError: an unknown key, a wrong type, or a value that the dataclass refuses.
    """
    if not isinstance(values, dict):
        raise OptionsError(f"{path}: wanted a mapping of keys, got {values!r} (type {type(values).__name__})")
    hints = typing.get_type_hints(cls)
    built: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for name, value in values.items():
        nested = _dataclass_in(hints.get(name))
        if nested is not None and value is not None:
            built[name] = build_options(nested, value, f"{path}.{name}")
        else:
            plain[name] = value
    check_types(plain, hints, path, {})
    for option in dataclasses.fields(cls):  # type: ignore[arg-type]  # T is a dataclass
        required = option.default is dataclasses.MISSING and option.default_factory is dataclasses.MISSING
        if required and option.name not in values:
            raise OptionsError(f"{path}.{option.name}: missing, wanted {_describe(hints[option.name])}")
    try:
        return cls(**built, **plain)
    except ValueError as error:
        raise OptionsError(f"{path}.{error}") from error


__all__ = ["OptionsError", "build_options", "check_least", "check_types", "nearest", "read_yaml", "write_yaml"]
