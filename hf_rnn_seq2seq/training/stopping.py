"""What ends a training before its last update: a signal, no better score, a loss that is no number.

SIGTERM and SIGINT save a checkpoint first, so that the run goes on as if it had not been stopped.
"""

import os
import signal
import threading
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from ..data.outputs import is_first_process


class Stopped(KeyboardInterrupt):
    """The work was stopped by a signal; a process ends with the status 128 + `signum`, as a shell has it."""

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message or f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class DivergedError(ArithmeticError):
    """A loss, a gradient or a weight is not finite; the message names the update, the rows and the last checkpoint."""


class Signals:
    """The time in which SIGTERM and SIGINT raise `Stopped`: at once, or in a training once a checkpoint is saved.

    A second one is obeyed at once. Outside of a program's main thread nothing is changed.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.agreed: int | None = None  # what any of several processes received, once all know it
        self.waits = False
        self.process = os.getpid()
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a data loader's worker: the process that it works for decides
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.waits and self.received is None:
            self.received = number
            if is_first_process():
                name = signal.Signals(number).name
                os.write(
                    2, f"{name}: a checkpoint is saved after this update; a second signal is obeyed at once\n".encode()
                )
            return
        raise Stopped(number)


class StopOnSignal(TrainerCallback):
    """Save a checkpoint after the update in which a signal came, at any process, and stop then.

    Evaluations and checkpoints that are due are made first, so that the run that goes on is the unbroken one.
    """

    def __init__(self, signals: Signals) -> None:
        self.signals = signals
        self.planned = True  # whether the checkpoint that is saved would be without a signal, too

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.planned = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # What is due at the end of an epoch comes after this.
        ends_epoch = control.should_training_stop or state.epoch == int(state.epoch or 0)
        if self.signals.agreed and not ends_epoch:
            self._ask_to_save(control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.signals.agreed:
            self._ask_to_save(control)

    def _ask_to_save(self, control: TrainerControl) -> None:
        self.planned = control.should_save
        control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.signals.agreed:
            raise Stopped(self.signals.agreed)


class StopEarly(EarlyStoppingCallback):
    """Stop where the score has not become better for a while; a run that goes on from there does not train on."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        control.should_training_stop |= self.early_stopping_patience_counter >= self.early_stopping_patience


class SkippedUpdates(TrainerCallback, ExportableState):
    """The number of updates that were left out because their loss or gradient was not finite."""

    def __init__(self) -> None:
        self.number = 0

    def state(self) -> dict[str, Any]:
        """Return the attributes that a checkpoint keeps, and the Trainer sets when it resumes."""
        return {"args": {}, "attributes": {"number": self.number}}


def over_all_processes(numbers: Sequence[float], args: TrainingArguments) -> list[float]:
    """Return the largest of each number over all processes, which so decide alike."""
    if args.world_size == 1:
        return list(numbers)
    largest = torch.tensor(numbers, dtype=torch.float32, device=args.device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return largest.tolist()
