#!/usr/bin/env python
"""Measure the three weaknesses of a fixed context vector C, and what attention does to them.

    python scripts/studies/weaknesses.py scripts/recipes/weaknesses.yaml --output_dir runs/weaknesses \\
        --results scripts/results/weaknesses.json --picture scripts/results/weaknesses.png --overwrite

Random strings are read by three models of one size: structure 1 (C is the decoder's first state), structure 2 (C is an
input of every step) and attention. With the reference fed, the share of right symbols is counted

1. by the length of the source, when it is copied and reversed: C cannot hold the whole input;
2. by output step, in long strings: C is the same for every step, so the state has to find each step's symbol in it;
3. by the number of letters read after the one that is asked for, the only capital: later inputs overwrite earlier
   ones. C has room enough for one letter, so nothing but what comes after it can take it away. Strings are much longer
   here than in training, where LSTMs learn to protect it for as long as they have to.

When copying, step and position are the same; the mean over copying and reversing tells them apart, because each
position is then written once early and once late.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import torch
import transformers
from datasets import Dataset
from matplotlib.figure import Figure

from hf_rnn_seq2seq.data.outputs import picture_format, replacing
from hf_rnn_seq2seq.data.toy import LONGER_SPLIT, capital_position
from hf_rnn_seq2seq.recipes.arguments import (
    check_files_to_write,
    file_to_write,
    folder_to_write,
    one_sentence,
    picture_to_write,
)
from hf_rnn_seq2seq.recipes.options import OptionsError
from hf_rnn_seq2seq.recipes.run import run_recipe
from hf_rnn_seq2seq.recipes.run_folder import differences
from hf_rnn_seq2seq.recipes.task import Task, TrainingReport, load_task
from hf_rnn_seq2seq.recipes.task_text import Seq2SeqTask
from hf_rnn_seq2seq.sharing.results import write_results


STRUCTURES = {
    "structure 1": {"attention_type": "none", "context_feeding": "initial_state"},
    "structure 2": {"attention_type": "none", "context_feeding": "every_step"},
    "attention": {"attention_type": "general", "context_feeding": "initial_state"},
}
PANELS = {
    "length": ("1. C cannot hold the whole input", "length of the source"),
    "step": ("2. C is the same for every step", "output step, long strings"),
    "later": ("3. later inputs overwrite earlier ones", "letters read after the one asked for"),
}
# The third panel's strings are up to so many times as long as those of training; letters are counted in such groups.
LONGER, JOINED = 6, 10


@dataclass
class Tally:
    """Right and wrong symbols (1, 0) of one structure, by what the panels show."""

    length: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    step: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    later: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def percent(self, panel: str) -> dict[int, float]:
        """Right symbols in percent at each value of a panel's axis."""
        return {value: 100 * mean(right) for value, right in sorted(getattr(self, panel).items())}


def train(recipe_file: str, changes: list[str], output_dir: Path) -> tuple[Task, float]:
    """A trained model, or the one that an earlier call left in `output_dir`; and the seconds of its training."""
    task = load_task(recipe_file, changes)
    if TrainingReport.load(output_dir) is None:
        run_recipe(task, ".", output_dir, resume=True)
    else:
        changed = differences(task.recipe, output_dir)
        if changed:
            raise OptionsError(f"{output_dir} holds a model of another recipe: {', '.join(changed)}")
        task.load(output_dir)
    report = TrainingReport.load(output_dir)
    assert report is not None
    return task, report.seconds


@torch.no_grad()
def answers(task: Task, test: Dataset) -> Iterator[tuple[str, list[int]]]:
    """Each source, and which symbols of its target the model has right (1, 0), `</s>` not counted."""
    task.model.eval()
    encoded = task.encode(test, "test")
    for start in range(0, len(encoded), 100):
        rows = [dict(encoded[row]) for row in range(start, min(start + 100, len(encoded)))]
        batch = task.collate(rows)
        right = (task.model(**batch).logits.argmax(-1) == batch["labels"]).int().tolist()
        for number, (row, rights) in enumerate(zip(rows, right, strict=True), start):
            yield test[number]["source"], rights[: len(row["labels"]) - 1]


def count_steps(task: Task, test: Dataset, long: int, tally: Tally) -> None:
    """Add the symbols of copied or reversed strings; only strings of `long` symbols or more count by step."""
    for _, rights in answers(task, test):
        tally.length[len(rights)] += rights
        if len(rights) >= long:
            for step, is_right in enumerate(rights, start=1):
                tally.step[step].append(is_right)


