"""Batches by a budget of padded tokens, with length buckets: what users have asked the Trainer for since 2021.

Samples of like length share a batch, so hardly anything is padded, and every batch costs about the same. A plain
`torch.utils.data` batch sampler: it works with any model and data set, and imports nothing of this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class TokenBudgetBatchSampler(Sampler[list[int]]):
    """Batches of samples of like length, as large as a budget of padded tokens allows.

    Samples are sorted by length, ties in a random order, and cut into batches: the next sample joins if the longest of
    the batch x the number of samples stays within `max_tokens`, on each side. The batches then come in random order.
    Order and ties depend on `(seed, epoch)` only, so a resumed epoch sees the same batches; the cuts depend on the
    sorted lengths alone, so every epoch has the same number of batches. A sample longer than the budget makes a batch
    of its own.

    Args:
        lengths: the length of every sample, or its (source, target) lengths.
        max_tokens: largest padded size of a batch on either side, in tokens.
        seed: seed of the shuffling.
        world_size: number of processes. The number of batches is made a multiple of it by halving the largest ones
            (or, where each holds one sample, by repeating the shortest).
        rank: number of this process; it gets every `world_size`-th batch.

    Raises:
        ValueError: no samples, a budget below 1, a rank out of range, or fewer samples than processes.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Sequence[tuple[int, int]],
        max_tokens: int,
        seed: int = 0,
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        if not len(lengths):
            raise ValueError("lengths: got none, wanted at least one sample")
        # (N, sides): one column for plain lengths, two for pairs.
        self.lengths = np.asarray(lengths, dtype=np.int64).reshape(len(lengths), -1)
        if max_tokens < 1:
            raise ValueError(f"max_tokens: got {max_tokens}, wanted at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: got {rank}, wanted 0 to world_size - 1 = {world_size - 1}")
        if len(self.lengths) < world_size:
            raise ValueError(f"world_size: got {world_size} processes for only {len(self.lengths)} samples")
        self.max_tokens = max_tokens
        self.seed = seed
        self.world_size = world_size
        self.rank = rank
        self.epoch = 0
        self._bounds = self._cut()

    def _order(self, generator: np.random.Generator | None) -> np.ndarray:
        """Samples by their longer side, then by the single sides, then at random (or by number)."""
        count = len(self.lengths)
        ties = np.arange(count) if generator is None else generator.permutation(count)
        return np.lexsort((ties, *self.lengths.T[::-1], self.lengths.max(axis=1)))

    def _cut(self) -> list[tuple[int, int]]:
        """Start and end of each batch in the sorted order, a multiple of `world_size` of them."""
        longest = self.lengths.max(axis=1)[self._order(None)].tolist()
        bounds: list[tuple[int, int]] = []
        start = 0
        for end in range(1, len(longest) + 1):
            # Sorted upwards: the sample at `end` would be the longest of its batch.
            if end == len(longest) or longest[end] * (end + 1 - start) > self.max_tokens:
                bounds.append((start, end))
                start = end
        while len(bounds) % self.world_size:
            widest = max(range(len(bounds)), key=lambda number: bounds[number][1] - bounds[number][0])
            start, end = bounds[widest]
            if end - start == 1:
                # Nothing can be halved: the shortest samples come twice, so that no process waits for another.
                return bounds + bounds[: -len(bounds) % self.world_size]
            bounds.pop(widest)
            middle = (start + end) // 2
            bounds += [(start, middle), (middle, end)]
        return bounds

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next; the Trainer calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._bounds) // self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = self._order(generator).tolist()
        batches = [order[start:end] for start, end in self._bounds]
        shuffled = generator.permutation(len(batches))
        for number in shuffled[self.rank :: self.world_size]:
            yield batches[number]
