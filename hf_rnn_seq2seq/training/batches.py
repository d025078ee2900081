"""Batches by a budget of padded tokens, with length buckets.

Samples of like length share a batch, so hardly anything is padded, and every batch costs about the same. The sampler,
the rows and their padding work with any model and data set. Rows and padding are arrays: as Python lists they take a
tenth of the time of a small model's training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, Sampler

from ..model.values import counted_labels


if TYPE_CHECKING:
    import datasets


class ArrayRows(Dataset[dict[str, list[int]]]):
    """Rows of a data set whose columns are lists of integers, as slices of one flat array a column, a copy."""

    def __init__(self, dataset: datasets.Dataset) -> None:
        self.length = len(dataset)
        table = dataset.with_format("arrow")[:]
        self.columns: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # values, and where each row starts
        for name in table.column_names:
            column = table[name].combine_chunks()
            starts = np.concatenate([[0], np.cumsum(column.value_lengths().to_numpy())])
            self.columns[name] = column.flatten().to_numpy(), starts

    @staticmethod
    def suits(dataset: Any) -> bool:
        """Return whether it is a data set of `datasets` whose columns all hold lists of integers."""
        features = getattr(dataset, "features", None) or {}
        kinds = [str(getattr(getattr(feature, "feature", None), "dtype", "")) for feature in features.values()]
        return bool(kinds) and all(kind.startswith("int") for kind in kinds)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> dict[str, list[int]]:
        return {
            name: values[starts[row] : starts[row + 1]].tolist() for name, (values, starts) in self.columns.items()
        }


# The key under which a row's number goes with it.
ROW_NUMBER = "row_number"


class NumberedRows(Dataset[dict[str, Any]]):
    """Rows of any data set with their numbers, so that a bad batch can be named."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {**self.rows[row], ROW_NUMBER: row}

    def __getitems__(self, rows: list[int]) -> list[dict[str, Any]]:
        """Return several rows, which a data set may read sooner together."""
        together = getattr(self.rows, "__getitems__", None)
        found = together(rows) if together else [self.rows[row] for row in rows]
        return [{**row, ROW_NUMBER: number} for row, number in zip(found, rows, strict=True)]


def collate_numbered(collate: Callable[[list[Any]], Any], rows: list[dict[str, Any]]) -> Any:
    """Return a batch of rows, with their numbers (B,) if they have any."""
    numbers = [row[ROW_NUMBER] for row in rows if ROW_NUMBER in row]
    batch = collate([{name: value for name, value in row.items() if name != ROW_NUMBER} for row in rows])
    if numbers:
        batch[ROW_NUMBER] = torch.tensor(numbers)
    return batch


def pad_rows(rows: Sequence[Mapping[str, Sequence[int]]], padding: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Return a tensor (B, L) a column of B rows of integers, padded at their ends to the longest.

    Args:
        rows: B rows with the same columns.
        padding: the wanted columns, and the integer that pads each.
    """
    batch = {}
    for name, pad in padding.items():
        values = [row[name] for row in rows]
        lengths = np.array([len(value) for value in values])
        real = np.arange(lengths.max())[None] < lengths[:, None]
        padded = np.full(real.shape, pad, dtype=np.int64)
        padded[real] = list(chain.from_iterable(values))
        batch[name] = torch.from_numpy(padded)
    return batch


def pad_value_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Return a batch for a model that reads vectors and gives values.

    Args:
        rows: B rows with `input_features` (S, F), and perhaps `labels`: (S, C) of each vector or (C,) of the sequence;
            NaN is not observed.

    Returns:
        `input_features` (B, S, F), zero at padding, `attention_mask` (B, S), and `labels`, NaN at padding, beside
        `shift_labels`, by which a Trainer counts them (see `counted_labels`).
    """
    vectors = [torch.as_tensor(np.asarray(row["input_features"], dtype=np.float32)) for row in rows]
    batch = {
        "input_features": pad_sequence(vectors, batch_first=True),
        "attention_mask": pad_sequence([torch.ones(len(v), dtype=torch.long) for v in vectors], batch_first=True),
    }
    if "labels" in rows[0]:
        labels = [torch.as_tensor(np.asarray(row["labels"], dtype=np.float32)) for row in rows]
        batch["labels"] = pad_sequence(labels, batch_first=True, padding_value=float("nan"))
        batch["shift_labels"] = counted_labels(batch["labels"])
    return batch


class TokenBudgetBatchSampler(Sampler[list[int]]):
    """Batches of samples of like length, as large as a budget of padded tokens allows.

    Samples are sorted by length, ties in a random order, and cut into the batches of one update; these are shuffled.
    Each is divided among the processes, sample by sample, and is as large as possible: the longest sample x the number
    of samples of a process stays within `max_tokens`, on each side. So all processes have equal numbers of samples of
    like length, and none waits long for another; and `world_size` processes make the updates of one process whose
    budget is `world_size` times as large (exactly, where lengths and numbers divide evenly).

    Order and ties depend on `(seed, epoch)` only, so a resumed epoch sees the same batches; the cuts depend on the
    sorted lengths alone, so every epoch has the same number of batches. A sample longer than the budget is a batch of
    its own.

    Args:
        lengths: the length of every sample, or its (source, target) lengths.
        max_tokens: largest padded size of a process's batch on either side, in tokens.
        seed: seed of the shuffling.
        world_size: number of processes. In all updates but one an epoch they have equal numbers of samples; in that
            one, the longest, some may have one less. Where all shares are single samples and their number is no
            multiple of `world_size`, the shortest come twice.
        rank: number of this process; it gets every `world_size`-th sample of each update.

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
        """Return samples by their longer side, then by the single sides, then at random (or by number)."""
        count = len(self.lengths)
        ties = np.arange(count) if generator is None else generator.permutation(count)
        return np.lexsort((ties, *self.lengths.T[::-1], self.lengths.max(axis=1)))

    def _cut(self) -> list[tuple[int, int]]:
        """Return start and end of each update's batch in the sorted order, at least `world_size` samples each."""
        longest = self.lengths.max(axis=1)[self._order(None)].tolist()
        count, processes = len(longest), self.world_size
        bounds: list[tuple[int, int]] = []
        start = 0
        for end in range(1, count + 1):
            # Sorted upwards: the sample at `end` would be the longest, of shares of so many samples.
            share = -(-(end + 1 - start) // processes)
            if end < count and share > 1 and longest[end] * share > self.max_tokens:
                even = end - (end - start) % processes
                bounds.append((start, even))
                start = even
        bounds.append((start, count))
        # The last may be too small for all processes: it takes samples of those before, which are shorter.
        end = count
        for number in range(len(bounds) - 1, -1, -1):
            start = min(bounds[number][0], end - processes)
            bounds[number] = (start, end) if start >= 0 else (0, processes)
            end = start
        return bounds

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next batches; the Trainer calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._bounds)

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = self._order(generator).tolist()
        batches = [order[start:end] for start, end in self._bounds]
        for number in generator.permutation(len(batches)):
            yield batches[number][self.rank :: self.world_size]
