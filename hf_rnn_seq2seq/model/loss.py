"""The loss of a training step: labels shifted to decoder inputs, and their cross entropy.

Smoothing: Szegedy 2016. B batch, T target length, N rows, V vocabulary.
"""

import math

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
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # (N, V)
    if label_smoothing > 0 and logits.shape[1] > vocabulary_size:
        # (N, V), zeros where the label does not count
        vocabulary = logits[:, :vocabulary_size].masked_fill((labels == -100).unsqueeze(1), 0)
        right = F.nll_loss(logits, labels, reduction="sum")
        return (1 - label_smoothing) * right - label_smoothing * vocabulary.mean(1).sum()
    if normalised and label_smoothing == 0:
        # Another softmax would change nothing, and takes a tenth of the time.
        return F.nll_loss(logits, labels, reduction="sum")
    return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)


def number_of_items(labels: Tensor, given: Tensor | int | None) -> Tensor | float:
    """
    Return what a summed loss is divided by: what is given, or the number of labels (a tensor) of this batch.

    Where there is nothing to learn from, the sum is 0, and so is the loss: it is divided by 1.
    """
    if given is None:
        return labels.clamp(min=1)
    if isinstance(given, Tensor):
        return given.clamp(min=1)
    if isinstance(given, bool | str) or not 0 <= given < math.inf or (given == 0 and bool(labels > 0)):
        raise ValueError(f"num_items_in_batch is {given!r}, wanted the number of labels, as this batch has some")
    return max(given, 1)
