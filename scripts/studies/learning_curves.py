#!/usr/bin/env python
"""Measure the rule of `auto` against recipes tuned by hand, on 100, 25 and 5 % of a set's training data.

    python scripts/studies/learning_curves.py --data_dir DIR --results scripts/results/learning_curves.json
    python scripts/studies/learning_curves.py --data_dir DIR --results FILE --cells snips_intent/5,g2p_ice/25
    python scripts/studies/learning_curves.py --results scripts/results/learning_curves.json --table-only

A cell is a set and a share of its training items, drawn once (seed 1). `hand` is the recipe of that set, as it stands;
`auto` the recipe `start_here_*` of its kind, with file names and the metric of the set. Scored is validation data
alone, the same at every share; test data is not read. With `--results` the cells found are put into the file, those of
other runs stay; a cell that is there is not run again.
"""

from __future__ import annotations

import argparse
import gzip
import logging
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from hf_rnn_seq2seq.data.files import DataError, read_json
from hf_rnn_seq2seq.data.outputs import write_json
from hf_rnn_seq2seq.recipes.arguments import file_to_write, one_sentence
from hf_rnn_seq2seq.recipes.library import library_folder
from hf_rnn_seq2seq.recipes.recipe import build_recipe, read_recipe
from hf_rnn_seq2seq.recipes.run import run_recipe
from hf_rnn_seq2seq.recipes.scale import in_words
from hf_rnn_seq2seq.recipes.suite import SECTION, expand
from hf_rnn_seq2seq.recipes.task import TrainingReport, task_class
from hf_rnn_seq2seq.sharing.results import describe_hardware, installed_versions


logger = logging.getLogger(__name__)

SHARES = (5, 25, 100)
ARMS = ("hand", "auto")
# Without validation data a tenth of the training items is held out, before they are cut.
HELD_OUT = 0.1


@dataclass(frozen=True)
class Set:
    """A data set of the study.

    Args:
        folder, train, validation: under --data_dir; files of the same lines, one or two, gzipped.
        hand, auto: the recipes.
        metric: reported name of what is compared; one that ends in "er" is an error.
        data: the section `data` of both recipes beside the files.
        changes: what the recipe of `auto` is told besides.
        languages: value of the variable `language` of the recipe tuned by hand.
    """

    folder: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    hand: str
    auto: str
    metric: str
    data: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    language: str | None = None


def _pronunciation(language: str) -> Set:
    files = [f"{language}_{split}.tsv.gz" for split in ("train", "dev")]
    metrics = ("evaluation.metrics={wer: g2p_wer}", "evaluation.best_metric=wer")
    return Set(
        "sigmorphon2020_g2p", (files[0],), (files[1],), "sigmorphon2020_g2p", "start_here_text", "wer",
        changes=metrics, language=language,
    )  # fmt: skip


_TSV = ("data.text_column=2", "data.label_column=1")
_SNIPS = ("snips", ("train.jsonl.gz",), ("valid.jsonl.gz",))
_MULTI30K = [(f"{split}.lc.norm.tok.en.gz", f"{split}.lc.norm.tok.de.gz") for split in ("train", "val")]
SETS = {
    **{f"g2p_{language}": _pronunciation(language) for language in ("ice", "fre", "hun")},
    "snips_intent": Set(
        *(*_SNIPS, "snips_intent", "start_here_class", "accuracy"),
        ("data.text_column=tokens", "data.label_column=intent"),
    ),
    "trec6": Set("trec6", ("train.tsv.gz",), (), "trec6", "start_here_class", "accuracy", _TSV),
    "sst2": Set("sst2", ("train.tsv.gz",), ("dev.tsv.gz",), "sst2", "start_here_class", "accuracy", _TSV),
    "snips_slots": Set(*_SNIPS, "snips_slots", "start_here_tags", "f1", ("data.labels_column=tags",)),
    "ud_ewt_pos": Set(
        "ud_english_ewt", ("train.jsonl.gz",), ("dev.jsonl.gz",), "ud_ewt_pos", "start_here_tags", "accuracy",
        ("data.labels_column=upos",),
        ("evaluation.metrics=[accuracy]", "evaluation.best_metric=accuracy", "model.use_crf=false"),
    ),
    "multi30k_ende": Set(
        "multi30k/tok", _MULTI30K[0], _MULTI30K[1], "multi30k_ende", "start_here_text", "bleu",
        changes=("evaluation.metrics={bleu: {metric: bleu, tokenize: none}}", "evaluation.best_metric=bleu"),
    ),
}  # fmt: skip


def cut(data: Set, source: Path, share: int, folder: Path) -> int:
    """Write the cut training files and the validation files of a set; return the number of training items."""
    number = 0
    for place, name in enumerate(data.train):
        with gzip.open(source / name, "rt", encoding="utf-8", newline="\n") as file:
            lines = file.readlines()
        if data.validation:
            (folder / data.validation[place]).write_bytes((source / data.validation[place]).read_bytes())
        else:
            random.Random(0).shuffle(lines)
            held = round(HELD_OUT * len(lines))
            with gzip.open(folder / f"held_out_{name}", "wt", encoding="utf-8", newline="") as file:
                file.writelines(lines[:held])
            lines = lines[held:]
        number = max(1, round(share / 100 * len(lines)))
        chosen = sorted(random.Random(1).sample(range(len(lines)), number))  # the same lines of parallel files
        with gzip.open(folder / name, "wt", encoding="utf-8", newline="") as file:
            file.writelines(lines[line] for line in chosen)
    return number


