"""BPE-dropout (Provilkov et al. 2020): in training, merges are left out at random, so that words are cut differently.

The model sees every word in many cuts, which helps most where there is little data. Works on the ids of a tokenizer
that `tokenization.py` trained; needs only `torch`, `tokenizers` and `transformers`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import groupby, pairwise

import torch
from tokenizers import decoders, pre_tokenizers
from transformers import PreTrainedTokenizerBase


class BpeDropout:
    """
    Cuts texts anew that were cut by all merges of a tokenizer (Algorithm 1 of the paper).

    Args:
        tokenizer: a byte-level BPE tokenizer.
        probability: p, how often a possible merge is left out, each time that one is chosen; 0 cuts as the tokenizer.

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
        """Rows of ids, cut anew; special tokens stay where they are.

        Args:
            rows: ids of texts, without padding.
            reverse: the rows are texts whose tokens stand in reverse order.

        Returns:
            As many rows, mostly longer. The draws follow from torch's generator, which checkpoints keep.
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
