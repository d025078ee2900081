"""What ends a training: losses that are no numbers, signals, no better score; and going on from there."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer import trainer
from transformers import TrainerCallback

from hf_rnn_seq2seq.training.checkpoints import KeptCheckpoints, checkpoints_of, damage_of
from hf_rnn_seq2seq.training.stopping import DivergedError, Signals, SkippedUpdates, StopEarly, Stopped


# Of the rows that `trainer` makes those that have the token 10.
ROWS = "6, 13, 20, 27, 34"


def spoiled(folder: Path, filtered: bool = True, **options: Any) -> Any:
    """A trainer whose loss is no number for some rows."""
    found = trainer(folder, **options)
    found.args.logging_nan_inf_filter = filtered
    forward = found.model.forward

    def spoiling(**inputs: Any) -> Any:
        output = forward(**inputs)
        output.loss = output.loss * (float("nan") if (inputs["input_ids"] == 10).any() else 1.0)
        return output

    found.model.forward = spoiling
    return found


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("max_tokens", [20, None])
def test_a_loss_that_is_no_number_stops_the_training_and_is_named(
    filtered: bool, max_tokens: int | None, tmp_path: Path
) -> None:
    found = spoiled(tmp_path, filtered, max_tokens=max_tokens)
    found.args.remove_unused_columns = False
    with pytest.raises(
        DivergedError, match=r"^update \d+: the loss is nan.* at rows? .* no checkpoint before$"
    ) as said:
        found.train()
    named = str(said.value).split(" at rows ")[1].split(" of the training data")[0].split(", ")
    assert set(named) <= set(ROWS.split(", "))
    assert all(weight.isfinite().all() for weight in found.model.parameters())


def test_so_many_updates_as_are_asked_for_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = spoiled(tmp_path, skip_non_finite=99)
    with caplog.at_level("WARNING"):
        found.train()
    (skipped,) = (call for call in found.callback_handler.callbacks if isinstance(call, SkippedUpdates))
    assert 0 < skipped.number < found.state.global_step
    assert f"left out, {skipped.number} of at most 99" in caplog.text
    assert all(weight.isfinite().all() for weight in found.model.parameters())
    few = spoiled(tmp_path, skip_non_finite=skipped.number - 1)
    with pytest.raises(DivergedError):
        few.train()


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    found = trainer(tmp_path, checkpoints=KeptCheckpoints(tmp_path, "r"))
    found.model.get_input_embeddings().weight.data[5] = float("inf")
    with pytest.raises(DivergedError, match="weights are not finite; there is no checkpoint before"):
        found._save_checkpoint(found.model, None)
    assert not checkpoints_of(tmp_path)


class SendsSignal(TrainerCallback):
    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_from_which_the_training_goes_on(number: int, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    whole.train()
    before = signal.getsignal(number)
    with Signals() as signals:
        signals.waits = True
        kept = KeptCheckpoints(tmp_path, "r")
        stopped = trainer(tmp_path, checkpoints=kept, signals=signals)
        stopped.add_callback(SendsSignal(number, 3))
        with pytest.raises(Stopped) as said:
            stopped.train()
    assert said.value.signum == number and signal.getsignal(number) is before
    (checkpoint,) = checkpoints_of(tmp_path)
    assert checkpoint.name == "checkpoint-3" and damage_of(checkpoint) is None
    again = trainer(tmp_path)
    again.train(resume_from_checkpoint=str(checkpoint))
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


def test_outside_of_a_training_and_the_second_time_a_signal_is_obeyed_at_once() -> None:
    with Signals() as signals:
        with pytest.raises(Stopped, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        signals.waits = True
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(Stopped, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("counter", "stops"), [(1, False), (2, True)])
def test_a_training_that_stopped_early_does_not_go_on(counter: int, stops: bool, tmp_path: Path) -> None:
    early = StopEarly(2)
    early.early_stopping_patience_counter = counter
    found = trainer(tmp_path)
    found.args.load_best_model_at_end, found.args.metric_for_best_model = True, "loss"
    found.args.eval_strategy = "epoch"
    found.add_callback(early)
    found.train()
    assert (found.state.global_step == 0) == stops
