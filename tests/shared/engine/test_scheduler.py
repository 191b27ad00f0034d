"""Who is in the next pass, who is let in, and what passes are thought to take."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from stretto_shared.engine.clock import PlayClock
from stretto_shared.engine.config import TokenEngineConfig
from stretto_shared.engine.program import Program, StateCost, TokenRequest
from stretto_shared.engine.sampling import Sampling
from stretto_shared.engine.scheduler import Scheduler
from stretto_shared.engine.slots import SlotPool, Stream
from stretto_shared.engine.step_times import StepTimes

FRAME_RATE_HZ = 50.0
NOW_S = 1000.0


def stream(
    *, realtime: bool = False, ahead_s: float | None = None, priority: int = 0, known: int = 0, kv_bytes: int = 1
) -> Stream[Any, Any]:
    """A stream that started at NOW_S, or began to play so that `ahead_s` of audio are left."""
    codes = np.zeros((1, known), dtype=np.int32)
    request = TokenRequest(0, 500, codes, codes[:, :0], Sampling(), 0, is_realtime=realtime, priority=priority)
    made = Stream(
        request,
        Program(request, delays=(0,), special_token=9, stage=0),
        StateCost(num_rows=2, kv_bytes=kv_bytes),
        PlayClock(FRAME_RATE_HZ),
        NOW_S,
        started_s=NOW_S,
    )
    if ahead_s is not None and made.clock is not None:
        made.clock.deliver(NOW_S + ahead_s - 1.0, round(FRAME_RATE_HZ))
    return made


def scheduler(step_s: dict[int, float] | None = None, *, joins: bool = True, **limits: Any) -> Scheduler:
    return Scheduler(TokenEngineConfig(**limits), StepTimes(step_s or {2: 0.01, 64: 0.01}), joins=joins)


def test_one_by_one_the_stream_that_starves_first_is_next_then_best_effort_then_those_ahead() -> None:
    late, later, far = (stream(realtime=True, ahead_s=s) for s in (0.1, 0.4, 5.0))
    free = stream()
    one_by_one = scheduler(joins=False)
    for there, expected in (([far, later, free, late], late), ([far, free, later], later), ([far, free], free)):
        assert [turn.stream for turn in one_by_one.plan(there, NOW_S)] == [expected]
    assert one_by_one.plan([far], NOW_S)[0].stream is far


def test_best_effort_streams_take_turns_by_priority() -> None:
    usual, urgent = stream(), stream(priority=2)
    one_by_one = scheduler(joins=False)
    count = {id(usual): 0, id(urgent): 0}
    for _ in range(40):
        (turn,) = one_by_one.plan([usual, urgent], NOW_S)
        one_by_one.charge(turn)
        count[id(turn.stream)] += 1
    assert count[id(urgent)] == 3 * count[id(usual)]


def test_all_join_while_the_pass_stays_short_enough_for_the_one_who_is_due() -> None:
    due, free, more = stream(realtime=True, ahead_s=0.05), stream(), stream()
    fast, slow = scheduler({2: 0.01, 8: 0.012}), scheduler({2: 0.01, 4: 0.02, 6: 0.08})
    assert len(fast.plan([free, due, more], NOW_S)) == 3
    assert [turn.stream for turn in slow.plan([free, due, more], NOW_S)] == [due, free]
    starving = stream(realtime=True, ahead_s=-0.1)
    assert [turn.stream for turn in fast.plan([free, starving], NOW_S)] == [starving]


def test_known_columns_are_read_several_at_a_time_and_fewer_while_somebody_is_due() -> None:
    resumed, due = stream(known=300), stream(realtime=True, ahead_s=0.1)
    times = {2: 0.01, 4: 0.01, 68: 0.33}
    (turn,) = scheduler(times, prefill_columns=32).plan([resumed], NOW_S)
    assert turn.num_columns == 33
    turns = {turn.stream: turn.num_columns for turn in scheduler(times, prefill_columns=32).plan([due, resumed], NOW_S)}
    assert turns[due] == 1 and 1 < turns[resumed] < 17
    (turn,) = scheduler(times, joins=False).plan([resumed], NOW_S)
    assert turn.num_columns == 1


def test_a_real_time_stream_that_would_make_others_run_dry_is_told_so() -> None:
    playing = [stream(realtime=True, ahead_s=1.0) for _ in range(3)]
    assert not scheduler({8: 0.015}).would_underrun(stream(realtime=True), playing)
    assert scheduler({8: 0.019}).would_underrun(stream(realtime=True), playing)
    assert scheduler({2: 0.005}, joins=False).would_underrun(stream(realtime=True), playing)
    assert not scheduler({2: 0.5}).would_underrun(stream(realtime=True), [])
    assert not scheduler({2: 0.5}).would_underrun(stream(), playing)


def test_a_newcomer_is_opened_only_while_those_who_play_have_the_time_of_an_opening_in_hand() -> None:
    playing, fresh, live = stream(realtime=True, ahead_s=0.3), stream(), stream(realtime=True)
    playing.state = object()
    there = [playing, fresh, live]
    planner = scheduler({2: 0.01})
    assert planner.openable(there, NOW_S) == there  # nothing is known of openings yet
    planner.observe_opening(0.4)
    assert planner.openable(there, NOW_S) == [playing]
    live.started_s = NOW_S - 1.01  # a real-time newcomer has waited as long as it may
    assert planner.openable(there, NOW_S) == [playing, live]
    planner.observe_opening(0.1)
    assert planner.openable(there, NOW_S) == [playing, live], "one quick opening does not make the next one quick"
    for _ in range(30):
        planner.observe_opening(0.1)
    assert planner.openable(there, NOW_S) == there


def test_a_real_time_stream_hands_out_what_it_has_before_its_listener_runs_dry() -> None:
    assert scheduler().must_deliver(stream(realtime=True, ahead_s=0.2), NOW_S)
    assert not scheduler().must_deliver(stream(realtime=True, ahead_s=3.0), NOW_S)
    assert not scheduler().must_deliver(stream(ahead_s=0.2), NOW_S)
    assert not scheduler().must_deliver(stream(realtime=True), NOW_S)


def test_streams_far_enough_ahead_rest_until_the_first_of_them_needs_more() -> None:
    planner = scheduler(realtime_max_lead_s=3.0)
    ahead, further, full = (stream(realtime=True, ahead_s=s) for s in (2.2, 2.9, 3.0))
    there, rest_s = planner.awake([ahead, further, full], NOW_S)
    assert there == [] and rest_s == pytest.approx(0.2)
    there, rest_s = planner.awake([ahead, further, full], NOW_S + 0.21)
    assert there == [ahead, further, full], "once one goes on, all go on that have come down at all"
    assert planner.awake([further, full, stream()], NOW_S)[0][0] is further
    free, fresh = stream(ahead_s=9.0), stream(realtime=True)
    assert planner.awake([full, free, fresh], NOW_S) == ([free, fresh], 0.0), "only who has a listener to be ahead of"
    assert scheduler().awake([full], NOW_S) == ([full], 0.0), "without a limit nobody rests"


def test_who_is_about_to_rest_hands_out_what_it_has() -> None:
    made = stream(realtime=True, ahead_s=2.5)
    planner = scheduler(realtime_max_lead_s=3.0)
    assert not planner.must_deliver(made, NOW_S)
    for _ in range(26):  # half a second of frames that nobody was handed yet
        made.program.advance(torch.zeros(1, 9))
    assert made.program.num_frames_ready == 26 and planner.must_deliver(made, NOW_S)
    assert not scheduler().must_deliver(made, NOW_S)


def test_step_times_are_learnt_and_estimated_between_and_beyond() -> None:
    times = StepTimes()
    assert times.predict_s(4) > 0
    times.observe(2, 0.010)
    times.observe(6, 0.030)
    assert times.predict_s(1) == times.predict_s(2) == pytest.approx(0.010)
    assert times.predict_s(4) == pytest.approx(0.020)
    assert times.predict_s(12) == pytest.approx(0.060)
    for _ in range(200):
        times.observe(2, 0.002)
    assert times.predict_s(2) == pytest.approx(0.002, rel=1e-3)
    assert times.predict_s(6) == pytest.approx(0.006, rel=1e-3)  # what 6 rows once took is out of date


def test_slots_are_given_within_the_budget_by_pace_priority_and_arrival() -> None:
    pool: SlotPool[Any, Any] = SlotPool(num_slots=2, kv_budget_bytes=10)
    big, small, urgent, live = stream(kv_bytes=6), stream(kv_bytes=6), stream(priority=5), stream(realtime=True)
    for each in (big, small, urgent, live):
        pool.enqueue(each)
    assert pool.waiting == [live, urgent, big, small]
    assert pool.fill(NOW_S) == [live, urgent] and pool.kv_bytes_used == 2
    live.is_cancelled = urgent.is_cancelled = True
    assert pool.fill(NOW_S) == [big]  # a slot is free, but not the memory
    assert pool.num_running == 1 and pool.kv_bytes_used == 6
    pool.discard(big)
    assert pool.fill(NOW_S) == [small]
    assert pool.before(stream(realtime=True)) == [] and pool.take_all() == [small]


def test_a_slot_is_free_once_the_later_requests_of_its_piece_are_done_too() -> None:
    one, more = stream(), stream()
    more.request = dataclasses.replace(more.request, num_later_frames=1_000)
    alone_s = scheduler().estimate_end_s([one])
    assert scheduler().estimate_end_s([more]) == pytest.approx(3 * alone_s)
