"""Augmentation of training batches: BPE-dropout for text, SpecAugment for speech.

BPE-dropout (Provilkov et al. 2020) leaves merges out at random, so that the model sees every word in many cuts, which
helps most where there is little data. SpecAugment (Park et al. 2019, section 2) masks bands of frequencies and
stretches of time; the time warping, which the paper found to matter least, is left out. Both draw from torch's
generator, which checkpoints keep. Needs only `torch`, `tokenizers` and `transformers`.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from tokenizers import decoders, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..data.option_checks import check_range


class BpeDropout:
    """Segmentation of texts by some of a tokenizer's merges (Provilkov et al. 2020, Algorithm 1).

    Args:
        tokenizer: a byte-level BPE tokenizer.
        probability: p, how often a possible merge is left out, each time that one is chosen; 0: never.

    Raises:
        ValueError: the tokenizer is no BPE.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, probability: float):
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        if model["type"] != "BPE":
            raise ValueError(f"tokenizer: got the type {model['type']}, wanted BPE, which has merges to leave out")
        self.probability = probability
        self.ids: dict[str, int] = model["vocab"]
        self.pieces = {number: piece for piece, number in self.ids.items()}
        self.ranks = {tuple(merge): rank for rank, merge in enumerate(model["merges"])}
        self.special = set(tokenizer.all_special_ids)
        self.to_text = decoders.ByteLevel()
        self.to_words = pre_tokenizers.ByteLevel(add_prefix_space=False)

    def __call__(self, rows: Sequence[Sequence[int]], reverse: bool = False) -> list[list[int]]:
        """Return rows of ids of the same texts, cut anew and mostly longer; special tokens keep their places.

        `rows` are without padding; with `reverse` their tokens stand in reverse order.
        """
        generator = random.Random(int(torch.randint(2**62, ())))
        if reverse:
            return [self._cut(row[::-1], generator)[::-1] for row in rows]
        return [self._cut(row, generator) for row in rows]

    def _cut(self, row: Sequence[int], generator: random.Random) -> list[int]:
        cut: list[int] = []
        for special, numbers in groupby(row, self.special.__contains__):
            if special:
                cut += numbers
                continue
            text = self.to_text.decode([self.pieces[number] for number in numbers])
            for word, _ in self.to_words.pre_tokenize_str(text):
                cut += self._cut_word(word, generator)
        return cut

    def _cut_word(self, word: str, generator: random.Random) -> list[int]:
        symbols = list(word)
        while len(symbols) > 1:
            possible = [
                (self.ranks[pair], place)
                for place, pair in enumerate(pairwise(symbols))
                if pair in self.ranks and generator.random() >= self.probability
            ]
            if not possible:
                break
            _, place = min(possible)
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
        return [self.ids[symbol] for symbol in symbols]


@dataclass
class SpecAugmentOptions:
    """The amount of masking, in the letters of the paper.

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
        check_range(self, "frequency_masks", "frequency_width", "time_masks", "time_width", least=0)
        check_range(self, "time_share", least=0, most=1)


def _interval(largest: int, total: int) -> slice:
    """Return a random interval of 0 to `largest` places out of `total`."""
    width = int(torch.randint(min(largest, total) + 1, ()))
    start = int(torch.randint(total - width + 1, ()))
    return slice(start, start + width)


def spec_augment(features: Tensor, lengths: Tensor, options: SpecAugmentOptions, bands: int) -> Tensor:
    """Return a copy of features (B, S, F) with parts of each utterance zero, the mean of normalised features.

    `lengths` (B,) are the real frames of each, to the left. `bands` is the number of frequencies; F is a multiple of
    it if there are deltas or stacked frames, which lose the same bands.
    """
    masked = features.unflatten(-1, (-1, bands)).clone()  # (B, S, F / bands, bands)
    for utterance, length in zip(masked, lengths.tolist(), strict=True):
        for _ in range(options.frequency_masks):
            utterance[..., _interval(options.frequency_width, bands)] = 0
        for _ in range(options.time_masks):
            utterance[_interval(min(options.time_width, int(options.time_share * length)), length)] = 0
    return masked.flatten(-2)  # (B, S, F)
