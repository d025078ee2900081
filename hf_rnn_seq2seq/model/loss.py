"""The loss of a training step: labels shifted to decoder inputs, and their cross entropy.

Smoothing: Szegedy 2016. B batch, T target length, N rows, V vocabulary. This file travels to the Hub: it imports only
torch.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def shift_tokens_right(labels: Tensor, pad_token_id: int | None, decoder_start_token_id: int) -> Tensor:
    """Return decoder inputs (B, T): the start symbol, then all labels (B, T) but the last; -100 becomes padding."""
    if decoder_start_token_id is None:
        raise ValueError("decoder_start_token_id is None in the configuration: labels cannot become decoder inputs")
    start = labels.new_full((labels.shape[0], 1), decoder_start_token_id)
    shifted = torch.cat([start, labels[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == -100, pad_token_id if pad_token_id is not None else 0)


def cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float, normalised: bool, vocabulary_size: int
) -> Tensor:
    """
    Return the sum over the rows of logits (N, V) whose label is not -100; `normalised`: they are log-probabilities.

    The target is smoothed over the vocabulary: slots behind it (`copy_slots`) mostly have no probability to raise.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if label_smoothing > 0 and logits.shape[1] > vocabulary_size:
        vocabulary = logits[labels != -100, :vocabulary_size]
        right = F.nll_loss(logits, labels, reduction="sum")
        return (1 - label_smoothing) * right - label_smoothing * vocabulary.mean(1).sum()
    if normalised and label_smoothing == 0:
        # Another softmax would change nothing, and takes a tenth of the time.
        return F.nll_loss(logits, labels, reduction="sum")
    return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)


def loss_beyond_logits(config: Any, teacher_forcing_ratio: float) -> str | None:
    """Return what a loss that is made of the logits alone, as Trainer's label smoothing does, would miss, or None."""
    if config.copy_slots > 0:
        return f"copy_slots={config.copy_slots}: words that are not in a source have no probability to smooth"
    if config.coverage and config.coverage_loss_weight > 0:
        return "coverage=True: the coverage loss would be left out"
    if teacher_forcing_ratio < 1:
        return f"teacher_forcing_ratio={teacher_forcing_ratio}: every step would read the reference"
    return None
