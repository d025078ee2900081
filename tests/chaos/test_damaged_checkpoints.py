"""Checkpoints that a disk, or somebody, has changed: a resume passes over them by name, or says that none is left.

    python tests/chaos/test_damaged_checkpoints.py --single 60 --several 60

One file of one checkpoint, or several files of several: cut off, a bit flipped, deleted, exchanged with another
checkpoint's or another run's, replaced by a link, a folder or an empty seal. What goes on ends as an unbroken run.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from broken_runs import (
    Child,
    Unbroken,
    arguments,
    count_holding,
    options,
    outcome,
    recipe,
    scratch,
)
from tiny_runs import snapshot

from hf_rnn_seq2seq.training.checkpoints import SEAL_FILE, checkpoints_of


def cut(path: Path, other: Path, generator: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: generator.choice([0, 1, len(content) // 2, len(content) - 1])])


def flip(path: Path, other: Path, generator: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def delete(path: Path, other: Path, generator: random.Random) -> None:
    path.unlink()


def exchange(path: Path, other: Path, generator: random.Random) -> None:
    path.write_bytes((other / path.name).read_bytes())


def link(path: Path, other: Path, generator: random.Random) -> None:
    path.unlink()
    path.symlink_to(other / path.name)


def folder(path: Path, other: Path, generator: random.Random) -> None:
    path.unlink()
    path.mkdir()


def empty_seal(path: Path, other: Path, generator: random.Random) -> None:
    (path.parent / SEAL_FILE).write_text(generator.choice(["{}", "", "[]", "null", '{"files": {}}', "\0" * 99]))


def extra(path: Path, other: Path, generator: random.Random) -> None:
    path.with_name(f"other_{path.name}").write_bytes(path.read_bytes())


def whole_folder(path: Path, other: Path, generator: random.Random) -> None:
    shutil.rmtree(path.parent)
    shutil.copytree(other, path.parent)


DAMAGES: list[Callable[[Path, Path, random.Random], None]] = [
    *(cut, flip, delete, exchange, link, folder, empty_seal, extra, whole_folder),
]


class Damaged:
    """A run that was killed behind its last checkpoint, and another run of another seed."""

    def __init__(self, place: Path):
        self.unbroken = Unbroken(place)
        self.file, self.wanted, _ = self.unbroken["steps"]
        self.out = self.file.parent / "out"
        foreign = recipe(place / "foreign", training__max_steps=10, training__seed=99)
        child = Child(arguments(foreign, place / "foreign" / "out"))
        assert child.wait() == 0, child.said()
        self.foreign = place / "foreign" / "out"

    def complaint(self, case: tuple[int, int]) -> str | None:
        number, generator = case[0], random.Random(case[1])
        with scratch() as place:
            out = place / "out"
            out.mkdir()
            for path in checkpoints_of(self.out):
                shutil.copytree(path, out / path.name)
            shutil.copy(self.out / "recipe.yaml", out)
            found, before = checkpoints_of(out), snapshot(out)
            chosen = found if number > len(found) else generator.sample(found, number)
            for path in chosen:
                file = generator.choice(sorted(one for one in path.iterdir() if one.is_file()))
                kept = [one for one in checkpoints_of(self.out) if one.name != path.name]
                generator.choice(DAMAGES)(file, generator.choice([*kept, *checkpoints_of(self.foreign)]), generator)
            after = snapshot(out)
            touched = {name.split("/")[0] for name in {*before, *after} if before.get(name) != after.get(name)}
            child = Child(arguments(self.file, out, "--resume"))
            status, said = child.wait(), child.said()
            if status == 0:
                if outcome(out) != self.wanted:
                    return "ends with other weights"
                return "is not named" if found[-1].name in {*touched} and found[-1].name not in said else None
            if status != 1 or "none of the checkpoints" not in said or "Traceback" in said:
                return f"status {status}: {said[-300:]}"
            return None if len(chosen) > 1 else f"gives up: {said[-300:]}"


def cases(single: int, several: int, seed: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    generator = random.Random(seed)
    one = [(1, generator.randrange(10**6)) for _ in range(single)]
    return one, [(generator.randint(2, 4), generator.randrange(10**6)) for _ in range(several)]


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_damaged_checkpoints_are_passed_over(tmp_path: Path) -> None:
    one, more = cases(60, 60, 0)
    assert not count_holding("one file", Damaged(tmp_path).complaint, [*one, *more])


if __name__ == "__main__":
    chosen = options(__doc__, single=60, several=60)
    with scratch() as there:
        damaged = Damaged(there)
        one_file, more_files = cases(chosen.single, chosen.several, chosen.seed)
        wrong = count_holding("damage of one file", damaged.complaint, one_file)
        wrong += count_holding("damage of several files", damaged.complaint, more_files)
    sys.exit(bool(wrong) and f"{len(wrong)} cases do not hold")
