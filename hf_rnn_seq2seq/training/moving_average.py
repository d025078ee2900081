"""An exponential moving average of the weights, which is evaluated and saved in their place (Polyak & Juditsky 1992).

After update n the average is d a + (1 - d) w with d = min(decay, (1 + n) / (10 + n)), so that the first weights are
soon forgotten. The formula is torch's own, over all parameters at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


# In a checkpoint, whose model has the averaged weights: those that the training goes on with.
CURRENT_FILE = "current_weights.safetensors"


class MovingAverage(TrainerCallback):
    """The average of the weights while a model trains; at the end, without a best checkpoint, the model has it.

    Args:
        decay: the share of the old average in the new one, between 0 and 1; `None`: there is no average.
    """

    def __init__(self, decay: float | None) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}  # empty: the weights stand for themselves

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.decay is not None and not self.average:
            self.average = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.decay is not None:
            done = state.global_step  # before this update
            update = get_ema_multi_avg_fn(min(self.decay, (2 + done) / (11 + done)))
            weights: Any = [weight.detach() for weight in model.parameters()]
            update(list(self.average.values()), weights, None)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.average and state.best_model_checkpoint is None:
            _put(self.average, model)
        self.average = {}

    @contextmanager
    def instead(self, model: nn.Module) -> Iterator[None]:
        """The time in which the model has the averaged weights."""
        own = {name: weight.detach().clone() for name, weight in model.named_parameters()} if self.average else {}
        _put(self.average, model)
        try:
            yield
        finally:
            _put(own, model)

    def save_current(self, model: nn.Module, checkpoint: str | Path) -> None:
        """Write the weights themselves into a checkpoint, whose model has their average."""
        if self.average:
            weights = {name: weight.detach().contiguous() for name, weight in model.named_parameters()}
            save_file(weights, Path(checkpoint) / CURRENT_FILE)

    def load_current(self, model: nn.Module, checkpoint: str | Path) -> None:
        """Take the average from the model, as a checkpoint has it, and give it the weights themselves."""
        if self.decay is not None:
            self.average = {name: weight.detach().clone() for name, weight in model.named_parameters()}
            _put(load_file(Path(checkpoint) / CURRENT_FILE), model)


@torch.no_grad()
def _put(weights: dict[str, Tensor], model: nn.Module) -> None:
    """Copy weights into the parameters of their names."""
    parameters = dict(model.named_parameters()) if weights else {}
    for name, weight in weights.items():
        parameters[name].copy_(weight)
