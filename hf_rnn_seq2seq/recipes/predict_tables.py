"""Arguments of `predict` for a model that reads tables: what is refused before any work."""

import argparse

from ..data.files import DataError


# Options of the command line that mean nothing here, and what they are where they are not given.
_REFUSED = {
    **dict.fromkeys(("num_beams", "attention", "column", "reranker")),
    "num_return_sequences": 1,
    "scores": False,
}


def check_arguments(args: argparse.Namespace, does: str) -> None:
    """Refuse options that have no meaning for a model that `does` something else ("gives values"), and other outputs.

    Raises:
        DataError: an option has no meaning here, there is no table, or the output is no .jsonl.
    """
    for name, default in _REFUSED.items():
        if getattr(args, name) != default:
            got = getattr(args, name)
            raise DataError(f"--{name}: got {got}, but the model in {args.model_dir} {does}; leave it out")
    if args.input_file is None:
        raise DataError(f"the model in {args.model_dir} reads tables: give --input_file and --output_file")
    if args.output_file.suffix != ".jsonl":
        raise DataError(f"--output_file: got {args.output_file}, wanted a .jsonl: a series has many values")
