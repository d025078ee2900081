"""Several runs of one recipe: other seeds, other languages, one model each, and what they give on average.

The section `runs` of a recipe says which runs there are; `expand` writes them out as recipes without it, `run_suite`
has each done by a function and sums up their results files. Knows nothing of tasks and models.
"""

import itertools
import logging
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..data.files import read_text
from ..data.outputs import is_first_process, write_whole
from ..sharing.results import VALIDATION_PREFIX, Results, read_results, write_results
from .options import OptionsError, check_types, nearest, read_yaml, write_yaml


logger = logging.getLogger(__name__)

SECTION = "runs"
RESULTS_FILE = "results.json"
# Says of what recipe a finished run is, so that a suite is not resumed with runs of another one among its own.
RUN_FILE = "run.yaml"
Value: TypeAlias = str | int | float | bool


@dataclass(frozen=True)
class Run:
    """One run of a suite.

    Args:
        name: its values joined by "_", such as "ady" or "task1_seed2"; names its folder.
        values: name of each variable, and "seed", to its value in this run.
        content: the recipe of this run alone, without the section `runs`.
    """

    name: str
    values: Mapping[str, Value]
    content: dict[str, Any]


def expand(content: Mapping[str, Any]) -> list[Run]:
    """Return the runs of a recipe with the section `runs`, the seeds changing fastest.

    The section holds `seeds`, a list of numbers for `training.seed`, or `for`, a mapping from the names of variables
    to lists of values, or both; every combination is a run. In the run of the value ady, the text `{language}` becomes
    ady in all texts of the recipe; a text that is nothing but `{language}` becomes the value itself, which may be a
    number. What the runs of one value need otherwise stands in `with`, by the value's name in the folders:
    `with: {task5: {training: {max_steps: 9000}}}`.

    Raises:
        OptionsError: a key or a value that cannot be used, or a variable that no text mentions.
    """
    section = content.get(SECTION)
    if not isinstance(section, dict) or not (section.get("seeds") or section.get("for")):
        raise OptionsError(f"{SECTION}: wanted seeds: [1, 2] or for: {{variable: [value, value]}}, got {section!r}")
    hints = {"seeds": list[int], "for": dict[str, list[Any]], "with": dict[str, dict[str, dict[str, Any]]]}
    check_types(section, hints, SECTION, {})
    variables: dict[str, list[Value]] = dict(section.get("for", {}))
    for variable in variables:
        if not variable.isidentifier() or variable == "seed":
            raise OptionsError(f"{SECTION}.for: got the variable {variable!r}, wanted a name of letters, digits and _")
    if "seeds" in section:
        if "seed" in (content.get("training") or {}):
            raise OptionsError(f"training.seed: leave it out, {SECTION}.seeds gives the seed of each run")
        variables["seed"] = section["seeds"]
    for variable, values in variables.items():
        path = f"{SECTION}.seeds" if variable == "seed" else f"{SECTION}.for.{variable}"
        names = [_value_name(variable, value) for value in values]
        if not values or len(set(names)) < len(names):
            raise OptionsError(f"{path}: got {values}, wanted one or more different values")
        for value, name in zip(values, names, strict=True):
            if not isinstance(value, str | int | float) or not re.fullmatch(r"\w[\w.-]*", name):
                raise OptionsError(f"{path}: got {value!r}, wanted a number or a name of letters, digits, - . and _")
    names = [_value_name(variable, value) for variable, values in variables.items() for value in values]
    for name in (particular := section.get("with", {})):
        if name not in names:
            raise OptionsError(f"{SECTION}.with.{name}: no run has this value{nearest(name, names)}")
    runs = []
    for combination in itertools.product(*variables.values()):
        chosen = dict(zip(variables, combination, strict=True))
        own = {name: section for name, section in content.items() if name != SECTION}
        for name in itertools.starmap(_value_name, chosen.items()):
            for part, options in particular.get(name, {}).items():
                own[part] = {**(own.get(part) or {}), **options}
        for variable, value in chosen.items():
            if variable == "seed":
                own = {**own, "training": {**(own.get("training") or {}), "seed": value}}
                continue
            filled = _filled(own, f"{{{variable}}}", value)
            if filled == own:
                raise OptionsError(f"{SECTION}.for.{variable}: no text of the recipe mentions {{{variable}}}")
            own = filled
        runs.append(Run("_".join(itertools.starmap(_value_name, chosen.items())), chosen, own))
    return runs


def _value_name(variable: str, value: Value) -> str:
    """A value in the name of a run: a word speaks for itself, a number needs the variable's name."""
    return value if isinstance(value, str) else f"{variable}{value}"


def _filled(part: Any, placeholder: str, value: Value) -> Any:
    if isinstance(part, dict):
        return {key: _filled(item, placeholder, value) for key, item in part.items()}
    if isinstance(part, list):
        return [_filled(item, placeholder, value) for item in part]
    if not isinstance(part, str):
        return part
    return value if part == placeholder else part.replace(placeholder, str(value))


