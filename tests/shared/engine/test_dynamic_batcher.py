"""The dynamic batcher: joining, bounds, cancellation, failure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from stretto_shared.engine.batcher import DynamicBatcher
from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import InvalidInput, NotReady, Overloaded


class Doubler:
    """Doubles numbers, remembers its batches, refuses negative ones, and can be held up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_run = threading.Event()
        self.may_run.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.may_run.wait(10)
        self.batches.append(list(items))
        if min(items) < 0:
            raise InvalidInput("item", "expected at least 0.")
        return [2 * item for item in items]


def batcher_of(work: Doubler, max_wait_s: float = 0.2, max_queued: int = 8) -> DynamicBatcher[int, int]:
    return DynamicBatcher(ModelThread("m"), work, max_batch_size=3, max_wait_s=max_wait_s, max_queued=max_queued)


async def test_items_that_come_together_share_batches_in_order() -> None:
    work = Doubler()
    batcher = batcher_of(work)
    assert await asyncio.gather(*(batcher.submit(n) for n in range(7))) == [0, 2, 4, 6, 8, 10, 12]
    assert work.batches == [[0, 1, 2], [3, 4, 5], [6]]
    await batcher.close()


async def test_a_full_batch_does_not_wait() -> None:
    batcher = batcher_of(Doubler(), max_wait_s=60)
    assert await asyncio.wait_for(asyncio.gather(*(batcher.submit(n) for n in range(3))), 30) == [0, 2, 4]
    await batcher.close()


async def test_an_item_that_fails_fails_alone() -> None:
    batcher = batcher_of(Doubler())
    results = await asyncio.gather(*(batcher.submit(n) for n in (1, -1, 3)), return_exceptions=True)
    assert results[0] == 2 and results[2] == 6 and isinstance(results[1], InvalidInput)
    await batcher.close()


async def test_a_full_queue_refuses_with_an_estimate_and_recovers() -> None:
    work = Doubler()
    batcher = batcher_of(work, max_wait_s=0.0, max_queued=2)
    work.may_run.clear()
    first = asyncio.create_task(batcher.submit(1))
    await asyncio.sleep(0.05)
    others = [asyncio.create_task(batcher.submit(n)) for n in (2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await batcher.submit(4)
    assert caught.value.retry_after_s > 0
    work.may_run.set()
    assert await asyncio.gather(first, *others) == [2, 4, 6]
    assert await batcher.submit(5) == 10
    await batcher.close()


async def test_a_cancelled_item_never_reaches_the_model() -> None:
    work = Doubler()
    batcher = batcher_of(work, max_wait_s=0.1)
    cancelled, kept = asyncio.create_task(batcher.submit(1)), asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert await kept == 4
    assert work.batches == [[2]]
    await batcher.close()


async def test_a_closed_batcher_refuses() -> None:
    batcher = batcher_of(Doubler(), max_wait_s=0.05)
    waiting = asyncio.create_task(batcher.submit(1))
    await asyncio.sleep(0)
    await batcher.close()
    with pytest.raises(NotReady):
        await waiting
    with pytest.raises(NotReady):
        await batcher.submit(2)
