"""Runs that are killed or stopped, at any time and again and again, and gone on with, are as if they had not been.

    python tests/chaos/test_interrupted.py --kills 100 --operations 40 --signals 50 --overwrites 30 --pairs 30
        --kinds 46 --averages 0

prints for each way `N of M hold`: SIGKILL after a random time, and before a random operation on files; SIGTERM and
SIGINT; SIGKILL of one of two processes; SIGKILL in a run of every kind of task; and while `--average` writes a mean,
before each operation on files (0) or before so many of them. Between the attempts the folder is moved, or named by
another path.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from broken_runs import (
    KINDS,
    VARIANTS,
    Child,
    Unbroken,
    arguments,
    at_operation,
    count_holding,
    options,
    outcome,
    scratch,
    seeded,
    several,
    snapshot,
    unfinished_names,
    whole_steps,
)

from hf_rnn_seq2seq.recipes.run_folder import recover
from hf_rnn_seq2seq.training.checkpoints import checkpoints_of


ATTEMPTS = 5


def moved(out: Path, generator: random.Random) -> Path:
    """The same folder by another path, or elsewhere."""
    way = generator.choice(["there", "there", "moved", "link", "dots"])
    if way == "moved" and out.exists() and not out.is_symlink():
        other = out.with_name(f"moved{generator.randrange(10**6)}")
        out.rename(other)
        return other
    if way == "link" and out.exists():
        link = out.with_name(f"link{generator.randrange(10**6)}")
        link.symlink_to(out.resolve())
        return link
    return out.parent / "." / out.name if way == "dots" else out


def broken_off(
    child_of: Callable[[Path, list[str], random.Random], int], unbroken: Unbroken, case: tuple[str, int]
) -> str | None:
    """Break a run off several times; return what is wrong in the end, or on the way."""
    variant, seed = case
    file, wanted, _ = unbroken[variant]
    generator = random.Random(seed)
    with scratch() as place:
        out = place / "out"
        for _ in range(generator.randint(1, ATTEMPTS)):
            before = whole_steps(out)
            status = child_of(out, arguments(file, out, "--resume"), generator)
            if unfinished_names(out):
                return f"never finished, but named: {unfinished_names(out)}"
            if before and not whole_steps(out):
                return f"checkpoints {before} were whole, and none is"
            if before and max(whole_steps(out)) < max(before):
                return f"checkpoints {before} were whole, left are {whole_steps(out)}"
            if status == 0:
                break
            out = moved(out, generator)
        for last in unbroken.children(arguments(file, out, "--resume")):
            if last.wait() != 0:
                return f"does not go on: {last.said()[-400:]}"
        found = outcome(out)
        if found != wanted:
            return (
                f"differs in {sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))[:5]}"
            )
    return None


def overwritten(unbroken: Unbroken, case: tuple[str, int]) -> str | None:
    """Kill a run that takes the place of a finished one; until it has finished the other one's model is there."""
    variant, seed = case
    (file, wanted, _), (other, _, _) = unbroken[variant], unbroken["epochs" if variant != "epochs" else "steps"]
    generator, earlier = random.Random(seed), (other.parent / "out" / "model.safetensors").read_bytes()
    with scratch() as place:
        out = place / "out"
        shutil.copytree(other.parent / "out", out)
        given = arguments(file, out, "--overwrite")
        for _ in range(generator.randint(1, 3)):
            status = kill_at_operation(out, given, generator, most=generator.choice([30, 120]))
            models = [path.read_bytes() for path in out.glob("**/model.safetensors")]
            if earlier not in models and not (out / "training_report.json").is_file():
                return "the earlier model is lost before the new one is finished"
            if status == 0:
                break
        last = Child(given)
        if last.wait() != 0:
            return f"does not begin again: {last.said()[-400:]}"
        return None if outcome(out) == wanted else f"ends with {sorted(outcome(out))} that are others"


class Means:
    """Two means of checkpoints: an earlier one, and the new one that is to take its place in a folder."""

    def __init__(self, unbroken: Unbroken):
        self.unbroken = unbroken
        for variant in ("epochs", "steps"):
            child = Child(self.arguments(variant, self.folder(variant)))
            assert child.wait() == 0, child.said()
        self.wanted = [self.outcome(self.folder(variant)) for variant in ("epochs", "steps")]
        self.operations = self.killed_at(0)

    def folder(self, variant: str) -> Path:
        return self.unbroken[variant][0].parent / "mean"

    def arguments(self, variant: str, out: Path) -> list[str]:
        file = self.unbroken[variant][0]
        models = map(str, checkpoints_of(file.parent / "out")[-2:])
        return [*arguments(file, out, "--overwrite", "--average", "--eval_only"), *models]

    @staticmethod
    def outcome(out: Path) -> dict[str, str]:
        """What a reader of the folder finds."""
        return {name: value for name, value in outcome(out).items() if not name.startswith(".")}

    def killed_at(self, number: int) -> Any:
        """Kill the writing of the new mean at an operation on files; 0: count them. Return what is wrong then."""
        with scratch() as place:
            out, given = place / "out", self.arguments("steps", place / "out")
            shutil.copytree(self.folder("epochs"), out)

            def act(count: int, file: object) -> None:
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                if number == 0:
                    (self.folder("epochs").parent / "count").write_text(str(count))

            status = Child(given, lambda: at_operation(act, place)).wait()
            if number == 0:
                assert status == 0
                return int((self.folder("epochs").parent / "count").read_text())
            if self.outcome(out) not in self.wanted and (out / "config.json").is_file():
                return f"a mixture answers: {sorted(self.outcome(out))}"
            recover(out)  # as the next command in the folder does
            if self.outcome(out) not in self.wanted:
                return f"neither the earlier nor the new comes back: {sorted(self.outcome(out))}"
            last = Child(given)
            if last.wait() != 0:
                return f"does not begin again: {last.said()[-400:]}"
            left = {name for name in snapshot(out) if name.startswith(".")} - {".lock"}
            return f"ends with others, or leaves {left}" if left or self.outcome(out) != self.wanted[1] else None


