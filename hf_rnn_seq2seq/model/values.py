"""What all heads that give values share: the scale of the user's units, and losses over the values that are observed.

A model computes in standardised units, with mean 0 and standard deviation 1 on the training data, and answers in the
user's. NaN stands for a value that nobody observed: it has no part in a scale, a loss or a gradient. C values a
position. This file travels to the Hub: it imports only torch.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ValueScale(nn.Module):
    """
    Mean and standard deviation of each of C values: buffers, saved with the model; at first 0 and 1, the identity.

    They stay in float32 whatever the type of the weights: 16 bits would move a mean of 1000 by up to 4.

    Args:
        size (`int`): C.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float32))  # (C,)
        self.register_buffer("std", torch.ones(size, dtype=torch.float32))  # (C,)

    @torch.no_grad()
    def fit(self, values: Tensor, observed: Tensor | None = None) -> None:
        """
        Take mean and standard deviation of training data.

        A value that is always the same gets 1 for its standard deviation.

        Args:
            values (`torch.Tensor` of shape `(..., C)`): In the user's units; NaN is not observed.
            observed (`torch.BoolTensor` of shape `(..., C)` or `(...)`, *optional*): False at what else to leave out.

        Raises:
            ValueError: A shape does not fit, a value is infinite, or one of the C was never observed.
        """
        size = len(self.mean)
        if values.dim() < 1 or values.shape[-1] != size:
            raise ValueError(f"values has shape {tuple(values.shape)}, wanted (..., {size})")
        numbers = values.detach().to("cpu", torch.float64)
        there = ~numbers.isnan()  # (..., C)
        if observed is not None:
            if observed.shape not in (values.shape, values.shape[:-1]):
                raise ValueError(f"observed has shape {tuple(observed.shape)}, wanted {tuple(values.shape)} as values")
            given = observed.detach().to("cpu", torch.bool)
            there = there & (given if given.shape == there.shape else given.unsqueeze(-1))
        numbers, there = numbers.where(there, 0).reshape(-1, size), there.reshape(-1, size)  # (N, C)
        for name, wrong in (("infinite", numbers.isinf().any(0)), ("never observed", ~there.any(0))):
            if wrong.any():
                raise ValueError(f"values[..., {int(wrong.nonzero()[0])}] is {name}: no scale can be fitted to it")
        count = there.sum(0)  # (C,)
        mean = numbers.sum(0) / count
        std = ((numbers - mean).where(there, 0).square().sum(0) / count).sqrt()
        # What is below the rounding of float32 is no change of the value.
        changes = std > torch.finfo(torch.float32).eps * mean.abs()
        self.mean.copy_(mean)
        self.std.copy_(std.where(changes, 1))

    def standardise(self, values: Tensor) -> Tensor:
        """Return values (..., C) of the user's units in standardised ones, in 32 bits at least; NaN stays NaN."""
        return (values.to(torch.promote_types(values.dtype, torch.float32)) - self.mean) / self.std

    def to_units(self, values: Tensor) -> Tensor:
        """Return standardised values (..., C) in the user's units, in 32 bits at least."""
        return values.to(torch.promote_types(values.dtype, torch.float32)) * self.std + self.mean

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "ValueScale":
        before = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, *args, **kwargs)
        for name, old in before.items():
            new = self._buffers[name]
            if new is not None and new.dtype != old.dtype and not old.is_meta:
                self._buffers[name] = old.to(new.device)
        return self


# The option `regression_loss` -> the loss of values and their targets, both standardised.
REGRESSION_LOSSES: dict[str, Callable[..., Tensor]] = {
    "squared": F.mse_loss,
    "absolute": F.l1_loss,
    "huber": F.huber_loss,  # Huber 1964; squared up to one standard deviation, then absolute
}


def observed_loss(
    loss: Callable[..., Tensor], scores: Tensor, labels: Tensor, observed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """
    Return a loss, summed over the labels that are observed, and their number.

    What stands anywhere else, be it NaN, changes neither the loss nor a gradient.

    Args:
        loss: Takes scores, labels and `reduction="none"`, as torch's do.
        scores: Of any shape.
        labels: Of the same shape; NaN is not observed.
        observed: Of the same shape, False at what else to leave out; `None`: nothing.
    """
    there = ~labels.isnan() if observed is None else ~labels.isnan() & observed
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    # Both are replaced before the loss: 0 times NaN, in a gradient, would be NaN.
    losses = loss(scores.where(there, 0), labels.to(scores.dtype).where(there, 0), reduction="none")
    return losses.where(there, 0).sum(), there.sum()


def counted_labels(labels: Tensor) -> Tensor:
    """
    Return what Trainer has to count in place of labels: integers of their shape, -100 where one is NaN.

    A batch has it as `shift_labels`. Labels themselves it compares with -100, which a value may be and NaN is not.
    """
    return torch.zeros_like(labels, dtype=torch.long).masked_fill(labels.isnan(), -100)


def without_counts(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a forward that leaves out what `counted_labels` gave a batch: it is for Trainer alone."""

    @functools.wraps(forward)
    def run(self: Any, *args: Any, shift_labels: Tensor | None = None, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    return run
