"""A whole run of a recipe: tokenizers, model, training, averaging, scores, predictions, results file, model card.

`scripts/run_seq2seq.py` is the command line of `run_recipe`. Everything follows from the recipe: run twice on a CPU,
it gives the same numbers. Needs the extras `train` and `metrics`; must not be imported by the model files.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    DataCollatorForSeq2Seq,
    EarlyStoppingCallback,
    GenerationConfig,
    PreTrainedTokenizerBase,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from .data import encode_dataset, evaluation_items, load_data, pair_lengths
from .evaluation import Scorer, greater_is_better, write_predictions
from .hub import save_model_card
from .modeling_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from .options import read_yaml
from .recipe import Recipe, RecipeError
from .results import write_results
from .tokenization import load_tokenizers, train_tokenizer
from .training import (
    KeepBestCheckpoints,
    RecipeTrainer,
    ScheduledSamplingCallback,
    TrainingClock,
    average_checkpoints,
    checkpoints_of,
    rank_checkpoints,
)


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


logger = logging.getLogger(__name__)

RECIPE_FILE = "recipe.yaml"
# The sections that the weights depend on ...
_TRAINED_SECTIONS = ("data", "tokenizer", "model", "training")
# ... and what may differ in them between a run and its continuation: how long it goes on, and what it says.
_FREE_AT_RESUME = frozenset({"num_train_epochs", "max_steps", "logging_steps", "report_to", "disable_tqdm"})


def build_tokenizers(recipe: Recipe, train: Dataset) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    """Train the tokenizers on the training data.

    Args:
        recipe: types and sizes.
        train: the training split.

    Returns:
        The source and the target tokenizer, the same object twice if they are shared.
    """
    options = recipe.tokenizer
    if options.target is None:
        shared = train_tokenizer([*train["source"], *train["target"]], options.source, "shared")
        return shared, shared
    return train_tokenizer(train["source"], options.source), train_tokenizer(train["target"], options.target, "target")


def build_model(
    recipe: Recipe,
    source_tokenizer: PreTrainedTokenizerBase,
    target_tokenizer: PreTrainedTokenizerBase,
    longest_target: int,
) -> RnnSeq2SeqForConditionalGeneration:
    """A fresh model of a recipe; its weights follow from `training.seed`.

    Args:
        recipe: the model's options and the search it is saved with (without `num_return_sequences`: a user who does
            not ask gets one hypothesis).
        source_tokenizer: gives the source vocabulary's size.
        target_tokenizer: gives the target vocabulary's size and the special ids.
        longest_target: longest training target in tokens; unless the recipe sets `max_new_tokens` or `max_length`, a
            hypothesis may be half as long again.

    Returns:
        The model, with its `generation_config`.
    """
    ids = {
        "pad_token_id": target_tokenizer.pad_token_id,
        "bos_token_id": target_tokenizer.bos_token_id,
        "eos_token_id": target_tokenizer.eos_token_id,
        "decoder_start_token_id": target_tokenizer.bos_token_id,
    }
    shared = source_tokenizer is target_tokenizer
    config = recipe.model_config(len(source_tokenizer), None if shared else len(target_tokenizer), **ids)
    set_seed(recipe.seed)
    model = RnnSeq2SeqForConditionalGeneration(config)
    generation = {name: value for name, value in recipe.generation.items() if name != "num_return_sequences"}
    if generation.get("max_new_tokens") is None and generation.get("max_length") is None:
        generation["max_new_tokens"] = longest_target + (longest_target + 1) // 2
    model.generation_config = GenerationConfig(**generation, **ids)
    return model


def training_arguments(recipe: Recipe, output_dir: str | Path, has_validation: bool) -> Seq2SeqTrainingArguments:
    """The Trainer's arguments: the recipe's over this package's defaults.

    Args:
        recipe: the section `training` and what chooses the best checkpoint.
        output_dir: where checkpoints go.
        has_validation: without validation data there is no best checkpoint, and the last one counts.

    Returns:
        The arguments.

    Raises:
        RecipeError: the Trainer refuses them, or they do not fit averaging.
    """
    pipeline = recipe.pipeline
    averages = pipeline.average_checkpoints > 1
    if averages and recipe.training.get("save_total_limit") is not None:
        raise RecipeError("training.save_total_limit: leave it out, training.average_checkpoints decides what is kept")
    if averages and pipeline.average_which == "best" and not has_validation:
        raise RecipeError("training.average_which: best needs data.validation; set it to last, or name the data")
    # Checkpoints to continue from; the best one is kept besides. KeepBestCheckpoints does it where the best are
    # averaged.
    kept = pipeline.average_checkpoints if averages and pipeline.average_which == "last" else None if averages else 1
    trackers = [name for name in ("tensorboard", "trackio") if importlib.util.find_spec(name) is not None]
    options: dict[str, Any] = {
        "eval_strategy": "epoch" if has_validation else "no",
        "save_strategy": "epoch",
        "logging_steps": 50,
        "per_device_eval_batch_size": 64,
        "report_to": trackers[:1] or "none",
        "restore_callback_states_from_checkpoint": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.accelerator.is_available(),
        **recipe.training,
        "save_total_limit": recipe.training.get("save_total_limit") or kept,
    }
    if not has_validation:
        options["eval_strategy"] = "no"
    try:
        return Seq2SeqTrainingArguments(
            output_dir=str(output_dir),
            load_best_model_at_end=has_validation,
            metric_for_best_model=recipe.evaluation.best_metric if has_validation else None,
            # Said in so many words: the Trainer takes every name that does not end in "loss" for a score.
            greater_is_better=greater_is_better(recipe) if has_validation else None,
            **options,
        )
    except (ValueError, TypeError) as error:
        raise RecipeError(f"training: {error}") from error


def _differences(before: dict[str, Any], now: dict[str, Any], path: str = "") -> list[str]:
    """Keys whose values differ, as `section.key (old -> new)`."""
    found: list[str] = []
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{path}{key}.")
        elif old != new and not (path == "training." and key in _FREE_AT_RESUME):
            found.append(f"{path}{key} ({old!r} -> {new!r})")
    return found


def _prepare_output(recipe: Recipe, output_dir: Path, resume: bool, overwrite: bool) -> str | None:
    """The checkpoint to go on from, or `None` for a fresh start; refuses to mix two runs."""
    last = get_last_checkpoint(str(output_dir)) if output_dir.is_dir() else None
    written = output_dir / RECIPE_FILE
    if last is not None and resume:
        before = read_yaml(written.read_text(encoding="utf-8"), str(written)) if written.is_file() else recipe.content
        old, new = (
            {name: content.get(name) or {} for name in _TRAINED_SECTIONS} for content in (before, recipe.content)
        )
        differing = _differences(old, new)
        if differing:
            raise RecipeError(f"--resume: the run in {output_dir} has another recipe: {', '.join(differing)}")
        return last
    if last is not None and not overwrite:
        raise FileExistsError(
            f"{output_dir} holds checkpoints of an earlier run: give --resume to go on, --overwrite to start again, "
            "or another --output_dir"
        )
    # Of several processes (torchrun says which this is) one tidies up for all.
    if os.environ.get("RANK", "0") == "0":
        for checkpoint in checkpoints_of(output_dir):
            shutil.rmtree(checkpoint)
        written.write_text(recipe.to_yaml(), encoding="utf-8")
    return None


def use_average(trainer: RecipeTrainer, recipe: Recipe) -> str:
    """Put the averaged weights into the model, unless the best checkpoint scores better on the validation data.

    Args:
        trainer: after training, its model holding the best checkpoint (or, without validation data, the last weights).
        recipe: how many checkpoints are averaged, and which.

    Returns:
        Which weights the model has now, in words.
    """
    model, number = trainer.model, recipe.pipeline.average_checkpoints
    assert trainer.args.output_dir is not None and model is not None
    metric = f"eval_{recipe.evaluation.best_metric}"
    greater = bool(trainer.args.greater_is_better)
    if recipe.pipeline.average_which == "best":
        chosen = rank_checkpoints(trainer.args.output_dir, trainer.state, metric, greater)[:number]
    else:
        chosen = checkpoints_of(trainer.args.output_dir)[-number:]
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


@dataclass
class TrainingReport:
    """How a training went.

    Args:
        seconds: seconds of training, evaluations and those before a resume included.
        weights: which weights the model has, in words.
        epochs: epochs trained.
        updates: updates of the weights.
        pairs: pairs in the training data.
    """

    seconds: float
    weights: str
    epochs: float
    updates: int
    pairs: int

    def save(self, directory: str | Path) -> None:
        """Write it beside the model, for those who evaluate that later."""
        (Path(directory) / "training_report.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, directory: str | Path) -> TrainingReport | None:
        """What `save` wrote, or `None` if the model was not trained by a recipe."""
        path = Path(directory) / "training_report.json"
        return cls(**json.loads(path.read_text())) if path.is_file() else None


def train(
    recipe: Recipe, data: DatasetDict, output_dir: str | Path, checkpoint: str | None = None
) -> tuple[Scorer, TrainingReport]:
    """Train a recipe's model and save it with its tokenizers.

    Args:
        recipe: the recipe.
        data: its data, as `load_data` gives it.
        output_dir: the model goes here, checkpoints beneath it.
        checkpoint: checkpoint to go on from, or `None`.

    Returns:
        What decodes with the trained model (`scorer.model`), and how it went.
    """
    source_tokenizer, target_tokenizer = build_tokenizers(recipe, data["train"])
    encoded = encode_dataset(data["train"], source_tokenizer, target_tokenizer, recipe.data)
    longest_target = max(length for _, length in pair_lengths(encoded))
    model = build_model(recipe, source_tokenizer, target_tokenizer, longest_target)
    vocabularies = len(source_tokenizer), len(target_tokenizer)
    logger.info("vocabularies: %d source and %d target entries; %d parameters", *vocabularies, model.num_parameters())
    scorer = Scorer(recipe, model, source_tokenizer, target_tokenizer)
    validation = None
    if "validation" in data:
        validation = encode_dataset(data["validation"], source_tokenizer, target_tokenizer, recipe.data, "validation")
        lengths = pair_lengths(validation)
        # Batches of like length: the loss costs a fraction of what it would in file order.
        validation = validation.select(sorted(range(len(lengths)), key=lambda row: lengths[row]))

    clock = TrainingClock()
    callbacks: list[TrainerCallback] = [clock, ScheduledSamplingCallback(recipe.pipeline.teacher_forcing)]
    if validation is not None and recipe.pipeline.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(recipe.pipeline.early_stopping_patience))
    if recipe.pipeline.average_checkpoints > 1 and recipe.pipeline.average_which == "best":
        callbacks.append(KeepBestCheckpoints(recipe.pipeline.average_checkpoints))
    trainer = RecipeTrainer(
        model=model,
        args=training_arguments(recipe, output_dir, validation is not None),
        train_dataset=encoded,
        eval_dataset=validation,
        data_collator=DataCollatorForSeq2Seq(source_tokenizer, model=model),
        processing_class=source_tokenizer,
        callbacks=callbacks,
        max_tokens=recipe.pipeline.max_tokens,
        target_tokenizer=target_tokenizer,
        score_validation=None if validation is None else scorer.validation_scorer(data["validation"]),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    # A resume puts a clock of its own, which knows the time before, into the place of ours.
    clock = next(callback for callback in trainer.callback_handler.callbacks if isinstance(callback, TrainingClock))
    seconds = clock.seconds
    weights = "the best checkpoint" if validation is not None else "the last update"
    if recipe.pipeline.average_checkpoints > 1:
        weights = use_average(trainer, recipe)
    logger.info("trained for %.0f seconds; the model has the weights of %s", seconds, weights)
    trainer.save_model()
    report = TrainingReport(seconds, weights, trainer.state.epoch or 0.0, trainer.state.global_step, len(encoded))
    if trainer.is_world_process_zero():
        report.save(output_dir)
    return scorer, report


def load_scorer(recipe: Recipe, directory: str | Path) -> Scorer:
    """What decodes with a saved model.

    Args:
        recipe: metrics, search and source reversal.
        directory: where `train` or `save_pretrained` put the model; a checkpoint will do.
    """
    source_tokenizer, target_tokenizer = load_tokenizers(directory)
    model = RnnSeq2SeqForConditionalGeneration.from_pretrained(str(directory))
    if torch.accelerator.is_available() and not recipe.training.get("use_cpu", False):
        model.to(torch.accelerator.current_accelerator())  # type: ignore[arg-type]  # transformers annotates .to() as if it took a model
    return Scorer(recipe, model, source_tokenizer, target_tokenizer)


def evaluate(scorer: Scorer, data: DatasetDict, output_dir: str | Path) -> tuple[dict[str, float], dict[str, str]]:
    """Decode and score the splits of `evaluation.splits`, and write `predictions_<split>.tsv`.

    Args:
        scorer: model, tokenizers and recipe.
        data: as `load_data` gives it; splits it does not hold are left out.
        output_dir: where the predictions go.

    Returns:
        Metrics and what they say besides, under plain names for test and as `validation_<name>` for validation.
    """
    recipe = scorer.recipe
    metrics: dict[str, float] = {}
    details: dict[str, str] = {}
    for split in recipe.evaluation.splits:
        if split not in data:
            continue
        sources, references = evaluation_items(data[split], recipe.data.group_references)
        logger.info("%s: decoding %d items", split, len(sources))
        ranked = scorer.hypotheses(sources, scorer.search(), with_scores=True)
        write_predictions(Path(output_dir) / f"predictions_{split}.tsv", sources, references, ranked)
        numbers, said = scorer.metrics(sources, references, [hypotheses[0].text for hypotheses in ranked])
        prefix = "" if split == "test" else f"{split}_"
        metrics |= {f"{prefix}{name}": value for name, value in numbers.items()}
        details |= {f"{prefix}{name}": value for name, value in said.items()}
        logger.info("%s: %s", split, ", ".join(f"{name} {value:.2f}" for name, value in numbers.items()))
    return metrics, details


def _training_summary(recipe: Recipe, report: TrainingReport) -> dict[str, object]:
    """The model card's table of how the model was trained."""
    training = recipe.training
    batches = (
        f"at most {recipe.pipeline.max_tokens} tokens on each side, by length buckets"
        if recipe.pipeline.max_tokens is not None
        else training.get("per_device_train_batch_size", Seq2SeqTrainingArguments.per_device_train_batch_size)
    )
    return {
        "training pairs": f"{report.pairs:,}",
        "epochs, updates": f"{report.epochs:g}, {report.updates:,}",
        "batches": batches,
        "optimizer": training.get("optim", Seq2SeqTrainingArguments.optim),
        "learning rate": training.get("learning_rate", Seq2SeqTrainingArguments.learning_rate),
        "seed": recipe.seed,
        "weights": report.weights,
        "seconds": f"{report.seconds:.0f}",
    }