def averages(folder: Path, number: int | None, seed: int) -> list[str]:
    """Kill the writing of a mean before each operation on files, or before so many random ones."""
    means = Means(Unbroken(folder))
    every = list(range(1, means.operations + 1))
    numbers = every if number is None else sorted(random.Random(seed).sample(every, number))
    return count_holding("killed while a mean replaces another", means.killed_at, numbers)


def kill_in_time(unbroken: Unbroken, out: Path, given: list[str], generator: random.Random, seconds: float) -> int:
    child = Child(given)
    time.sleep(generator.uniform(0, seconds))
    child.kill()
    return child.wait()


def kill_at_operation(out: Path, given: list[str], generator: random.Random, most: int = 120) -> int:
    number = generator.randint(1, most)

    def act(count: int, place: object) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return Child(given, lambda: at_operation(act, out.parent)).wait()


def stop(out: Path, given: list[str], generator: random.Random, seconds: float) -> int:
    """Stop a run as SLURM and Ctrl-C do."""
    number = generator.choice([signal.SIGTERM, signal.SIGINT])
    child = Child(given)
    time.sleep(generator.uniform(0.1, seconds))
    child.kill(number)
    status = child.wait()
    said = child.said()
    # Before the command has begun the signal does what it does to any program.
    if status not in (0, 128 + number, -number):
        raise AssertionError(f"{number.name} gave the status {status}: {said[-400:]}")
    if status == 128 + number and "--resume" not in said and "start again" not in said:
        raise AssertionError(f"{number.name} does not say how to go on: {said[-400:]}")
    return status


def kill_one_of_two(out: Path, given: list[str], generator: random.Random, seconds: float) -> int:
    children = several(2, given)
    time.sleep(generator.uniform(0, seconds))
    first = generator.randrange(2)
    children[first].kill()
    children[first].wait()
    time.sleep(generator.uniform(0, 0.2))
    children[1 - first].kill()  # as torchrun does
    children[1 - first].wait()
    return -signal.SIGKILL


def harness(way: str, cases: list[tuple[str, int]], folder: Path) -> list[str]:
    unbroken = Unbroken(folder, 2 if way == "pairs" else 1)
    longest = max(unbroken[variant][2] for variant, _ in cases)
    ways = {
        "kills": partial(kill_in_time, unbroken, seconds=longest),
        "kinds": partial(kill_in_time, unbroken, seconds=longest),
        "operations": kill_at_operation,
        "signals": partial(stop, seconds=longest),
        "pairs": partial(kill_one_of_two, seconds=longest),
    }
    names = {
        "kills": "killed after a random time", "operations": "killed at an operation on files",
        "signals": "stopped by SIGTERM or SIGINT", "pairs": "two processes, killed",
        "kinds": "every kind of task, killed and gone on with",
    }  # fmt: skip
    if way == "overwrites":
        return count_holding("killed while it replaces another run", partial(overwritten, unbroken), cases)
    return count_holding(names[way], partial(broken_off, ways[way], unbroken), cases)


def test_a_run_that_is_killed_is_as_if_it_was_not(tmp_path: Path) -> None:
    assert not harness("operations", [("steps", 3)], tmp_path)


@pytest.mark.slow
def test_a_mean_takes_the_place_of_another_as_a_whole(tmp_path: Path) -> None:
    assert not averages(tmp_path, 3, seed=0)


@pytest.mark.chaos
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("way", "number"), [("kills", 100), ("operations", 40), ("signals", 50), ("overwrites", 30), ("pairs", 30)]
)
def test_runs_that_are_broken_off_are_as_if_they_were_not(way: str, number: int, tmp_path: Path) -> None:
    assert not harness(way, seeded(0, number), tmp_path)


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_runs_of_every_kind_and_means_are_as_if_they_were_not_broken_off(tmp_path: Path) -> None:
    assert not harness("kinds", seeded(0, 46, KINDS), tmp_path) + averages(tmp_path / "means", None, seed=0)


if __name__ == "__main__":
    chosen = options(__doc__, kills=100, operations=40, signals=50, overwrites=30, pairs=30, kinds=46, averages=0)
    wrong = []
    for name in ("kills", "operations", "signals", "overwrites", "pairs", "kinds"):
        if getattr(chosen, name):
            with scratch() as there:
                names = KINDS if name == "kinds" else VARIANTS
                wrong += harness(name, seeded(chosen.seed, getattr(chosen, name), names), there)
    if chosen.averages >= 0:
        with scratch() as there:
            wrong += averages(there, chosen.averages or None, chosen.seed)

    sys.exit(bool(wrong) and f"{len(wrong)} cases do not hold; variants: {', '.join([*VARIANTS, *KINDS])}")
