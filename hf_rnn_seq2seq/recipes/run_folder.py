"""The folder of a run: what is there already, and how a new run takes its place.

An earlier run is deleted only if `--overwrite` says so, and only once its successor is finished: until then it is set
aside in the folder, and it comes back if the new run fails before it has a checkpoint of its own. A process may be
killed at any time: what is moved file by file is first, or last, renamed as a whole. Needs the extra `train`.
"""

import hashlib
import json
import logging
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..data.files import first_few, read_text
from ..data.outputs import check_output_file, check_output_folder, is_first_process, remove, write_whole
from ..data.preprocessing import COLUMNS_FILE, PREPROCESSING_FILE, RECIPE_FILE, SERIES_FILE
from ..data.tokenizers import TARGET_TOKENIZER_FOLDER
from ..evaluation.reranker import RERANKER_FOLDER
from ..training.checkpoints import (
    UNFINISHED,
    checkpoints_of,
    clear_unfinished,
    discard,
    last_whole_checkpoint,
    number_of_processes,
    on_disk,
    run_and_processes_of,
)
from .options import read_yaml
from .recipe import Recipe, RecipeError
from .scale import AUTO, auto_keys, value_at
from .suite import RUN_FILE, earlier_results
from .task import REPORT_FILE, TrainingReport, check_folder


logger = logging.getLogger(__name__)

