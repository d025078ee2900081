"""The checkpoints of a run: written beside and renamed, their damage, the best of them, and their mean.

A checkpoint has its name, `checkpoint-STEP`, once it is whole: sealed with the hashes of all its files, and with the
run and the recipe that it is of. A process may be killed at any time, and a disk may be full, lose a file or change a
bit; the Trainer would refuse to go on, or go on with other numbers. A resume takes the newest whole one. Averaging:
Junczys-Dowmunt et al. 2016.
"""

import hashlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..data.outputs import remove, write_json


logger = logging.getLogger(__name__)

SEAL_FILE = "checksums.json"
_STATE_FILE = "trainer_state.json"
# What begins so is being written or deleted; left behind, it was never finished.
UNFINISHED = ".unfinished-"


def checkpoints_of(output_dir: str | Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    found = [path for path in Path(output_dir).glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


# ---- Damage -----------------------------------------------------------------------------------------------------


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> dict[str, Path]:
    """Return all files below a folder, links and pipes too, by their names within it; links are not followed."""
    paths = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    return {path.relative_to(folder).as_posix(): path for path in sorted(paths)}


def on_disk(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk: a power cut may come at any time."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def number_of_processes() -> int:
    """Return how many processes torchrun started, this one included."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def seal(checkpoint: str | Path, run: str = "", recipe: str = "", planned: bool = True) -> None:
    """Write beside a checkpoint's files, which are all there, their hashes and what run and recipe they are of.

    `planned` is whether an unbroken run would have saved it as well, so that it counts among the last ones.
    """
    folder = Path(checkpoint)
    files = {name: path for name, path in _files(folder).items() if name != SEAL_FILE}
    for path in files.values():
        on_disk(path)
    sums = {name: _checksum(path) for name, path in files.items()}
    of = {"name": folder.name, "run": run, "recipe": recipe, "planned": planned, "processes": number_of_processes()}
    write_json(folder / SEAL_FILE, {**of, "files": sums})


def damage_of(checkpoint: str | Path, run: str | None = None, recipe: str | None = None) -> str | None:
    """Return the damage of a checkpoint in words, or `None` if each file is as it was when it was sealed.

    It is damage, too, if it is of another `run` or `recipe` than those given, or was saved under another name.
    """
    try:
        files = _files(Path(checkpoint))
        for name, path in files.items():
            if not stat.S_ISREG(path.lstat().st_mode):
                return f"{name} is no plain file"
        if SEAL_FILE not in files:
            return f"it has no {SEAL_FILE}, so it was never finished"
        text = files.pop(SEAL_FILE).read_text(encoding="utf-8")
        content: Any = json.loads(text) if text.endswith("}\n") else None  # cut off, if only by a byte
        sums = dict(content["files"])
        for name in sums:
            if name not in files:
                return f"{name} is missing"
        for name in [_STATE_FILE, *files]:
            if name not in sums:
                return f"{SEAL_FILE} does not name {name}"
        for what, wanted in (("name", Path(checkpoint).name), ("run", run), ("recipe", recipe)):
            if wanted is not None and content[what] != wanted:
                return f"it is of another {what}"
        for name, path in files.items():
            if _checksum(path) != sums[name]:
                return f"{name} is not what was saved"
    except (ValueError, TypeError, KeyError, RecursionError):
        return f"{SEAL_FILE} cannot be read"
    except OSError as error:
        return f"it cannot be read: {error}"
    return None


def _seal_of(checkpoint: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((checkpoint / SEAL_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def run_and_processes_of(checkpoint: str | Path) -> tuple[str, int]:
    """Return what run a whole checkpoint is of, and how many processes that had."""
    content = _seal_of(Path(checkpoint))
    return str(content["run"]), int(content.get("processes", 1))


def planned_checkpoints(output_dir: str | Path) -> list[Path]:
    """Return the checkpoints that an unbroken run has as well, oldest first: none that only a signal asked for."""
    return [path for path in checkpoints_of(output_dir) if _seal_of(path).get("planned", True)]


def best_at(checkpoint: Path) -> Path | None:
    """Return the best checkpoint at the time of a whole one, where the run is now: it may have been moved since."""
    best = json.loads((checkpoint / _STATE_FILE).read_text(encoding="utf-8")).get("best_model_checkpoint")
    return checkpoint.parent / Path(best).name if best else None


def last_whole_checkpoint(output_dir: str | Path, run: str | None = None, recipe: str | None = None) -> Path | None:
    """Return the newest checkpoint that a run can be resumed from; log the damage of each newer one.

    One is skipped as well if the best checkpoint of its time is damaged, which the run would take in the end. If there
    are checkpoints, and all are damaged, it is a FileNotFoundError. `run`, `recipe`: as for `damage_of`.
    """
    checkpoints, damages = checkpoints_of(output_dir), []
    for checkpoint in reversed(checkpoints):
        damage = damage_of(checkpoint, run, recipe)
        if damage is None:
            best = best_at(checkpoint)
            damage = damage_of(best, run, recipe) if best else None
            if best is None or damage is None:
                return checkpoint
            damage = f"of the best checkpoint until then, {best.name}: {damage}"
        logger.warning("skipping %s: %s", checkpoint, damage)
        damages.append(f"{checkpoint.name}: {damage}")
    if checkpoints:
        raise FileNotFoundError(
            f"{output_dir}: none of the checkpoints {', '.join(path.name for path in checkpoints)} is whole "
            f"({damages[0]}): start again with --overwrite"
        )
    return None


# ---- Writing and deleting ---------------------------------------------------------------------------------------


def discard(path: Path) -> None:
    """Delete a folder so that it is never there by half under its name."""
    if path.exists():
        going = path.with_name(f"{UNFINISHED}deleted-{path.name}")
        shutil.rmtree(going, ignore_errors=True)
        path.rename(going)
        shutil.rmtree(going, ignore_errors=True)


def clear_unfinished(output_dir: str | Path, after: Path | None = None) -> None:
    """Delete what a killed process has left, and the checkpoints `after` the one that the run goes on from."""
    for path in [path for path in checkpoints_of(output_dir) if after and _step(path) > _step(after)]:
        discard(path)
    for path in [path for pattern in (f"{UNFINISHED}*", ".partial-*") for path in Path(output_dir).glob(pattern)]:
        remove(path)


@contextmanager
def saving_through_python() -> Iterator[None]:
    """The time in which `torch.save` writes files as Python does: its own errors say nothing of a full disk."""
    save = torch.save

    def through_python(what: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(file, str | os.PathLike):
            return save(what, file, *args, **kwargs)
        with open(file, "wb") as handle:
            return save(what, handle, *args, **kwargs)

    setattr(torch, "save", through_python)  # noqa: B010 - no other name to give it
    try:
        yield
    finally:
        setattr(torch, "save", save)  # noqa: B010


@dataclass
class KeptCheckpoints:
    """The checkpoints of a run that trains: each is written beside the others, sealed, and only then named.

    Args:
        folder: where they are.
        recipe: the hash of what they depend on.
        newest: how many of the newest are kept; with each the best of its time.
        best: how many of the best ones by the logged metric are kept besides.
        run: what run they are of, known when it begins.
    """

    folder: Path
    recipe: str
    newest: int = 2
    best: int = 0
    run: str = ""

    def finish(self, written: Path, planned: bool) -> None:
        """Seal a checkpoint that was written beside, and give it its name."""
        seal(written, self.run, self.recipe, planned)
        on_disk(written)
        named = self.folder / written.name
        discard(named)
        written.rename(named)
        on_disk(self.folder)
        shutil.rmtree(written.parent, ignore_errors=True)

    def rotate(self, state: TrainerState, metric: str | None, greater_is_better: bool) -> None:
        """Delete all but the newest checkpoints, the best of their times, and the best ones; only whole ones count."""
        planned, found = set(planned_checkpoints(self.folder)), checkpoints_of(self.folder)
        kept: list[Path] = []
        for checkpoint in reversed(found):
            if len(planned.intersection(kept)) == self.newest:
                break
            if (checkpoint in planned or not kept) and damage_of(checkpoint, self.run, self.recipe) is None:
                kept.append(checkpoint)
        bests = [best_at(checkpoint) for checkpoint in kept]
        ranked = rank_checkpoints(self.folder, state, metric, greater_is_better)[: self.best] if metric else []
        for checkpoint in set(found).difference(kept, bests, ranked):
            discard(checkpoint)


class FindBestCheckpoint(TrainerCallback):
    """Look for the best checkpoint of a resumed run where the run is now: the Trainer notes its path of that day."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        resumed = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if (resumed / _STATE_FILE).is_file():
            best = best_at(resumed)
            state.best_model_checkpoint = str(best) if best else None


# ---- Best and mean ----------------------------------------------------------------------------------------------


def rank_checkpoints(output_dir: str | Path, state: TrainerState, metric: str, greater_is_better: bool) -> list[Path]:
    """Return a run's checkpoints that were evaluated, best first by a logged metric, earlier first if equal.

    `state` holds the metrics of every evaluation; `metric` is named as logged, for instance "eval_loss".
    """
    sign = -1 if greater_is_better else 1
    values = {entry["step"]: sign * entry[metric] for entry in state.log_history if metric in entry}
    return sorted((c for c in checkpoints_of(output_dir) if _step(c) in values), key=lambda c: values[_step(c)])


def average_checkpoints(checkpoints: Sequence[str | Path]) -> dict[str, torch.Tensor]:
    """Return the mean of the weights of several checkpoints (Junczys-Dowmunt et al. 2016), summed in float64.

    Raises:
        ValueError: no checkpoints, or their parameters differ in name or shape.
    """
    if not checkpoints:
        raise ValueError("checkpoints: got none, wanted at least one")
    first = load_file(Path(checkpoints[0]) / "model.safetensors")
    total = {name: tensor.double() for name, tensor in first.items()}
    for checkpoint in checkpoints[1:]:
        other = load_file(Path(checkpoint) / "model.safetensors")
        if {name: tensor.shape for name, tensor in other.items()} != {n: t.shape for n, t in first.items()}:
            raise ValueError(f"checkpoints: {checkpoint} has other parameters than {checkpoints[0]}")
        for name, tensor in other.items():
            total[name] += tensor
    return {name: (tensor / len(checkpoints)).to(first[name].dtype) for name, tensor in total.items()}
