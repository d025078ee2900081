"""The results file of a recipe, `scripts/results/<recipe>.json`, and the table of all of them in the README.

A number is worth printing only with what is needed to get it again: the command, the seeds, the versions and the
hardware. `python -m hf_rnn_seq2seq.sharing.results README.md scripts/results` rewrites the table between two comments
of a file, and with `--check` says whether it is up to date. Only the standard library and torch are imported.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..data.files import read_text, text_lines


def _comments(block: str) -> tuple[str, str]:
    return f"<!-- {block}:begin -->", f"<!-- {block}:end -->"


BEGIN, END = _comments("results")
# Not of a recipe: `speed.py` reads it.
SPEED_FILE = "benchmark.json"
# What others reached, beside the results files: a recipe's name, a tabulator, numbers and their source, one a line.
PUBLISHED_FILE = "published.tsv"
# Marks a metric of the validation data; one without it is of the test data.
VALIDATION_PREFIX = "validation_"

# A table's row with more numbers than this names the first ones only.
_MOST_SHOWN = 14
_MOST_RUNS = 6

_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "hf_rnn_seq2seq")
_NO_RESULTS = "*No results yet.*"


@dataclass(frozen=True)
class Results:
    """What a recipe gave, and on what.

    Args:
        recipe (`str`): name of the recipe, the file's stem.
        command (`str`): what was typed; without absolute paths, see [`portable_command`].
        seeds (`list[int]`): the seeds of the runs behind the metrics.
        metrics (`dict[str, float]`): name -> number, in percent unless the metric has another unit.
        parameters (`int`): number of the model's parameters, tied ones counted once.
        training_seconds (`float`): wall-clock time of training, evaluation during it included.
        hardware (`dict`): `cpu` (its model), `cores` (that the process may use), `gpu` (name, or None if unused).
        versions (`dict[str, str]`): of Python and of the installed packages that decide the numbers.
        date (`str`): when the file was written, ISO 8601, UTC.
        details (`dict[str, str]`): what belongs to a metric and is no number, such as BLEU's signature.
    """

    recipe: str
    command: str
    seeds: list[int]
    metrics: dict[str, float]
    parameters: int
    training_seconds: float
    hardware: dict[str, Any]
    versions: dict[str, str]
    date: str
    details: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.recipe:
            raise ValueError("recipe must be the recipe's name, got an empty string")
        if not self.metrics:
            raise ValueError("metrics must hold at least one number, got an empty dict")
        for name, value in self.metrics.items():
            # NaN and infinity are not JSON, and no result either; a bool is an int to Python.
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"metrics[{name!r}] must be a finite number, got {value!r}")
        if self.parameters < 1:
            raise ValueError(f"parameters must be at least 1, got {self.parameters}")
        if self.training_seconds < 0:
            raise ValueError(f"training_seconds must not be negative, got {self.training_seconds}")


def portable_command(arguments: Sequence[str]) -> str:
    """The command as one line that may be published: absolute paths are made relative, or cut to their last part.

    Args:
        arguments (`Sequence[str]`): the program and its arguments, such as `["python", *sys.argv]`. In
            `--name=/a/path` the part after the equals sign counts.
    """
    return shlex.join(_portable_argument(argument) for argument in arguments)


def _portable_argument(argument: str) -> str:
    option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    path = Path(value).expanduser()
    if not path.is_absolute():
        return argument
    try:
        shown = path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        shown = path.name
    return f"{option}{equals}{shown or path.name}"


def describe_hardware(device: torch.device | str | None = None) -> dict[str, Any]:
    """CPU model, cores this process may use, and the GPU's name; nothing that names the machine.

    Args:
        device (`torch.device` or `str`, *optional*): what the model ran on. None: the GPU if there is one.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"cpu": _cpu_model(), "cores": cores, "gpu": gpu}


def _cpu_model() -> str:
    # The standard library knows only the architecture on Linux and macOS.
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if answer:
            return answer
    return platform.processor() or platform.machine()


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers; one that is not installed is left out."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def write_results(
    path: str | os.PathLike[str],
    *,
    recipe: str,
    command: Sequence[str],
    seeds: Sequence[int],
    metrics: Mapping[str, float],
    parameters: int,
    training_seconds: float,
    device: torch.device | str | None = None,
    details: Mapping[str, str] | None = None,
) -> Results:
    """Writes a results file; hardware, versions and date are filled in.

    Args:
        path (`str` or `os.PathLike`): the file; its folder is made if need be. It is replaced in one step, so a
            broken run leaves the old file.
        recipe (`str`): name of the recipe.
        command (`Sequence[str]`): the program and its arguments; see [`portable_command`].
        seeds (`Sequence[int]`): the seeds of the runs behind the metrics.
        metrics (`Mapping[str, float]`): name -> finite number, in percent.
        parameters (`int`): number of the model's parameters.
        training_seconds (`float`): wall-clock time of training.
        device (`torch.device` or `str`, *optional*): what the model ran on. None: the GPU if there is one.
        details (`Mapping[str, str]`, *optional*): what belongs to a metric and is no number.

    Raises:
        ValueError: a metric that is no finite number, or nothing to write.
    """
    results = Results(
        recipe=recipe,
        command=portable_command(command),
        seeds=list(seeds),
        metrics=dict(metrics),
        parameters=parameters,
        training_seconds=round(training_seconds, 1),
        hardware=describe_hardware(device),
        versions=installed_versions(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        details=dict(details or {}),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(asdict(results), indent=2, ensure_ascii=False) + "\n")
    return results


def replace_file(path: Path, text: str) -> None:
    """Writes a file in one step: a broken run leaves the old one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_results(path: str | os.PathLike[str]) -> Results:
    """Reads a results file.

    Raises:
        ValueError: no JSON, or keys missing or unknown; the message names the file.
    """
    try:
        content = json.loads(read_text(Path(path)))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON, {error.msg}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold an object, got {type(content).__name__}")
    known = {entry.name for entry in fields(Results)}
    missing, unknown = sorted(known - {"details"} - content.keys()), sorted(content.keys() - known)
    if missing or unknown:
        raise ValueError(f"{path}: keys missing: {missing or 'none'}, keys unknown: {unknown or 'none'}")
    try:
        return Results(**content)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def results_table(folder: str | os.PathLike[str]) -> str:
    """The markdown table of all results files of a folder, sorted by recipe; `SPEED_FILE` is none of them.

    Numbers of other people's models stand beside ours if the folder has a `PUBLISHED_FILE`.

    Raises:
        ValueError: there is no such folder, or a file in it is not as it must be.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"folder must be a folder of results files, got {folder}")
    paths = sorted(path for path in Path(folder).glob("*.json") if path.name != SPEED_FILE)
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
    """Recipe -> what others reached; empty without such a file."""
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
    shown = [f"{name} **{value:.2f}**" for name, value in (tested or results.metrics).items()]
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
    """The text with `table` between the two comments of a block.

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
    """Puts a table into its block of a document, unless `check`; says whether the document is as it should be."""
    old = read_text(document)
    new = replace_block(old, table, block)
    if old != new and not check:
        replace_file(document, new)
    return old == new or not check


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: see the module's docstring. Exit status 1: stale (with `--check`); 2: a file is not as it must be.

    Args:
        arguments (`Sequence[str]`, *optional*): the arguments without the program; None: those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m hf_rnn_seq2seq.sharing.results",
        description="Write the table of all results files into a document.",
    )
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
