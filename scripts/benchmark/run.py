#!/usr/bin/env python
"""Measure how fast the package trains, searches and starts, and what memory that takes.

    python scripts/benchmark/run.py --quick          # rough figures in two minutes; the whole takes ten
    python scripts/benchmark/run.py --results benchmark.json --picture benchmark.png
    python scripts/benchmark/run.py --only latency,start --models B
    python scripts/benchmark/run.py --device cuda --dtype bfloat16
    python scripts/benchmark/speed.py docs/speed.md scripts/results/benchmark.json    # the tables of docs/speed.md

Two models, random: A translates sentences (8000 symbols, 2 layers, H 512), B pronounces words (64 symbols, 1 layer,
H 256). On the CPU with one thread the seconds are those that this process computed for, so other processes disturb
little; on a GPU, or with more threads, they are those of the wall clock: let nothing else run then.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median


if __name__ == "__main__":
    # The libraries read it when they are loaded. More threads than one wait for each other in matrices this small.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import speed
import torch
from matplotlib.figure import Figure
from rounds import PARTS, Benchmark
from transformers.utils import logging as transformers_logging
from workload import SHAPES

from hf_rnn_seq2seq.data.files import text_lines
from hf_rnn_seq2seq.data.outputs import picture_format, replacing
from hf_rnn_seq2seq.recipes.arguments import check_files_to_write, file_to_write, picture_to_write
from hf_rnn_seq2seq.sharing.results import describe_hardware, installed_versions, portable_command


def draw(found: speed.Speed, path: Path) -> None:
    """Time of a symbol against its position, throughput against the size of the batch."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for engine in dict.fromkeys(entry.engine for entry in found.positions):
        along = [entry for entry in found.positions if entry.engine == engine]
        label = speed.ENGINES[engine].removesuffix(": ") or "generate()"
        # The ratios are to a symbol at the first position at that moment: slow spells of the machine are left out.
        times = [along[0].milliseconds * entry.ratio for entry in along]
        left.plot([entry.position for entry in along], times, marker="o", label=label)
    for model in dict.fromkeys(entry.model for entry in found.batches):
        batches = [entry for entry in found.batches if entry.model == model]
        right.plot([e.size for e in batches], [median(e.rates) for e in batches], marker="o", label=f"model {model}")
    left.set(xscale="log", xlabel="position of the symbol", ylabel="ms a symbol, model B, greedy")
    left.set_ylim(bottom=0)
    right.set(xlabel="sources in a batch", ylabel="target tokens a second, greedy", yscale="log")
    right.set_xscale("log", base=2)
    right.xaxis.set_major_formatter("{x:.0f}")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    with replacing(path) as picture:
        figure.savefig(picture, format=picture_format(path), dpi=150)


def main(arguments: list[str] | None = None) -> speed.Speed:
    """Run the command line; `arguments` is what follows the program's name. Returns what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, shorter outputs: rough figures")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PARTS", help=f"default: {','.join(PARTS)}")
    parser.add_argument("--models", default=",".join(SHAPES), help="A or B; default: A,B")
    parser.add_argument(
        "--sentences", type=Path, metavar="FILE", help="requests of A are as long as its lines, in words"
    )
    parser.add_argument(
        "--words", type=Path, metavar="FILE", help="requests of B are as long as its lines, in letters"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: without the runtime")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="training: under autocast")
    parser.add_argument("--results", type=file_to_write, metavar="FILE", help="write what was found to this JSON file")
    parser.add_argument(
        "--picture",
        type=picture_to_write,
        metavar="PNG",
        help="draw time against position, throughput against batch size",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace such files if they are there")
    args = parser.parse_args(arguments)
    check_files_to_write(parser, args, "results", "picture")
    parts, models = args.only.split(","), args.models.split(",")
    for option, values, known in (("--only", parts, PARTS), ("--models", models, tuple(SHAPES))):
        for value in values:
            if value not in known:
                parser.error(f"{option}: got {value!r}, wanted some of {','.join(known)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here")
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")  # onnxruntime's tools talk to the root
    logging.getLogger("hf_rnn_seq2seq").setLevel(logging.INFO)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()

    lengths = {}
    for model, option, file, units in (
        ("A", "--sentences", args.sentences, str.split),
        ("B", "--words", args.words, list),
    ):
        if file is not None:
            try:
                lines = [line.strip() for line in text_lines(file)]
            except (OSError, ValueError) as error:
                parser.error(f"{option}: {error}")
            lengths[model] = [len(units(line)) for line in lines if line]
            if not lengths[model]:
                parser.error(f"{option}: {file} holds no line of text")
    threads = torch.get_num_threads()
    found = speed.Speed(
        command=portable_command(["python", sys.argv[0], *(sys.argv[1:] if arguments is None else arguments)]),
        hardware=describe_hardware(args.device),
        versions=installed_versions(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        basis="cpu" if args.device == "cpu" and threads == 1 else "wall",
        threads=threads,
        dtype=args.dtype,
        quick=args.quick,
    )
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark(found, Path(folder), parts, args.device, lengths)
        for model in models:
            benchmark.run(SHAPES[model])
    print(speed.tables(found, with_quartiles=True))
    if args.results:
        found.write(args.results)
    if args.picture:
        draw(found, args.picture)
    return found


if __name__ == "__main__":
    main()