def run_suite(
    content: Mapping[str, Any],
    name: str,
    run_one: Callable[[Run, Path, Path], object],
    output_dir: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    results: str | Path | None = None,
    command: Sequence[str] = (),
    check: Callable[[Run, Path], object] | None = None,
) -> dict[str, float]:
    """Have every run of a recipe done, and return what they give together, see `summary`.

    Args:
        content, name: the recipe with its section `runs`, and its name.
        run_one: does a run that is not finished; called with it, its folder `output_dir/<name of the run>`, and the
            results file that it has to write there.
        output_dir: where the folders of the runs go.
        resume, overwrite, results, command: as for `run.run_recipe`; runs with a results file are finished.
        check: refuses a run that cannot be done in its folder; called with every run to do, before the first one.

    Raises:
        OptionsError: as `expand`, or a run to resume is of another recipe.
        FileExistsError: there are runs in `output_dir`, and neither `resume` nor `overwrite` is set.
    """
    runs = expand(content)
    folders = {run.name: Path(output_dir) / run.name for run in runs}
    # All of this before the first run, so that nothing is refused after hours, and all processes see the same.
    finished = {run.name for run in runs if _is_finished(run, folders[run.name], resume, overwrite)}
    for run in runs:
        if check is not None and run.name not in finished:
            check(run, folders[run.name])
    for number, run in enumerate(runs, start=1):
        words = ", ".join(f"{variable}={value}" for variable, value in run.values.items())
        done = " was finished before" if run.name in finished else ""
        logger.info("run %d of %d: %s%s", number, len(runs), words, done)
        if run.name not in finished:
            with _replacing_run(run, folders[run.name]):
                run_one(run, folders[run.name], folders[run.name] / RESULTS_FILE)
    if not is_first_process():
        return {}
    done_runs = [(run, read_results(folders[run.name] / RESULTS_FILE)) for run in runs]
    metrics = summary(done_runs)
    if results is not None:
        each = [result for _, result in done_runs]
        write_results(
            results,
            recipe=name,
            command=command,
            seeds=sorted({seed for result in each for seed in result.seeds}),
            metrics=metrics,
            parameters=max(result.parameters for result in each),
            training_seconds=sum(result.training_seconds for result in each),
            device="cpu" if each[0].hardware["gpu"] is None else None,
            details=_details(done_runs),
        )
    return metrics


def _is_finished(run: Run, folder: Path, resume: bool, overwrite: bool) -> bool:
    """Return whether a run was done before; refuse one that would be replaced, or that is of another recipe."""
    written, results = folder / RUN_FILE, folder / RESULTS_FILE
    if overwrite or not (written.is_file() or results.is_file()):
        return False
    if not resume:
        raise FileExistsError(
            f"{folder} holds an earlier run: give --resume to go on, --overwrite to start again, or another "
            "--output_dir"
        )
    if not (written.is_file() and results.is_file()):
        return False
    before = read_yaml(read_text(written), str(written))
    if isinstance(before, dict) and "task" in run.content:
        before = {"task": run.content["task"], **before}  # older ones do not say it
    if before != run.content:
        raise OptionsError(f"--resume: the run in {folder} has another recipe")
    return True


def earlier_results(folder: Path) -> Path:
    """Where the results of an earlier run are while its successor is being done."""
    return folder / f"{RESULTS_FILE}.earlier"


@contextmanager
def _replacing_run(run: Run, folder: Path) -> Iterator[None]:
    """The time of a run: an earlier one's results are not taken for its own, and come back if they still hold."""
    if not is_first_process():
        yield
        return
    results, earlier = folder / RESULTS_FILE, earlier_results(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if results.is_file():
        results.replace(earlier)
    try:
        yield
    except BaseException:
        # A run that got as far as to replace the earlier one has taken this away too.
        if earlier.is_file():
            earlier.replace(results)
        raise
    earlier.unlink(missing_ok=True)
    write_whole(folder / RUN_FILE, write_yaml(run.content))


def summary(done: Sequence[tuple[Run, Results]]) -> dict[str, float]:
    """Return the mean over the runs of every metric that all of them have.

    With several seeds also `<name>_std`: the sample standard deviation, over the seeds, of the mean over the other
    runs. With `for`, as `<value>_<name>`: the mean of the runs of that value of each variable, then of those of all
    variables' values; not for metrics of the validation data.
    """
    names = [name for name in done[0][1].metrics if all(name in result.metrics for _, result in done)]
    metrics = {}
    by_seed = _grouped(done, lambda run: str(run.values.get("seed")))
    variables = [name for name in done[0][0].values if name != "seed"]
    by_value: dict[str, list[Results]] = {}
    for chosen in [*([variable] for variable in variables), variables]:
        named = {run.name: "_".join(_value_name(name, run.values[name]) for name in chosen) for run, _ in done}
        by_value |= _grouped(done, lambda run, named=named: named[run.name])  # type: ignore[misc]
    for name in names:
        metrics[name] = _mean(name, [result for _, result in done])
        if len(by_seed) > 1:
            metrics[f"{name}_std"] = statistics.stdev(_mean(name, results) for results in by_seed.values())
    for value, results in by_value.items():
        if value:
            metrics |= {f"{value}_{n}": _mean(n, results) for n in names if not n.startswith(VALIDATION_PREFIX)}
    return metrics


def _grouped(done: Sequence[tuple[Run, Results]], key: Callable[[Run], str]) -> dict[str, list[Results]]:
    groups: dict[str, list[Results]] = {}
    for run, result in done:
        groups.setdefault(key(run), []).append(result)
    return groups


def _mean(name: str, results: Sequence[Results]) -> float:
    return statistics.fmean(result.metrics[name] for result in results)


def _details(done: Sequence[tuple[Run, Results]]) -> dict[str, str]:
    """The numbers of every single run, in words, and what is no number and the same in all runs."""
    first = done[0][1].details
    details = {
        name: text for name, text in first.items() if all(result.details.get(name) == text for _, result in done)
    }
    for run, result in done:
        details[run.name] = ", ".join(f"{name} {value:.2f}" for name, value in result.metrics.items())
    return details
