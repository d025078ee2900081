"""A whole run of a recipe: tokenizers, model, training, averaging, scores, predictions, results file, model card.

The kinds of output are `task.Task`s; `command.py` is the command line of `run_recipe`. Everything follows from the
recipe: run twice on a CPU, it gives the same numbers. Needs the extras `train` and `metrics`.
"""

import logging
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from transformers import Seq2SeqTrainingArguments, TrainerCallback

from ..data.files import reading
from ..data.outputs import is_first_process, remove, replacing
from ..data.splits import DatasetDict
from ..evaluation.saved_model import check_class
from ..evaluation.work_in_parts import start_processes
from ..sharing.card import save_model_card
from ..sharing.results import write_results
from ..training.checkpoints import (
    FindBestCheckpoint,
    KeptCheckpoints,
    average_checkpoints,
    checkpoints_of,
    planned_checkpoints,
    rank_checkpoints,
)
from ..training.stopping import Signals, SkippedUpdates, StopEarly, Stopped
from ..training.teacher_forcing import ScheduledSamplingCallback
from ..training.trainer import RecipeTrainer, TrainingClock
from .recipe import CardOptions, Recipe, RecipeError, derive_values
from .run_folder import (
    MEAN_FOLDER,
    MODEL_FOLDER,
    check_output,
    kept_values,
    move_into,
    put_mean,
    recipe_hash,
    recover,
    taking_over,
)
from .running import naming_disk_errors, on_first_process, only_process_in
from .scale import derive, in_words, remarks
from .task import Scores, Task, TrainingReport, to_accelerator
from .trainer_arguments import check_training_options, training_arguments


logger = logging.getLogger(__name__)


def _kept_checkpoints(recipe: Recipe, output_dir: str | Path) -> KeptCheckpoints:
    """Return what becomes of a run's checkpoints: two are kept to continue from, in case one is damaged."""
    number, which = recipe.pipeline.average_checkpoints, recipe.pipeline.average_which
    return KeptCheckpoints(
        folder=Path(output_dir),
        recipe=recipe_hash(recipe),
        newest=recipe.training.get("save_total_limit") or max(2, number if which == "last" else 0),
        best=number if which == "best" else 0,
    )


def use_average(trainer: RecipeTrainer, recipe: Recipe) -> str:
    """Put the averaged weights into the model, unless the best checkpoint scores better on the validation data.

    After training the model holds the best checkpoint (or, without validation data, the last weights). Returns which
    weights it has now, in words.
    """
    model, number = trainer.model, recipe.pipeline.average_checkpoints
    assert trainer.args.output_dir is not None and model is not None
    metric = f"eval_{recipe.evaluation.best_metric}"
    greater = bool(trainer.args.greater_is_better)
    if recipe.pipeline.average_which == "best":
        chosen = rank_checkpoints(trainer.args.output_dir, trainer.state, metric, greater)[:number]
    else:
        chosen = planned_checkpoints(trainer.args.output_dir)[-number:]
    if len(chosen) < 2:
        return "the only checkpoint"
    names = ", ".join(checkpoint.name for checkpoint in chosen)
    best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # strict=False: tied weights are in a checkpoint once.
    model.load_state_dict(average_checkpoints(chosen), strict=False)
    if trainer.state.best_metric is None:
        return f"the mean of {names}"
    averaged = trainer.evaluate()[metric]
    logger.info("mean of %s: %s %.4f, best checkpoint %.4f", names, metric, averaged, trainer.state.best_metric)
    if averaged < trainer.state.best_metric if greater else averaged > trainer.state.best_metric:
        model.load_state_dict(best)
        return f"the best checkpoint; the mean of {names} scores worse on the validation data"
    return f"the mean of {names}"


def _follow_data(task: Task, items: int, lengths: Sequence[tuple[int, int]] = ()) -> Recipe:
    """Put what follows from the data in the place of `auto`; return the recipe. `lengths` are known last."""
    task.recipe = derive_values(task.recipe, task.kind, derive(task.kind.task, items, lengths))
    if lengths and task.recipe.derived:
        logger.info("auto, of %d training items: %s", items, in_words(task.recipe.derived))
    return task.recipe


