"""Batches by token budget: every sample once, never over the budget, the same for a seed and an epoch."""

from collections import Counter

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_rnn_seq2seq.training.batches import ArrayRows, TokenBudgetBatchSampler, pad_rows


pairs = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=120)
few = settings(max_examples=60, deadline=None)


@few
@given(lengths=pairs, max_tokens=st.integers(1, 200), epoch=st.integers(0, 3))
def test_every_sample_once_and_no_batch_over_the_budget(
    lengths: list[tuple[int, int]], max_tokens: int, epoch: int
) -> None:
    sampler = TokenBudgetBatchSampler(lengths, max_tokens)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(sample for batch in batches for sample in batch) == list(range(len(lengths)))
    for batch in batches:
        for side in range(2):
            padded = max(lengths[sample][side] for sample in batch) * len(batch)
            assert padded <= max_tokens or len(batch) == 1


@few
@given(lengths=pairs, world_size=st.integers(1, 4), max_tokens=st.integers(1, 200))
def test_processes_share_the_samples_of_every_update_evenly(
    lengths: list[tuple[int, int]], world_size: int, max_tokens: int
) -> None:
    if len(lengths) < world_size:
        with pytest.raises(
            ValueError, match=f"world_size: got {world_size} processes for only {len(lengths)} samples"
        ):
            TokenBudgetBatchSampler(lengths, max_tokens, world_size=world_size)
        return
    samplers = [TokenBudgetBatchSampler(lengths, max_tokens, 7, world_size, rank) for rank in range(world_size)]
    updates = list(zip(*samplers, strict=True))  # the same number of batches for each process
    assert {len(updates)} == {len(sampler) for sampler in samplers}
    seen = Counter(sample for shares in updates for share in shares for sample in share)
    assert set(seen) == set(range(len(lengths)))
    # Only where every share is a single sample do some come twice, to fill one update.
    largest = max(len(share) for shares in updates for share in shares)
    assert seen.total() == len(lengths) or (largest == 1 and seen.total() < len(lengths) + world_size)
    uneven = 0
    for shares in updates:
        sides = [[max(lengths[sample]) for sample in share] for share in shares]
        longest, shortest = max(map(max, sides)), min(map(min, sides))
        for share in sides:
            assert share and (max(share) * len(share) <= max_tokens or len(share) == 1)
        sizes, tokens = [len(share) for share in sides], [sum(share) for share in sides]
        uneven += max(sizes) > min(sizes)
        # Equal numbers of samples: the tokens differ by no more than the longest and the shortest sample do.
        assert max(sizes) - min(sizes) <= 1
        assert max(tokens) - min(tokens) <= (longest - shortest if max(sizes) == min(sizes) else longest)
    assert uneven <= 1


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_make_the_updates_of_one_with_a_larger_budget(world_size: int) -> None:
    # 60 is a multiple of all lengths, and of each length there are whole batches.
    lengths = [length for length in (3, 4, 5, 6) for _ in range(world_size * 2 * 60 // length)]
    one = TokenBudgetBatchSampler(lengths, 60 * world_size, 7)
    many = [TokenBudgetBatchSampler(lengths, 60, 7, world_size, rank) for rank in range(world_size)]
    for epoch in range(3):
        for sampler in (one, *many):
            sampler.set_epoch(epoch)
        together = [sorted(sample for share in shares for sample in share) for shares in zip(*many, strict=True)]
        assert together == [sorted(batch) for batch in one]


@few
@given(lengths=pairs, max_tokens=st.integers(1, 200), seed=st.integers(0, 5))
def test_the_number_of_batches_is_that_of_every_epoch(
    lengths: list[tuple[int, int]], max_tokens: int, seed: int
) -> None:
    # The Trainer asks once, before training, and resumes by counting.
    sampler = TokenBudgetBatchSampler(lengths, max_tokens, seed)
    numbers = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        numbers.append(len(list(sampler)))
    assert numbers == [len(sampler)] * 3


def batches(seed: int, epoch: int) -> list[list[int]]:
    sampler = TokenBudgetBatchSampler([1 + number % 9 for number in range(200)], 40, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    assert batches(1, 2) == batches(1, 2)
    assert batches(1, 2) != batches(1, 3)
    assert batches(1, 2) != batches(2, 2)


def test_both_the_batches_and_their_members_are_shuffled() -> None:
    first, second = batches(0, 0), batches(0, 1)
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}
    # Not from short to long: the batches come in random order.
    longest = [max(1 + sample % 9 for sample in batch) for batch in first]
    assert longest != sorted(longest)


def test_samples_of_like_length_share_a_batch() -> None:
    lengths = [1 + number % 50 for number in range(5000)]
    sampler = TokenBudgetBatchSampler(lengths, 400)
    padded = sum(max(lengths[sample] for sample in batch) * len(batch) for batch in sampler)
    assert sum(lengths) / padded > 0.98
    # As large as the budget allows: hardly more batches than tokens / budget.
    assert len(sampler) < 1.1 * sum(lengths) / 400


def test_a_sample_over_the_budget_is_a_batch_of_its_own() -> None:
    found = list(TokenBudgetBatchSampler([2, 99, 3, 98], 10))
    assert sorted(map(sorted, found)) == [[0, 2], [1], [3]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lengths": []}, "lengths: got none"),
        ({"max_tokens": 0}, "max_tokens: got 0"),
        ({"world_size": 2, "rank": 2}, "rank: got 2, wanted 0 to world_size - 1 = 1"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenBudgetBatchSampler(**{"lengths": [1, 2], "max_tokens": 4, **arguments})  # type: ignore[arg-type]


@few
@given(rows=st.lists(st.lists(st.integers(0, 90), max_size=7), min_size=1, max_size=9))
def test_rows_in_arrays_are_those_of_the_data_set_and_padded_at_their_ends(rows: list[list[int]]) -> None:
    rows[0] = [3, *rows[0]]
    dataset = Dataset.from_dict({"ids": rows, "labels": [[*row, 2] for row in rows]})
    chosen = dataset.select(range(len(rows) - 1, -1, -1))
    assert ArrayRows.suits(chosen)
    arrays = ArrayRows(chosen)
    assert [arrays[n]["ids"] for n in range(len(arrays))] == chosen["ids"][:]
    batch = pad_rows([arrays[n] for n in range(len(arrays))], {"ids": 1, "labels": -100})
    assert batch.keys() == {"ids", "labels"} and batch["ids"].dtype == torch.long
    width = max(map(len, rows))
    assert batch["ids"].tolist() == [row + [1] * (width - len(row)) for row in reversed(rows)]
    assert batch["labels"].tolist() == [[*row, 2] + [-100] * (width - len(row)) for row in reversed(rows)]


def test_only_lists_of_integers_become_arrays() -> None:
    assert not ArrayRows.suits(Dataset.from_dict({"ids": [[1]], "text": ["a"]}))
    assert not ArrayRows.suits(Dataset.from_dict({"vectors": [[1.5]]}))
    assert not ArrayRows.suits(Dataset.from_dict({"vectors": [[[1, 2]]]}))
    assert not ArrayRows.suits([{"ids": [1]}])
