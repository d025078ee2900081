"""Several processes (gloo) make the updates of one, start when they like, are killed and restarted, and stop together.

    python tests/chaos/test_several_processes.py --restarts 10

prints `N of M hold` for: 1, 2 and 4 processes with 1, 2 and 4 batches an update, equal after 50 updates; a process
that starts late; and `torchrun --max-restarts` with a worker killed again and again.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from broken_runs import (
    Unbroken,
    arguments,
    count_holding,
    options,
    outcome,
    recipe,
    scratch,
    several,
)
from safetensors.torch import load_file

from hf_rnn_seq2seq.recipes.options import read_yaml, write_yaml


SCRIPT = Path(__file__).parents[2] / "scripts" / "run.py"
# No dropout, which differs between processes.
_PLAIN = {"model__hidden_dropout": 0.0, "model__embedding_dropout": 0.0, "data__validation": None}
# What else differs between processes; of the other kinds.
_PLAIN_KINDS: dict[str, dict[str, Any]] = {
    "values": {"data__validation": None},
    "forecast": {"data__validation": 0},
    "speak": {"training__eval_strategy": "no", "model__speech_decoder_prenet_dropout": 0.0},
    "tagging": {"data__validation": None},
    "classification": {"data__validation": None},
    "speech": {"data__validation": None},
}
_SGD = {"training__optim": "sgd", "training__learning_rate": 0.3, "training__save_strategy": "no"}


def in_double_precision(*_: Any) -> None:
    torch.set_default_dtype(torch.float64)


def weights_after(
    updates: int, processes: int, batches: int, folder: Path, kind: str = "seq2seq"
) -> dict[str, torch.Tensor]:
    """The weights of a run whose updates have 16 ragged items, however they are shared out."""
    size = {"training__per_device_train_batch_size": 16 // (processes * batches)}
    plain = _PLAIN if kind == "seq2seq" else {"model__hidden_dropout": 0.0, **_PLAIN_KINDS[kind]}
    changes = {**plain, **_SGD, **size, "training__max_steps": updates, "evaluation__splits": []}
    file = recipe(folder, kind, **changes, training__gradient_accumulation_steps=batches)
    for child in (children := several(processes, arguments(file, folder / "out"), in_double_precision)):
        assert child.wait() == 0, "".join(child.said() for child in children)
    return load_file(folder / "out" / "model.safetensors")


def equal(updates: int, case: tuple[int, int] | str) -> str | None:
    """Of ways to share an update out, or of two processes of another kind of task."""
    shares, kind = ((2, 1), case) if isinstance(case, str) else (case, "seq2seq")
    with scratch() as place:
        one = weights_after(updates, 1, 1, place / "one", kind)
        other = weights_after(updates, *shares, place / "other", kind)
    worst = max(float((one[name] - other[name]).abs().max()) for name in one)
    return None if worst <= 1e-6 else f"differs by {worst:.1e} after {updates} updates"


SHARES = [(processes, batches) for processes in (1, 2, 4) for batches in (1, 2, 4) if processes * batches > 1]


def late(case: tuple[int, list[str]]) -> str | None:
    """A process that starts after the other, of a recipe with several runs: training, again, and evaluating."""
    who, modes = case
    with scratch() as place:
        file = recipe(place, training__max_steps=2)
        content = read_yaml(file.read_text(), "recipe")
        content["training"].pop("seed")
        file.write_text(write_yaml({**content, "runs": {"seeds": [1, 2]}}))
        for number, mode in enumerate(modes):
            more = ["--eval_only", str(place / "out")] if mode == "evaluate" else [mode] if mode != "new" else []
            out = place / ("scores" if mode == "evaluate" else "out")

            def wait(rank: int) -> None:
                time.sleep(2 if rank == who else 0)

            for child in (children := several(2, arguments(file, out, *more), wait)):
                if child.wait() != 0:
                    return f"{number}, {mode}: {''.join(child.said()[-500:] for child in children)}"
    return None


def diverges(processes: int) -> str | None:
    """All processes stop at the same update, and name it, its rows and the last checkpoint."""
    with scratch() as place:
        changes = {**_PLAIN, "training__optim": "sgd", "training__learning_rate": 1e38, "training__max_grad_norm": 0}
        file = recipe(place, **changes, training__save_steps=1, training__max_steps=40)
        for child in (children := several(processes, arguments(file, place / "out"))):
            if child.wait() != 1:
                return f"does not stop: {child.said()[-500:]}"
        said = {child.said().strip().splitlines()[-1] for child in children}
        if len(said) != 1 or not all(word in "".join(said) for word in ("update ", " rows ", "checkpoint")):
            return f"says {said}"
    return None


def refused(processes: int) -> str | None:
    """A second run in the same folder is refused while the first is at work, and not once that was killed."""
    with scratch() as place:
        file = recipe(place, training__max_steps=3000)
        first = several(processes, arguments(file, place / "out"))
        while not (place / "out" / ".lock").exists():
            time.sleep(0.05)
        for child in (second := several(processes, arguments(file, place / "out", "--resume"))):
            if child.wait() != 1 or "another process is at work in" not in child.said():
                return f"is not refused: {child.said()[-300:]}"
        for child in first:
            child.kill()
        for child in first:
            child.wait()
        shorter = recipe(place, training__max_steps=4)
        for child in (second := several(processes, arguments(shorter, place / "out", "--resume"))):
            if child.wait() != 0:
                return f"does not begin: {''.join(child.said()[-300:] for child in second)}"
    return None


def restarted(times: int, seed: int) -> str | None:
    """Kill a worker of torchrun again and again, once the run has made another checkpoint."""
    generator = random.Random(seed)
    with scratch() as place:
        unbroken = Unbroken(place, 2)
        file, wanted, _ = unbroken["steps"]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command += ["--max-restarts", str(times), str(SCRIPT), *arguments(file, place / "again", "--resume")]
        with (place / "log").open("w") as log:
            agent = psutil.Popen(command, stdout=log, stderr=log)
        for _ in range(times):
            while agent.poll() is None and not (workers := [c for c in agent.children() if _trains(c)]):
                time.sleep(0.1)
            time.sleep(generator.uniform(4, 12))
            if agent.poll() is not None:
                break
            generator.choice(workers).send_signal(signal.SIGKILL)
            psutil.wait_procs(workers, timeout=60)
        if agent.wait(timeout=900) != 0:
            return (place / "log").read_text()[-1500:]
        return None if outcome(place / "again") == wanted else "ends with other weights"


def _trains(process: psutil.Process) -> bool:
    try:
        return str(SCRIPT) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_several_processes_are_one() -> None:
    assert not everything(10)


def everything(restarts: int) -> list[str]:
    found = count_holding("equal after 50 updates", partial(equal, 50), [*SHARES, *_PLAIN_KINDS])
    modes = ["new", "--resume", "--overwrite", "evaluate"]
    found += count_holding("a process that starts late", late, [(0, modes), (1, modes)])
    found += count_holding("diverging stops all", diverges, [1, 2])
    found += count_holding("a second run is refused", refused, [1, 2])
    if restarts:
        found += count_holding(f"torchrun, {restarts} workers killed", partial(restarted, restarts), [0])
    return found


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(SCRIPT.parents[1])
    wrong = everything(options(__doc__, restarts=10).restarts)
    sys.exit(bool(wrong) and f"{len(wrong)} cases do not hold")
