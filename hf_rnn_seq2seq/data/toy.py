"""Toy tasks: generated pairs of strings that show what a sequence-to-sequence model can learn.

Copying, reversing and sorting random strings (in the manner of Graves et al. 2014, "Neural Turing Machines") and
finding the one capital in them, with a test set of strings longer than any trained on; and writing dates of many
formats in one. The generator is seeded: the same options give the same data everywhere. Imports only the
standard library and its siblings.
"""

import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from typing import TypeAlias

from .files import DataError
from .option_checks import check_range


Pair: TypeAlias = tuple[str, str]

LONGER_SPLIT = "test_longer"
_STRING_TASKS: dict[str, Callable[[str], str]] = {
    "copy": lambda text: text,
    "reverse": lambda text: text[::-1],
    "sort": lambda text: "".join(sorted(text)),
    # The first of the capitals; the strings of this task have one, at any place.
    "capital": lambda text: text[capital_position(text)],
}
TOY_TASKS = (*_STRING_TASKS, "date")


def capital_position(text: str) -> int:
    """Return the place, counted from 0, of the first capital in a text that has one."""
    return next(place for place, letter in enumerate(text) if letter.isupper())


# A hundred years, so that two digits say which.
_FIRST_DAY, _LAST_DAY = date(1950, 1, 1), date(2049, 12, 31)
# Not those of the module calendar, which speaks the language of the machine.
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
# Dots and blanks: day first; slashes: month first, or year first if it has four digits; nothing: year first.
_DATE_FORMATS = (
    "{day} {month} {year}",
    "{day} {short_month} {year}",
    "{month} {day}, {year}",
    "{month} {day} {year}",
    "{short_month} {day}, {year}",
    "{month} {ordinal}, {year}",
    "{ordinal} of {month} {year}",
    "the {ordinal} of {month}, {year}",
    "{weekday}, {ordinal} of {month} {year}",
    "{weekday}, {month} {day}, {year}",
    "{short_weekday} {day} {short_month} {year}",
    "{day}-{short_month}-{short_year}",
    "{two_day}.{two_month}.{year}",
    "{two_day}.{two_month}.{short_year}",
    "{day}.{month_number}.{year}",
    "{two_month}/{two_day}/{year}",
    "{month_number}/{day}/{short_year}",
    "{year}/{two_month}/{two_day}",
    "{year}{two_month}{two_day}",
)
_CASES: tuple[Callable[[str], str], ...] = (str, str.lower, str.upper)


@dataclass
class ToyOptions:
    """Size of a generated toy task: `dataset_name: toy:copy`, or another of `TOY_TASKS`.

    Args:
        symbols: number of different letters, 1 to 26; not for `toy:date`, nor are the lengths.
        min_length: shortest string.
        max_length: longest string.
        train: number of training pairs.
        validation: number of validation pairs.
        test: number of test pairs; the splits share no source (for `toy:date`: no day).
        test_longer: number of pairs of a second test split, `test_longer`, of longer strings; 0: none.
        longer_min_length: shortest string of that split, more than `max_length`; `None`: `max_length` + 1.
        longer_max_length: longest string of that split; `None`: twice `max_length`.
        seed: seed of the generator.
    """

    symbols: int = 8
    min_length: int = 1
    max_length: int = 8
    train: int = 4000
    validation: int = 200
    test: int = 200
    test_longer: int = 0
    longer_min_length: int | None = None
    longer_max_length: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "symbols", least=1, most=26)
        if not 1 <= self.min_length <= self.max_length:
            raise ValueError(
                f"max_length: got {self.max_length}, wanted at least min_length={self.min_length}, and that 1"
            )
        check_range(self, "train", "validation", "test", least=1)
        check_range(self, "test_longer", least=0)
        shortest, longest = self.longer_lengths
        if shortest <= self.max_length:
            raise ValueError(f"longer_min_length: got {shortest}, wanted more than max_length={self.max_length}")
        if longest < shortest:
            raise ValueError(f"longer_max_length: got {longest}, wanted at least longer_min_length={shortest}")

    @property
    def longer_lengths(self) -> tuple[int, int]:
        """Lengths of the shortest and the longest string of the split `test_longer`."""
        shortest = self.longer_min_length if self.longer_min_length is not None else self.max_length + 1
        return shortest, self.longer_max_length if self.longer_max_length is not None else 2 * self.max_length


