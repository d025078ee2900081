"""Disks that are full, read-only or broken at any write of a run: it is said, nothing is lost, and the run goes on.

    python tests/chaos/test_write_faults.py --faults 90 --sizes 20

An operation on files fails, or all do from then on, as a full disk has it; and files may only become so large, which
stops writers that are no Python, too. The run ends with a status other than 0 and one sentence that names what the
disk said, keeps the checkpoints that were whole, and goes on once there is room.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from broken_runs import (
    Child,
    Unbroken,
    arguments,
    at_operation,
    count_holding,
    options,
    outcome,
    scratch,
    seeded,
    whole_steps,
)
from safetensors import SafetensorError


FAULTS = (errno.ENOSPC, errno.EIO, errno.EROFS)


def judged(child: Child, unbroken: Unbroken, variant: str, place: Path, wanted: tuple[int, ...]) -> str | None:
    """Return what is wrong with a run whose writes failed, and with going on."""
    status, said, out = child.wait(), child.said(), place / "out"
    file, expected, _ = unbroken[variant]
    if status == 0:
        return None if outcome(out) == expected else "a fault is swallowed, and the outcome another"
    last = said.strip().splitlines()[-1]
    if "Traceback" in said or status != 1 or not any(os.strerror(number) in last for number in wanted):
        return f"status {status}, {wanted}: {said[-600:]}"
    named = [word.rstrip(":") for word in last.split() if word.startswith("checkpoint-")]
    if any(int(name.split("-")[1].split("/")[0]) not in whole_steps(out) for name in named if name.endswith("saved")):
        return f"the checkpoint that is named is not whole: {last}"
    before = whole_steps(out)
    again = Child(arguments(file, out, "--resume"))
    if again.wait() != 0:
        return f"does not go on: {again.said()[-400:]}"
    if before and "starts anew" in again.said():
        return "begins again, though there was a checkpoint"
    return None if outcome(out) == expected else "goes on to another outcome"


def failing(number: int, error: int, stays: bool, within: Path) -> Any:
    """Have an operation fail, or all from then on."""

    def act(count: int, place: Any) -> None:
        if count == number or (stays and count > number):
            if str(place).endswith(".safetensors"):
                raise SafetensorError(f"I/O error: {os.strerror(error)} (os error {error})")
            raise OSError(error, os.strerror(error), place)

    return at_operation(act, within)


def fault(unbroken: Unbroken, case: tuple[str, int]) -> str | None:
    variant, seed = case
    generator = random.Random(seed)
    number, error, stays = generator.randint(1, 150), generator.choice(FAULTS), generator.random() < 0.5
    with scratch() as place:
        given = arguments(unbroken[variant][0], place / "out", "--resume", "--results", str(place / "r.json"))
        child = Child(given, partial(failing, number, error, stays, place))
        complaint = judged(child, unbroken, variant, place, (error,))
        return complaint and f"operation {number}, {errno.errorcode[error]}, stays {stays}: {complaint}"


def too_large(unbroken: Unbroken, case: tuple[str, int]) -> str | None:
    variant, seed = case
    size = random.Random(seed).choice([1, 300, 1000, 2000, 4000, 8000, 12000, 16000, 20000])
    with scratch() as place:
        given = arguments(unbroken[variant][0], place / "out", "--resume")
        child = Child(given, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)), log=Path(os.devnull))
        status = child.wait()
        if status == 0:
            return None if outcome(place / "out") == unbroken[variant][1] else "another outcome"
        before = whole_steps(place / "out")
        again = Child(arguments(unbroken[variant][0], place / "out", "--resume"))
        if status != 1 or again.wait() != 0:
            return f"{size} bytes: status {status}; does not go on: {again.said()[-400:]}"
        same = outcome(place / "out") == unbroken[variant][1]
        return None if same and not (before and "starts anew" in again.said()) else f"{size} bytes: another outcome"


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_a_disk_that_fails_loses_nothing(tmp_path: Path) -> None:
    unbroken = Unbroken(tmp_path)
    assert not count_holding("write faults", partial(fault, unbroken), seeded(0, 90))
    assert not count_holding("files too large", partial(too_large, unbroken), seeded(0, 20))


def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    assert not count_holding("write faults", partial(fault, Unbroken(tmp_path)), [("steps", 0)])


if __name__ == "__main__":
    chosen = options(__doc__, faults=90, sizes=20)
    with scratch() as there:
        of = Unbroken(there)
        wrong = count_holding("write faults", partial(fault, of), seeded(chosen.seed, chosen.faults))
        wrong += count_holding("files too large", partial(too_large, of), seeded(chosen.seed, chosen.sizes))
    sys.exit(bool(wrong) and f"{len(wrong)} cases do not hold")
