"""The Trainer: `Seq2SeqTrainer` with batches by token budget, augmentation and scores of chosen validation items.

Beside it a clock that goes on after a resume. Needs the extra `train`.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.data import DataLoader
from transformers import Seq2SeqTrainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import EvalLoopOutput


try:
    from accelerate.data_loader import prepare_data_loader
except ImportError as error:
    raise ImportError("training needs accelerate: pip install 'hf_rnn_seq2seq[train]'") from error
from .batches import ArrayRows, TokenBudgetBatchSampler


if TYPE_CHECKING:
    from datasets import Dataset


class TrainingClock(TrainerCallback, ExportableState):
    """The seconds of training, those before a resume included."""

    def __init__(self) -> None:
        self.seconds_before = 0.0
        self.started = time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """The seconds so far."""
        return self.seconds_before + time.perf_counter() - self.started

    def state(self) -> dict[str, Any]:
        """Return the attributes that a checkpoint keeps, and the Trainer sets when it resumes."""
        return {"args": {}, "attributes": {"seconds_before": self.seconds}}


class RecipeTrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` with batches by token budget, augmentation and scores of chosen validation items.

    Args:
        max_tokens: token budget of a training batch; `None`: the Trainer's own batches.
        lengths: (source, target) length of every training item, for `max_tokens`.
        save_processors: called with each directory that the model is saved in, to save tokenizers there.
        augment: changes every training batch on the model's device, at random if it likes; `None`: nothing does.
        score_validation: called at each evaluation; returns scores that are logged with the loss.
        **kwargs: as for `Seq2SeqTrainer`.
    """

    def __init__(
        self,
        *,
        max_tokens: int | None,
        lengths: Sequence[tuple[int, int]],
        save_processors: Callable[[Path], None],
        augment: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        score_validation: Callable[[], dict[str, float]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_tokens = max_tokens
        self.lengths = lengths
        self.save_processors = save_processors
        self.augment = augment
        self.score_validation = score_validation

    def get_train_dataloader(self) -> DataLoader:
        """Return training batches; by length buckets if `max_tokens` is set."""
        if self.max_tokens is None:
            return super().get_train_dataloader()
        sampler = TokenBudgetBatchSampler(
            self.lengths,
            self.max_tokens,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            world_size=self.args.world_size,
            rank=self.args.process_index,
        )
        rows = ArrayRows(self.train_dataset) if ArrayRows.suits(self.train_dataset) else self.train_dataset
        loader: DataLoader = DataLoader(
            cast("Dataset", rows),
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type != "cpu",
        )
        # The sampler yields the batches of this process: accelerate must not divide them again. Its wrapper moves
        # batches to the device and passes `set_epoch` on, also after skipping batches at a resume.
        return prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0, put_on_device=True)

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Augment a batch; compute its loss and gradients."""
        # Not in the collator, which evaluation uses, too, and which may run ahead: a resumed run draws the same.
        if self.augment is not None:
            inputs = self.augment(self._prepare_inputs(inputs))
        return super().training_step(model, inputs, num_items_in_batch)

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, Any]], device: torch.device
    ) -> torch.Tensor | int | None:
        """Count the observed values of the future of a forecaster's batches, as labels are counted of others."""
        if batch_samples and "future_values" in batch_samples[0]:
            counted = [_counted(batch) for batch in batch_samples]
            batch_samples = [{"labels": labels, "shift_labels": labels} for labels in counted]
        return super()._get_num_items_in_batch(batch_samples, device)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Run an epoch; none after the last update of a resumed run, where the Trainer would make one more."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Compute the loss of the whole validation data, and the scores of the chosen items."""
        output = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
        if self.score_validation is not None:
            assert output.metrics is not None
            scores = self.score_validation()
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in scores.items()})
        return output

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model and its tokenizers, in checkpoints as well."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            assert self.args.output_dir is not None
            self.save_processors(Path(output_dir or self.args.output_dir))


def _counted(batch: dict[str, Any]) -> torch.Tensor:
    """Return what stands for the values of a future: 0, or -100 for one that was not observed."""
    observed = batch.get("future_observed_mask")
    count = torch.zeros_like(batch["future_values"], dtype=torch.long)
    return count if observed is None else count.masked_fill(~observed.bool(), -100)
