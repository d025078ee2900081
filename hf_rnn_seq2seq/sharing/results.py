"""The results file of a recipe, `scripts/results/<recipe>.json`.

A number is worth printing only with what is needed to get it again: the command, the seeds, the versions and the
hardware. Only the standard library and torch are imported.
"""

import math
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..data.files import read_json
from ..data.outputs import write_json


# Marks a metric of the validation data; one without it is of the test data.
VALIDATION_PREFIX = "validation_"

_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "tokenizers", "hf_rnn_seq2seq")


# Errors in standard deviations are below 1: of them two decimals say too little.
_ERRORS_OF_VALUES = ("mse", "rmse", "mae", "crps", "mase")


def readable_number(name: str, value: float) -> str:
    """Return a metric's number as tables show it: two decimals, or three of a small error of values."""
    error = name.removesuffix("_std").rpartition("_")[2] in _ERRORS_OF_VALUES
    return f"{value:.3f}" if error and abs(value) < 10 else f"{value:.2f}"


@dataclass(frozen=True)
class Results:
    """The numbers of a recipe, and what they were measured on.

    Args:
        recipe, command, seeds: the recipe's name; what was typed (see [`portable_command`]); the seeds of the runs.
        metrics, details: name -> number, in percent unless the metric has another unit; what belongs to a metric and
            is no number, such as BLEU's signature.
        parameters, training_seconds: tied parameters counted once; wall-clock time, evaluation included.
        hardware: `cpu` (its model), `cores` (that the process may use), `gpu` (name, or None if unused).
        versions, date: of Python and of the installed packages that decide the numbers; ISO 8601, UTC.
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
    """Return a program and its arguments as one line: absolute paths are made relative, or cut to their last part.

    In `--name=/a/path` the part after the equals sign counts.
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
    """Return the CPU's model, the cores this process may use, and the name of the GPU (of `device`); not the
    machine's.
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
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    if model := re.search(r"^model name\s*:\s*(\S.*?)\s*$", text, re.MULTILINE):
        return model[1]
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if answer:
            return answer
    return platform.processor() or platform.machine()


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of those packages that decide the numbers and are installed."""
    found = {package: next(iter(metadata.distributions(name=package)), None) for package in _PACKAGES}
    return {"python": platform.python_version(), **{name: part.version for name, part in found.items() if part}}


def write_results(
    path: str | Path,
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
    """Write a results file, with hardware, versions and date filled in; arguments as those of [`Results`].

    Args:
        path: the file; its folder is made if need be. A broken run leaves the old file.
        command: the program and its arguments; see [`portable_command`].
        device: what the model ran on. None: the GPU if there is one.

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
    write_json(path, asdict(results))
    return results


def read_results(path: str | Path) -> Results:
    """Read a results file; ValueError, which names it, for no JSON, or keys missing or unknown."""
    content = read_json(path)
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
