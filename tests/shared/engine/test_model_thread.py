"""The model thread: order, bounds, cancellation, failure."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest
from stretto_shared.engine.thread import LONG_NICENESS, NICENESS, ModelThread
from stretto_shared.errors import NotReady, Overloaded


async def _occupy(thread: ModelThread) -> tuple[asyncio.Task[bool], threading.Event]:
    """Make the thread busy until the event is set."""
    release, started = threading.Event(), threading.Event()

    def work() -> bool:
        started.set()
        return release.wait(10)

    task = asyncio.create_task(thread.run(work))
    await asyncio.to_thread(started.wait, 10)
    return task, release


async def test_work_runs_in_order_on_one_thread_that_is_not_the_loop() -> None:
    thread = ModelThread("m")
    seen: list[int] = []

    def work(number: int) -> str:
        seen.append(number)
        return threading.current_thread().name

    names = await asyncio.gather(*(thread.run(lambda n=n: work(n)) for n in range(5)))
    assert seen == [0, 1, 2, 3, 4]
    assert set(names) == {"model-m"}
    await thread.close()


async def test_an_error_reaches_its_caller_and_the_next_call_works() -> None:
    thread = ModelThread("m")
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert await thread.run(lambda: 2) == 2
    await thread.close()


async def test_a_full_queue_refuses_with_an_estimate() -> None:
    thread = ModelThread("m", max_queued=1)
    busy, release = await _occupy(thread)
    waiting = asyncio.create_task(thread.run(lambda: 1))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await thread.run(lambda: 2)
    assert caught.value.retry_after_s > 0
    release.set()
    assert await waiting == 1 and await busy
    await thread.close()


async def test_a_cancelled_call_that_waits_is_never_run() -> None:
    thread = ModelThread("m")
    busy, release = await _occupy(thread)
    ran: list[int] = []
    waiting = asyncio.create_task(thread.run(lambda: ran.append(1)))
    await asyncio.sleep(0)
    assert thread.num_queued == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert thread.num_queued == 0
    release.set()
    await busy
    await thread.run(lambda: None)
    assert ran == []
    await thread.close()


async def test_the_loop_stays_responsive_while_the_thread_works() -> None:
    thread = ModelThread("m")
    busy, release = await _occupy(thread)
    await asyncio.wait_for(asyncio.sleep(0.01), 5)
    assert not busy.done()
    release.set()
    await busy
    await thread.close()


async def test_closing_fails_what_waits_and_refuses_what_comes() -> None:
    thread = ModelThread("m")
    busy, release = await _occupy(thread)
    waiting = asyncio.create_task(thread.run(lambda: 1))
    await asyncio.sleep(0)
    closing = asyncio.create_task(thread.close())
    with pytest.raises(NotReady):
        await waiting
    release.set()
    await closing
    assert await busy
    with pytest.raises(NotReady):
        await thread.run(lambda: 1)


async def test_work_of_no_length_may_go_before_all_that_wait() -> None:
    thread = ModelThread("m")
    busy, release = await _occupy(thread)
    seen: list[int] = []
    calls = [asyncio.create_task(thread.run(lambda n=n: seen.append(n), is_next=n == 2)) for n in range(3)]
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(busy, *calls)
    assert seen == [2, 0, 1]
    await thread.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
async def test_a_model_has_a_lower_priority_than_the_event_loop() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    threads = [ModelThread("m"), ModelThread("long", niceness=LONG_NICENESS)]
    found = [await thread.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) for thread in threads]
    assert found == [min(19, before + niceness) for niceness in (NICENESS, LONG_NICENESS)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before < found[0]
    for thread in threads:
        await thread.close()
