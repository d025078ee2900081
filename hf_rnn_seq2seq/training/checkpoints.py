"""The checkpoints of a run: their order, their damage, the best of them, and their mean.

A checkpoint is sealed with the hashes of its files once it is written. A process may be killed in the middle of that,
and a disk may lose a file or change a bit; the Trainer would refuse to go on, or go on with other numbers. A resume
takes the newest undamaged checkpoint. Averaging: Junczys-Dowmunt et al. 2016.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..data.outputs import write_json


logger = logging.getLogger(__name__)

SEAL_FILE = "checksums.json"
_STATE_FILE = "trainer_state.json"


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


def seal(checkpoint: str | Path) -> None:
    """Write the hashes of a checkpoint's files, which are all there, beside them."""
    folder = Path(checkpoint)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL_FILE)
    for path in files:
        # On the disk before the seal says so: a power cut may come at any time.
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sums = {path.relative_to(folder).as_posix(): _checksum(path) for path in files}
    write_json(folder / SEAL_FILE, sums)


def damage_of(checkpoint: str | Path) -> str | None:
    """Return the damage of a checkpoint in words, or `None` if each file is as it was when it was sealed."""
    folder = Path(checkpoint)
    try:
        sums = json.loads((folder / SEAL_FILE).read_text(encoding="utf-8"))
        for name, expected in sums.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if _checksum(folder / name) != expected:
                return f"{name} is not what was saved"
    except FileNotFoundError:
        return f"it has no {SEAL_FILE}, so it was never finished"
    except (ValueError, AttributeError):
        return f"{SEAL_FILE} cannot be read"
    return None


def last_whole_checkpoint(output_dir: str | Path) -> Path | None:
    """Return the newest checkpoint that a run can be resumed from; log the damage of each newer one.

    One is skipped as well if the best checkpoint of its time is damaged, which the run would take in the end. If there
    are checkpoints, and all are damaged, it is a FileNotFoundError.
    """
    checkpoints = checkpoints_of(output_dir)
    for checkpoint in reversed(checkpoints):
        damage = damage_of(checkpoint)
        if damage is None:
            state = json.loads((checkpoint / _STATE_FILE).read_text(encoding="utf-8"))
            # The run may have been moved since.
            best = state["best_model_checkpoint"] and Path(output_dir) / Path(state["best_model_checkpoint"]).name
            damage = damage_of(best) if best else None
            if damage is None:
                return checkpoint
            damage = f"of the best checkpoint until then, {best.name}: {damage}"
        logger.warning("skipping %s: %s", checkpoint, damage)
    if checkpoints:
        raise FileNotFoundError(
            f"{output_dir}: none of the checkpoints {', '.join(path.name for path in checkpoints)} is whole (see the "
            "warnings): start again with --overwrite"
        )
    return None


class SealCheckpoints(TrainerCallback):
    """Seal each checkpoint once every process has written its part."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
        if args.should_save:
            assert args.output_dir is not None
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class FindBestCheckpoint(TrainerCallback):
    """Look for the best checkpoint of a resumed run where the run is now: the Trainer notes its path of that day."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        assert args.output_dir is not None
        if not (args.load_best_model_at_end and state.best_global_step):
            return
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        if best.is_dir():
            state.best_model_checkpoint = str(best)


# ---- Best and mean ----------------------------------------------------------------------------------------------


def rank_checkpoints(output_dir: str | Path, state: TrainerState, metric: str, greater_is_better: bool) -> list[Path]:
    """Return a run's checkpoints that were evaluated, best first by a logged metric, earlier first if equal.

    `state` holds the metrics of every evaluation; `metric` is named as logged, for instance "eval_loss".
    """
    sign = -1 if greater_is_better else 1
    values = {entry["step"]: sign * entry[metric] for entry in state.log_history if metric in entry}
    return sorted((c for c in checkpoints_of(output_dir) if _step(c) in values), key=lambda c: values[_step(c)])


class KeepBestCheckpoints(TrainerCallback):
    """Delete all checkpoints but the `number` best ones and the newest (the Trainer itself keeps the newest ones)."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not args.should_save:
            return
        assert args.output_dir is not None
        metric = f"eval_{args.metric_for_best_model}"
        ranked = rank_checkpoints(args.output_dir, state, metric, bool(args.greater_is_better))
        for checkpoint in ranked[self.number :]:
            if _step(checkpoint) != state.global_step:
                shutil.rmtree(checkpoint)


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
