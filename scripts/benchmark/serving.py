#!/usr/bin/env python
"""Load a server of an exported model with clients that ask again as soon as they are answered.

    python scripts/benchmark/serving.py --results serving.json        # some minutes
    python scripts/benchmark/serving.py --seconds 2 --models B         # rough figures

For each model of `workload.py` (random; A translates sentences, B pronounces words), each number format and each
number of clients: requests a second and the latency at the client, by a server that batches and by one with
`--max_batch_size 1`, which decodes one request at a time. Server and clients share the machine's cores. Requests are
texts of random length, each answered by 30 symbols, greedy.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from latency import percentile, requests
from workload import SHAPES, STEPS, Shape, export_shape

from hf_rnn_seq2seq.data.outputs import check_output_file, replacing
from hf_rnn_seq2seq.recipes.arguments import file_to_write, number
from hf_rnn_seq2seq.sharing.results import describe_hardware, installed_versions, portable_command


CLIENTS = (1, 8, 64)
FORMATS = {"fp32": None, "int8": "int8"}
# The server's --max_batch_size: as it is by default, and one request at a time.
BATCHES = (64, 1)
_TEXTS = 256


@dataclass(frozen=True)
class Load:
    """What clients saw of a server: requests a second; median, 99th percentile and largest latency in milliseconds.

    `cpu`: milliseconds that the server computed for a request, which other processes disturb little.
    """

    model: str
    format: str
    max_batch_size: int
    clients: int
    seconds: float
    answered: int
    failed: int
    per_second: float
    p50: float
    p99: float
    largest: float
    cpu: float


@contextmanager
def serving(exported: Path, max_batch_size: int) -> Iterator[tuple[tuple[str, int], psutil.Process]]:
    """Start a server in a process of its own; yield its host and port, and the process.

    Raises:
        RuntimeError: it does not start, or does not end well.
    """
    command = [sys.executable, "-m", "hf_rnn_seq2seq.sharing.server", str(exported), "--port", "0"]
    command += ["--max_batch_size", str(max_batch_size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline() if process.stdout else ""
        try:
            if not line:
                raise RuntimeError(f"the server did not start: {' '.join(command)}")
            host, _, port = line.strip().rpartition("/")[2].partition(":")
            yield (host, int(port)), psutil.Process(process.pid)
        finally:
            process.terminate()
        if process.wait() != 0:
            raise RuntimeError(f"the server ended with {process.returncode}, wanted 0")


def bodies(shape: Shape) -> list[bytes]:
    """The HTTP requests of a shape, as bytes."""
    made = []
    for source in requests(shape, _TEXTS):
        content = {
            "text": " ".join(f"w{token}" for token in source[0].tolist()),
            "max_new_tokens": STEPS,
            "min_new_tokens": STEPS,
        }
        body = json.dumps(content).encode()
        head = f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        made.append(f"{head}\r\n\r\n".encode() + body)
    return made


async def _client(address: tuple[str, int], mine: Iterator[bytes], end: float, found: list[tuple[float, int]]) -> None:
    """Ask until `end`, and note seconds and status of each answer."""
    reader, writer = await asyncio.open_connection(*address)
    while (start := time.perf_counter()) < end:
        writer.write(next(mine))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
        found.append((time.perf_counter() - start, int(head.split()[1])))
    writer.close()
    await writer.wait_closed()


async def load(
    address: tuple[str, int], asked: Sequence[bytes], clients: int, seconds: float
) -> tuple[float, list[tuple[float, int]]]:
    """Have clients ask for some seconds; return the seconds until the last answer, and (seconds, status) of each."""
    found: list[tuple[float, int]] = []
    start = time.perf_counter()
    await asyncio.gather(
        *(
            _client(address, itertools.cycle([*asked[shift:], *asked[:shift]]), start + seconds, found)
            for shift in range(0, clients * 3, 3)
        )
    )
    return time.perf_counter() - start, found


def measure(shape: Shape, name: str, exported: Path, seconds: float) -> Iterator[Load]:
    """Yield what clients saw of a model."""
    asked = bodies(shape)
    for max_batch_size in BATCHES:
        with serving(exported, max_batch_size) as (address, process):
            for clients in CLIENTS:
                asyncio.run(load(address, asked, clients, seconds / 5))  # warm
                before = sum(process.cpu_times()[:2])
                took, found = asyncio.run(load(address, asked, clients, seconds))
                latencies = [1000 * one for one, status in found if status == 200]
                yield Load(
                    *(shape.name, name, max_batch_size, clients, round(took, 2), len(latencies)),
                    failed=len(found) - len(latencies),
                    per_second=round(len(latencies) / took, 1),
                    p50=round(percentile(latencies, 50), 2),
                    p99=round(percentile(latencies, 99), 2),
                    largest=round(max(latencies), 2),
                    cpu=round(1000 * (sum(process.cpu_times()[:2]) - before) / len(found), 3),
                )


def table(loads: Sequence[Load]) -> str:
    """The loads as a table, each beside one client alone and beside one request at a time with as many clients."""
    columns = ["model", "batch", "clients", "requests/s", "p50 ms", "p99 ms", "CPU ms"]
    columns += ["/ alone", "/ one at a time", "p99 / p50 alone"]
    lines = [f"| {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) - 1)}"]
    by_key = {(one.model, one.format, one.max_batch_size, one.clients): one for one in loads}
    for one in loads:
        alone = by_key[one.model, one.format, one.max_batch_size, CLIENTS[0]]
        single = by_key[one.model, one.format, 1, one.clients]
        cells = [f"{one.model} {one.format}", one.max_batch_size, one.clients, f"{one.per_second:,.1f}"]
        cells += [f"{one.p50:.1f}", f"{one.p99:.1f}", f"{one.cpu:.2f}", f"{one.per_second / alone.per_second:.2f}"]
        cells += [f"{one.per_second / single.per_second:.2f}", f"{one.p99 / alone.p50:.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> list[Load]:
    """Run the command line; return what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(SHAPES), help="A or B; default: A,B")
    parser.add_argument("--seconds", type=number(0), default=10, help="of each load; default: 10")
    parser.add_argument("--beside", default="nothing", help="what else ran, in words, for the file")
    parser.add_argument("--results", type=file_to_write, metavar="FILE", help="write what was found to this JSON file")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    args = parser.parse_args(arguments)
    if args.results:
        try:
            check_output_file(args.results, "--results", args.overwrite)
        except OSError as error:
            parser.error(str(error))
    for model in args.models.split(","):
        if model not in SHAPES:
            parser.error(f"--models: got {model!r}, wanted some of {','.join(SHAPES)}")
    found: list[Load] = []
    with tempfile.TemporaryDirectory() as folder:
        for model, (name, quantize) in itertools.product(args.models.split(","), FORMATS.items()):
            exported = export_shape(SHAPES[model], Path(folder) / model / name, quantize)
            for one in measure(SHAPES[model], name, exported, args.seconds):
                print(one, flush=True)
                found.append(one)
    print(table(found))
    if args.results:
        content = {
            "command": portable_command(["python", sys.argv[0], *(sys.argv[1:] if arguments is None else arguments)]),
            "hardware": describe_hardware("cpu"),
            "beside": args.beside,
            "versions": installed_versions(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "loads": [asdict(one) for one in found],
        }
        with replacing(args.results) as file:
            file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
