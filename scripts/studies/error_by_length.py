#!/usr/bin/env python
"""Draw the error rate of several runs against the length of the source: the first weakness of a fixed context vector.

    python scripts/studies/error_by_length.py PNG NAME=PREDICTIONS.tsv [NAME=PREDICTIONS.tsv ...] [--overwrite]

PREDICTIONS.tsv is the predictions_test.tsv that run_seq2seq.py writes. Prints, and draws, the share of sources whose
best hypothesis is none of the references, by source length in characters (as Cho et al. 2014, Fig. 4, and Bahdanau et
al. 2015, Fig. 2, do with BLEU).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

from hf_rnn_seq2seq.data.files import table_columns
from hf_rnn_seq2seq.data.outputs import check_output_file, picture_format, replacing
from hf_rnn_seq2seq.recipes.arguments import one_sentence, picture_to_write, whole_number


def error_by_length(path: Path, smallest: int) -> dict[int, tuple[float, int]]:
    """Source length -> (wrong sources in percent, number of sources), lengths with fewer than `smallest` left out."""
    wrong: dict[int, list[bool]] = defaultdict(list)
    columns = {name: name for name in ("source", "rank", "prediction", "references")}
    for _, (source, rank, prediction, references) in table_columns(path, "tsv", columns, header=True):
        if rank == "1":
            wrong[len(source)].append(prediction not in references.split(" | "))
    return {n: (100 * sum(w) / len(w), len(w)) for n, w in sorted(wrong.items()) if len(w) >= smallest}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; `arguments` is what follows the program's name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=picture_to_write, metavar="PNG")
    parser.add_argument("runs", nargs="+", metavar="NAME=PREDICTIONS")
    parser.add_argument(
        "--smallest", type=whole_number(1), default=50, help="leave out lengths with fewer sources than this"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a picture of this name")
    args = parser.parse_args(arguments)
    try:
        check_output_file(args.picture, "PNG", args.overwrite)
    except OSError as error:
        parser.error(str(error))

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for run in args.runs:
        name, separator, path = run.partition("=")
        if not separator:
            parser.error(f"wanted NAME=PREDICTIONS, got {run!r}")
        with one_sentence():
            rates = error_by_length(Path(path), args.smallest)
        if not rates:
            parser.error(f"{path}: no source length has {args.smallest} sources; see --smallest")
        axes.plot(list(rates), [rate for rate, _ in rates.values()], marker="o", label=name)
        for length, (rate, count) in rates.items():
            print(f"{name}\tlength {length}\t{rate:.2f} % of {count}")
    axes.set_xlabel("length of the source in characters")
    axes.set_ylabel("sources with a wrong output, %")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(args.picture) as picture:
        figure.savefig(picture, format=picture_format(args.picture), dpi=150)
    print(f"drawn to {args.picture}")


if __name__ == "__main__":
    main()
