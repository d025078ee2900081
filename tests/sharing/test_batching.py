"""Dynamic batching: who shares a batch, in which order, and what becomes of those that are refused or given up."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from hf_rnn_seq2seq.sharing.batching import Batcher, QueueFullError


class Worker:
    """Doubles numbers, and waits before the first batch until it is told to begin."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[int], Any]] = []
        self.reached, self.may_begin = threading.Event(), threading.Event()

    def __call__(self, items: Sequence[int], options: Any) -> list[int]:
        self.batches.append((list(items), options))
        self.reached.set()
        assert self.may_begin.wait(10)
        if -1 in items:
            raise ArithmeticError("minus one")
        return [2 * item for item in items]


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_what_comes_during_a_batch_is_the_next_one(worker: Worker) -> None:
    batcher: Batcher[int, int] = Batcher(worker, max_batch_size=3)
    futures = batcher.submit([0], "a")
    assert worker.reached.wait(10)
    for item in range(1, 6):
        futures += batcher.submit([item], "a")
    assert len(batcher) == 5
    worker.may_begin.set()
    assert [future.result(10) for future in futures] == [0, 2, 4, 6, 8, 10]
    assert worker.batches == [([0], "a"), ([1, 2, 3], "a"), ([4, 5], "a")]
    batcher.close()


def test_only_equal_options_share_a_batch_and_the_oldest_goes_first(worker: Worker) -> None:
    batcher: Batcher[int, int] = Batcher(worker, max_batch_size=3)
    futures = batcher.submit([0], "a")
    assert worker.reached.wait(10)
    for item, options in enumerate("abbaacb", start=1):
        futures += batcher.submit([item], options)
    worker.may_begin.set()
    assert [future.result(10) for future in futures] == [2 * item for item in range(8)]
    assert worker.batches == [([0], "a"), ([1, 4, 5], "a"), ([2, 3, 7], "b"), ([6], "c")]
    batcher.close()


def test_a_request_given_up_is_not_worked_on(worker: Worker) -> None:
    batcher: Batcher[int, int] = Batcher(worker)
    futures = batcher.submit([0], "a")
    assert worker.reached.wait(10)
    futures += batcher.submit([1, 2], "a") + batcher.submit([3], "b")
    assert futures[1].cancel() and futures[3].cancel()
    assert not futures[0].cancel()  # it is being worked on
    worker.may_begin.set()
    assert futures[2].result(10) == 4
    batcher.close()
    assert worker.batches == [([0], "a"), ([2], "a")]


def test_more_than_the_queue_holds_is_refused_as_a_whole(worker: Worker) -> None:
    batcher: Batcher[int, int] = Batcher(worker, max_queue=3)
    batcher.submit([0], "a")
    assert worker.reached.wait(10)
    batcher.submit([1, 2], "a")
    with pytest.raises(QueueFullError, match="2 requests wait, wanted at most 3"):
        batcher.submit([3, 4], "a")
    assert len(batcher) == 2
    given_up = batcher.submit([5], "a")[0]
    assert given_up.cancel()
    batcher.submit([6], "a")  # in its place
    worker.may_begin.set()
    batcher.close()
    assert worker.batches[1:] == [([1, 2, 6], "a")]


def test_an_error_reaches_its_batch_and_no_other(worker: Worker) -> None:
    worker.may_begin.set()
    batcher: Batcher[int, int] = Batcher(worker)
    with pytest.raises(ArithmeticError, match="minus one"):
        batcher.submit([-1], "a")[0].result(10)
    assert batcher.submit([4], "a")[0].result(10) == 8
    batcher.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_closing_answers_what_waits_and_takes_no_more(worker: Worker, threads: int) -> None:
    batcher: Batcher[int, int] = Batcher(worker, max_batch_size=2, threads=threads)
    futures = batcher.submit(list(range(9)), "a")
    worker.may_begin.set()
    batcher.close()
    assert [future.result(0) for future in futures] == [2 * item for item in range(9)]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit([1], "a")
