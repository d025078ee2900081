"""The results file of `scripts/benchmark/run.py`, and the tables of it in docs/speed.md.

A rate is kept of every round, so that ratios can be taken within a round. `python scripts/benchmark/speed.py
docs/speed.md scripts/results/benchmark.json` rewrites the tables between two comments of a file, `--check` says
whether they are up to date. Speeds beside other toolkits come from a file of another benchmark, see `read_peers`. Must
not be imported by the model files.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from results_table import update_document

from hf_rnn_seq2seq.data.files import read_json
from hf_rnn_seq2seq.data.outputs import replacing


T = TypeVar("T")

BLOCK = "speed"  # the comments are <!-- speed:begin --> and <!-- speed:end -->
WORKS = {
    "train": "training step", "train_ragged": "training step, lengths 5 to 30",
    "train_bfloat16": "training step, bfloat16",
    "greedy1": "greedy, 1 source", "greedy64": "greedy, 64 sources",
    "beam5x1": "beam 5, 1 source", "beam5x32": "beam 5, 32 sources",
}  # fmt: skip
ENGINES = {"model": "", "onnx": "runtime, 32 bits: ", "onnx int8": "runtime, 8 bits: "}
STOCK = "stock"  # generate() by the loops of transformers
FLOPS, BYTES = "gemm", "weights"  # engines that measure the machine
# Names of other toolkits' entries say whether they feed the attentional vector back; fairseq always does.
_FEEDING = {"-noif": False, "-if": True, "fairseq": True}
_OURS = ("ours-noif", "ours-if")


@dataclass(frozen=True)
class Rate:
    """How fast an engine does a piece of work.

    Args:
        model: name of the shape.
        work: name of the work.
        engine: a key of `ENGINES`; `STOCK`; `FLOPS` or `BYTES` for what the machine gave meanwhile.
        input_feeding: whether the model has it.
        rates: target tokens a second (operations or bytes), by round.
        floor: tokens a second that the arithmetic alone would allow; None where no floor was computed.
    """

    model: str
    work: str
    engine: str
    input_feeding: bool
    rates: list[float]
    floor: float | None = None


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a request of one source: median and 99th percentile of so many requests."""

    model: str
    engine: str
    beams: int
    requests: int
    p50: float
    p99: float


@dataclass(frozen=True)
class Start:
    """A process of the runtime from start to first answer: seconds, resident megabytes; medians of so many starts."""

    model: str
    engine: str
    starts: int
    wall: float
    cpu: float
    megabytes: float | None


@dataclass(frozen=True)
class Memory:
    """Megabytes of a piece of work beyond the model's own."""

    model: str
    work: str
    input_feeding: bool
    megabytes: float


@dataclass(frozen=True)
class Position:
    """Milliseconds of a symbol at a position, as ratio to one at the first position, and megabytes since then."""

    model: str
    engine: str
    position: int
    milliseconds: float
    ratio: float
    megabytes: float | None


@dataclass(frozen=True)
class Batch:
    """Target tokens a second of greedy search in batches of a size, by round."""

    model: str
    size: int
    rates: list[float]


@dataclass(frozen=True)
class Peer:
    """The fastest other toolkit: our rate over its rate, by round."""

    model: str
    work: str
    input_feeding: bool
    peer: str
    ratios: list[float]


@dataclass
class Speed:
    """What a run of `scripts/benchmark/run.py` found, and on what.

    Args:
        command, hardware, versions, date: as in `results.Results`.
        basis: "cpu" or "wall": whose seconds these are.
        threads: threads inside an operation.
        dtype: of the numbers; of the runtime see its engines.
        quick: few rounds.
        rates, latencies, starts, memory, positions, batches, peers: what was measured; a list may be empty.
    """

    command: str
    hardware: dict[str, Any]
    versions: dict[str, str]
    date: str
    basis: str
    threads: int
    dtype: str
    quick: bool
    rates: list[Rate] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    positions: list[Position] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)

    def write(self, path: str | Path) -> None:
        """Write the file in one step; its folder is made if need be."""
        with replacing(path) as file:
            file.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> Speed:
        """
        Reads the file.

        Raises:
            ValueError: it is none; the message names the file.
        """
        content = read_json(path)
        known = {entry.name for entry in fields(cls)}
        if not isinstance(content, dict) or set(content) != known:
            got = sorted(content) if isinstance(content, dict) else type(content).__name__
            raise ValueError(f"{path}: must hold an object with the keys {sorted(known)}, got {got}")
        try:
            lists = {name: [kind(**entry) for entry in content[name]] for name, kind in KINDS.items()}
        except TypeError as error:
            raise ValueError(f"{path}: {error}") from None
        return cls(**{**content, **lists})


