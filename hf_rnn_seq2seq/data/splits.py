"""Splits of a data set: their names, their sizes, and validation data that is held out of the training data.

Also the one import of `datasets` (extra `train`) for all that reads data.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar


try:
    from datasets import Dataset as Dataset
    from datasets import DatasetDict as DatasetDict
except ImportError as error:
    raise ImportError("reading data needs datasets: pip install 'hf_rnn_seq2seq[train]'") from error
from .files import DataError
from .option_checks import check_range, check_share


Item = TypeVar("Item")

SPLITS = ("train", "validation", "test")


@dataclass(kw_only=True)
class SizeOptions:
    """Sizes of the splits, for trials.

    Args:
        max_train_samples: use only the first so many training items; `None`: all. Likewise the next two.
        max_validation_samples: the same for validation items.
        max_test_samples: the same for test items.
    """

    max_train_samples: int | None = None
    max_validation_samples: int | None = None
    max_test_samples: int | None = None

    def __post_init__(self) -> None:
        check_range(self, *(f"max_{split}_samples" for split in SPLITS), least=1)


def first_samples(splits: Mapping[str, list[Item]], options: object) -> dict[str, list[Item]]:
    """Return the first `max_train_samples` items (or of another split) of each split; named test sets are tests."""
    return {
        split: items[: getattr(options, f"max_{split if split in SPLITS else 'test'}_samples")]
        for split, items in splits.items()
    }


def evenly_taken(count: int, number: int | None) -> list[int]:
    """Numbers of items taken evenly from `count` ones, whatever the seed; all of them if `number` is `None`."""
    if number is None or number >= count:
        return list(range(count))
    return [position * count // number for position in range(number)]


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
        units: the unit of each item; so large a `number` of them is held out, each as a whole.
        option: the option that asks for it, for the DataError where one of the two would be empty.
    """
    names = sorted(set(units))
    if not 0 < number < len(names):
        raise DataError(f"{option}: cannot hold out {number} of {len(names)}, which leaves one side empty")
    held = set(random.Random(seed).sample(names, number))
    sides: tuple[list[Item], list[Item]] = ([], [])
    for item, unit in zip(items, units, strict=True):
        sides[unit in held].append(item)
    return sides