def toy_pairs(task: str, options: ToyOptions) -> dict[str, list[Pair]]:
    """Return the pairs of each split of a toy task (one of `TOY_TASKS`); the splits share no source.

    Raises:
        DataError: unknown task, not enough different strings or days, or longer dates.
    """
    if task not in TOY_TASKS:
        raise DataError(f"data.dataset_name: no toy task {task!r}, wanted one of {', '.join(TOY_TASKS)}")
    generator = random.Random(options.seed)
    sizes = {"train": options.train, "validation": options.validation, "test": options.test}
    wanted = sum(sizes.values())
    if task == "date":
        if options.test_longer:
            raise DataError(f"data.toy.test_longer: got {options.test_longer} for toy:date, whose lengths are fixed")
        drawn = _date_pairs(wanted, generator)
    else:
        drawn = _string_pairs(task, wanted, (options.min_length, options.max_length), options, generator)
    rest = iter(drawn)
    pairs = {split: list(islice(rest, size)) for split, size in sizes.items()}
    if options.test_longer:
        pairs[LONGER_SPLIT] = _string_pairs(task, options.test_longer, options.longer_lengths, options, generator)
    return pairs


def _string_pairs(
    task: str, wanted: int, lengths: tuple[int, int], options: ToyOptions, generator: random.Random
) -> list[Pair]:
    """Return different random strings, their lengths evenly drawn, with their targets."""
    letters = string.ascii_lowercase[: options.symbols]
    possible = sum(options.symbols**length for length in range(lengths[0], lengths[1] + 1))
    # Half of all strings, so that drawing without repetition ends soon.
    if 2 * wanted > possible:
        raise DataError(
            f"data.toy: {wanted} strings wanted, but only {possible} exist; use more symbols or longer strings"
        )
    strings: dict[str, None] = {}
    while len(strings) < wanted:
        drawn_letters = generator.choices(letters, k=generator.randint(*lengths))
        if task == "capital":
            place = generator.randrange(len(drawn_letters))
            drawn_letters[place] = drawn_letters[place].upper()
        strings["".join(drawn_letters)] = None
    drawn = list(strings)
    # Short strings run out first, so the end of the list holds longer ones: shuffle before cutting it into splits.
    generator.shuffle(drawn)
    return [(text, _STRING_TASKS[task](text)) for text in drawn]


def _date_pairs(wanted: int, generator: random.Random) -> list[Pair]:
    """Return different random days, each written in a random format and case, with their ISO 8601 form."""
    possible = (_LAST_DAY - _FIRST_DAY).days + 1
    if wanted > possible:
        raise DataError(f"data.toy: {wanted} days wanted, but toy:date has only {possible}")
    days = [_FIRST_DAY + timedelta(number) for number in generator.sample(range(possible), wanted)]
    return [(_written_date(day, generator), day.isoformat()) for day in days]


def _written_date(day: date, generator: random.Random) -> str:
    month, weekday = _MONTHS[day.month - 1], _WEEKDAYS[day.weekday()]
    ending = "th" if 11 <= day.day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10, "th")
    text = generator.choice(_DATE_FORMATS).format(
        day=day.day,
        two_day=f"{day.day:02}",
        ordinal=f"{day.day}{ending}",
        month=month,
        short_month=month[:3],
        month_number=day.month,
        two_month=f"{day.month:02}",
        year=day.year,
        short_year=f"{day.year % 100:02}",
        weekday=weekday,
        short_weekday=weekday[:3],
    )
    return generator.choice(_CASES)(text)
