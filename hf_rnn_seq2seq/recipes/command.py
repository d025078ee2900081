"""The command line of `run_recipe`: a recipe, where the data lies, where the model goes.

Needs the extras `train` and `metrics`.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers

from ..data.files import printable
from ..training.stopping import DivergedError, Signals, Stopped
from .arguments import file_to_write, folder_to_write, one_sentence, start_logging
from .recipe import build_recipe, derive_values, read_recipe, with_task
from .run import join_processes, run_recipe
from .run_folder import check_output, kept_values
from .suite import SECTION, Run, expand, run_suite
from .task import Task, task_class


def _arguments(description: str | None, program: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("recipe", help="the recipe, a YAML file")
    parser.add_argument("--data_dir", default=".", help="folder of the files that the recipe names")
    parser.add_argument(
        "--output_dir", type=folder_to_write, help="where model, checkpoints and predictions go (default: runs/RECIPE)"
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help="changes to the recipe"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in output_dir, if any")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what an earlier run left in output_dir, and results",
    )
    parser.add_argument(
        "--eval_only",
        nargs="+",
        default=[],
        metavar="MODEL_DIR",
        help="do not train: evaluate the model saved there, or the ensemble of several",
    )
    parser.add_argument(
        "--average",
        action="store_true",
        help="with --eval_only: take the mean of the weights, not an ensemble, and save it in output_dir",
    )
    parser.add_argument("--results", type=file_to_write, metavar="FILE", help="write the metrics to this JSON file")
    args = parser.parse_args(arguments)
    if args.average and len(args.eval_only) < 2:
        parser.error("--average needs two or more checkpoints after --eval_only")
    if args.average and args.output_dir is None:
        parser.error("--average needs --output_dir, a folder for the mean")
    if args.results is not None and args.results.resolve() == Path(args.recipe).resolve():
        parser.error(f"--results: got {args.results}, which is the recipe; name another file")
    if args.resume and (args.overwrite or args.eval_only):
        parser.error(f"--resume: leave out {'--overwrite' if args.overwrite else '--eval_only'}, or --resume")
    return args


@contextmanager
def _stopped_in_words() -> Iterator[None]:
    """End the program where a signal stops it: with the status that shells give, and a word on how to go on."""
    try:
        with Signals():
            yield
    except Stopped as stopped:
        sys.stderr.write(f"{stopped}\n")
        sys.exit(128 + stopped.signum)


def main(
    task: type[Task] | None = None,
    description: str | None = None,
    arguments: Sequence[str] | None = None,
    program: str | None = None,
) -> dict[str, float]:
    """Run a recipe from the command line, and print its metrics.

    Args:
        task: the only kind of output that is taken, also where the recipe does not say its task; `None`: the recipe's.
        description: what `--help` says of the script.
        arguments, program: what follows the program's name, and that; `None`: as this process was started.
    """
    args = _arguments(description, program, arguments)
    start_logging()
    # The bars of saving a file of a few megabytes; the Trainer has its own.
    transformers.utils.logging.disable_progress_bar()
    started = ["python", sys.argv[0]] if program is None else program.split()
    command = [*started, *(sys.argv[1:] if arguments is None else arguments)]
    name = Path(args.recipe).stem
    output_dir = Path(args.output_dir or f"runs/{name}")

    def options(run_name: str = "") -> dict[str, Any]:
        return {
            "resume": args.resume,
            "overwrite": args.overwrite,
            "eval_only": [Path(directory) / run_name for directory in args.eval_only],
            "average": args.average,
        }

    def run(content: dict[str, Any], folder: Path, results: Path | None, run_name: str = "") -> dict[str, float]:
        recipe = build_recipe(content, name, chosen.kind)
        return run_recipe(chosen(recipe), args.data_dir, folder, **options(run_name), results=results, command=command)

    def check(one: Run, folder: Path) -> None:
        recipe = build_recipe(one.content, name, chosen.kind)
        if args.resume:
            recipe = derive_values(recipe, chosen.kind, kept_values(recipe, folder))
        check_output(recipe, folder, **options(one.name), results=args.results)

    with _stopped_in_words(), one_sentence(DivergedError):
        content = read_recipe(args.recipe, args.set)
        chosen = task or task_class(content.get("task"))
        content = with_task(content, chosen.kind)
        if SECTION not in content:
            metrics = run(content, output_dir, args.results)
        else:
            for one in expand(content):  # nothing is refused after the first run
                recipe = build_recipe(one.content, name, chosen.kind)
                chosen(recipe)
            join_processes(recipe)
            metrics = run_suite(
                content,
                name,
                lambda one, folder, results: run(one.content, folder, results, one.name),
                output_dir,
                resume=args.resume,
                overwrite=args.overwrite,
                results=args.results,
                command=command,
                check=check,
            )
    sys.stdout.writelines(printable(f"{name} = {value:.4f}\n") for name, value in metrics.items())
    return metrics