# The code that a model is saved with.
_MODEL_CODE = Path(__file__).parents[1] / "model"
# Where the earlier run is while a new one takes its place.
EARLIER_FOLDER = "earlier_run"
# The same while its files are moved into it, or back; and the model while its files are.
_MOVED_FOLDER = ".earlier_run"
MODEL_FOLDER, MEAN_FOLDER = f"{UNFINISHED}model", f"{UNFINISHED}mean."
# A mean that is whole, but not in its place: before the earlier files are gone, and after that.
_WHOLE_MEAN, _MOVED_MEAN = f"{UNFINISHED}whole_mean", f"{UNFINISHED}moved_mean"
# The comment in a run's recipe that tells it from all others.
_RUN_LINE = "# run: {}\n"
CARD_FILE, CONFIG_FILE = "README.md", "config.json"
PREDICTIONS = "predictions_*.tsv"
SPOKEN_PICTURE = "spectrogram.png"
VALUES_PICTURE = "values.png"
FORECAST_PICTURE = "forecast.png"
# What a run leaves, beside its checkpoints, its recipe, and a card.
_FINISHED = (
    *("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "config.json", "generation_config.json"),
    *("tokenizer*.json", "special_tokens_map.json", "*processor_config.json"),
    *(COLUMNS_FILE, VALUES_PICTURE, SERIES_FILE, FORECAST_PICTURE, SPOKEN_PICTURE),
    *(PREPROCESSING_FILE, TARGET_TOKENIZER_FOLDER, RERANKER_FOLDER, "training_args.bin", REPORT_FILE, PREDICTIONS),
)
# Validation data is decoded greedily.
_OF_BEAMS = ("num_beams", "num_return_sequences", "length_penalty", "early_stopping")
# The sections that the weights do not depend on, but for what chooses among them ...
_NOT_TRAINED_SECTIONS = ("generation", "evaluation", "listening", "card")
# ... and what may differ in the others between a run and its continuation: how long it goes on, and what it says.
_LENGTH = frozenset({"num_train_epochs", "max_steps", "updates"})
_FREE_AT_RESUME = _LENGTH | {"logging_steps", "report_to", "disable_tqdm"}


def finished_work(folder: Path, with_card: bool = True) -> list[Path]:
    """What a run, or an evaluation, has left in a folder, which need not be there.

    A README.md that lies beside nothing else may be somebody's own: it counts only `with_card`.
    """
    found = [*checkpoints_of(folder), *(path for pattern in _FINISHED for path in sorted(folder.glob(pattern)))]
    card = folder / CARD_FILE
    return [*found, card] if card.is_file() and (found or with_card) else found


def run_files(folder: Path, with_card: bool) -> list[Path]:
    """All that belongs to the run in a folder: `finished_work`, its recipe, and the code and results beside it."""
    code = [path for path in folder.glob("*.py") if (_MODEL_CODE / path.name).is_file()]
    others = [folder / RECIPE_FILE, folder / RUN_FILE, earlier_results(folder)]
    work = finished_work(folder, with_card)
    return [*work, *(code if work else []), *(path for path in others if path.exists())]


def check_output(
    recipe: Recipe,
    output_dir: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    eval_only: Sequence[str | Path] = (),
    average: bool = False,
    results: str | Path | None = None,
) -> Path | None:
    """Refuse to write where something would be lost; return the checkpoint to go on from, or `None`. Changes nothing.

    Arguments as for `run.run_recipe`.

    Raises:
        FileExistsError, PermissionError: finished work or a file is in the way, or the folder cannot be written.
        RecipeError: the run to go on with is another one, or `output_dir` holds a model to average.
    """
    folder = Path(output_dir)
    check_output_folder(folder, "--output_dir")
    checkpoint = None
    if eval_only:
        _check_evaluation(folder, eval_only, average, overwrite)
    else:
        checkpoint = _check_training(recipe, folder, resume, overwrite)
    if results is not None:
        check_output_file(results, "--results", overwrite or resume)
    return checkpoint


def _check_training(recipe: Recipe, folder: Path, resume: bool, overwrite: bool) -> Path | None:
    """Refuse a training that would mix two runs, or replace one; the checkpoint to go on from."""
    work = finished_work(folder, with_card=recipe.card is not None)
    goes_on = bool(checkpoints_of(folder))
    if resume and (goes_on or TrainingReport.load(folder) is not None):
        # A run without checkpoints, which are gone or never were, is finished, or nothing can be done.
        differing = differences(recipe, folder, _FREE_AT_RESUME if goes_on else _FREE_AT_RESUME - _LENGTH)
        if differing:
            raise RecipeError(f"--resume: the run in {folder} has another recipe: {', '.join(differing)}")
        return _checkpoint_to_go_on_from(recipe, folder) if goes_on else None
    # The files of a model whose writing was broken off are those of a run that never finished.
    unfinished = (folder / MODEL_FOLDER).exists() and not differences(recipe, folder)
    if resume and work and not unfinished:
        raise FileExistsError(
            f"{folder} holds {_named(work)}, but no checkpoint to go on from: give --overwrite to start again, or "
            "another --output_dir"
        )
    if resume:
        logger.info("%s holds no finished checkpoint to go on from: the run starts anew", folder)
    elif not overwrite and (work or (folder / EARLIER_FOLDER).exists()):
        what = "checkpoints" if goes_on else _named(work or [folder / EARLIER_FOLDER])
        raise FileExistsError(
            f"{folder} holds {what} of an earlier run: give --resume to go on, --overwrite to start again, or another "
            "--output_dir"
        )
    return None


def _checkpoint_to_go_on_from(recipe: Recipe, folder: Path) -> Path | None:
    checkpoint = last_whole_checkpoint(folder, run_id(folder), recipe_hash(recipe))
    if checkpoint is not None:
        processes, now = run_and_processes_of(checkpoint)[1], number_of_processes()
        if processes != now:  # each makes batches of the recipe's size
            raise RecipeError(
                f"--resume: got {now} process(es), {checkpoint} was saved by {processes}: wanted as many"
            )
    return checkpoint


def _check_evaluation(folder: Path, models: Sequence[str | Path], average: bool, overwrite: bool) -> None:
    """Refuse an evaluation of no model, one that would replace predictions, a mean that would replace a model."""
    for model in models:
        check_folder("--eval_only", str(model))
    if average:
        for model in models:
            if folder.resolve() in (Path(model).resolve(), *Path(model).resolve().parents):
                raise RecipeError(
                    f"--output_dir: {folder} holds {model}, one of the models to average; wanted another folder"
                )
    work = finished_work(folder) if average else sorted(folder.glob(PREDICTIONS))
    if work and not overwrite:
        raise FileExistsError(
            f"{folder} holds {_named(work)}: name another --output_dir, or give --overwrite to replace what is there"
        )


def _named(paths: Sequence[Path]) -> str:
    return first_few([path.name for path in paths])


def differences(recipe: Recipe, folder: Path, free: frozenset[str] = _FREE_AT_RESUME - _LENGTH) -> list[str]:
    """Where the recipe in a run's folder differs from another one in what the weights depend on.

    Keys, as `section.key (old -> new)`, without the `free` ones of the section `training`; none if there is no recipe.
    """
    written = folder / RECIPE_FILE
    if not written.is_file():
        return []
    before = read_yaml(read_text(written), str(written))
    # An old one does not say its task.
    old = {"task": recipe.content["task"], **before}
    now = {**_trained(recipe.content), **_chosen(recipe.content)}
    return _differences({**_trained(old), **_chosen(old)}, now, free)


def _chosen(content: dict[str, Any]) -> dict[str, Any]:
    """What chooses among the weights of a run: the best metric, and what that is counted on."""
    evaluation = content.get("evaluation") or {}
    best, metrics = evaluation.get("best_metric", "loss"), evaluation.get("metrics")
    if best == "loss":
        return {"evaluation": {"best_metric": best}}
    generation = {k: v for k, v in (content.get("generation") or {}).items() if k not in _OF_BEAMS}
    counted = {"metrics": metrics.get(best) if isinstance(metrics, dict) else best}
    counted["validation_samples"] = evaluation.get("validation_samples")
    return {"evaluation": {"best_metric": best, **counted}, "generation": generation}


def kept_values(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Return what the run in a folder has, by `section.key`, where the recipe to go on with it says `auto`."""
    written = folder / RECIPE_FILE
    if not written.is_file():
        return {}
    before = read_yaml(read_text(written), str(written))
    found = {key: value_at(before, key) for key in auto_keys(recipe.content)}
    return {key: value for key, value in found.items() if value != AUTO}


def _trained(content: dict[str, Any]) -> dict[str, Any]:
    return {name: options or {} for name, options in content.items() if name not in _NOT_TRAINED_SECTIONS}


def recipe_hash(recipe: Recipe) -> str:
    """Return the hash of what a run's checkpoints depend on: of all in which `differences` would find any."""
    told = _without_nulls(_trained(recipe.content))
    told["training"] = {key: value for key, value in told.get("training", {}).items() if key not in _FREE_AT_RESUME}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def _without_nulls(part: Any) -> Any:
    """Return a part of a recipe without the keys that say nothing."""
    if not isinstance(part, dict):
        return part
    return {str(key): _without_nulls(value) for key, value in part.items() if value is not None}


def run_id(folder: Path) -> str | None:
    """Return what tells the run in a folder from all others; `None` if its recipe is gone or does not say it."""
    written = folder / RECIPE_FILE
    found = re.match(_RUN_LINE.format("([0-9a-f]{32})"), read_text(written)) if written.is_file() else None
    return found[1] if found else None


def _differences(before: dict[str, Any], now: dict[str, Any], free: frozenset[str], path: str = "") -> list[str]:
    found: list[str] = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, free, f"{path}{key}.")
        elif old != new and not (path == "training." and key in free):
            found.append(f"{path}{key} ({old!r} -> {new!r})")
    return found


@contextmanager
def taking_over(recipe: Recipe, output_dir: str | Path, checkpoint: Path | None) -> Iterator[str]:
    """The time of a training: what was in its folder before is deleted at the end, or comes back. Yields the run's id.

    Unless the run goes on from a checkpoint, its recipe is written beside its checkpoints. `check_output` has seen the
    folder.
    """
    folder = Path(output_dir)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()  # every process has looked at the folder before one changes it
    if not is_first_process():
        yield ""
        return
    run = uuid.uuid4().hex if checkpoint is None else run_id(folder) or run_and_processes_of(checkpoint)[0]
    clear_unfinished(folder, checkpoint)
    if checkpoint is None:
        _set_aside(folder, recipe)
    if checkpoint is None or run_id(folder) is None:
        write_whole(folder / RECIPE_FILE, _RUN_LINE.format(run) + recipe.to_yaml())
    try:
        yield run
    except BaseException:
        if checkpoint is None and not checkpoints_of(folder):
            _put_back(folder)
        elif (folder / EARLIER_FOLDER).exists():
            logger.warning("the run did not finish; the one that was there before is in %s", folder / EARLIER_FOLDER)
        raise
    discard(folder / EARLIER_FOLDER)


def recover(output_dir: str | Path) -> None:
    """Bring an earlier run back together whose files a killed process was moving, or a mean to its place."""
    folder = Path(output_dir)
    moved = folder / _MOVED_FOLDER
    if moved.is_dir():
        for path in moved.iterdir():
            path.rename(moved.parent / path.name)
        moved.rmdir()
    if (folder / _WHOLE_MEAN).is_dir():
        for path in sorted(run_files(folder, with_card=True), key=lambda path: path.name != CONFIG_FILE):
            remove(path)  # half a model answers nothing
        (folder / _WHOLE_MEAN).rename(folder / _MOVED_MEAN)
    if (folder / _MOVED_MEAN / CONFIG_FILE).is_file():
        move_into(folder, folder / _MOVED_MEAN)
    elif (folder / _MOVED_MEAN).is_dir():
        (folder / _MOVED_MEAN).rmdir()


def put_mean(folder: Path, written: Path) -> None:
    """Let a mean with its predictions take the place of the run in a folder; what a kill leaves `recover` finishes."""
    for path in written.rglob("*"):
        if path.is_file():
            on_disk(path)
    written.rename(folder / _WHOLE_MEAN)
    recover(folder)


def _set_aside(folder: Path, recipe: Recipe) -> None:
    aside, moved = folder / EARLIER_FOLDER, folder / _MOVED_FOLDER
    if TrainingReport.load(folder) is not None:
        discard(aside)  # killed when it had finished, but for this
    before = run_files(folder, with_card=recipe.card is not None)
    if aside.exists():
        # It holds what was finished; what is here did not get so far.
        for path in before:
            remove(path)
    elif before:
        moved.mkdir()
        for path in before:
            path.rename(moved / path.name)
        moved.rename(aside)


def _put_back(folder: Path) -> None:
    clear_unfinished(folder)
    for path in run_files(folder, with_card=False):
        remove(path)
    if (folder / EARLIER_FOLDER).exists():
        (folder / EARLIER_FOLDER).rename(folder / _MOVED_FOLDER)
    recover(folder)


def move_into(folder: Path, written: Path) -> None:
    """Give the files of a model that was written beside their places; without its report it is not finished."""
    for name in (REPORT_FILE, CONFIG_FILE):  # without these it neither counts as a model nor answers
        (folder / name).unlink(missing_ok=True)
    for path in sorted(written.iterdir(), key=lambda path: path.name == CONFIG_FILE):
        if path.is_file():
            on_disk(path)
        elif (folder / path.name).exists():
            remove(folder / path.name)
        path.replace(folder / path.name)
    written.rmdir()