KINDS: dict[str, Any] = {
    "rates": Rate, "latencies": Latency, "starts": Start, "memory": Memory, "positions": Position, "batches": Batch,
    "peers": Peer,
}  # fmt: skip


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median and third quartile, with linear interpolation."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, median, third


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Our rates over theirs, round by round."""
    return [mine / other for mine, other in zip(ours, theirs)]


def read_peers(path: str | Path) -> list[Peer]:
    """
    Our speed beside that of the fastest other toolkit, as a benchmark of several toolkits found it.

    Args:
        path: a JSON file with `meta` (`basis`: cpu or wall; `ragged`: whether the training batches are) and `results`,
            a list of measurements with `config` (name of the shape), `task` (name of the work), `name`, `round`,
            `tokens` and seconds of `cpu` and `wall`. Ours are named ours-noif and ours-if, without and with input
            feeding, and so end the names of the toolkits; each is compared with those of its kind.

    Raises:
        ValueError: the file is not such a one, or it holds nothing to compare.
    """
    content = read_json(path)
    try:
        basis, ragged = content["meta"]["basis"], content["meta"]["ragged"]
        rates: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
        for entry in content["results"]:
            if entry["task"] != "setup" and "error" not in entry:
                work = "train_ragged" if entry["task"] == "train" and ragged else entry["task"]
                cell = rates.setdefault((entry["config"], work), {})
                cell.setdefault(entry["name"], {})[entry["round"]] = entry["tokens"] / entry[basis]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the results of a benchmark of several toolkits: {error!r}") from None
    found = []
    for (model, work), cell in rates.items():
        for ours in _OURS:
            kind = _feeding(ours)
            others = {name: rounds for name, rounds in cell.items() if name not in _OURS and _feeding(name) is kind}
            if ours in cell and others:
                best = max(others, key=lambda name: statistics.median(others[name].values()))
                common = sorted(cell[ours].keys() & others[best].keys())
                beside = ratios([cell[ours][r] for r in common], [others[best][r] for r in common])
                found.append(Peer(model, work, bool(kind), best, beside))
    if not found:
        raise ValueError(f"{path}: holds no work that both ours-noif or ours-if and another toolkit of its kind did")
    return found


def _feeding(name: str) -> bool | None:
    return next((kind for ending, kind in _FEEDING.items() if name.endswith(ending)), None)


# ---- Tables -----------------------------------------------------------------------------------------------------


def tables(speed: Speed, with_quartiles: bool = False) -> str:
    """
    The markdown tables of what was measured.

    Args:
        speed: the file.
        with_quartiles: rates and ratios to other toolkits with their quartiles behind them.
    """
    parts = [_caption(speed)]
    for rows in (_rate_rows(speed, with_quartiles), _other_rows(speed)):
        if len(rows) > 1:
            rule = ["---", *["---:"] * (len(rows[0]) - 1)]
            parts.append("\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]]))
    return "\n\n".join(parts)


def _caption(speed: Speed) -> str:
    seconds = "CPU second" if speed.basis == "cpu" else "second"
    threads = "one thread" if speed.threads == 1 else f"{speed.threads} threads"
    where = speed.hardware.get("gpu") or f"{threads}, {speed.hardware.get('cpu')}"
    quick = " **A quick run of few rounds: rough figures.**" if speed.quick else ""
    what = f"{speed.dtype}, torch {speed.versions.get('torch')}"
    others = ", ".join(sorted({peer.peer for peer in speed.peers}))
    beside = f" The other toolkits: {others}." if others else ""
    gemm = _gemm_rates(speed)
    return f"Target tokens per {seconds}, {where}, {what}, {speed.date[:10]}; medians.{gemm}{quick}{beside}"


def _gemm_rates(speed: Speed) -> str:
    """Return a sentence on the rates that one large matrix product had meanwhile, which the floor is computed from."""
    found = []
    for dtype, half in ((speed.dtype, False), ("bfloat16", True)):
        of_dtype = [r for r in speed.rates if r.engine == FLOPS and (r.work == "train_bfloat16") is half]
        if of_dtype:
            rate = statistics.median(rate for entry in of_dtype for rate in entry.rates)
            found.append(f"{rate / 1e9:.0f} GFLOP/s in {dtype}")
    return f" One large matrix product: {', '.join(found)}." if found else ""


def _models(speed: Speed) -> list[str]:
    measured = (entry.model for kind in KINDS if kind != "peers" for entry in getattr(speed, kind))
    return sorted(set(measured))


def _rate_rows(speed: Speed, with_quartiles: bool) -> list[list[str]]:
    """One row a piece of work and engine; four columns a model."""
    rates = {(r.model, r.work, r.engine, r.input_feeding): r for r in speed.rates}
    peers = {(p.model, p.work, p.input_feeding): p for p in speed.peers}
    models = sorted({rate.model for rate in speed.rates})
    header = ["", *(cell for m in models for cell in (m, "of the floor", "/ stock", "/ other"))]
    rows = [header]
    for work, title in WORKS.items():
        for engine, prefix in ENGINES.items():
            for feeding in (False, True):
                cells: list[str] = []
                for model in models:
                    rate = rates.get((model, work, engine, feeding))
                    plain = rates.get((model, work, "model", feeding))
                    stock = rates.get((model, work, STOCK, feeding))
                    peer = peers.get((model, work, feeding))
                    if rate is None:
                        cells += [""] * 4
                        continue
                    median = statistics.median(rate.rates)
                    cells.append(f"{median:,.0f}" + _range(quartiles(rate.rates), with_quartiles, ",.0f"))
                    cells.append("" if rate.floor is None else f"{median / rate.floor:.0%}")
                    cells.append("" if stock is None else f"{statistics.median(ratios(rate.rates, stock.rates)):.2f}")
                    if peer is None or plain is None:
                        cells.append("")
                        continue
                    # What is not the model itself is compared with it, and the model with the other toolkit.
                    factor = statistics.median(ratios(rate.rates, plain.rates))
                    beside = quartiles([factor * ratio for ratio in peer.ratios])
                    cells.append(f"{beside[1]:.2f}" + _range(beside, with_quartiles, ".2f"))
                if any(cells):
                    rows.append([f"{prefix}{title}{', input feeding' if feeding else ''}", *cells])
    # A column that nothing fills is left out.
    kept = [0, *(k for k in range(1, len(header)) if any(row[k] for row in rows[1:]))]
    return [[row[k] for k in kept] for row in rows]


def _range(values: tuple[float, float, float], shown: bool, form: str) -> str:
    return f" [{values[0]:{form}}-{values[2]:{form}}]" if shown else ""


def _other_rows(speed: Speed) -> list[list[str]]:
    """Latency, start, memory and long outputs: one column a model."""
    cells: dict[str, dict[str, str]] = {}

    def add(row: str, model: str, text: str) -> None:
        cells.setdefault(row, {})[model] = text

    for latency in speed.latencies:
        search = "greedy" if latency.beams == 1 else f"beam {latency.beams}"
        name = f"{ENGINES[latency.engine] or '`generate()`: '}one request, {search}: median, 99th percentile"
        add(name, latency.model, f"{latency.p50:.2f}, {latency.p99:.2f} ms")
    for start in speed.starts:
        name = f"{ENGINES[start.engine]}from process start to first answer: wall, CPU; resident"
        resident = "" if start.megabytes is None else f"; {start.megabytes:.0f} MB"
        add(name, start.model, f"{start.wall:.2f}, {start.cpu:.2f} s{resident}")
    for memory in speed.memory:
        feeding = ", input feeding" if memory.input_feeding else ""
        add(f"memory beside the model's: {WORKS[memory.work]}{feeding}", memory.model, f"{memory.megabytes:.0f} MB")
    for engine in ENGINES:
        along = [entry for entry in speed.positions if entry.engine == engine]
        for model in sorted({entry.model for entry in along}):
            own = [entry for entry in along if entry.model == model]
            first, last = own[0], own[-1]
            name = f"{ENGINES[engine] or '`generate()`: '}time of symbol {last.position:,} / symbol {first.position:,}"
            more = "" if last.megabytes is None else f"; {last.megabytes:+.0f} MB"
            add(f"{name}; memory since", model, f"{last.ratio:.2f}{more}")
    models = _models(speed)
    return [["", *models], *([row, *(by_model.get(m, "") for m in models)] for row, by_model in cells.items())]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: see the module's docstring. Exit status 1: stale (with `--check`); 2: a file is not as it must be.

    Args:
        arguments (`Sequence[str]`, *optional*): the arguments without the program; None: those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python scripts/benchmark/speed.py", description="Write the tables of a benchmark into a document."
    )
    parser.add_argument("document", type=Path, help=f"markdown file with the comments of the block '{BLOCK}'")
    parser.add_argument("file", metavar="FILE", type=Path, help="what scripts/benchmark/run.py wrote")
    parser.add_argument("--peers", nargs="+", default=[], type=Path, help="put the speed of other toolkits into FILE")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if the tables are stale")
    options = parser.parse_args(arguments)
    if options.check and options.peers:
        parser.error("--check changes nothing: leave --peers out")
    try:
        speed = Speed.read(options.file)
        if options.peers:
            speed.peers = [peer for path in options.peers for peer in read_peers(path)]
            speed.write(options.file)
        fresh = update_document(options.document, tables(speed), BLOCK, options.check)
    except (OSError, ValueError) as error:
        parser.error(f"{options.document}: {error}")
    if not fresh:
        parser.exit(1, f"{options.document}: the speed tables are stale; run without --check to rewrite them\n")


if __name__ == "__main__":
    main()
