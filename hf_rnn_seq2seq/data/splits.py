"""Splits of a data set: their names, their sizes, and validation data that is held out of the training data.

Imports only the standard library and its siblings.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from .files import DataError
from .option_checks import check_range, check_share


Item = TypeVar("Item")

SPLITS = ("train", "validation", "test")


def check_sizes(options: object) -> None:
    """Refuse a `max_train_samples` (or of another split) below 1; ValueError."""
    check_range(options, *(f"max_{split}_samples" for split in SPLITS), least=1)


def first_samples(splits: Mapping[str, list[Item]], options: object) -> dict[str, list[Item]]:
    """Return the first `max_train_samples` items (or of another split) of each split; named test sets are tests."""
    return {
        split: items[: getattr(options, f"max_{split if split in SPLITS else 'test'}_samples")]
        for split, items in splits.items()
    }


@dataclass
class HoldoutOptions:
    """Validation data taken out of the training split, always the same for the same seed.

    Args:
        by: "speaker": whole speakers, so that the score is one of unknown voices; "utterance": any utterances.
        fraction: share of the speakers or utterances.
        seed: seed of the choice.
    """

    by: Literal["speaker", "utterance"] = "speaker"
    fraction: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_share(self, "fraction")


def hold_out(
    items: Sequence[Item], units: Sequence[str | int], number: int, seed: int, option: str
) -> tuple[list[Item], list[Item]]:
    """Return (rest, held out), both in the order of the items; the same for the same seed.

    Args:
        items: the training data.
        units: the unit of each item; a unit is held out as a whole.
        number: number of units that are held out.
        seed: seed of the choice.
        option: the option that asks for it, for the message.

    Raises:
        DataError: one of the two would be empty.
    """
    names = sorted(set(units))
    if not 0 < number < len(names):
        raise DataError(f"{option}: cannot hold out {number} of {len(names)}, which leaves one side empty")
    held = set(random.Random(seed).sample(names, number))
    sides: tuple[list[Item], list[Item]] = ([], [])
    for item, unit in zip(items, units, strict=True):
        sides[unit in held].append(item)
    return sides


def without_overlap(items: list[tuple[str, str]], train: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the (source, target) pairs whose source does not occur in the training data."""
    trained = {source for source, _ in train}
    return [pair for pair in items if pair[0] not in trained]
