"""Long work takes no more memory and no more open files at its end than at its beginning.

    python tests/chaos/test_long_work.py --steps 10000 --calls 10000

prints `N of M hold` for updates of a training with checkpoints, calls of `generate()`, and calls of the runtime.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from broken_runs import count_holding, options, recipe, scratch
from tiny import tiny_model, tiny_tokenizer
from transformers import TrainerCallback

from hf_rnn_seq2seq.recipes.run import make_trainer
from hf_rnn_seq2seq.recipes.task import load_task
from hf_rnn_seq2seq.sharing.export import export_model
from hf_rnn_seq2seq.sharing.runtime import RnnSeq2SeqRuntime


# What an allocator may keep between a fifth of long work and its end: 4 kB for each of 8,000 steps would be 32.
MEGABYTES = 24


class Watch:
    """Memory and open files after a fifth of so many steps, to be compared with those after the last."""

    def __init__(self, steps: int):
        self.steps, self.done = steps, 0
        self.process = psutil.Process()
        self.early: tuple[float, int] | None = None

    def step(self, *_: Any) -> None:
        self.done += 1
        if self.done == self.steps // 5:
            self.early = self.now()

    def now(self) -> tuple[float, int]:
        return self.process.memory_info().rss / 2**20, self.process.num_fds()

    def complaint(self) -> str | None:
        assert self.early is not None and self.done >= self.steps
        memory, files = self.now()
        if (self.steps >= 1000 and memory - self.early[0] > MEGABYTES) or files > self.early[1]:
            return f"{self.early[0]:.1f} MB and {self.early[1]} files became {memory:.1f} MB and {files} files"
        return None


class EachStep(TrainerCallback):
    def __init__(self, watch: Watch):
        self.watch = watch

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.watch.step()


def training(steps: int, place: Path) -> str | None:
    """Updates with logging; evaluations and checkpoints at each twentieth part."""
    often = max(steps // 20, 1)
    changes = {"training__max_steps": steps, "training__eval_steps": often, "training__save_steps": often}
    task = load_task(recipe(place, **changes, training__logging_steps=often))
    data, watch = task.load_data(place), Watch(steps)
    trainer = make_trainer(task, data, place / "out")
    trainer.add_callback(EachStep(watch))
    trainer.train()
    return watch.complaint()


def generating(calls: int, place: Path) -> str | None:
    model, watch = tiny_model("luong", dtype=torch.float32), Watch(calls)
    for number in range(calls):
        ids = torch.randint(4, 12, (1 + number % 3, 3 + number % 5))
        model.generate(input_ids=ids, max_new_tokens=4, num_beams=1 + number % 2)
        watch.step()
    return watch.complaint()


def answering(calls: int, place: Path) -> str | None:
    tiny_model("luong", dtype=torch.float32).save_pretrained(place / "model")
    tiny_tokenizer().save_pretrained(place / "model")
    export_model(place / "model", place / "exported", None)
    runtime, watch = RnnSeq2SeqRuntime.from_pretrained(place / "exported"), Watch(calls)
    for number in range(calls):
        runtime.generate([list(range(4, 7 + number % 5))] * (1 + number % 3))
        watch.step()
    return watch.complaint()


def flat(number: int, work: Callable[[int, Path], str | None]) -> str | None:
    with scratch() as place:
        return work(number, place)


@pytest.mark.chaos
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("work", [training, generating, answering])
def test_long_work_is_flat(work: Callable[[int, Path], str | None], tmp_path: Path) -> None:
    assert work(10_000, tmp_path) is None


if __name__ == "__main__":
    chosen = options(__doc__, steps=10_000, calls=10_000)
    wrong = count_holding(f"{chosen.steps} updates", partial(flat, chosen.steps), [training])
    wrong += count_holding(f"{chosen.calls} calls", partial(flat, chosen.calls), [generating, answering])
    sys.exit(bool(wrong) and f"{len(wrong)} cases do not hold")