def recipe_of(data: Set, arm: str, changes: list[str]) -> dict[str, Any]:
    """Return the content of the recipe of an arm, with the files of a set."""
    validation = data.validation or tuple(f"held_out_{name}" for name in data.train)
    named = [
        "{" + f"source: {files[0]}, target: {files[1]}" + "}" if len(files) == 2 else files[0]
        for files in (data.train, validation)
    ]
    content = read_recipe(
        library_folder() / f"{data.hand if arm == 'hand' else data.auto}.yaml",
        [f"data.train={named[0]}", f"data.validation={named[1]}", "data.test=null", *data.data]
        + (["data.validation_fraction=null"] if data.auto == "start_here_class" else [])
        + ["evaluation.splits=[validation]", "training.report_to=none", "training.disable_tqdm=true"]
        + (["data.unseen_labels=count_wrong"] if data.auto != "start_here_text" else [])
        + ([*data.changes] if arm == "auto" else [])
        + changes,
    )
    if SECTION not in content:
        return content
    content[SECTION] = {"for": {"language": [data.language]}}
    return expand(content)[0].content


def measure(data: Set, arm: str, data_dir: Path, share: int, changes: list[str]) -> dict[str, Any]:
    """Train a recipe on a share of a set; return its score, the items, the updates, the values of `auto`, remarks."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        folder.mkdir()
        items = cut(data, data_dir / data.folder, share, folder)
        content = recipe_of(data, arm, changes)
        kind = task_class(content["task"])
        started = time.process_time()
        out = Path(temporary) / "run"
        metrics = run_recipe(kind(build_recipe(content, data.hand, kind.kind)), folder, out)
        report = TrainingReport.load(out)
    assert report is not None
    return {
        "score": round(metrics[f"validation_{data.metric}"], 3),
        "items": items,
        "updates": report.updates,
        "cpu_seconds": round(time.process_time() - started),
        "auto": in_words(report.derived),
        "remarks": report.remarks,
    }


def table(cells: dict[str, dict[str, Any]]) -> str:
    """Return the markdown table: a row a cell; what `auto` loses relative to `hand`, below zero where it is better."""
    rows = [["set", "items", "metric", "by hand", "`auto`", "worse by, relative", "updates by hand, `auto`"]]
    rows.append(["---", "---:", "---", "---:", "---:", "---:", "---:"])
    for name in sorted(cells, key=lambda cell: (list(SETS).index(cell.split("/")[0]), int(cell.split("/")[1]))):
        data, found = SETS[name.split("/")[0]], cells[name]
        hand, auto = (found.get(arm, {}).get("score") for arm in ARMS)
        loss = "-"
        if hand is not None and auto is not None:
            worse = (auto - hand if data.metric.endswith("er") else hand - auto) / max(hand, 1e-9)
            loss = f"{worse:+.1%}".replace("%", " %")
        shown = ["-" if score is None else f"{score:.2f}" for score in (hand, auto)]
        updates = ", ".join(f"{found[arm]['updates']:,}" if arm in found else "-" for arm in ARMS)
        items = next(iter(found.values()))["items"]
        rows.append([name.split("/")[0], f"{items:,}", data.metric, *shown, loss, updates])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the command line; `arguments` is what follows the program's name. Return all cells there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [f"{name}/{share}" for share in SHARES for name in SETS]
    parser.add_argument("--data_dir", type=Path, default=Path(), help="folder with a folder for each set")
    parser.add_argument("--cells", default=",".join(known), help="set/share, with commas between; default: all")
    parser.add_argument("--arms", default=",".join(ARMS), help="hand, auto or both; default: hand,auto")
    parser.add_argument("--set", nargs="+", action="extend", default=[], help="changes to every recipe, for trials")
    parser.add_argument("--results", type=file_to_write, metavar="FILE", help="JSON file to put the cells into")
    parser.add_argument("--table-only", action="store_true", help="train nothing, print the table of --results")
    options = parser.parse_args(arguments)
    cells, arms = options.cells.split(","), options.arms.split(",")
    for option, given, wanted in (("cells", cells, known), ("arms", arms, list(ARMS))):
        if wrong := [name for name in given if name not in wanted]:
            parser.error(f"--{option}: got {wrong[0]!r}, wanted some of {', '.join(wanted)}")
    if options.table_only and options.results is None:
        parser.error("--table-only prints the table of --results: name that file")
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    transformers.utils.logging.disable_progress_bar()
    found: dict[str, Any] = {"cells": {}}
    with one_sentence():
        if options.results is not None and options.results.exists():
            found = read_json(options.results)
            if not isinstance(found, dict) or not isinstance(found.get("cells"), dict):
                raise DataError(f"{options.results}: wanted an object with the key cells, as this program writes it")
        for cell in [] if options.table_only else cells:
            name, share = cell.split("/")
            for arm in arms:
                if arm in found["cells"].get(cell, {}):
                    continue
                result = measure(SETS[name], arm, options.data_dir, int(share), options.set)
                logger.info("%s %s: %s", cell, arm, result)
                found["cells"].setdefault(cell, {})[arm] = result
                found |= {"hardware": describe_hardware("cpu"), "versions": installed_versions()}
                if options.results is not None:
                    write_json(options.results, found)
    print(table(found["cells"]))
    return found["cells"]


if __name__ == "__main__":
    main()
