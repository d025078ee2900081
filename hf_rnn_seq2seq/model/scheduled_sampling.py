"""The inputs of the decoder's steps in training: the reference or, in scheduled sampling, the model's own symbol.

B batch, T target length, R size of a readout.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .checks import check_option
from .copying import Pointer


UNITS = ("step", "sequence")


def check_teacher_forcing(model: Any) -> None:
    """Refuse the attributes of a model that say what its training steps read, where they are out of range."""
    words = "at least 0 and at most 1"
    check_option("teacher_forcing_ratio", model.teacher_forcing_ratio, "number", lambda p: 0 <= p <= 1, words)
    if model.teacher_forcing_unit not in UNITS:
        raise ValueError(f"teacher_forcing_unit must be one of {', '.join(UNITS)}; got {model.teacher_forcing_unit!r}")


def check_that_it_may_sample(config: Any, ratio: float) -> None:
    """Refuse a `teacher_forcing_ratio` below 1 of a model that knows alignments of the reference alone."""
    if config.aligns:
        raise ValueError(
            f"teacher_forcing_ratio={ratio}: attention_type='hard_monotonic' sums over alignments of the reference, "
            "and reads no symbols of its own (scheduled sampling); leave it at 1"
        )


class ScheduledSampling:
    """
    Chooses the inputs of one forward pass, all steps but the first.

    Args:
        logits: Computes logits (B, 1, V) of readouts (B, 1, R), and of a pointer if the model copies.
        reference: What teacher forcing reads, (B, T).
        ratio: Probability of the reference.
        unit: What a coin is tossed for. `"step"`: each step of each sequence; otherwise the symbol is drawn from the
            model's distribution (Bengio et al. 2015). `"sequence"`: each sequence; otherwise it reads its own most
            probable symbols all along, and what comes behind its own end is not learnt from (as Lake & Baroni 2018,
            after the seq2seq tutorial of PyTorch).
        end: Id of the end symbol, or several.
    """

    def __init__(
        self, logits: Callable[..., Tensor], reference: Tensor, ratio: float, unit: str, end: int | list[int] | None
    ):
        self.logits, self.reference, self.unit = logits, reference, unit
        self.ends = torch.tensor([] if end is None else end)
        batch, length = reference.shape
        coins = torch.rand((batch, length if unit == "step" else 1), device=reference.device)
        self.forced = (coins < ratio).expand(batch, length).clone()  # (B, T) where the reference is read
        self.forced[:, 0] = True
        self.ended: list[Tensor] = []

    def __call__(self, t: int, previous_output: Tensor, pointer: Pointer | None = None) -> Tensor:
        """Return the ids (B,) that step t reads: the reference's, or what the last step's readout (B, R) says."""
        forced = self.forced[:, t]
        with torch.no_grad():
            logits = self.logits(previous_output.unsqueeze(1), pointer).squeeze(1)  # (B, V)
            if self.unit == "step":
                own = logits.float().softmax(-1).multinomial(1).squeeze(1)  # (B,)
                return torch.where(forced, self.reference[:, t], own)  # (B,)
            chosen = torch.where(forced, self.reference[:, t], logits.argmax(-1))  # (B,)
            before = self.ended[-1] if self.ended else torch.zeros_like(forced)
            self.ended.append(before | (~forced & torch.isin(chosen, self.ends.to(chosen))))
            return chosen

    def learnt(self, labels: Tensor) -> Tensor:
        """Return labels (B, T) without those behind the end that a sequence read of its own."""
        if not self.ended:
            return labels
        ended = torch.stack([torch.zeros_like(self.ended[0]), *self.ended], 1)
        return labels.masked_fill(ended, -100)
