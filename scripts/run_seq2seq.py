#!/usr/bin/env python
"""Train, evaluate and predict as a recipe says.

    python scripts/run_seq2seq.py scripts/recipes/toy_reverse.yaml
    python scripts/run_seq2seq.py scripts/recipes/g2p_cmudict.yaml --data_dir DIR --set training.seed=2 --resume

The recipe is a YAML file; the keys are explained in `scripts/recipes/*.yaml`. What it computes is in the recipe alone.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

import transformers

from hf_rnn_seq2seq.data import DataError
from hf_rnn_seq2seq.experiment import run_recipe
from hf_rnn_seq2seq.options import OptionsError
from hf_rnn_seq2seq.recipe import load_recipe


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run the command line; `arguments` is what follows the program's name. Returns the metrics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        recipe = load_recipe(args.recipe, args.set)
        metrics = run_recipe(
            recipe,
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
    for name, value in metrics.items():
        print(f"{name} = {value:.4f}")
    return metrics


if __name__ == "__main__":
    main()
