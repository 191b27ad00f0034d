"""Work that waits for one model thread at the same moment, done in one pass."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from stretto_shared.engine.shared_turns import SharedTurns
from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import NotReady


class Doubler:
    """Doubles numbers; notes who was in each pass, and fails on 13, alone or in company."""

    def __init__(
        self,
        thread: ModelThread,
        sizes: Sequence[int] = (2, 4),
        urgency_of: Callable[[int], float] | None = None,
        count_callers: Callable[[], int] | None = None,
    ) -> None:
        self.passes: list[list[int]] = []
        self.told: list[list[int]] = []
        self.turns: SharedTurns[int, int] = SharedTurns(
            thread,
            kind_of=lambda number: None if number < 0 else number % 2,
            sizes=sizes,
            do_alone=lambda number: self.do([number])[0],
            do_together=self.do,
            on_pass=lambda made, _: self.told.append(list(made)),
            urgency_of=urgency_of,
            count_callers=count_callers,
        )

    def do(self, numbers: Sequence[int]) -> list[int]:
        self.passes.append(list(numbers))
        if 13 in numbers:
            raise ValueError("13")
        return [2 * number for number in numbers]


@pytest.fixture
async def thread() -> AsyncIterator[ModelThread]:
    made = ModelThread("turns")
    yield made
    await made.close()


async def run_held(thread: ModelThread, doubler: Doubler, numbers: Sequence[int]) -> list[int | BaseException]:
    """Have them all wait before the first has its turn."""
    go = threading.Event()
    held = asyncio.create_task(thread.run(go.wait))
    await asyncio.sleep(0)
    tasks = [asyncio.create_task(doubler.turns.run(number)) for number in numbers]
    while doubler.turns.num_waiting < len(numbers):  # noqa: ASYNC110
        await asyncio.sleep(0)
    go.set()
    await held
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_work_of_one_kind_shares_passes_of_the_sizes_that_were_tried(thread: ModelThread) -> None:
    doubler = Doubler(thread)
    assert await run_held(thread, doubler, [0, 1, 2, 4, 3, 6, 8, 10, 12]) == [0, 2, 4, 8, 6, 12, 16, 20, 24]
    assert doubler.passes == [[0, 2, 4, 6], [1, 3], [8, 10], [12]]
    assert doubler.told == [[0, 4, 8, 12], [2, 6], [16, 20], [24]]
    assert doubler.turns.num_waiting == 0


async def test_work_without_a_kind_takes_no_company_and_joins_none(thread: ModelThread) -> None:
    doubler = Doubler(thread)
    assert await run_held(thread, doubler, [-2, 0, -4, 2]) == [-4, 0, -8, 4]
    assert doubler.passes == [[-2], [0, 2], [-4]]


async def test_who_fails_fails_alone(thread: ModelThread) -> None:
    doubler = Doubler(thread)
    one, faulty, three, five = await run_held(thread, doubler, [1, 13, 3, 5])
    assert isinstance(faulty, ValueError)
    assert [one, three, five] == [2, 6, 10]
    assert doubler.passes == [[1, 13, 3, 5], [1], [13], [3], [5]]
    assert doubler.told == [[2, 6, 10]]


async def test_one_that_gives_up_before_its_turn_is_not_done(thread: ModelThread) -> None:
    doubler = Doubler(thread)
    go = threading.Event()
    held = asyncio.create_task(thread.run(go.wait))
    await asyncio.sleep(0)
    first, second = (asyncio.create_task(doubler.turns.run(number)) for number in (2, 4))
    while doubler.turns.num_waiting < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert doubler.turns.num_waiting == 1
    go.set()
    await held
    assert await first == 4
    assert doubler.passes == [[2]]


async def test_each_is_told_once_when_the_pass_begins_that_does_its_work(thread: ModelThread) -> None:
    doubler, told = Doubler(thread), []
    go = threading.Event()
    held = asyncio.create_task(thread.run(go.wait))
    await asyncio.sleep(0)

    def teller(number: int) -> Callable[[], None]:
        return lambda: told.append((number, len(doubler.passes), threading.current_thread().name))

    tasks = [asyncio.create_task(doubler.turns.run(number, teller(number))) for number in (1, 2, 13, 4, 3)]
    while doubler.turns.num_waiting < 5:  # noqa: ASYNC110
        await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.gather(tasks[3], return_exceptions=True)
    assert not told
    go.set()
    await held
    await asyncio.gather(*tasks, return_exceptions=True)
    assert doubler.passes == [[1, 13], [1], [13], [2], [3]]
    assert told == [(number, num_passes, "model-turns") for number, num_passes in ((1, 0), (13, 0), (2, 3), (3, 4))]


async def test_the_most_urgent_work_is_done_first_whoever_came_first(thread: ModelThread) -> None:
    doubler = Doubler(thread, urgency_of=lambda number: -number)
    assert await run_held(thread, doubler, [0, 2, 9, 4, 6, 8]) == [0, 4, 18, 8, 12, 16]
    assert doubler.passes == [[9], [8, 6, 4, 2], [0]]


async def test_who_came_first_is_told_when_its_own_is_done_and_the_urgent_one_before(thread: ModelThread) -> None:
    go = threading.Event()
    doubler = Doubler(thread, urgency_of=lambda number: -number)
    slow_do = doubler.do
    doubler.turns._do_alone = lambda number: (number == 0 and go.wait(10), slow_do([number])[0])[1]
    held, release = threading.Event(), threading.Event()
    busy = asyncio.create_task(thread.run(lambda: (held.set(), release.wait(10))))
    await asyncio.to_thread(held.wait, 10)
    patient, urgent = (asyncio.create_task(doubler.turns.run(number)) for number in (0, 7))
    while doubler.turns.num_waiting < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    release.set()
    assert await asyncio.wait_for(urgent, 10) == 14
    assert not patient.done(), "its work waits for the event, and so would whoever had to wait for it"
    go.set()
    assert await asyncio.wait_for(patient, 10) == 0
    await busy


async def test_whoever_has_waited_for_a_thread_that_closes_is_told(thread: ModelThread) -> None:
    doubler, begun, go = Doubler(thread), threading.Event(), threading.Event()
    held = asyncio.create_task(thread.run(lambda: (begun.set(), go.wait(10))))
    await asyncio.to_thread(begun.wait, 10)
    waiting = asyncio.create_task(doubler.turns.run(2))
    while thread.num_queued < 1:  # noqa: ASYNC110
        await asyncio.sleep(0)
    closing = asyncio.create_task(thread.close())
    with pytest.raises(NotReady):
        await waiting
    assert doubler.turns.num_waiting == 0
    go.set()
    await asyncio.gather(held, closing)


async def test_patient_work_takes_no_turn_of_its_own_but_is_done_in_anothers(thread: ModelThread) -> None:
    doubler = Doubler(thread)
    patient = asyncio.create_task(doubler.turns.run(2, patience_s=60.0))
    while doubler.turns.num_waiting < 1:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert await doubler.turns.run(3) == 6  # of another kind
    assert not patient.done() and doubler.passes == [[3]]
    assert await doubler.turns.run(4) == 8
    assert await asyncio.wait_for(patient, 10) == 4
    assert doubler.passes == [[3], [4, 2]]


async def test_patience_ends(thread: ModelThread) -> None:
    doubler = Doubler(thread)
    assert await asyncio.wait_for(doubler.turns.run(2, patience_s=0.01), 10) == 4
    assert doubler.passes == [[2]]


async def test_who_is_cancelled_while_patient_is_not_done(thread: ModelThread) -> None:
    doubler = Doubler(thread)
    patient = asyncio.create_task(doubler.turns.run(2, patience_s=60.0))
    while doubler.turns.num_waiting < 1:  # noqa: ASYNC110
        await asyncio.sleep(0)
    patient.cancel()
    await asyncio.wait([patient])
    assert doubler.turns.num_waiting == 0
    assert await doubler.turns.run(4) == 8
    assert doubler.passes == [[4]]


async def test_nobody_is_patient_when_all_callers_wait(thread: ModelThread) -> None:
    doubler = Doubler(thread, count_callers=lambda: 3)
    first, second = (asyncio.create_task(doubler.turns.run(number, patience_s=60.0)) for number in (2, 4))
    await asyncio.sleep(0.05)
    assert doubler.turns.num_waiting == 2, "a third may come"
    assert await asyncio.wait_for(doubler.turns.run(6, patience_s=60.0), 10) == 12
    assert await asyncio.wait_for(asyncio.gather(first, second), 10) == [4, 8]
    assert doubler.passes == [[2, 4], [6]], "two or four may share a pass"


async def test_who_leaves_lets_the_others_go_on(thread: ModelThread) -> None:
    callers = [3]
    doubler = Doubler(thread, count_callers=lambda: callers[0])
    waiting = [asyncio.create_task(doubler.turns.run(number, patience_s=60.0)) for number in (2, 4)]
    await asyncio.sleep(0.05)
    assert doubler.turns.num_waiting == 2
    callers[0] = 2
    doubler.turns.look_who_is_here()
    assert await asyncio.wait_for(asyncio.gather(*waiting), 10) == [4, 8]
    assert doubler.passes == [[2, 4]]
