"""Runs of tiny recipes in forks of this process, to be killed, stopped and refused files; and what must hold then.

A run that was broken off and gone on with ends with the files of one that was not, to the byte.
"""

from __future__ import annotations

import argparse
import builtins
import io
import logging
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock


os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))  # what the tests share

import torch
from tiny_runs import TASKS, content, snapshot, write_data

from hf_rnn_seq2seq.recipes.command import main
from hf_rnn_seq2seq.recipes.options import write_yaml
from hf_rnn_seq2seq.training.checkpoints import SEAL_FILE, checkpoints_of, damage_of


torch.set_num_threads(1)

# Dropout, so that a run depends on the state of the random numbers, too.
_MODEL = {"model__hidden_dropout": 0.2, "card": None, "training__logging_steps": 3}
_STEPS = {"training__max_steps": 10}
# Ways in which a run saves and ends.
VARIANTS: dict[str, dict[str, Any]] = {
    "steps": _STEPS,
    "epochs": {
        **{"training__eval_strategy": "epoch", "training__save_strategy": "epoch"},
        **{"training__num_train_epochs": 3, "training__max_steps": -1},
    },
    "early stop": {
        **{"training__max_steps": 40, "training__early_stopping_patience": 2},
        **{"evaluation__best_metric": "exact_match"},
    },
    "last averaged": {**_STEPS, "training__average_checkpoints": 2, "training__average_which": "last"},
    "best averaged": {**_STEPS, "training__average_checkpoints": 2, "training__gradient_accumulation_steps": 2},
    "rare saves": {**_STEPS, "training__save_steps": 4},
    "no checkpoints": {"training__save_strategy": "no", "data__validation": None},
    "token budget": {**_STEPS, "training__max_tokens": 40},
}
# Every kind of task, and what else a run may do; the kind is that before the comma.
_EMA: dict[str, Any] = {"training__ema_decay": 0.9}
_ACCUMULATION: dict[str, Any] = {
    "training__gradient_accumulation_steps": 2,
    "training__per_device_train_batch_size": 4,
}
_PATIENCE: dict[str, Any] = {"training__max_steps": 40, "training__early_stopping_patience": 1}
KINDS: dict[str, dict[str, Any]] = {
    "seq2seq, taught": {**_STEPS, "training__teacher": {}},
    "seq2seq, sampled": {**_STEPS, "training__teacher_forcing": {"ratio": 0.5}},
    "tagging": _STEPS,
    "tagging, early stop": {**_PATIENCE, "evaluation__best_metric": "accuracy"},
    "classification, moving average": {**_STEPS, **_EMA},
    "classification, accumulation": {**_STEPS, **_ACCUMULATION},
    "values": _STEPS,
    "values, early stop": {**_PATIENCE, "evaluation__best_metric": "mae", "training__learning_rate": 0.5},
    "forecast": _STEPS,
    "forecast, moving average": {**_STEPS, **_EMA, **_ACCUMULATION},
    "speech": _STEPS,
    "speech, accumulation": {**_STEPS, **_ACCUMULATION},
    "speak": {**_STEPS, "data__toy": {"max_symbols": 2, "train": 16, "validation": 2, "test": 2}},
}


def recipe(folder: Path, kind: str = "seq2seq", **changes: Any) -> Path:
    """The recipe of a kind of task with these changes, beside its data."""
    if not (folder / "train.tsv").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_data(folder)
    changed = content(kind, **{name: value for name, value in {**_MODEL, **changes}.items() if "__" in name})
    del changed["card"]
    file = folder / "recipe.yaml"
    file.write_text(write_yaml({"task": TASKS[kind].kind.task, **changed}))
    return file


def arguments(recipe_file: Path, out: Path, *options: str) -> list[str]:
    return [str(recipe_file), "--data_dir", str(recipe_file.parent), "--output_dir", str(out), *options]


class Child:
    """A fork that runs the command line; `prepare` is called in it before."""

    def __init__(self, given: Sequence[str], prepare: Callable[[], Any] | None = None, log: Path | None = None):
        self.log = log or Path(tempfile.mkstemp(prefix="chaos")[1])
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            self._work(given, prepare)

    def _work(self, given: Sequence[str], prepare: Callable[[], Any] | None) -> None:
        status = 3
        try:
            handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            logging.getLogger().handlers.clear()
            sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            with ExitStack() as stack:
                if prepare is not None:
                    entered = prepare()
                    if hasattr(entered, "__enter__"):
                        stack.enter_context(entered)
                main(None, None, given, "chaos run")
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
            if isinstance(error.code, str):
                os.write(2, error.code.encode() + b"\n")
        except BaseException:
            import traceback

            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 300) -> int:
        """Return its status; minus the number of the signal that killed it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        self.kill()
        os.waitpid(self.pid, 0)
        raise TimeoutError(f"{self.said()[-2000:]}")

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def several(number: int, given: Sequence[str], prepare: Callable[[int], Any] | None = None) -> list[Child]:
    """Forks that are the processes of one run (gloo), as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def environment(rank: int) -> Callable[[], Any]:
        def prepared() -> Any:
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(number)}
            os.environ.update({**address, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(number)})
            return prepare(rank) if prepare else None

        return prepared

    return [Child(given, environment(rank)) for rank in range(number)]


# ---- What must hold ---------------------------------------------------------------------------------------------

