"""YAML read strictly: a key given twice is refused, 1e-3 is a number, and every error names the file and the line.

Needs `pyyaml` (extra `train`).
"""

import re
from collections.abc import Hashable
from typing import Any


try:
    import yaml
except ImportError as error:
    raise ImportError("recipes need pyyaml: pip install 'hf_rnn_seq2seq[train]'") from error
from .files import DataError, sentence


class OptionsError(DataError):
    """Options that cannot be used; the message names `section.key`."""


def read_yaml(text: str, name: str) -> Any:
    """Return what a YAML text says; an OptionsError calls it by `name` and says the line."""
    try:
        content = yaml.load(text, Loader=StrictLoader)
        _check_size(content)
        return content
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        raise OptionsError(f"{name}: not YAML ({getattr(error, 'problem', None) or sentence(error)}{line})") from error
    except (ValueError, TypeError, RecursionError) as error:
        # What building the values raises: a date that there is not, a key that is a list, brackets without end.
        raise OptionsError(f"{name}: YAML with a value that cannot be used ({sentence(error)})") from error


# Values in a YAML file, each counted as often as it is named: aliases of aliases grow beyond all memory.
_MOST_VALUES = 100_000


def _check_size(content: Any) -> None:
    """Refuse aliases that grow without end, or into themselves; a ValueError."""
    to_count, count = [content], 0
    while to_count:
        value = to_count.pop()
        count += 1
        if count > _MOST_VALUES:
            raise ValueError(f"got more than {_MOST_VALUES} values, aliases written out")
        to_count += [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []


def write_yaml(content: Any) -> str:
    """Return plain Python values as YAML text, in their order."""
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


class StrictLoader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number (YAML 1.1 wants 1.0e-3) and refuses a key given twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