def make_trainer(
    task: Task, data: DatasetDict, output_dir: str | Path, signals: Signals | None = None
) -> RecipeTrainer:
    """Build a task's model and what trains it; writes nothing, but finds out all that can be wrong."""
    items = task.number_of_items(data["train"])
    task.recipe = derive_values(task.recipe, task.kind, task.derive_from_texts(data["train"]))
    _follow_data(task, items)
    task.build(data)
    task.try_predicting(data["train"])
    logger.info("%s: %d parameters", type(task.model).__name__, task.model.num_parameters())
    encoded = task.encode(task.training_split(data["train"]), "train")
    lengths = task.lengths(encoded)
    recipe = _follow_data(task, items, lengths)
    arguments = training_arguments(recipe, output_dir, "validation" in data)
    validation = None
    if "validation" in data:
        validation = task.encode(data["validation"], "validation")
        sizes = task.lengths(validation)
        # Batches of like length: the loss costs a fraction of what it would in file order.
        validation = validation.select(sorted(range(len(sizes)), key=lambda row: sizes[row]))

    callbacks: list[TrainerCallback] = [
        *(FindBestCheckpoint(), TrainingClock()),
        ScheduledSamplingCallback(recipe.pipeline.teacher_forcing),
    ]
    if validation is not None and recipe.pipeline.early_stopping_patience is not None:
        callbacks.append(StopEarly(recipe.pipeline.early_stopping_patience))
    try:
        trainer = RecipeTrainer(
            model=task.model,
            args=arguments,
            train_dataset=encoded,
            eval_dataset=validation,
            data_collator=task.collate,
            callbacks=callbacks,
            max_tokens=recipe.pipeline.max_tokens,
            lengths=lengths,
            save_processors=task.save_processors,
            augment=task.augment,
            score_validation=None if validation is None else task.validation_scorer(data["validation"]),
            checkpoints=_kept_checkpoints(recipe, output_dir),
            signals=signals,
            ema_decay=recipe.pipeline.ema_decay,
            skip_non_finite=recipe.pipeline.skip_non_finite,
        )
        # Made anew when the training begins; here it is only known whether they can be made.
        trainer.create_optimizer()
        trainer.create_scheduler(num_training_steps=100)
    except (ValueError, TypeError, ImportError) as error:
        raise RecipeError(f"training: {error}") from error
    trainer.optimizer = trainer.lr_scheduler = None
    return trainer


def train(task: Task, trainer: RecipeTrainer, checkpoint: str | Path | None = None, run: str = "") -> TrainingReport:
    """Train the model that `make_trainer` built, on from a checkpoint if one is given, and save it.

    `run` is what its checkpoints say that they are of.
    """
    recipe = task.recipe
    assert trainer.args.output_dir is not None and trainer.checkpoints is not None
    trainer.checkpoints.run = run
    folder = Path(trainer.args.output_dir)
    trainer.signals.waits = True
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.signals.waits = False
    # A resume puts callbacks of its own, which know what was before, into the place of ours.
    callbacks = {type(callback): callback for callback in trainer.callback_handler.callbacks}
    seconds = callbacks[TrainingClock].seconds
    weights = "the last update" if trainer.state.best_model_checkpoint is None else "the best checkpoint"
    if recipe.pipeline.average_checkpoints > 1:
        weights = use_average(trainer, recipe)
    logger.info("trained for %.0f seconds; the model has the weights of %s", seconds, weights)
    trainer.save_model(str(folder / MODEL_FOLDER))
    # Mixed precision is for training, where accelerate puts a forward of its own over the class's: scored is what was
    # saved, as a user loads it.
    for name in ("forward", "_original_forward"):
        vars(task.model).pop(name, None)
    report = TrainingReport(
        *(seconds, weights, trainer.state.epoch or 0.0, trainer.state.global_step, len(trainer.lengths)),
        skipped=callbacks[SkippedUpdates].number,
        derived=recipe.derived,
        remarks=_remarks(task, trainer),
    )
    for remark in report.remarks:
        logger.warning("%s", remark)
    if trainer.is_world_process_zero():
        move_into(folder, folder / MODEL_FOLDER)
        report.save(folder)
    return report


def _remarks(task: Task, trainer: RecipeTrainer) -> list[str]:
    """Return the sentences of `scale.remarks` on a training that has ended."""
    state, args = trainer.state, trainer.args
    losses = [(row["step"], row["eval_loss"]) for row in state.log_history if "eval_loss" in row]
    warmup = 0 if args.lr_scheduler_type == "constant" else args.get_warmup_steps(state.max_steps)
    return remarks(task.kind.task, len(trainer.lengths), state.max_steps, state.global_step, warmup, losses)


def _reported_splits(recipe: Recipe, data: DatasetDict) -> list[str]:
    """The splits of `evaluation.splits`, by default all that are not trained on."""
    known = [name for name in data if name != "train"]
    for split in recipe.evaluation.splits or []:
        if split not in known:
            raise RecipeError(f"evaluation.splits: got {split!r}, the data has {', '.join(known) or 'only train'}")
    return known if recipe.evaluation.splits is None else recipe.evaluation.splits