# What says when and how long, and where.
_NOT_THE_SAME = ("training_report.json", "training_args.bin", "recipe.yaml", "results.json", ".lock")


def outcome(out: Path) -> dict[str, str]:
    """What a finished run leaves that follows from its recipe: the model and the predictions."""
    return {
        name: value
        for name, value in snapshot(out).items()
        if name not in _NOT_THE_SAME and not name.startswith("checkpoint-")
    }


def whole_steps(out: Path) -> list[int]:
    return [int(path.name.split("-")[1]) for path in checkpoints_of(out) if damage_of(path) is None]


def unfinished_names(out: Path) -> list[str]:
    """Checkpoints with a name that were never finished: there should be none, whatever is killed."""
    return [path.name for path in checkpoints_of(out) if not (path / SEAL_FILE).is_file()]


class Unbroken:
    """For each variant the outcome of a run that was not broken off, and how long it took."""

    def __init__(self, folder: Path, processes: int = 1):
        self.folder, self.processes = folder, processes
        self.known: dict[str, tuple[Path, dict[str, str], float]] = {}

    def children(self, given: Sequence[str]) -> list[Child]:
        """Start a run in as many processes."""
        return several(self.processes, given) if self.processes > 1 else [Child(given)]

    def __getitem__(self, variant: str) -> tuple[Path, dict[str, str], float]:
        if variant not in self.known:
            place = self.folder / f"{variant.replace(' ', '_')}_{self.processes}"
            kind = "seq2seq" if variant in VARIANTS else variant.split(",")[0]
            changes = {**VARIANTS, **KINDS}[variant]
            if "training__teacher" in changes:
                teacher = Child(arguments(recipe(place / "teacher"), place / "teacher" / "out"))
                assert teacher.wait() == 0, teacher.said()
                changes = {**changes, "training__teacher": {"models": [str(place / "teacher" / "out")]}}
            file = recipe(place, kind, **changes)
            started = time.monotonic()
            children = self.children(arguments(file, place / "out"))
            for child in children:
                assert child.wait() == 0, child.said()
            self.known[variant] = file, outcome(place / "out"), time.monotonic() - started
        return self.known[variant]


# ---- Faults -----------------------------------------------------------------------------------------------------


class CountedFile:
    """A file whose writes are counted."""

    def __init__(self, file: Any, operation: Callable[[Any], None]):
        self._file, self._operation = file, operation

    def write(self, what: Any) -> Any:
        self._operation(None)
        return self._file.write(what)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> CountedFile:
        return self

    def __exit__(self, *given: Any) -> Any:
        return self._file.__exit__(*given)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)


@contextmanager
def at_operation(act: Callable[[int, Any], None], within: Path) -> Iterator[None]:
    """Call `act` with its number and the file before each operation that changes a file within a folder."""
    count, opened = [0], builtins.open

    def operation(place: Any) -> None:
        if place is None or Path(os.path.abspath(os.fspath(place))).is_relative_to(within):
            count[0] += 1
            act(count[0], place)

    def opening(file: Any, mode: str = "r", *given: Any, **options: Any) -> Any:
        inside = isinstance(file, str | Path) and Path(os.path.abspath(file)).is_relative_to(within)
        if not inside or not set(mode) & set("wax+"):
            return opened(file, mode, *given, **options)
        operation(file)
        return CountedFile(opened(file, mode, *given, **options), operation)

    def patched(name: str) -> Any:
        original = getattr(os, name)

        def call(first: Any, *given: Any, **options: Any) -> Any:
            if isinstance(first, str | os.PathLike):
                operation(first)
            elif name == "fsync":
                operation(None)
            return original(first, *given, **options)

        return mock.patch.object(os, name, call)

    def saving(tensors: Any, file: Any, *given: Any, **options: Any) -> Any:
        operation(file)
        return save(tensors, file, *given, **options)

    from transformers import modeling_utils

    save = modeling_utils.safe_save_file
    with ExitStack() as stack:
        for name in ("replace", "rename", "mkdir", "fsync", "unlink", "rmdir"):
            stack.enter_context(patched(name))
        stack.enter_context(mock.patch.object(builtins, "open", opening))
        stack.enter_context(mock.patch.object(io, "open", opening))
        stack.enter_context(mock.patch.object(modeling_utils, "safe_save_file", saving))
        yield


# ---- Running a harness ------------------------------------------------------------------------------------------


def count_holding(what: str, hold: Callable[[Any], str | None], cases: Sequence[Any]) -> list[str]:
    """Print how many cases hold; return what is wrong with the others."""
    complaints = []
    for case in cases:
        try:
            complaint = hold(case)
        except Exception as error:
            complaint = f"{type(error).__name__}: {error}"
        if complaint:
            complaints.append(f"{case}: {complaint}")
            sys.stdout.write(f"  {complaints[-1]}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{what}: {len(cases) - len(complaints)} of {len(cases)} hold\n")
    return complaints


def options(description: str | None, **defaults: int) -> argparse.Namespace:
    """The command line of a harness: how many cases, and the seed."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {**defaults, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def seeded(seed: int, number: int, variants: Iterable[str] = VARIANTS) -> list[tuple[str, int]]:
    """Cases: a variant and a seed each, the variants in turn."""
    generator = random.Random(seed)
    names = list(variants)
    return [(names[case % len(names)], generator.randrange(10**6)) for case in range(number)]
