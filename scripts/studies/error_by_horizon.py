#!/usr/bin/env python
"""Measure what structure 1, structure 2 and attention do to the error of a forecast by its step of the horizon.

    python scripts/studies/error_by_horizon.py scripts/recipes/error_by_horizon.yaml --data_dir DIR \\
        --results scripts/results/error_by_horizon.json --picture scripts/results/error_by_horizon.png --overwrite

Three forecasters of one size read the same hours of ETTh1 and go on segment by segment, from their own values in
training as in use. With structure 1 all they know of the past has to live on in the decoder's state (the second
weakness of a fixed context vector, on real values); with structure 2 C is an input of every step; with attention each
step looks at the past anew. Their absolute errors at each step, means over all windows of the test data and all
columns, stand beside that of the values one day before.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import transformers
from matplotlib.figure import Figure

from hf_rnn_seq2seq.data.outputs import picture_format, replacing
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
from hf_rnn_seq2seq.recipes.task import TrainingReport, load_task
from hf_rnn_seq2seq.recipes.task_forecast import ForecastTask
from hf_rnn_seq2seq.sharing.results import write_results


STRUCTURES = {
    "structure 1": {"attention_type": "none", "context_feeding": "initial_state"},
    "structure 2": {"attention_type": "none", "context_feeding": "every_step"},
    "attention": {"attention_type": "general", "context_feeding": "initial_state"},
}
NAIVE = "one day before"
# Errors are given as means over the first and the last so many steps.
GROUP = 12


def train(recipe_file: str, changes: list[str], data_dir: Path, output_dir: Path) -> tuple[ForecastTask, float]:
    """A trained model, or the one that an earlier call left in `output_dir`; and the seconds of its training."""
    task = load_task(recipe_file, changes)
    if not isinstance(task, ForecastTask):
        raise OptionsError(f"{recipe_file}: wanted a recipe of the task forecast")
    if TrainingReport.load(output_dir) is None:
        run_recipe(task, data_dir, output_dir, resume=True)
    else:
        changed = differences(task.recipe, output_dir)
        if changed:
            raise OptionsError(f"{output_dir} holds a model of another recipe: {', '.join(changed)}")
        task.load(output_dir)
    report = TrainingReport.load(output_dir)
    assert report is not None
    return task, report.seconds


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run the command line; `arguments` is what follows the program's name. Returns the metrics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe, scripts/recipes/error_by_horizon.yaml or one of another size")
    parser.add_argument("--data_dir", type=Path, default=Path(), help="folder of the table that the recipe names")
    parser.add_argument(
        "--output_dir",
        type=folder_to_write,
        default="runs/error_by_horizon",
        help="the models; those there are not trained",
    )
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--results", type=file_to_write, metavar="FILE", help="write the metrics to this JSON file")
    parser.add_argument("--picture", type=picture_to_write, metavar="PNG", help="draw the errors")
    parser.add_argument("--overwrite", action="store_true", help="replace results and picture; models are kept")
    args = parser.parse_args(arguments)
    check_files_to_write(parser, args, "results", "picture")
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    transformers.utils.logging.disable_progress_bar()
    with one_sentence():
        return measure(args, ["python", sys.argv[0], *(sys.argv[1:] if arguments is None else arguments)])


def measure(args: argparse.Namespace, command: list[str]) -> dict[str, float]:
    """Train the models, draw and write their errors; returns the metrics."""
    errors: dict[str, np.ndarray] = {}  # (T,) each
    seconds, parameters, seed = 0.0, 0, 0
    for name, options in STRUCTURES.items():
        changes = [f"model.{key}={value}" for key, value in options.items()]
        folder = Path(args.output_dir) / name.replace(" ", "")
        try:
            task, training_seconds = train(args.recipe, [*changes, *args.set], args.data_dir, folder)
        except FileExistsError as error:
            sys.exit(f"error: {error}")
        test = task.load_data(args.data_dir)["test"]
        errors[name], naive = task.errors_by_step(test)
        if naive is not None:
            errors[NAIVE] = naive
        seconds, seed = seconds + training_seconds, task.recipe.seed
        parameters = max(parameters, task.model.num_parameters())

    metrics: dict[str, float] = {}
    for name, by_step in errors.items():
        key = name.replace(" ", "_")
        metrics |= {
            f"{key}_first_steps": float(by_step[:GROUP].mean()),
            f"{key}_last_steps": float(by_step[-GROUP:].mean()),
        }
    sys.stdout.writelines(f"{name} = {value:.4f}\n" for name, value in metrics.items())
    if args.picture:
        draw(errors, args.picture)
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
            details={"unit": f"mean absolute error in standard deviations, over the first and the last {GROUP} steps"},
        )
    return metrics


def draw(errors: dict[str, np.ndarray], path: Path) -> None:
    """One line a structure."""
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, by_step in errors.items():
        axes.plot(np.arange(1, len(by_step) + 1), by_step, ":" if name == NAIVE else "-", label=name)
    axes.set_xlabel("step of the horizon, hours")
    axes.set_ylabel("mean absolute error, standard deviations")
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as picture:
        figure.savefig(picture, format=picture_format(path), dpi=150)


if __name__ == "__main__":
    main()
