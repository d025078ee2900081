"""SpecAugment (Park et al. 2019, section 2): in training, bands of frequencies and stretches of time are blanked.

Without the time warping, which the paper found to matter least. B batch, S frames, F numbers a frame. Needs only
torch; imports nothing of this package.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class SpecAugmentOptions:
    """How much is blanked, in the letters of the paper.

    Args:
        frequency_masks: m_F, number of masked bands.
        frequency_width: F, largest width of a band; each is drawn from 0 to F.
        time_masks: m_T, number of masked stretches.
        time_width: T, largest length of a stretch in vectors of the input; each is drawn from 0 to T.
        time_share: p, largest length of a stretch as a share of the utterance.
    """

    frequency_masks: int = 2
    frequency_width: int = 8
    time_masks: int = 2
    time_width: int = 40
    time_share: float = 0.2

    def __post_init__(self) -> None:
        for name in ("frequency_masks", "frequency_width", "time_masks", "time_width"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted 0 or more")
        if not 0 <= self.time_share <= 1:
            raise ValueError(f"time_share: got {self.time_share}, wanted 0 to 1")


def _interval(largest: int, total: int) -> slice:
    """A random interval of 0 to `largest` places out of `total`; from torch's generator, which checkpoints keep."""
    width = int(torch.randint(min(largest, total) + 1, ()))
    start = int(torch.randint(total - width + 1, ()))
    return slice(start, start + width)


def spec_augment(features: Tensor, lengths: Tensor, options: SpecAugmentOptions, bands: int) -> Tensor:
    """Blank some of each utterance: zero, which is the mean of normalised features.

    Args:
        features: (B, S, F).
        lengths: (B,) real frames of each, to the left.
        options: how much.
        bands: number of frequencies; F is a multiple of it if there are deltas or stacked frames, which lose the same
            bands.

    Returns:
        (B, S, F), a copy.
    """
    # (B, S, F / bands, bands)
    masked = features.unflatten(-1, (-1, bands)).clone()
    for utterance, length in zip(masked, lengths.tolist(), strict=True):
        for _ in range(options.frequency_masks):
            utterance[..., _interval(options.frequency_width, bands)] = 0
        for _ in range(options.time_masks):
            utterance[_interval(min(options.time_width, int(options.time_share * length)), length)] = 0
    return masked.flatten(-2)