def run_recipe(
    recipe: Recipe,
    data_dir: str | Path,
    output_dir: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    eval_only: str | Path | None = None,
    results: str | Path | None = None,
    command: Sequence[str] = (),
) -> dict[str, float]:
    """Train, evaluate and predict as a recipe says.

    Args:
        recipe: the recipe.
        data_dir: folder that the recipe's file names are relative to.
        output_dir: the model with tokenizers and card, `recipe.yaml`, checkpoints and `predictions_<split>.tsv` go
            here.
        resume: go on from the last checkpoint in `output_dir`, if there is one.
        overwrite: delete the checkpoints of an earlier run in `output_dir`.
        eval_only: do not train; evaluate the model saved in this directory, write no card.
        results: the results file, or `None` to write none.
        command: what was typed, for the results file.

    Returns:
        The metrics: those of the test data under plain names, of the validation data as `validation_<name>`.

    Raises:
        FileExistsError: `output_dir` holds checkpoints, and neither `resume` nor `overwrite` is set.
        OptionsError, DataError: the recipe or the data cannot be used, or the recipe is not that of the run to resume.
    """
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    report = None
    if eval_only is None:
        checkpoint = _prepare_output(recipe, output_dir, resume, overwrite)
        data = load_data(recipe.data, data_dir)
        scorer, report = train(recipe, data, output_dir, checkpoint)
    else:
        data = load_data(recipe.data, data_dir)
        scorer, report = load_scorer(recipe, eval_only), TrainingReport.load(eval_only)
    if torch.distributed.is_initialized() and torch.distributed.get_rank() > 0:
        return {}

    metrics, details = evaluate(scorer, data, output_dir)
    if recipe.card is not None and eval_only is None and report is not None:
        save_model_card(
            output_dir,
            scorer.model,
            **asdict(recipe.card),
            metrics=metrics,
            recipe=f"{recipe.name}.yaml",
            training_summary=_training_summary(recipe, report),
            reverse_source=recipe.data.reverse_source,
        )
    if results is not None and metrics:
        write_results(
            results,
            recipe=recipe.name,
            command=command,
            seeds=[recipe.seed],
            metrics=metrics,
            parameters=scorer.model.num_parameters(),
            training_seconds=0.0 if report is None else report.seconds,
            device=scorer.model.device,
            details=details,
        )
    return metrics
