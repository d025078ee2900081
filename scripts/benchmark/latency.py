"""What the user of a model waits for, and what it takes of the memory: single requests, start, long outputs.

Percentiles over requests of different length; a process of the runtime from its start to its first answer; the memory
of a piece of work in a process of its own; the time of a symbol far from the start of an output, which for an RNN is
that of the first. Needs the extra `export`; must not be imported by the model files.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers.generation import BaseStreamer
from workload import Run, Shape, Work, random_ids, search, training_batch, training_step

from hf_rnn_seq2seq.model.modeling_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from hf_rnn_seq2seq.sharing.runtime import COPIED_AS, RnnSeq2SeqRuntime


K = TypeVar("K")
# Seconds since some moment.
Clock = Callable[[], float]
# Greedy search of so many symbols, with a function to call after each.
Search = Callable[[int, Callable[[], None]], None]

SHORTEST_REQUEST = 3


def requests(shape: Shape, number: int, seed: int = 7, lengths: Sequence[int] = ()) -> Iterator[Tensor]:
    """Single sources (1, S): of some of these lengths, or from `SHORTEST_REQUEST` symbols to the shape's length."""
    generator = torch.Generator().manual_seed(seed)
    choices = lengths or range(SHORTEST_REQUEST, shape.length + 1)
    for item in range(number):
        length = choices[int(torch.randint(len(choices), (), generator=generator))]
        yield random_ids(shape, 1, length, seed=item)


def latencies(
    runs: Mapping[K, Callable[[Tensor], Run]], sources: Sequence[Tensor], clock: Clock
) -> dict[K, list[float]]:
    """Seconds of each request, engine by engine; `runs` makes the work of a source, which is as long as the target."""
    seconds: dict[K, list[float]] = {key: [] for key in runs}
    for make in runs.values():
        make(sources[0])()
    for source in sources:
        for key, make in runs.items():
            run = make(source)
            start = clock()
            run()
            seconds[key].append(clock() - start)
    return seconds


def percentile(values: Sequence[float], percent: float) -> float:
    """Percentile with linear interpolation."""
    return float(torch.quantile(torch.tensor(values, dtype=torch.float64), percent / 100))


_FIRST_ANSWER = f"""
import json, sys, time
sys.path.insert(0, sys.argv[1])
from {Path(COPIED_AS).stem} import RnnSeq2SeqRuntime
answer = RnnSeq2SeqRuntime.from_pretrained(sys.argv[1]).generate(sys.argv[2], max_new_tokens=12)[0][0].text
print(json.dumps([time.process_time(), sorted({{"torch", "transformers"}} & sys.modules.keys()), answer]), flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class FirstAnswer:
    """A process of its own, from start to first answer: seconds of wall and CPU time, most resident megabytes."""

    wall: float
    cpu: float
    megabytes: float | None


def first_answer(exported: Path, text: str) -> FirstAnswer:
    """
    Start a process that loads an exported folder and answers once.

    Raises:
        RuntimeError: it failed, or it has loaded torch or transformers.
    """
    start = time.perf_counter()
    command = [sys.executable, "-c", _FIRST_ANSWER, str(exported), text]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as process:
        line = process.stdout.readline() if process.stdout else ""
        wall = time.perf_counter() - start
        megabytes = _memory("VmHWM", process.pid) if line else None
        _, complaint = process.communicate()  # ends its standard input, for which it waits
    if not line:
        raise RuntimeError(f"the runtime's process failed: {complaint[-500:]}")
    cpu, loaded, _ = json.loads(line)
    if loaded:
        raise RuntimeError(f"the runtime's process has loaded {', '.join(loaded)}")
    return FirstAnswer(wall, cpu, megabytes)


def _memory(name: str, process: int | str = "self") -> float | None:
    """Megabytes of a process, "VmRSS" now or "VmHWM" at its peak; None where the system does not tell (not Linux)."""
    # Not getrusage: its maximum outlives the start of another program, so a child begins with that of its parent.
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        return None
    entries = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(entries[name].split()[0]) / 2**10


def work_memory(shape: Shape, work: Work, input_feeding: bool, device: str = "cpu") -> float | None:
    """Megabytes that a piece of work takes at its peak beyond the loaded model, in a process of its own; or None."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        return pool.submit(_work_memory, shape, work, input_feeding, device).result()


def _work_memory(shape: Shape, work: Work, input_feeding: bool, device: str) -> float | None:
    def peak() -> float | None:
        return _memory("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated() / 2**20

    model = shape.model(input_feeding, device)
    before = peak()
    if work.batch is None:
        run = training_step(model, training_batch(shape, work.ragged, device))
    else:
        run = search(model, random_ids(shape, work.batch, shape.length), work.beams)
    run()
    run()
    after = peak()
    return None if before is None or after is None else after - before


class _Ticker(BaseStreamer):
    def __init__(self, tick: Callable[[], None]) -> None:
        self.tick = tick
        self.is_prompt = True

    def put(self, value: Tensor) -> None:
        if not self.is_prompt:
            self.tick()
        self.is_prompt = False

    def end(self) -> None:
        pass


def long_search(model: RnnSeq2SeqForConditionalGeneration, source: Tensor) -> Search:
    """Greedy search by `generate()` with a streamer."""
    generator: Any = model  # as in `search`
    inputs: dict[str, Any] = {"input_ids": source.to(model.device)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])

    def run(steps: int, tick: Callable[[], None]) -> None:
        model.use_fast_generation = True
        generator.generate(
            **inputs, do_sample=False, min_new_tokens=steps, max_new_tokens=steps, streamer=_Ticker(tick)
        )

    return run


def long_exported_search(runtime: RnnSeq2SeqRuntime, source: Tensor) -> Search:
    """Greedy search by the runtime's stream."""

    def run(steps: int, tick: Callable[[], None]) -> None:
        for _ in runtime.stream_ids(source[0].tolist(), min_new_tokens=steps, max_new_tokens=steps):
            tick()

    return run


@dataclass(frozen=True)
class AtPosition:
    """One position of a long output.

    Args:
        position: number of symbols before it.
        seconds: of a symbol there.
        ratio: to the seconds of a symbol at the first of the positions, in a fresh search made at that moment.
        megabytes: how much more the process takes than at the first of the positions.
    """

    position: int
    seconds: float
    ratio: float
    megabytes: float | None


def time_by_position(run: Search, positions: Sequence[int], clock: Clock, window: int = 100) -> list[AtPosition]:
    """
    What a symbol costs far from the start of one greedy search.

    Args:
        run: the search.
        positions: where to look, ascending and further apart than `window`; the first is at least half a window.
        clock: what is counted.
        window: a position's time is the median over so many symbols around it.
    """
    reach = window // 2

    def fresh() -> float:
        ends: list[float] = []
        run(positions[0] + reach, lambda: ends.append(clock()))
        return _median_step(ends[-window - 1 :])

    fresh()
    found: list[AtPosition] = []
    ends: deque[float] = deque(maxlen=window + 1)
    step, megabytes = 0, None

    def tick() -> None:
        nonlocal step, megabytes
        step += 1
        ends.append(clock())
        if step - reach != positions[len(found)]:
            return
        now, seconds = _memory("VmRSS"), _median_step(ends)
        megabytes = now if megabytes is None else megabytes
        more = None if now is None or megabytes is None else now - megabytes
        found.append(AtPosition(positions[len(found)], seconds, seconds / fresh(), more))
        ends.clear()  # the fresh search is no symbol of this one

    run(positions[-1] + reach, tick)
    return found


def _median_step(times: Iterable[float]) -> float:
    return statistics.median(after - before for before, after in itertools.pairwise(times))
