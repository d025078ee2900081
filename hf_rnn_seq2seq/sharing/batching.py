"""Dynamic batching: requests that come while a batch is decoded are the next batch.

A batch starts as soon as a thread is free: waiting for more would only add to the latency of the first. Only requests
of equal options share a batch. Needs only the standard library.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar


Item = TypeVar("Item")
Answer = TypeVar("Answer")


class QueueFullError(Exception):
    """More requests wait than the queue may hold."""


@dataclass
class _Request(Generic[Item, Answer]):
    item: Item
    options: Hashable
    future: Future[Answer] = field(default_factory=Future)


class Batcher(Generic[Item, Answer]):
    """Threads that answer requests in batches, the oldest first.

    Args:
        work: answers a batch: its items and their common options -> an answer for each.
        max_batch_size: items of a batch at most.
        max_queue: requests that may wait; more are refused.
        threads: batches at work at a time.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item], Any], Sequence[Answer]],
        max_batch_size: int = 64,
        max_queue: int = 1024,
        threads: int = 1,
    ) -> None:
        self._work, self._max_batch_size, self._max_queue = work, max_batch_size, max_queue
        self._waiting: deque[_Request[Item, Answer]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._serve, name=f"batch-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self._waiting)

    def submit(self, items: Sequence[Item], options: Hashable) -> list[Future[Answer]]:
        """Queue items, all or none; each future gets the item's answer. A cancelled future is not worked on.

        Raises:
            QueueFullError: they do not fit into the queue.
            RuntimeError: the batcher is closed.
        """
        requests: list[_Request[Item, Answer]] = [_Request(item, options) for item in items]
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            if len(self._waiting) + len(items) > self._max_queue:  # those given up make room
                self._waiting = deque(request for request in self._waiting if not request.future.cancelled())
            if len(self._waiting) + len(items) > self._max_queue:
                raise QueueFullError(f"{len(self._waiting)} requests wait, wanted at most {self._max_queue}")
            self._waiting.extend(requests)
            self._changed.notify()
        return [request.future for request in requests]

    def close(self) -> None:
        """Answer what waits, take no more, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _next(self) -> list[_Request[Item, Answer]]:
        """Wait for a batch and return it; empty once the batcher is closed and nothing waits."""
        batch: list[_Request[Item, Answer]] = []
        with self._changed:
            while not batch:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    break
                passed_over: list[_Request[Item, Answer]] = []
                while self._waiting and len(batch) < self._max_batch_size:
                    request = self._waiting.popleft()
                    if batch and request.options != batch[0].options:
                        passed_over.append(request)
                    elif request.future.set_running_or_notify_cancel():
                        batch.append(request)
                self._waiting.extendleft(reversed(passed_over))  # they stay the oldest
            if self._waiting:
                self._changed.notify()
        return batch

    def _serve(self) -> None:
        while batch := self._next():
            try:
                answers = self._work([request.item for request in batch], batch[0].options)
            except Exception as error:
                for request in batch:
                    request.future.set_exception(error)
            else:
                for request, answer in zip(batch, answers, strict=True):
                    request.future.set_result(answer)
