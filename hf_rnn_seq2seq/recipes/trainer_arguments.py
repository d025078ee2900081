"""The arguments of the Trainer that a recipe makes, and what is refused of them before any data is read.

Needs the extra `train`.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments, Trainer, get_scheduler
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from ..data.files import sentence
from .recipe import Recipe, RecipeError
from .scoring import greater_is_better


# What shows a training while it runs, and the extra that brings it; a recipe that names none has the first installed.
_TRACKERS = {"tensorboard": "train", "trackio": "trackio"}


def training_arguments(recipe: Recipe, output_dir: str | Path, has_validation: bool) -> Seq2SeqTrainingArguments:
    """Return the Trainer's arguments: the recipe's over this package's defaults; checkpoints go to `output_dir`.

    Without validation data there is no best checkpoint, and the last one counts.
    """
    pipeline = recipe.pipeline
    averages = pipeline.average_checkpoints > 1
    if averages and recipe.training.get("save_total_limit") is not None:
        raise RecipeError("training.save_total_limit: leave it out, training.average_checkpoints decides what is kept")
    if averages and pipeline.average_which == "best" and not has_validation:
        raise RecipeError("training.average_which: best needs data.validation; set it to last, or name the data")
    installed = get_available_reporting_integrations()
    options: dict[str, Any] = {
        "eval_strategy": "epoch" if has_validation else "no",
        "save_strategy": "epoch",
        "logging_steps": 50,
        "per_device_eval_batch_size": 64,
        "report_to": [name for name in _TRACKERS if name in installed][:1] or "none",
        "project": recipe.name,  # under which trackio lists its runs
        "restore_callback_states_from_checkpoint": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.accelerator.is_available(),
        "remove_unused_columns": False,  # windows are made of columns that the model does not read
        **recipe.training,
        "save_total_limit": None,  # see `_kept_checkpoints`
    }
    if pipeline.updates is not None:
        options["max_steps"] = pipeline.updates
    if not has_validation:
        options["eval_strategy"] = "no"
    _check_trackers(options["report_to"], installed)
    try:
        return Seq2SeqTrainingArguments(
            output_dir=str(output_dir),
            load_best_model_at_end=has_validation,
            metric_for_best_model=recipe.evaluation.best_metric if has_validation else None,
            # Said in so many words: the Trainer takes every name that does not end in "loss" for a score.
            greater_is_better=greater_is_better(recipe) if has_validation else None,
            **options,
        )
    except (ValueError, TypeError, ImportError) as error:
        raise RecipeError(f"training: {error}") from error


def _check_trackers(report_to: str | list[str] | None, installed: list[str]) -> None:
    """Refuse what shows a training and is not known, or not installed."""
    for name in [report_to] if isinstance(report_to, str) else report_to or ():
        if name in ("none", "all", *installed):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(["none", "all", *INTEGRATION_TO_CALLBACK])
            raise RecipeError(f"training.report_to: got {name!r}, wanted one of {known}")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError) as error:
            advice = f"pip install 'hf_rnn_seq2seq[{_TRACKERS[name]}]'" if name in _TRACKERS else error
            here = ", ".join(["none", *installed])
            raise RecipeError(
                f"training.report_to: got {name}, which is not installed: {advice}; wanted it, or one of {here}"
            ) from error


def check_training_options(recipe: Recipe) -> None:
    """Refuse what the Trainer, its optimiser and its schedule would refuse, before any data is read."""
    try:
        arguments = training_arguments(recipe, ".", has_validation=True)
    except RecipeError:  # or a recipe for training data alone
        arguments = training_arguments(recipe, ".", has_validation=False)
    parameter = torch.nn.Parameter(torch.zeros(1))
    try:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
        optimizer = kind([parameter], **options) if kind.__module__.startswith("torch.optim") else None
    except (ValueError, TypeError, ImportError, NotImplementedError) as error:
        raise RecipeError(f"training.optim, training.optim_args: {sentence(error)}") from error
    try:
        more: Any = arguments.lr_scheduler_kwargs
        get_scheduler(arguments.lr_scheduler_type, optimizer or torch.optim.SGD([parameter]), 1, 100, more)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"training.lr_scheduler_type, training.lr_scheduler_kwargs: {sentence(error)}") from error
