"""Delexicalised slots (Wen et al. 2015, Dusek & Jurcicek 2016): a name is a placeholder while the model works.

The values of some slots of a source, such as a restaurant's name, take part in a target word for word. A model that is
trained on placeholders in their place need not learn each name, and writes those it never saw. Imports only the
standard library; the runtime without torch has a copy.
"""

import re
from collections.abc import Mapping
from typing import Any


def check_slots(slots: Any) -> dict[str, str]:
    """Return slots, placeholder -> regular expression whose first group is the value in a source, once checked.

    Raises:
        ValueError: they are something else; the message names `delexicalised_slots`.
    """
    wanted = "wanted placeholders without blanks and regular expressions with a group for the value"
    if not isinstance(slots, Mapping):
        raise ValueError(f"delexicalised_slots: got {slots!r:.80}, {wanted}")
    for placeholder, pattern in slots.items():
        place = f"delexicalised_slots: got {placeholder!r}: {pattern!r}"
        if not isinstance(placeholder, str) or not isinstance(pattern, str) or not re.fullmatch(r"\S+", placeholder):
            raise ValueError(f"{place}, {wanted}")
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"{place}: {error}") from error
        if groups < 1:
            raise ValueError(f"{place}, {wanted}")
    return dict(slots)


def slot_values(source: str, slots: Mapping[str, str]) -> dict[str, str]:
    """Return placeholder -> value of the slots that a source has, which are those whose expression is found in it."""
    found = {placeholder: re.search(pattern, source) for placeholder, pattern in slots.items()}
    return {
        placeholder: match[1].strip() for placeholder, match in found.items() if match and (match[1] or "").strip()
    }


def delexicalised(text: str, values: Mapping[str, str]) -> str:
    """Return a source or a target with placeholders where values stand as whole words; of two, the longer goes first.

    `lexicalised` takes it back.
    """
    if not values:
        return text
    placeholders = {value: placeholder for placeholder, value in reversed(list(values.items()))}
    longest = sorted(placeholders, key=len, reverse=True)
    words = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)")
    return words.sub(lambda match: placeholders[match[0]], text)


def lexicalised(text: str, values: Mapping[str, str]) -> str:
    """Return a text with the values of its source in the place of placeholders; one without a value stays."""
    if not values:
        return text
    longest = sorted(values, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest)), lambda match: values[match[0]], text)
