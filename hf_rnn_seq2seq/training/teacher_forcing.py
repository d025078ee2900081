"""Teacher forcing and scheduled sampling: how often a training step reads the reference (Bengio et al. 2015).

The schedule, and the callback that sets it on the model before each update; `model/scheduled_sampling.py` then chooses
the inputs of each step.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..data.option_checks import check_range


@dataclass
class TeacherForcingOptions:
    """Scheduled sampling (Bengio et al. 2015, section 2.4): how often the decoder is fed the reference at update i.

    Args:
        schedule: "constant": `ratio`; "linear": max(minimum, start - slope i); "inverse_sigmoid":
            k / (k + exp(i / k)).
        ratio: of the constant schedule; 1 is plain teacher forcing.
        start: of the linear schedule.
        slope: fall a update of the linear schedule.
        minimum: floor of the linear schedule.
        k: of the inverse sigmoid, at least 1: the larger, the later it falls.
        unit: "step": every step reads the reference or a symbol drawn from the model; "sequence": a sequence reads the
            reference or the model's most probable symbols all along (Lake & Baroni 2018).
    """

    schedule: Literal["constant", "linear", "inverse_sigmoid"] = "constant"
    ratio: float = 1.0
    start: float = 1.0
    slope: float = 0.0
    minimum: float = 0.0
    k: float = 1000.0
    unit: Literal["step", "sequence"] = "step"

    def __post_init__(self) -> None:
        check_range(self, "ratio", "start", "minimum", least=0, most=1)
        check_range(self, "slope", least=0)
        check_range(self, "k", least=1)


def teacher_forcing_ratio(options: TeacherForcingOptions, step: int) -> float:
    """Return the probability of feeding the reference after `step` updates (Bengio et al. 2015, section 2.4)."""
    if options.schedule == "linear":
        return max(options.minimum, options.start - options.slope * step)
    if options.schedule == "inverse_sigmoid":
        # k / (k + exp(i / k)), both divided by exp(i / k), which would overflow.
        decayed = options.k * math.exp(-step / options.k)
        return decayed / (decayed + 1)
    return options.ratio


class ScheduledSamplingCallback(TrainerCallback):
    """Set `model.teacher_forcing_ratio` and `_unit` before every update, and the ratio back to 1 after training."""

    def __init__(self, options: TeacherForcingOptions) -> None:
        self.options = options

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model = kwargs["model"]
        model.teacher_forcing_ratio = teacher_forcing_ratio(self.options, state.global_step)
        model.teacher_forcing_unit = self.options.unit

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        kwargs["model"].teacher_forcing_ratio = 1.0