def evaluate(task: Task, data: DatasetDict, output_dir: str | Path) -> Scores:
    """Score the splits of `evaluation.splits`, and write `predictions_<split>.tsv` once all of them are scored.

    Returns:
        Metrics and what they say besides: under plain names for the split "test", as `<split>_<name>` for others.
    """
    numbers: dict[str, float] = {}
    details: dict[str, str] = {}
    with ExitStack() as files:
        for split in _reported_splits(task.recipe, data):
            logger.info("%s: predicting %d items", split, len(data[split]))
            file = files.enter_context(replacing(Path(output_dir) / f"predictions_{split}.tsv"))
            scores = task.evaluate(data[split], file)
            prefix = "" if split == "test" else f"{split}_"
            numbers |= {f"{prefix}{name}": value for name, value in scores.numbers.items()}
            details |= {f"{prefix}{name}": value for name, value in scores.details.items()}
            logger.info("%s: %s", split, ", ".join(f"{name} {value:.2f}" for name, value in scores.numbers.items()))
    return Scores(numbers, details)


def _training_summary(recipe: Recipe, report: TrainingReport) -> dict[str, object]:
    """The model card's table of how the model was trained."""
    training = recipe.training
    batches = (
        f"at most {recipe.pipeline.max_tokens} tokens on each side, by length buckets"
        if recipe.pipeline.max_tokens is not None
        else training.get("per_device_train_batch_size", Seq2SeqTrainingArguments.per_device_train_batch_size)
    )
    return {
        "training items": f"{report.items:,}",
        "epochs, updates": f"{report.epochs:g}, {report.updates:,}",
        "batches": batches,
        **({"derived from the number of items": in_words(report.derived)} if report.derived else {}),
        "optimizer": training.get("optim", Seq2SeqTrainingArguments.optim),
        "learning rate": training.get("learning_rate", Seq2SeqTrainingArguments.learning_rate),
        "seed": recipe.seed,
        "weights": report.weights,
        "seconds": f"{report.seconds:.0f}",
        **({"updates left out": report.skipped} if report.skipped else {}),
        **({"remarks": "; ".join(report.remarks)} if report.remarks else {}),
    }


def _details(report: TrainingReport) -> dict[str, str]:
    """What a results file says of the training beside the numbers."""
    details = {"auto": in_words(report.derived), "remarks": "; ".join(report.remarks)}
    return {name: text for name, text in details.items() if text}


def _load(task: Task, data: DatasetDict, directories: Sequence[str | Path], mean_dir: Path | None = None) -> None:
    """Give a task a saved model, an ensemble, or the mean of several, which is saved in `mean_dir`."""
    with reading(", ".join(map(str, directories)), "what save_pretrained wrote", any_error=True):
        for directory in directories:
            check_class(directory, task.model_class.__name__)
        if mean_dir is not None:
            task.load_average(directories, mean_dir)
        elif len(directories) > 1:
            task.load_ensemble(directories)
        else:
            task.load(directories[0])
    task.check_data(data)
    to_accelerator(task.model, task.recipe)


def _evaluate_saved(
    task: Task, data: DatasetDict, directories: Sequence[str | Path], output_dir: Path, average: bool
) -> Scores:
    """Score saved models; a mean of them takes its place in `output_dir` when that is done."""
    if not average:
        _load(task, data, directories)
        return evaluate(task, data, output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    for left in output_dir.glob(f"{MEAN_FOLDER}*"):  # by a killed process
        remove(left)
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=MEAN_FOLDER) as folder:
        _load(task, data, directories, Path(folder))
        scores = evaluate(task, data, folder)
        put_mean(output_dir, Path(folder))
    return scores