def count_later(task: Task, test: Dataset, most: int, tally: dict[int, list[int]]) -> None:
    """Add the answers to strings with a capital, by the number of letters after it, if they are less than `most`."""
    for source, rights in answers(task, test):
        later = len(source) - 1 - capital_position(source)
        if later < most:
            tally[later // JOINED * JOINED] += rights


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run the command line; `arguments` is what follows the program's name. Returns the metrics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe, scripts/recipes/weaknesses.yaml or one of another size")
    parser.add_argument(
        "--output_dir",
        type=folder_to_write,
        default="runs/weaknesses",
        help="the models; those there are not trained",
    )
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--results", type=file_to_write, metavar="FILE", help="write the metrics to this JSON file")
    parser.add_argument("--picture", type=picture_to_write, metavar="PNG", help="draw the three panels")
    parser.add_argument("--overwrite", action="store_true", help="replace results and picture; models are kept")
    args = parser.parse_args(arguments)
    check_files_to_write(parser, args, "results", "picture")
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    transformers.utils.logging.disable_progress_bar()
    with one_sentence():
        return measure(args, ["python", sys.argv[0], *(sys.argv[1:] if arguments is None else arguments)])


def measure(args: argparse.Namespace, command: list[str]) -> dict[str, float]:
    """Train the models, draw and write what they do; returns the metrics."""
    tallies, seconds, parameters, seed = {name: Tally() for name in STRUCTURES}, 0.0, 0, 0
    task = load_task(args.recipe, args.set)
    if not isinstance(task, Seq2SeqTask):
        raise OptionsError(f"{args.recipe}: task: got {task.kind.task}, wanted seq2seq")
    longest = task.recipe.data.toy.max_length
    longer = [f"data.toy.{LONGER_SPLIT}=10000", f"data.toy.longer_max_length={LONGER * longest}"]
    one_letter = [*longer, "training.num_train_epochs=5"]  # sooner learnt than to copy
    runs: dict[str, list[str]] = {"copy": [], "reverse": [], "capital": one_letter}
    for (name, options), (toy, more) in itertools.product(STRUCTURES.items(), runs.items()):
        tally = tallies[name]
        changes = [f"data.dataset_name=toy:{toy}", *(f"model.{key}={value}" for key, value in options.items()), *more]
        folder = Path(args.output_dir) / f"{name.replace(' ', '')}_{toy}"
        try:
            task, training_seconds = train(args.recipe, [*changes, *args.set], folder)
        except (OptionsError, FileExistsError) as error:
            sys.exit(f"error: {error}")
        splits = task.load_data(".")
        if toy == "capital":
            for split in ("test", LONGER_SPLIT):
                # Few strings have their capital so early that nearly all of their letters come after it.
                count_later(task, splits[split], (LONGER - 1) * longest, tally.later)
        else:
            count_steps(task, splits["test"], 3 * longest // 4, tally)
        seconds, seed = seconds + training_seconds, task.recipe.seed
        parameters = max(parameters, task.model.num_parameters())

    metrics: dict[str, float] = {}
    for name, tally in tallies.items():
        key = name.replace(" ", "")
        ends = {"length": ("shortest", "longest"), "step": ("first_step", "last_step")}
        ends["later"] = ("few_later", "many_later")
        for panel, (first, last) in ends.items():
            values = tally.percent(panel)
            metrics |= {f"{key}_{first}": values[min(values)], f"{key}_{last}": values[max(values)]}
    sys.stdout.writelines(f"{name} = {value:.2f}\n" for name, value in metrics.items())
    if args.picture:
        draw(tallies, args.picture)
    if args.results:
        write_results(
            args.results,
            recipe=task.recipe.name,
            command=command,
            seeds=[seed],
            metrics=metrics,
            parameters=parameters,
            training_seconds=seconds,
            device=task.model.device,
            details={
                "unit": "right symbols in percent, reference fed; lengths and steps: mean of copying and reversing",
                "later": f"few: less than {JOINED} letters, many: the last {JOINED} below {(LONGER - 1) * longest}",
            },
        )
    return metrics


def draw(tallies: dict[str, Tally], path: Path) -> None:
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
    with replacing(path) as picture:
        figure.savefig(picture, format=picture_format(path), dpi=150)


if __name__ == "__main__":
    main()
