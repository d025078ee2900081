#!/usr/bin/env python
"""Measure what each acceleration is worth: every one switched off in turn, against all of them on.

    python scripts/studies/accelerations.py --results scripts/results/accelerations.json
    python scripts/studies/accelerations.py --cells B/train_ragged,A/beam5x32/feeding --off lookup,packed --rounds 15
    python scripts/studies/accelerations.py --results scripts/results/accelerations.json --table-only

A cell is a piece of work of `scripts/benchmark` on a model, with input feeding or without. Within a round all variants
run in turn, each round starts with another one, and ratios are taken within a round: a slow spell of the machine meets
all of them. Counted are the seconds that this process computed for, on one thread; let nothing else run for figures to
publish. A ratio above 1 is what is lost without the acceleration; `all` is everything off. With `--results` the cells
found are put into the file, those of other runs stay: the study can be cut into runs of a few cells.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any


if __name__ == "__main__":
    # The libraries read it when they are loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmark"))

import torch
import workload
from rounds import clock_for, measure_in_turn
from workload import SHAPES, WORKS, Run, Shape, Work

from hf_rnn_seq2seq.data.files import DataError, read_json
from hf_rnn_seq2seq.data.outputs import replacing
from hf_rnn_seq2seq.model.fast import ACCELERATIONS, plain
from hf_rnn_seq2seq.recipes.arguments import file_to_write, number, one_sentence, whole_number
from hf_rnn_seq2seq.sharing.results import describe_hardware, installed_versions


logger = logging.getLogger(__name__)

ON, ALL = "on", "all"  # nothing switched off; everything
PAYS = 1.05  # an acceleration has to gain so much in one cell at least
# What cannot make a difference to a piece of work is not measured there.
_TRAINING = {"fused", "packed", "lookup", "deferred", "shrinking", "trimmed", "chunked", "later", "onednn"}
_SEARCH = {"fused", "packed", "onednn", "prepared", "search"}


def cells() -> list[str]:
    """Return the names of all cells."""
    feeding = ("", "/feeding")
    return [f"{shape}/{work}{fed}" for shape in SHAPES for work in WORKS for fed in feeding]


def variants_of(work: Work, off: list[str]) -> list[str]:
    """Return what is measured of a piece of work, of the accelerations asked for."""
    matters = _TRAINING if work.batch is None else _SEARCH
    return [ON, *(name for name in off if name in matters), ALL]


def without(variant: str) -> AbstractContextManager:
    """Return the context in which a variant runs."""
    if variant == ON:
        return nullcontext()
    return plain() if variant == ALL else plain(variant)


def measure(shape: Shape, work: Work, feeding: bool, off: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Return of each variant its median rate (target tokens a second), and its loss: the median ratio to all on."""

    def running(variant: str) -> Run:
        model = shape.model(feeding)  # a training step changes it
        if work.batch is None:
            run = workload.training_step(model, workload.training_batch(shape, work.ragged))
        else:
            run = workload.search(model, workload.random_ids(shape, work.batch, shape.length), work.beams)

        def switched() -> float:
            with without(variant):
                return run()

        return switched

    runs = {variant: running(variant) for variant in variants_of(work, off)}
    rates = measure_in_turn(runs, rounds, seconds, clock_for("cpu"))
    return {
        variant: {
            "rate": statistics.median(values),
            "loss": statistics.median(on / value for on, value in zip(rates[ON], values)),
        }
        for variant, values in rates.items()
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the markdown table: a row an acceleration, a column a cell, and what it loses where it loses most."""
    measured = list(dict.fromkeys(name for cell in found.values() for name in cell))
    gone = [name for name in measured if name not in (ON, ALL, *ACCELERATIONS)]  # deleted since
    names = [*(name for name in (*ACCELERATIONS, ALL) if name in measured), *gone]
    rows = [["without", *found, "most"], ["---", *["---:"] * (len(found) + 1)]]
    for name in names:
        losses = [cell[name]["loss"] if name in cell else None for cell in found.values()]
        most = max(loss for loss in losses if loss is not None)
        shown = f"**{most:.2f}**" if most >= PAYS else f"{most:.2f}"
        rows.append([name, *("" if loss is None else f"{loss:.2f}" for loss in losses), shown])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def read(path: Path | None) -> dict[str, Any]:
    """Return what earlier runs found."""
    if path is None or not path.exists():
        return {"cells": {}}
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("cells"), dict):
        raise DataError(f"{path}: wanted an object with the key cells, as this program writes it")
    return content


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the command line; `arguments` is what follows the program's name. Return what was ever found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default=",".join(cells()), help="model/work or model/work/feeding; default: all")
    parser.add_argument("--off", default=",".join(ACCELERATIONS), help="switched off in turn; default: all")
    parser.add_argument("--rounds", type=whole_number(1), default=9, help="default: 9")
    parser.add_argument(
        "--seconds", type=number(0), default=0.4, help="of a measurement, at least about; default: 0.4"
    )
    parser.add_argument("--results", type=file_to_write, metavar="FILE", help="JSON file to put the cells into")
    parser.add_argument("--table-only", action="store_true", help="measure nothing, print the table of --results")
    options = parser.parse_args(arguments)
    asked, off = options.cells.split(","), options.off.split(",")
    for option, given, known in (("cells", asked, cells()), ("off", off, list(ACCELERATIONS))):
        if not set(given) <= set(known):
            wrong = sorted(set(given) - set(known))[0]
            parser.error(f"--{option}: got {wrong!r}, wanted some of {', '.join(known)}")
    if options.table_only and options.results is None:
        parser.error("--table-only prints the table of --results: name that file")
    with one_sentence():
        found = read(options.results)
    for name in [] if options.table_only else asked:
        shape, work, *feeding = name.split("/")
        cell = measure(SHAPES[shape], WORKS[work], bool(feeding), off, options.rounds, options.seconds)
        found["cells"][name] = {**found["cells"].get(name, {}), **cell}
        logger.info("%s: %s", name, ", ".join(f"{key} {value['loss']:.2f}" for key, value in cell.items()))
        found["cells"] = {cell: found["cells"][cell] for cell in cells() if cell in found["cells"]}
        found |= {"hardware": describe_hardware(), "versions": installed_versions(), "rounds": options.rounds}
        if options.results is not None:
            with replacing(options.results) as file:
                file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found["cells"]))
    return found


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    main()
