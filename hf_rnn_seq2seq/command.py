"""The command line that the scripts share: a recipe, where the data lies, where the model goes.

Needs the extras `train` and `metrics`; must not be imported by the model files.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

import transformers

from .data import DataError
from .experiment import run_recipe
from .options import OptionsError
from .recipe import load_recipe
from .task import Task


def main(task: type[Task], description: str | None, arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Run a recipe from the command line, and print its metrics.

    Args:
        task: the kind of output.
        description: what `--help` says of the script.
        arguments: what follows the program's name; `None`: those that the program was started with.

    Returns:
        The metrics.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe, a YAML file")
    parser.add_argument("--data_dir", default=".", help="folder of the files that the recipe names")
    parser.add_argument("--output_dir", help="where model, checkpoints and predictions go (default: runs/RECIPE)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help="changes to the recipe"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in output_dir, if any")
    parser.add_argument("--overwrite", action="store_true", help="delete an earlier run's checkpoints in output_dir")
    parser.add_argument("--eval_only", metavar="MODEL_DIR", help="do not train: evaluate the model saved there")
    parser.add_argument("--results", metavar="FILE", help="write the metrics to this JSON file")
    args = parser.parse_args(arguments)
    # Under torchrun the first process speaks for all.
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=level)
    # The bars of saving a file of a few megabytes; the Trainer has its own.
    transformers.utils.logging.disable_progress_bar()
    try:
        recipe = load_recipe(args.recipe, args.set, task.kind)
        metrics = run_recipe(
            task(recipe),
            args.data_dir,
            args.output_dir or f"runs/{recipe.name}",
            resume=args.resume,
            overwrite=args.overwrite,
            eval_only=args.eval_only,
            results=args.results,
            command=["python", sys.argv[0], *(sys.argv[1:] if arguments is None else arguments)],
        )
    except (OptionsError, DataError, FileExistsError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    sys.stdout.writelines(f"{name} = {value:.4f}\n" for name, value in metrics.items())
    return metrics
