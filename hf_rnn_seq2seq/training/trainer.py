"""The Trainer: `Seq2SeqTrainer` with batches by token budget, augmentation and scores of chosen validation items.

It writes checkpoints whole and stops at a loss that is no number. Beside it a clock that goes on after a resume. Needs
the extra `train`.
"""

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.data import DataLoader
from transformers import Seq2SeqTrainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import EvalLoopOutput


try:
    from accelerate.data_loader import prepare_data_loader
except ImportError as error:
    raise ImportError("training needs accelerate: pip install 'hf_rnn_seq2seq[train]'") from error
from .batches import ROW_NUMBER, ArrayRows, NumberedRows, TokenBudgetBatchSampler, collate_numbered
from .checkpoints import UNFINISHED, KeptCheckpoints, checkpoints_of, saving_through_python
from .moving_average import MovingAverage
from .stopping import DivergedError, Signals, SkippedUpdates, StopOnSignal, over_all_processes


if TYPE_CHECKING:
    from datasets import Dataset


logger = logging.getLogger(__name__)


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
        checkpoints: what becomes of the checkpoints; `None`: they are as `Seq2SeqTrainer` leaves them.
        signals: what stops the training, with a checkpoint.
        ema_decay: evaluate and save an exponential moving average of the weights; `None`: the weights.
        skip_non_finite: leave out so many updates whose loss or gradient is not finite; the next one is a
            `DivergedError`.
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
        checkpoints: KeptCheckpoints | None = None,
        signals: Signals | None = None,
        ema_decay: float | None = None,
        skip_non_finite: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data_collator = partial(collate_numbered, self.data_collator)
        self.checkpoints = checkpoints
        self.signals = signals or Signals()
        self.skip_non_finite = skip_non_finite
        self.moving_average = MovingAverage(ema_decay)
        self.add_callback(self.moving_average)
        self.add_callback(SkippedUpdates())
        self.add_callback(StopOnSignal(self.signals))
        self._batches: list[tuple[torch.Tensor, dict[str, Any]]] = []  # loss and inputs, of the update that is made
        self._run_dir: str | None = None  # where a checkpoint is being written
        self.max_tokens = max_tokens
        self.lengths = lengths
        self.save_processors = save_processors
        self.augment = augment
        self.score_validation = score_validation

    def get_train_dataloader(self) -> DataLoader:
        """Return training batches; by length buckets if `max_tokens` is set."""
        if self.max_tokens is None:
            dataset, self.train_dataset = self.train_dataset, NumberedRows(self.train_dataset)
            try:
                return super().get_train_dataloader()
            finally:
                self.train_dataset = dataset
        sampler = TokenBudgetBatchSampler(
            self.lengths,
            self.max_tokens,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            world_size=self.args.world_size,
            rank=self.args.process_index,
        )
        rows = ArrayRows(self.train_dataset) if ArrayRows.suits(self.train_dataset) else self.train_dataset
        loader: DataLoader = DataLoader(
            cast("Dataset", NumberedRows(rows)),
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
        numbers = inputs.pop(ROW_NUMBER, None)
        if self.augment is not None:
            inputs = self.augment(self._prepare_inputs(inputs))
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._batches.append((loss, {**inputs, ROW_NUMBER: numbers}))
        return loss

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
        if self.state.global_step < self.state.max_steps and not self.control.should_training_stop:
            self._batches = []
            super()._run_epoch(*args, **kwargs)

    # ---- Numbers that are not finite ----------------------------------------------------------------------------

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Return the norm of the gradient; where it or a loss is not finite, leave the update out, or stop."""
        grad_norm = super()._get_grad_norm(model, grad_norm)
        batches, self._batches = self._batches, []
        losses = torch.stack([loss for loss, _ in batches]).isfinite().all()
        # In fp16 an overflow is nothing special: the scaler leaves the update out, and scales less.
        scaled = getattr(self.accelerator, "scaler", None) is not None
        finite = losses and (scaled or grad_norm is None or torch.as_tensor(grad_norm).isfinite())
        # Several processes decide alike, about a signal too.
        wrong, signum = over_all_processes([not finite, self.signals.received or 0], self.args)
        self.signals.agreed = int(signum) or None
        if wrong:
            self._leave_out(model, batches, grad_norm)
        return grad_norm

    def _leave_out(
        self, model: torch.nn.Module, batches: list[tuple[torch.Tensor, dict[str, Any]]], grad_norm: Any
    ) -> None:
        loss, rows = self._loss_and_rows(batches)
        what = f"update {self.state.global_step + 1}: the loss is {loss}, the gradient {float(grad_norm)}, at {rows}"
        skipped = next(call for call in self.callback_handler.callbacks if isinstance(call, SkippedUpdates))
        if skipped.number >= self.skip_non_finite:
            raise DivergedError(f"{what}; {self._last_good()}")
        skipped.number += 1
        logger.warning("%s: left out, %d of at most %d", what, skipped.number, self.skip_non_finite)
        model.zero_grad()

    def _loss_and_rows(self, batches: list[tuple[torch.Tensor, dict[str, Any]]]) -> tuple[float, str]:
        """Return the loss of all processes, and name those rows that have no finite loss alone; all, if each has."""
        rows, bad = [], []
        for _, inputs in batches:
            for place, number in enumerate(() if inputs[ROW_NUMBER] is None else inputs[ROW_NUMBER].tolist()):
                rows.append(number)
                if not self._loss_of_row(inputs, place).isfinite():
                    bad.append(number)
        found: list[Any] = [(sum(float(loss) for loss, _ in batches), rows, bad)]
        if self.args.world_size > 1:
            own, found = found[0], [None] * self.args.world_size
            torch.distributed.all_gather_object(found, own)
        losses, every, some = zip(*found, strict=True)
        named = sorted(set(chain(*some)) or set(chain(*every)))
        more = f" and {len(named) - 20} more" if len(named) > 20 else ""
        return sum(losses), f"rows {', '.join(map(str, named[:20]))}{more} of the training data, the first being 0"

    @torch.no_grad()
    def _loss_of_row(self, inputs: dict[str, Any], place: int) -> torch.Tensor:
        assert self.model is not None
        size = len(inputs[ROW_NUMBER])
        one = {
            name: value[place : place + 1] if torch.is_tensor(value) and value.shape[:1] == (size,) else value
            for name, value in self._prepare_inputs({**inputs, ROW_NUMBER: None}).items()
            if value is not None
        }
        with torch.random.fork_rng(devices=[]):
            self.model.eval()
            loss: torch.Tensor = self.model(**one).loss
            self.model.train()
        return loss

    def _last_good(self) -> str:
        """Name the last checkpoint: its weights were finite when it was saved."""
        found = checkpoints_of(str(self.args.output_dir))
        return f"the last good checkpoint is {found[-1]}" if found else "there is no checkpoint before"

    # ---- Checkpoints --------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        """Return the folder of the run, or the one in which a checkpoint is being written."""
        return self._run_dir or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save a checkpoint beside the others, then seal it and give it its name; delete those no more needed."""
        if not all(weight.isfinite().all() for weight in model.parameters()):
            raise DivergedError(f"update {self.state.global_step}: weights are not finite; {self._last_good()}")
        kept, step, args = self.checkpoints, self.state.global_step, self.args
        if kept is None:
            return super()._save_checkpoint(model, trial)
        beside = kept.folder / f"{UNFINISHED}saving"
        if args.should_save:
            shutil.rmtree(beside, ignore_errors=True)
        args.distributed_state.wait_for_everyone()
        self._run_dir = str(beside)
        try:
            with saving_through_python():
                super()._save_checkpoint(model, trial)
            if self.state.best_global_step == step:  # noted, too, where it is now, and not where it is being written
                self.state.best_model_checkpoint = str(kept.folder / f"checkpoint-{step}")
                if args.should_save:
                    self.state.save_to_json(str(beside / f"checkpoint-{step}" / TRAINER_STATE_NAME))
            args.distributed_state.wait_for_everyone()
            stop = next(call for call in self.callback_handler.callbacks if isinstance(call, StopOnSignal))
            if args.should_save:
                kept.finish(beside / f"checkpoint-{step}", stop.planned)
        except BaseException:
            if args.should_save:
                shutil.rmtree(beside, ignore_errors=True)  # on a full disk there is room again
            raise
        finally:
            self._run_dir = None
        if args.should_save:
            metric = args.metric_for_best_model and f"eval_{args.metric_for_best_model}"
            kept.rotate(self.state, metric, bool(args.greater_is_better))
        args.distributed_state.wait_for_everyone()
        if args.push_to_hub:
            super()._push_from_checkpoint(str(kept.folder / f"checkpoint-{step}"))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save what training goes on with, beside the model that a user loads."""
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            assert isinstance(self.model, torch.nn.Module)
            self.moving_average.save_current(self.model, output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        assert isinstance(self.model, torch.nn.Module)
        self.moving_average.load_current(self.model, resume_from_checkpoint)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload a checkpoint, but not while it is being written."""
        if self._run_dir is None:
            super()._push_from_checkpoint(checkpoint_folder)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Compute the loss of the whole validation data, and the scores of the chosen items."""
        assert isinstance(self.model, torch.nn.Module)
        with self.moving_average.instead(self.model):
            output = super().evaluation_loop(dataloader, description, True, ignore_keys, metric_key_prefix)
            if self.score_validation is not None:
                assert output.metrics is not None
                scores = self.score_validation()
                output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in scores.items()})
        return output

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model and its tokenizers, in checkpoints as well."""
        assert isinstance(self.model, torch.nn.Module)
        with saving_through_python(), self.moving_average.instead(self.model):
            super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            assert self.args.output_dir is not None
            self.save_processors(Path(output_dir or self.args.output_dir))


def _counted(batch: dict[str, Any]) -> torch.Tensor:
    """Return what stands for the values of a future: 0, or -100 for one that was not observed."""
    observed = batch.get("future_observed_mask")
    count = torch.zeros_like(batch["future_values"], dtype=torch.long)
    return count if observed is None else count.masked_fill(~observed.bool(), -100)
