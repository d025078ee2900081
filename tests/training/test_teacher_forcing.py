"""Teacher forcing: schedules as in the paper, and the callback that sets them."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerControl, TrainerState

from hf_rnn_seq2seq.training.teacher_forcing import (
    ScheduledSamplingCallback,
    TeacherForcingOptions,
    teacher_forcing_ratio,
)


steps = st.integers(0, 10_000)


@given(step=steps, ratio=st.floats(0, 1))
def test_constant_schedule(step: int, ratio: float) -> None:
    assert teacher_forcing_ratio(TeacherForcingOptions("constant", ratio=ratio), step) == ratio


@given(step=steps, k=st.floats(0, 1), c=st.floats(0, 0.1), floor=st.floats(0, 1))
def test_linear_schedule_is_that_of_the_paper(step: int, k: float, c: float, floor: float) -> None:
    options = TeacherForcingOptions("linear", start=k, slope=c, minimum=floor)
    assert teacher_forcing_ratio(options, step) == max(floor, k - c * step)


@given(step=steps, k=st.floats(50, 5000))
def test_inverse_sigmoid_schedule_is_that_of_the_paper(step: int, k: float) -> None:
    found = teacher_forcing_ratio(TeacherForcingOptions("inverse_sigmoid", k=k), step)
    assert found == pytest.approx(k / (k + math.exp(step / k)))


def test_inverse_sigmoid_schedule_ends_at_zero_without_overflow() -> None:
    options = TeacherForcingOptions("inverse_sigmoid", k=1)
    assert teacher_forcing_ratio(options, 10**6) == 0.0
    assert teacher_forcing_ratio(options, 0) == 0.5


def test_the_callback_sets_the_ratio_of_the_update_to_come() -> None:
    model, state = SimpleNamespace(teacher_forcing_ratio=1.0), TrainerState()
    callback = ScheduledSamplingCallback(TeacherForcingOptions("linear", slope=0.1, unit="sequence"))
    seen = []
    for state.global_step in range(3):
        callback.on_step_begin(Any, state, TrainerControl(), model=model)  # type: ignore[arg-type]
        seen.append(model.teacher_forcing_ratio)
    assert seen == pytest.approx([1.0, 0.9, 0.8])
    assert model.teacher_forcing_unit == "sequence"
    callback.on_train_end(Any, state, TrainerControl(), model=model)  # type: ignore[arg-type]
    assert model.teacher_forcing_ratio == 1.0
