"""The table of all results files in docs/results.md, `scripts/results/<recipe>.json`.

`python scripts/benchmark/results_table.py docs/results.md scripts/results` rewrites the table between two comments of
a file, and with `--check` says whether it is up to date.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from hf_rnn_seq2seq.data.files import read_text, text_lines
from hf_rnn_seq2seq.data.outputs import replacing
from hf_rnn_seq2seq.sharing.results import VALIDATION_PREFIX, Results, read_results, readable_number


def _comments(block: str) -> tuple[str, str]:
    return f"<!-- {block}:begin -->", f"<!-- {block}:end -->"


BEGIN, END = _comments("results")
SPEED_FILE = "benchmark.json"  # which speed.py reads
# Not of a recipe, like what serving.py and studies/accelerations.py, g2p_comparison.py and learning_curves.py write.
_OTHERS = (SPEED_FILE, "serving.json", "accelerations.json", "g2p_comparison.json", "learning_curves.json")
# What others reached, beside the results files: a recipe's name, a tabulator, numbers and their source, one a line.
PUBLISHED_FILE = "published.tsv"
_NO_RESULTS = "*No results yet.*"
# A table's row with more numbers than this names the first ones only.
_MOST_SHOWN = 14
_MOST_RUNS = 6
_NO_RESULTS = "*No results yet.*"


def results_table(folder: str | os.PathLike[str]) -> str:
    """Return the markdown table of all results files of a folder, sorted by recipe; the two of speed are none of them.

    Numbers of other people's models stand beside ours if the folder has a `PUBLISHED_FILE`.

    Raises:
        ValueError: there is no such folder, or a file in it is not as it must be.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"folder must be a folder of results files, got {folder}")
    paths = sorted(path for path in Path(folder).glob("*.json") if path.name not in _OTHERS)
    results = [read_results(path) for path in paths]
    if not results:
        return _NO_RESULTS
    published = _published(Path(folder) / PUBLISHED_FILE)
    rows = [
        ["recipe", "result", "published", "parameters", "training", "hardware", "seeds", "date"],
        ["---", "---", "---", "---:", "---:", "---", "---", "---"],
        *(_row(result, published.get(result.recipe, "")) for result in results),
    ]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def _published(path: Path) -> dict[str, str]:
    """Return what others reached, by recipe; empty without such a file."""
    published: dict[str, str] = {}
    for number, line in enumerate(text_lines(path) if path.exists() else (), start=1):
        recipe, tabulator, text = line.partition("\t")
        if not tabulator or not text or recipe in published:
            raise ValueError(f"{path}, line {number}: got {line!r}, wanted a new recipe, a tabulator, a text")
        published[recipe] = text
    return published


def _row(results: Results, published: str) -> list[str]:
    hardware = results.hardware
    # Numbers of the validation data chose the model; they are no results unless there are no others.
    tested = {name: value for name, value in results.metrics.items() if not name.startswith(VALIDATION_PREFIX)}
    shown = [f"{name} **{readable_number(name, value)}**" for name, value in (tested or results.metrics).items()]
    if len(shown) > _MOST_SHOWN:
        # The mean over all runs comes first, the runs after it. Of few runs each one's own first metric is shown.
        first = next(iter(tested or results.metrics))
        each = [text for text in shown if text.split()[0].endswith(f"_{first}")]
        few = [shown[0], *each] if 0 < len(each) <= _MOST_RUNS else shown[:4]
        shown = [*few, f"and {len(shown) - len(few)} more in the file"]
    return [
        f"`{results.recipe}`",
        ", ".join(shown),
        published,
        _readable_count(results.parameters),
        _readable_time(results.training_seconds),
        hardware.get("gpu") or f"{hardware.get('cpu')}, {hardware.get('cores')} cores",
        ", ".join(map(str, results.seeds)),
        results.date[:10],
    ]


def _readable_count(number: int) -> str:
    for factor, unit in ((1_000_000, "M"), (1_000, "k")):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return str(number)


def _readable_time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def replace_block(text: str, table: str, block: str = "results") -> str:
    """Return the text with `table` between the two comments of a block.

    Raises:
        ValueError: the comments do not stand there exactly once each, in that order.
    """
    begin, end = _comments(block)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"the file must hold one {begin} and after it one {end}")
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n{table}\n{end}{after}"


def update_document(document: Path, table: str, block: str, check: bool) -> bool:
    """Put a table into its block of a document, unless `check`; return whether the document is as it should be."""
    old = read_text(document)
    new = replace_block(old, table, block)
    if old != new and not check:
        with replacing(document) as file:
            file.write_text(new, encoding="utf-8")
    return old == new or not check


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as the head of this file says. Exit status 1: stale (with `--check`); 2: a file is not as it must be."""
    parser = argparse.ArgumentParser(description="Write the table of all results files into a document.")
    parser.add_argument("document", type=Path, help=f"markdown file with {BEGIN} and {END}")
    parser.add_argument("folder", type=Path, help="folder of the results files")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if the table is stale")
    options = parser.parse_args(arguments)
    try:
        table = results_table(options.folder)
        if table == _NO_RESULTS and f"{BEGIN}\n| " in read_text(options.document):
            raise ValueError(f"holds a table, but {options.folder} no results file; wanted the folder of the results")
        fresh = update_document(options.document, table, "results", options.check)
    except (OSError, ValueError) as error:
        parser.error(f"{options.document}: {error}")
    if not fresh:
        parser.exit(1, f"{options.document}: the results table is stale; run without --check to rewrite it\n")


if __name__ == "__main__":
    main()
