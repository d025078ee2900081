"""Options: turning mappings into dataclasses with every key and type checked.

What `recipe.py` is made with; knows nothing of recipes. Types are checked by huggingface_hub, as those of the model's
configuration are.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import reduce
from operator import or_
from typing import Any, Literal, TypeVar, Union

from huggingface_hub.dataclasses import type_validator

from ..data.option_checks import check_values
from ..data.strict_yaml import OptionsError, read_yaml, write_yaml


T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" with the known name most like a misspelt one, or nothing."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


def _in_yaml(hint: Any) -> Any:
    """Return the annotation of a value as YAML has it: 1 is a number, too, and an enumeration is one of its values."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is float:
        return int | float
    if _is_enum(hint):
        return Literal[tuple(member.value for member in hint)]
    if origin in (Union, types.UnionType):
        # transformers writes `SomeEnum | str` where it takes the enum's values as text.
        enumerated = any(map(_is_enum, arguments))
        return reduce(or_, (_in_yaml(member) for member in arguments if not (enumerated and member is str)))
    return origin[tuple(map(_in_yaml, arguments))] if origin in (list, dict) else hint


def _describe(hint: Any) -> str:
    """Return an annotation from `_in_yaml` in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        words = dict.fromkeys(map(_describe, arguments))
        if "a number" in words:  # says what "a whole number" says, and more
            words.pop("a whole number", None)
        return " or ".join(words)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is list:
        return f"a list, each {_describe(arguments[0])}"
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text", type(None): "null"}
    names[dict] = "a mapping"
    return names.get(origin or hint, getattr(hint, "__name__", str(hint)))


def check_types(values: Mapping[str, Any], hints: Mapping[str, Any], path: str, reserved: Mapping[str, str]) -> None:
    """Refuse unknown keys, keys set elsewhere (`reserved`: where) and values of other types than `hints` says."""
    for name, value in values.items():
        if name in reserved:
            raise OptionsError(f"{path}.{name}: cannot be set in a recipe; {reserved[name]}")
        if name not in hints:
            known = [known for known in hints if known not in reserved]
            raise OptionsError(f"{path}.{name}: unknown key{nearest(str(name), known)}")
        wanted = _in_yaml(hints[name])
        try:
            type_validator(name, value, wanted)
        except TypeError as error:
            got = f"{value!r} (type {type(value).__name__})"
            raise OptionsError(f"{path}.{name}: wanted {_describe(wanted)}, got {got}") from error


def build_options(cls: type[T], values: Any, path: str) -> T:
    """Return an options dataclass of a mapping, nested ones included; `path` is the section, for messages.

    The dataclass's `__post_init__` starts its messages with the name of the option.
    """
    if not isinstance(values, dict):
        raise OptionsError(f"{path}: wanted a mapping of keys, got {values!r} (type {type(values).__name__})")
    hints = typing.get_type_hints(cls)
    built: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints.get(name)
        nested: Any = next(filter(dataclasses.is_dataclass, (hint, *typing.get_args(hint))), None)
        if nested is not None and value is not None:
            built[name] = build_options(nested, value, f"{path}.{name}")
        else:
            plain[name] = value
    check_types(plain, hints, path, {})
    for option in dataclasses.fields(cls):  # type: ignore[arg-type]  # T is a dataclass
        required = option.default is dataclasses.MISSING and option.default_factory is dataclasses.MISSING
        if required and option.name not in values:
            raise OptionsError(f"{path}.{option.name}: missing, wanted {_describe(_in_yaml(hints[option.name]))}")
    try:
        options = cls(**built, **plain)
        check_values(options)
        return options
    except (ValueError, TypeError) as error:
        raise OptionsError(f"{path}.{error}") from error


__all__ = ["OptionsError", "build_options", "check_types", "nearest", "read_yaml", "write_yaml"]
