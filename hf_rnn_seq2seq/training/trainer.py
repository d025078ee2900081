"""What training adds to the stock `Seq2SeqTrainer`, each as a part of its own.

Batches by token budget, scores of chosen validation items at each evaluation, scheduled sampling (Bengio et al. 2015),
and a clock that goes on after a resume. `experiment.py` puts them together, with `checkpoints.py`. Needs the extras
`train` and `metrics`; must not be imported by the model files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.data import DataLoader
from transformers import (
    Seq2SeqTrainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
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
    """Counts the seconds of training, those before a resume included."""

    def __init__(self) -> None:
        self.seconds_before = 0.0
        self.started = time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self.seconds_before + time.perf_counter() - self.started

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; the Trainer sets it again when it resumes."""
        return {"args": {}, "attributes": {"seconds_before": self.seconds}}


# ---- Trainer ----------------------------------------------------------------------------------------------------


class RecipeTrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` with batches by token budget and validation scores on chosen items.

    Args:
        max_tokens: token budget of a training batch; `None`: the Trainer's own batches.
        lengths: (source, target) length of every training item, for `max_tokens`.
        save_processors: called with each directory that the model is saved in, to save tokenizers there.
        augment: changes every training batch on the model's device, at random if it likes; `None`: nothing does.
        score_validation: called at each evaluation; what it returns is logged with the loss.
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
        """Training batches; by length buckets if `max_tokens` is set."""
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
        # The sampler gives each process its own batches: accelerate must not share them out again. Its wrapper is
        # wanted all the same, because it moves batches to the device and hands `set_epoch` on, also after skipping
        # batches at a resume.
        return prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0, put_on_device=True)

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Loss and gradients of a batch, augmented."""
        # Here and not in the collator, which evaluation has too; and what a step draws from torch's generator it draws
        # again after a resume, whatever batches were made in advance.
        if self.augment is not None:
            inputs = self.augment(self._prepare_inputs(inputs))
        return super().training_step(model, inputs, num_items_in_batch)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """An epoch; none where a resumed run had made its last update, after which the Trainer would make one more."""
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
        """The loss of the whole validation data, and the scores of the chosen items."""
        output = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
        if self.score_validation is not None:
            assert output.metrics is not None
            output.metrics.update(
                {f"{metric_key_prefix}_{name}": value for name, value in self.score_validation().items()}
            )
        return output

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model and what `save_processors` saves, in checkpoints as well."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            assert self.args.output_dir is not None
            self.save_processors(Path(output_dir or self.args.output_dir))