def run_recipe(
    task: Task,
    data_dir: str | Path,
    output_dir: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    eval_only: Sequence[str | Path] = (),
    average: bool = False,
    results: str | Path | None = None,
    command: Sequence[str] = (),
) -> dict[str, float]:
    """Train, evaluate and predict as a task's recipe says.

    Args:
        task, data_dir: one kind of output for one recipe; the folder that its file names are relative to.
        output_dir: the model with tokenizers and card, `recipe.yaml`, checkpoints and `predictions_<split>.tsv` go
            here.
        resume: go on from the last checkpoint in `output_dir`, if there is one.
        overwrite: replace the run in `output_dir`, or what an evaluation or a results file would replace.
        eval_only: do not train; evaluate the model saved in this directory, or the ensemble of several, and write no
            card.
        average: evaluate the mean of the weights in those directories, which is saved in `output_dir`.
        results, command: the results file, or `None`, and what was typed, for it.

    Returns:
        The metrics: those of the test data under plain names, of the validation data as `validation_<name>`.

    Raises:
        FileExistsError: `output_dir` holds finished work that would be replaced, or there is such a results file, and
            neither `resume` nor `overwrite` is set.
        BlockingIOError: another process is at work in `output_dir`.
        OptionsError, DataError: the recipe or the data cannot be used, or the recipe is not that of the run to resume.
        DivergedError: a loss, a gradient or a weight is not finite.
        Stopped: by SIGTERM or SIGINT; in a training a checkpoint is saved first.
        OSError: the disk is full or fails, whatever a library says of it.
    """
    recipe, output_dir = task.recipe, Path(output_dir)
    choice: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "eval_only": eval_only, "average": average}
    advice = partial(_how_to_go_on, output_dir, bool(eval_only))
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        stack.enter_context(naming_disk_errors(output_dir, advice))
        join_processes(recipe)

        def begin() -> tuple[Recipe, Path | None, TrainingReport | None]:
            stack.enter_context(only_process_in(output_dir))
            recover(output_dir)
            kept = kept_values(task.recipe, output_dir) if resume else {}
            recipe = derive_values(task.recipe, task.kind, kept)
            checkpoint = check_output(recipe, output_dir, results=results, **choice)
            if not eval_only:
                check_training_options(recipe)
            finished = resume and checkpoint is None
            report = TrainingReport.load([*eval_only, output_dir][0]) if eval_only or finished else None
            return recipe, checkpoint, report

        try:
            task.recipe, checkpoint, report = on_first_process(begin)
            if (eval_only or report) and not is_first_process():
                return {}  # one process evaluates what is trained
            data = task.load_data(data_dir)
            _reported_splits(task.recipe, data)  # refused before the training, not after it
            if eval_only:
                scores = _evaluate_saved(task, data, eval_only, output_dir, average)
            else:
                if report:
                    logger.info("the run in %s has no checkpoint left to go on from, and is finished", output_dir)
                    _load(task, data, [output_dir])
                else:
                    trainer = make_trainer(task, data, output_dir, signals)
                    with taking_over(task.recipe, output_dir, checkpoint) as run:
                        report = train(task, trainer, checkpoint, run)
                if not is_first_process():
                    return {}
                scores = evaluate(task, data, output_dir)
            _write_results(task, scores, report, output_dir, None if eval_only else recipe.card, results, command)
        except Stopped as stopped:
            raise Stopped(stopped.signum, f"{stopped}; {advice()}") from None
    return dict(scores.numbers)


def join_processes(recipe: Recipe) -> None:
    """Join the processes that torchrun started, before any of them looks at a folder that another one changes."""
    options = {"backend": recipe.training.get("ddp_backend"), "timeout": recipe.training.get("ddp_timeout")}
    if options["timeout"] is not None:
        options["timeout"] = timedelta(seconds=options["timeout"])
    given = {name: value for name, value in options.items() if value is not None}
    start_processes(bool(recipe.training.get("use_cpu", False)), **given)


def _how_to_go_on(output_dir: Path, eval_only: bool) -> str:
    """Say what is there of a run that was broken off."""
    if eval_only:
        return "nothing was replaced"
    found = checkpoints_of(output_dir)
    if found:
        return f"{found[-1].name} is saved: go on with --resume"
    if TrainingReport.load(output_dir) is not None:
        return "the model is saved: score it with --resume"
    return "there is no checkpoint yet: start again"


def _write_results(
    task: Task,
    scores: Scores,
    report: TrainingReport | None,
    output_dir: Path,
    card: CardOptions | None,
    results: str | Path | None,
    command: Sequence[str],
) -> None:
    """Write the model card, if there is to be one, and the results file."""
    recipe = task.recipe
    if card is not None and report is not None:
        task.draw(output_dir)
        of_run = {"recipe": f"{recipe.name}.yaml", "training_summary": _training_summary(recipe, report)}
        fields = {**asdict(card), **of_run, **task.card_fields()}
        save_model_card(output_dir, task.model, metrics=scores.numbers, **fields)
    if results is not None and scores.numbers:
        write_results(
            results,
            recipe=recipe.name,
            command=command,
            seeds=[recipe.seed],
            metrics=dict(scores.numbers),
            parameters=task.model.num_parameters(),
            training_seconds=0.0 if report is None else report.seconds,
            device=task.model.device,
            details={**scores.details, **({} if report is None else _details(report))},
        )
