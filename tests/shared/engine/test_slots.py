"""The pool of slots keeps its two limits under any coming and going, and its queue keeps its order."""

import random
from types import SimpleNamespace
from typing import Any, cast

from stretto_shared.engine.program import Program, StateCost
from stretto_shared.engine.slots import SlotPool, Stream

NUM_SLOTS, BUDGET_BYTES = 3, 100


def stream(num_bytes: int, *, priority: int = 0, is_realtime: bool = False) -> Stream[Any, Any]:
    request: Any = SimpleNamespace(priority=priority, is_realtime=is_realtime)
    clock: Any = object()  # frames have a time; the pool never asks which
    return Stream(request, cast(Program, None), StateCost(1, num_bytes), clock, 0.0)


def test_no_order_of_arrivals_ends_and_cancellations_breaks_a_limit_or_loses_a_stream() -> None:
    draw = random.Random(0)
    pool: SlotPool[Any, Any] = SlotPool(NUM_SLOTS, BUDGET_BYTES)
    was_full = was_short_of_memory = False
    for _ in range(3000):
        match draw.choice(("come", "come", "end", "cancel")):
            case "come" if len(pool.waiting) < 8:
                pool.enqueue(stream(draw.randint(1, BUDGET_BYTES), priority=draw.randint(0, 2)))
            case "end" if pool.running:
                pool.discard(draw.choice(pool.running))
            case "cancel" if pool.running:
                draw.choice(pool.running).is_cancelled = True
        before = {id(each) for each in (*pool.running, *pool.waiting) if not each.is_cancelled}
        pool.fill(1.0)
        assert len(pool.running) <= NUM_SLOTS and pool.kv_bytes_used <= BUDGET_BYTES
        assert pool.kv_bytes_used == sum(each.cost.kv_bytes for each in pool.running)
        assert {id(each) for each in (*pool.running, *pool.waiting)} == before
        if pool.waiting:  # a free place is never kept from the head of the queue
            is_full = len(pool.running) == NUM_SLOTS
            assert is_full or pool.kv_bytes_used + pool.waiting[0].cost.kv_bytes > BUDGET_BYTES
            was_full, was_short_of_memory = was_full or is_full, was_short_of_memory or not is_full
    assert was_full and was_short_of_memory


def test_real_time_goes_first_then_priority_then_arrival_and_nobody_overtakes_the_head() -> None:
    pool: SlotPool[Any, Any] = SlotPool(1, BUDGET_BYTES)
    plain, later, urgent, live = stream(90), stream(5), stream(5, priority=1), stream(20, is_realtime=True)
    for each in (plain, later, urgent):
        pool.enqueue(each)
    assert pool.before(live) == [] and len(pool.before(stream(1))) == 3
    pool.enqueue(live)
    assert pool.waiting == [live, urgent, plain, later]
    assert pool.fill(1.0) == [live]
    pool.num_slots = 2
    pool.discard(urgent)
    assert pool.fill(2.0) == [] and pool.waiting == [plain, later]  # `later` would fit, but its turn has not come
