"""One run of the benchmark: every engine does every piece of work in turn, round after round.

A slow spell of the machine then meets all of them, and the ratio of two of them within a round stays right. The
machine's own rates, for the floor, are measured in the same rounds. `scripts/benchmark/run.py` is its command line.
Needs the extra `export`; must not be imported by the model files.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TypeVar

import latency
import speed
import torch
import workload
from latency import Clock
from torch import Tensor
from workload import SHAPES, WORKS, Run, Shape, Work

from hf_rnn_seq2seq.sharing.runtime import RnnSeq2SeqRuntime


logger = logging.getLogger(__name__)

K = TypeVar("K")

# What can be measured.
PARTS = ("train", "search", "stock", "runtime", "latency", "start", "memory", "positions", "batches")
_MOST_REPEATS = 100
# The model whose long outputs are timed: small, so that 100,000 symbols take a minute.
_LONG = "B"
_POSITIONS = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
_QUICK_POSITIONS = _POSITIONS[:5]


def clock_for(basis: str) -> Clock:
    """ "cpu": the seconds that this process has computed for, whatever else runs; "wall": of the wall clock."""
    if basis == "cpu":
        return time.process_time

    def wall() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    return wall


def measure_in_turn(runs: Mapping[K, Run], rounds: int, seconds: float, clock: Clock) -> dict[K, list[float]]:
    """
    The rate of each piece of work, once a round; each round starts with another one.

    Args:
        runs: the pieces of work.
        rounds: measurements of each.
        seconds: a shorter piece of work is repeated until a measurement takes about this long.
        clock: what is counted.
    """
    repeats: dict[K, int] = {}
    for key, run in runs.items():
        for _ in range(2):  # the first time is slower; but what takes long is warm after it
            start = clock()
            run()
            taken = clock() - start
            if taken > 5 * seconds:
                break
        repeats[key] = max(1, min(_MOST_REPEATS, round(seconds / max(taken, 1e-6))))
    rates: dict[K, list[float]] = {key: [] for key in runs}
    keys = list(runs)
    for number in range(rounds):
        shift = number % len(keys)
        for key in keys[shift:] + keys[:shift]:
            start = clock()
            done = sum(runs[key]() for _ in range(repeats[key]))
            rates[key].append(done / max(clock() - start, 1e-9))
    return rates


class Benchmark:
    """
    One run: what is measured, how often, and what was found so far.

    Args:
        found: what was found is added to it; its `basis`, `threads`, `dtype` and `quick` say how to measure.
        folder: exported models go here.
        parts: of `PARTS`.
        device: "cpu" or "cuda"; the exported graphs run on the CPU only.
        lengths: of real requests, by name of the shape; others are drawn.
    """

    def __init__(
        self,
        found: speed.Speed,
        folder: Path,
        parts: Sequence[str] = PARTS,
        device: str = "cpu",
        lengths: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.found, self.folder, self.parts, self.device = found, folder, parts, device
        self.dtype: torch.dtype = getattr(torch, found.dtype)
        self.clock = clock_for(found.basis)
        self.lengths = lengths or {}
        self.rounds, self.seconds = (3, 0.1) if found.quick else (9, 0.4)
        self.exported: dict[str, Path] = {}
        self.runtimes: dict[str, RnnSeq2SeqRuntime] = {}

    def run(self, shape: Shape) -> None:
        """All parts, for models of one shape."""
        self.models = {feeding: shape.model(feeding, self.device) for feeding in (False, True)}
        self.searching = {
            feeding: workload.searching_model(model, self.dtype) for feeding, model in self.models.items()
        }
        if self.device == "cpu" and {"runtime", "latency", "start", "positions"} & set(self.parts):
            for engine, quantize in (("onnx", None), ("onnx int8", "int8")):
                logger.info("%s: exporting for the runtime, %s", shape.name, quantize or "float32")
                exported = workload.export_shape(shape, self.folder / f"{shape.name}_{quantize}", quantize)
                self.exported[engine] = exported
                self.runtimes[engine] = RnnSeq2SeqRuntime.from_pretrained(exported, self.found.threads)
        for work in WORKS.values():
            self.rates(shape, work)
        for part in ("latency", "start", "memory", "positions", "batches"):
            if part in self.parts:
                measure: Callable[[Shape], None] = getattr(self, part)
                measure(shape)

    def rates(self, shape: Shape, work: Work) -> None:
        """How fast each engine does a piece of work, and the machine meanwhile."""
        runs: dict[tuple[str, bool], Run] = {}
        dtype: torch.dtype = getattr(torch, work.dtype or self.found.dtype)
        if work.batch is None and "train" in self.parts:
            batch = workload.training_batch(shape, work.ragged, self.device)
            for feeding, model in self.models.items():
                runs["model", feeding] = workload.training_step(model, batch, dtype)
        elif work.batch is not None:
            ids = workload.random_ids(shape, work.batch, shape.length)
            for feeding, model in self.searching.items():
                if "search" in self.parts:
                    runs["model", feeding] = workload.search(model, ids, work.beams)
                if "stock" in self.parts and not feeding:
                    runs[speed.STOCK, feeding] = workload.search(model, ids, work.beams, stock=True)
            if "runtime" in self.parts and work.batch == 1:
                for engine, runtime in self.runtimes.items():
                    runs[engine, False] = workload.exported_search(runtime, ids, work.beams)
        if not runs:
            return
        weights = workload.step_weights(shape, False)
        runs[speed.FLOPS, False] = workload.gemm(self.device, dtype)
        runs[speed.BYTES, False] = workload.weight_reading(weights, self.device, dtype)
        rates = measure_in_turn(runs, self.rounds, self.seconds, self.clock)
        flops, bytes_read = (median(rates[engine, False]) for engine in (speed.FLOPS, speed.BYTES))
        logger.info("%s %s: %.0f GFLOP/s, %.0f GB/s", shape.name, work.name, flops / 1e9, bytes_read / 1e9)
        for (engine, feeding), values in rates.items():
            floor = None
            if engine not in (speed.FLOPS, speed.BYTES):
                words = f"{engine}{', input feeding' if feeding else ''}"
                logger.info("%s %s: %s %.0f tokens/s", shape.name, work.name, words, median(values))
            if engine == "model":
                floor = workload.floor_rate(shape, work, feeding, flops, bytes_read, dtype.itemsize)
            self.found.rates.append(speed.Rate(shape.name, work.name, engine, feeding, values, floor))

    def latency(self, shape: Shape) -> None:
        """Percentiles of single requests."""

        def by_model(beams: int) -> Callable[[Tensor], Run]:
            return lambda ids: workload.search(self.searching[False], ids, beams, ids.shape[1])

        def by_runtime(runtime: RnnSeq2SeqRuntime, beams: int) -> Callable[[Tensor], Run]:
            return lambda ids: workload.exported_search(runtime, ids, beams, ids.shape[1])

        runs = {}
        for beams in (1, 5):
            runs["model", beams] = by_model(beams)
            runs |= {(engine, beams): by_runtime(runtime, beams) for engine, runtime in self.runtimes.items()}
        number = 30 if self.found.quick else 200
        sources = list(latency.requests(shape, number, lengths=self.lengths.get(shape.name, ())))
        seconds = latency.latencies(runs, sources, self.clock)
        for (engine, beams), values in seconds.items():
            p50, p99 = (1e3 * latency.percentile(values, percent) for percent in (50, 99))
            logger.info("%s request, %s, %d beams: p50 %.2f ms, p99 %.2f ms", shape.name, engine, beams, p50, p99)
            self.found.latencies.append(speed.Latency(shape.name, engine, beams, number, p50, p99))

    def start(self, shape: Shape) -> None:
        """A process of the runtime, to its first answer."""
        number = 3 if self.found.quick else 9
        for engine, exported in self.exported.items():
            answers = [latency.first_answer(exported, "w4 w5 w6 w7 w8") for _ in range(number)]
            wall, cpu = (median(getattr(answer, name) for answer in answers) for name in ("wall", "cpu"))
            sizes = [answer.megabytes for answer in answers if answer.megabytes is not None]
            size = median(sizes) if sizes else None
            logger.info("%s %s: first answer after %.2f s, CPU %.2f s", shape.name, engine, wall, cpu)
            self.found.starts.append(speed.Start(shape.name, engine, number, wall, cpu, size))

    def memory(self, shape: Shape) -> None:
        """What pieces of work take beside the model."""
        works = [("train", False)]
        if not self.found.quick:
            works += [("train", True), ("greedy64", False), ("beam5x32", False)]
        for name, feeding in works:
            megabytes = latency.work_memory(shape, WORKS[name], feeding, self.device)
            logger.info("%s %s: memory measured", shape.name, name)
            if megabytes is not None:
                self.found.memory.append(speed.Memory(shape.name, name, feeding, megabytes))

    def positions(self, shape: Shape) -> None:
        """Far from the start of an output."""
        if shape is not SHAPES[_LONG]:
            return
        positions = _QUICK_POSITIONS if self.found.quick else _POSITIONS
        ids = workload.random_ids(shape, 1, shape.length)
        searches = {"model": latency.long_search(self.searching[False], ids)}
        searches |= {name: latency.long_exported_search(runtime, ids) for name, runtime in self.runtimes.items()}
        for engine, search in searches.items():
            for at in latency.time_by_position(search, positions, self.clock):
                logger.info("%s %s, symbol %d: %.3f ms", shape.name, engine, at.position, 1e3 * at.seconds)
                entry = speed.Position(shape.name, engine, at.position, 1e3 * at.seconds, at.ratio, at.megabytes)
                self.found.positions.append(entry)

    def batches(self, shape: Shape) -> None:
        """Greedy search of ever larger batches."""
        sizes = (1, 8, 64) if self.found.quick else (1, 2, 4, 8, 16, 32, 64, 128, 256)
        sources = {size: workload.random_ids(shape, size, shape.length) for size in sizes}
        runs = {size: workload.search(self.searching[False], ids, 1) for size, ids in sources.items()}
        for size, rates in measure_in_turn(runs, self.rounds, self.seconds, self.clock).items():
            logger.info("%s greedy, batch of %d: %.0f tokens/s", shape.name, size, median(rates))
            self.found.batches.append(speed.Batch(shape.name, size, rates))
