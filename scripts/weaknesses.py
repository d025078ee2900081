#!/usr/bin/env python
"""Measure the three weaknesses of a fixed context vector C, and what attention does to them.

    python scripts/weaknesses.py scripts/recipes/weaknesses.yaml --output_dir runs/weaknesses \\
        --results scripts/results/weaknesses.json --picture scripts/results/weaknesses.png

Random strings are copied and reversed by three models of one size: structure 1 (C is the decoder's first state),
structure 2 (C is an input of every step) and attention. With the reference fed, the share of right symbols is counted

1. by the length of the source: C cannot hold the whole input;
2. by output step, in long strings: C is the same for every step, so the state has to find each step's symbol in it;
3. by position in the source, in long strings: later inputs overwrite earlier ones.

When copying, step and position are the same; the mean over copying and reversing tells them apart, because each
position is then written once early and once late.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import torch
import transformers
from datasets import Dataset
from matplotlib.figure import Figure

from hf_rnn_seq2seq.experiment import run_recipe
from hf_rnn_seq2seq.recipe import load_recipe
from hf_rnn_seq2seq.results import write_results
from hf_rnn_seq2seq.seq2seq_task import Seq2SeqTask
from hf_rnn_seq2seq.task import TrainingReport


STRUCTURES = {
    "structure 1": {"attention_type": "none", "context_feeding": "initial_state"},
    "structure 2": {"attention_type": "none", "context_feeding": "every_step"},
    "attention": {"attention_type": "general", "context_feeding": "initial_state"},
}
PANELS = {
    "length": ("1. C cannot hold the whole input", "length of the source"),
    "step": ("2. C is the same for every step", "output step, long strings"),
    "position": ("3. do later inputs overwrite earlier ones?", "position in the source, long strings"),
}


@dataclass
class Tally:
    """Right and wrong symbols (1, 0) of one structure, by what the panels show."""

    length: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    step: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    position: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def percent(self, panel: str) -> dict[int, float]:
        """Right symbols in percent at each value of a panel's axis."""
        return {value: 100 * mean(right) for value, right in sorted(getattr(self, panel).items())}


def train(recipe_file: str, changes: list[str], output_dir: Path) -> tuple[Seq2SeqTask, float]:
    """A trained model, or the one that an earlier call left in `output_dir`; and the seconds of its training."""
    task = Seq2SeqTask(load_recipe(recipe_file, changes))
    if TrainingReport.load(output_dir) is None:
        run_recipe(task, ".", output_dir, resume=True)
    else:
        task.load(output_dir)
    report = TrainingReport.load(output_dir)
    assert report is not None
    return task, report.seconds


@torch.no_grad()
def count(task: Seq2SeqTask, test: Dataset, reversing: bool, long: int, tally: Tally) -> None:
    """Add one model's right and wrong symbols to a tally; only strings of `long` symbols or more count by place."""
    task.model.eval()
    encoded = task.encode(test, "test")
    for start in range(0, len(encoded), 100):
        rows = [dict(encoded[row]) for row in range(start, min(start + 100, len(encoded)))]
        batch = task.collate(rows)
        right = task.model(**batch).logits.argmax(-1) == batch["labels"]
        for row, rights in zip(rows, right.int().tolist(), strict=True):
            length = len(row["labels"]) - 1  # without </s>
            tally.length[length] += rights[:length]
            if length < long:
                continue
            for step, is_right in enumerate(rights[:length]):
                position = length - 1 - step if reversing else step
                # Counted from the end of the source, where strings of all lengths agree.
                tally.position[position - length + 1].append(is_right)
                tally.step[step + 1].append(is_right)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run the command line; `arguments` is what follows the program's name. Returns the metrics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe, scripts/recipes/weaknesses.yaml or one of another size")
    parser.add_argument("--output_dir", default="runs/weaknesses", help="the six models; those there are not trained")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--results", metavar="FILE", help="write the metrics to this JSON file")
    parser.add_argument("--picture", metavar="PNG", help="draw the three panels")
    args = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    transformers.utils.logging.disable_progress_bar()

    tallies, seconds, parameters, seed = {name: Tally() for name in STRUCTURES}, 0.0, 0, 0
    for name, options in STRUCTURES.items():
        for toy in ("copy", "reverse"):
            changes = [f"data.dataset_name=toy:{toy}", *(f"model.{key}={value}" for key, value in options.items())]
            folder = Path(args.output_dir) / f"{name.replace(' ', '')}_{toy}"
            task, training_seconds = train(args.recipe, [*changes, *args.set], folder)
            recipe = task.recipe
            long = 3 * recipe.data.toy.max_length // 4
            count(task, task.load_data(".")["test"], toy == "reverse", long, tallies[name])
            seconds, seed = seconds + training_seconds, recipe.seed
            parameters = max(parameters, task.model.num_parameters())

    metrics: dict[str, float] = {}
    for name, tally in tallies.items():
        key = name.replace(" ", "")
        by_length, by_position = tally.percent("length"), tally.percent("position")
        by_step = tally.percent("step")
        metrics |= {
            f"{key}_shortest": by_length[min(by_length)],
            f"{key}_longest": by_length[max(by_length)],
            f"{key}_first_step": by_step[min(by_step)],
            f"{key}_last_step": by_step[max(by_step)],
            f"{key}_first_input": by_position[min(by_position)],
            f"{key}_last_input": by_position[max(by_position)],
        }
    sys.stdout.writelines(f"{name} = {value:.2f}\n" for name, value in metrics.items())
    if args.picture:
        draw(tallies, args.picture)
    if args.results:
        write_results(
            args.results,
            recipe=recipe.name,
            command=["python", sys.argv[0], *(sys.argv[1:] if arguments is None else arguments)],
            seeds=[seed],
            metrics=metrics,
            parameters=parameters,
            training_seconds=seconds,
            device=task.model.device,
            details={"unit": "right symbols in percent, reference fed; mean of copying and reversing"},
        )
    return metrics


def draw(tallies: dict[str, Tally], path: str) -> None:
    """One panel a weakness, one line a structure."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    for axes, (panel, (title, label)) in zip(
        figure.subplots(1, len(PANELS), sharey=True), PANELS.items(), strict=True
    ):
        for name, tally in tallies.items():
            values = tally.percent(panel)
            axes.plot(list(values), list(values.values()), label=name)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
        if panel == "length":
            axes.set_ylabel("right symbols, %")
            axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
