"""`DynamicBatcher`: joins calls that arrive together into one forward pass, for feed-forward models.

Knows nothing of models or the wire. The caller's `run_batch` must give each item the result that it would get alone;
every service that batches has a test that holds its model to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import NotReady, Overloaded

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    future: asyncio.Future[Result]


class DynamicBatcher(Generic[Item, Result]):
    """Collects items until a batch is full or the oldest has waited long enough, then runs them on the model thread.

    Invariant: batches keep the order of arrival; at most `max_queued` items wait; an item cancelled while it waits
    never reaches the model; an item that fails fails alone, since a failed batch is run again one by one
    (`tests/shared/engine/test_dynamic_batcher.py`).

    Args:
        thread: Where `run_batch` runs.
        run_batch: Takes the items and returns one result for each, in order.
        max_batch_size: Most items in one call of `run_batch`.
        max_wait_s: How long the first item of a batch waits for company.
        max_queued: How many items may wait; more fail with Overloaded.
    """

    def __init__(
        self,
        thread: ModelThread,
        run_batch: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        max_batch_size: int,
        max_wait_s: float,
        max_queued: int,
    ) -> None:
        if max_batch_size < 1 or max_queued < 1 or max_wait_s < 0:
            raise ValueError(
                "expected max_batch_size >= 1, max_queued >= 1 and max_wait_s >= 0, "
                f"got {max_batch_size}, {max_queued} and {max_wait_s}."
            )
        self._thread = thread
        self._run_batch = run_batch
        self._max_batch_size = max_batch_size
        self._max_wait_s = max_wait_s
        self._max_queued = max_queued
        self._waiting: list[_Waiting[Item, Result]] = []
        self._is_full = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def num_queued(self) -> int:
        """How many items wait for a batch."""
        return len(self._waiting)

    async def submit(self, item: Item) -> Result:
        """Run `item` in some batch and return its result.

        Raises:
            Overloaded: If `max_queued` items wait already.
            NotReady: If the batcher was closed.
        """
        if self._is_closed:
            raise NotReady("The batcher is closed: the server is stopping. Try another one.")
        if len(self._waiting) >= self._max_queued:
            batches_ahead = 1 + len(self._waiting) // self._max_batch_size
            raise Overloaded(
                f"{len(self._waiting)} requests wait for a batch, which is the limit. Retry later.",
                retry_after_s=self._max_wait_s + batches_ahead * self._thread.estimated_wait_s,
            )
        entry: _Waiting[Item, Result] = _Waiting(item, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        if len(self._waiting) >= self._max_batch_size:
            self._is_full.set()
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run_until_empty())
        try:
            return await entry.future
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            raise

    async def close(self) -> None:
        """Refuse new items, fail the waiting ones with NotReady, and wait for the batch that runs."""
        self._is_closed = True
        waiting, self._waiting = self._waiting, []
        self._is_full.set()
        for entry in waiting:
            if not entry.future.done():
                entry.future.set_exception(NotReady("The batcher closed before the request ran: the server stops."))
        if self._runner is not None:
            await asyncio.wait([self._runner])

    async def _run_until_empty(self) -> None:
        while self._waiting:
            if len(self._waiting) < self._max_batch_size:
                self._is_full.clear()
                try:
                    await asyncio.wait_for(self._is_full.wait(), self._max_wait_s)
                except TimeoutError:
                    self._is_full.clear()
            batch = self._waiting[: self._max_batch_size]
            del self._waiting[: self._max_batch_size]
            await self._run(batch)

    async def _run(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        batch = [entry for entry in batch if not entry.future.done()]
        if not batch:
            return
        items = [entry.item for entry in batch]
        try:
            results = await self._thread.run(lambda: self._run_batch(items))
            if len(results) != len(items):
                raise RuntimeError(f"run_batch returned {len(results)} results for {len(items)} items.")
        except Exception as error:  # handed to those who wait; the runner itself must live on
            if len(batch) > 1 and not isinstance(error, Overloaded | NotReady):
                for entry in batch:
                    await self._run([entry])
                return
            for entry in batch:
                if not entry.future.done():
                    entry.future.set_exception(error)
            return
        for entry, result in zip(batch, results, strict=True):
            if not entry.future.done():
                entry.future.set_result(result)
