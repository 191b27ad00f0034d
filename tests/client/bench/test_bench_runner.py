"""Levels against a door with known pacing, over a real channel; bounds on time leave room for a starved machine."""

import asyncio
import time
from typing import Any

import pytest
from stretto_client import Overloaded, StrettoClient
from stretto_client.bench import runner
from stretto_client.bench.listener import Outcome, Status
from stretto_client.bench.load import ClosedLoad, Load, OpenLoad, Plan
from stretto_client.bench.runner import LevelRun
from stretto_client.bench.schedule import poisson_arrivals_s
from stretto_client.bench.summary import LevelSummary, summarise
from stretto_client.bench.sweep import sweep
from stretto_shared.errors import InvalidInput, StrettoError


async def level_of(stage: Any, plan: Plan, load: Load) -> tuple[list[Outcome], LevelSummary]:
    async with StrettoClient(stage.address) as client:
        await client.check_health()  # connects
        outcomes = list(await LevelRun(client, plan, load).run())
    return outcomes, summarise(load, outcomes)


async def test_streams_that_come_at_once_are_continuous(stage: Any) -> None:
    plan = Plan(("x",), duration_s=3.0, max_requests=6)
    outcomes, level = await level_of(stage, plan, ClosedLoad(3))
    assert (level.request_count, level.ok_count, level.audio_continuity_ok) == (6, 6, 1.0)
    assert (level.audio_underrun_count, level.audio_underrun_s, level.audio_s) == (0, 0.0, 18.0)
    assert level.audio_s_per_s == pytest.approx(18.0 / level.wall_s)
    assert 1 <= level.peak_in_flight <= 3
    assert sorted(request.seed for request in stage.requests) == list(range(6))
    assert sorted(outcome.index for outcome in outcomes) == list(range(6))
    assert level.errors == ()


async def test_a_pause_in_the_stream_is_an_underrun_of_that_length(stage: Any, script: Any) -> None:
    stage.script_of = lambda number: script(chunks=((0.0, 0.1), (1.1, 1.9)) if number % 2 else None)
    _, level = await level_of(stage, Plan(("x",), duration_s=2.0, max_requests=4), ClosedLoad(1))
    assert (level.ok_count, level.audio_underrun_count, level.audio_continuity_ok) == (4, 2, 0.5)
    assert level.audio_underrun_s == pytest.approx(2.0, abs=1.0)
    assert level.audio_chunk_gap_s is not None and level.audio_chunk_gap_s.p50 == pytest.approx(1.1, abs=0.6)
    stage.script_of = lambda number: script(chunks=((0.0, 0.1), (1.1, 1.9)))
    _, level = await level_of(stage, Plan(("x",), duration_s=2.0, max_requests=1, buffer_s=5.0), ClosedLoad(1))
    assert (level.audio_underrun_count, level.audio_continuity_ok) == (0, 1.0)


async def test_first_audio_and_real_time_factor_are_those_of_the_door(stage: Any, script: Any) -> None:
    stage.script_of = lambda number: script(chunks=((0.4, 1.0), (1.6, 1.0)))
    _, level = await level_of(stage, Plan(("x",), duration_s=2.0, max_requests=2), ClosedLoad(2))
    assert level.audio_ttfp_s is not None and level.audio_rtf is not None
    assert 0.4 <= level.audio_ttfp_s.p50 < 1.4
    assert 1.0 <= level.audio_rtf.p50 < 1.8


async def test_refusals_are_counted_by_their_reason_and_not_against_continuity(stage: Any, script: Any) -> None:
    stage.num_places = 2
    full = Overloaded("All slots are taken.", retry_after_s=0.25)
    stage.script_of = lambda number: script(refuse_when_full=full, waits_for=lambda stage: stage.num_refused >= 2)
    outcomes, level = await level_of(stage, Plan(("x",), duration_s=1.0, max_requests=8), ClosedLoad(4))
    assert level.refused_count == stage.num_refused >= 2
    assert (level.ok_count, level.audio_continuity_ok) == (8 - level.refused_count, 1.0)
    (error,) = level.errors
    assert (error.reason, error.status, error.message) == ("OVERLOADED", "refused", "All slots are taken.")
    assert error.retry_after_s is not None and error.retry_after_s.max == pytest.approx(0.25)
    assert error.latency_s.max > 0
    refused = [outcome for outcome in outcomes if outcome.status is Status.REFUSED]
    assert all(outcome.playout is None for outcome in refused)


async def test_a_listener_that_was_refused_comes_back_when_it_was_told_to(stage: Any, script: Any) -> None:
    refusal = Overloaded("All slots are taken.", retry_after_s=0.6)
    stage.script_of = lambda number: script(error=None if number else refusal)
    outcomes, _ = await level_of(stage, Plan(("x",), max_requests=2), ClosedLoad(1))
    assert [outcome.status for outcome in outcomes] == [Status.REFUSED, Status.OK]
    assert outcomes[1].sent_s - outcomes[0].ended_s >= 0.6


async def test_a_missed_deadline_and_a_broken_stream_are_not_continuous(stage: Any, script: Any) -> None:
    stage.script_of = lambda number: script(waits_for=lambda stage: False)
    _, level = await level_of(stage, Plan(("x",), max_requests=2, timeout_s=0.4), ClosedLoad(2))
    assert (level.deadline_miss_count, level.ok_count, level.audio_continuity_ok) == (2, 0, 0.0)
    assert (level.audio_ttfp_s, level.audio_rtf, level.audio_s) == (None, None, 0.0)
    assert [(error.reason, error.status) for error in level.errors] == [("DEADLINE_EXCEEDED", "late")]
    stage.script_of = lambda number: script(chunks=((0.0, 0.5),), breaks=True)
    _, level = await level_of(stage, Plan(("x",), max_requests=1), ClosedLoad(1))
    assert (level.failed_count, level.audio_continuity_ok, level.audio_s) == (1, 0.0, 0.5)
    assert [(error.reason, error.status) for error in level.errors] == [("SERVER_FAILURE", "failed")]


async def test_a_piece_of_another_length_is_a_failure(stage: Any, script: Any) -> None:
    stage.script_of = lambda number: script(chunks=((0.0, 1.0),))
    _, level = await level_of(stage, Plan(("x",), duration_s=2.0, max_requests=1), ClosedLoad(1))
    assert [(error.reason, error.count) for error in level.errors] == [("WRONG_LENGTH", 1)]


async def test_slow_answers_delay_no_arrival(stage: Any, script: Any) -> None:
    num = 40
    stage.script_of = lambda number: script(waits_for=lambda stage: stage.peak_running == num)  # else: none is answered
    plan = Plan(("x",), duration_s=1.0, max_requests=num, first_seed=3)
    outcomes, level = await level_of(stage, plan, OpenLoad(60.0))
    assert (level.ok_count, level.peak_in_flight) == (num, num)
    scheduled_s = poisson_arrivals_s(60.0, seed=3, max_count=num, max_s=plan.run_s)
    assert sorted(outcome.scheduled_s for outcome in outcomes) == list(scheduled_s)
    assert all(outcome.sent_s > outcome.scheduled_s - 0.002 for outcome in outcomes)


async def test_latencies_count_from_the_arrival_that_the_tester_itself_delayed(stage: Any) -> None:
    load = OpenLoad(50.0)
    async with StrettoClient(stage.address) as client:
        await client.check_health()  # connects
        asyncio.get_running_loop().call_later(0.02, time.sleep, 0.6)  # holds the tester up
        level = summarise(load, await LevelRun(client, Plan(("x",), max_requests=20), load).run())
    assert level.client_lag_s is not None and level.audio_ttfp_s is not None
    assert level.client_lag_s.max > 0.4
    assert level.audio_ttfp_s.max > 0.4


async def test_a_level_ends_with_its_time_or_its_number(stage: Any, script: Any) -> None:
    stage.script_of = lambda number: script(chunks=((0.1, 1.0),))
    plan = Plan(("x",), duration_s=1.0, max_requests=10_000, run_s=0.5)
    for load in (ClosedLoad(2), OpenLoad(20.0)):
        outcomes, level = await level_of(stage, plan, load)
        assert 0 < level.request_count < 100
        assert all(outcome.scheduled_s < 0.5 for outcome in outcomes)
    _, level = await level_of(stage, Plan(("x",), max_requests=3), OpenLoad(100.0))
    assert level.request_count == 3


async def test_a_listener_in_real_time_hears_a_piece_before_it_asks_for_the_next(stage: Any) -> None:
    plan = Plan(("x",), duration_s=0.5, max_requests=3, realtime=True, buffer_s=0.1)
    outcomes, _ = await level_of(stage, plan, ClosedLoad(1))
    for before, after in zip(outcomes, outcomes[1:]):
        assert before.playout is not None
        assert after.sent_s - before.playout.first_audio_s >= 0.6


async def test_no_more_calls_are_open_than_a_connection_carries(stage: Any, script: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(runner, "MAX_IN_FLIGHT", 2)
    stage.script_of = lambda number: script(waits_for=lambda stage: stage.is_released)
    async with StrettoClient(stage.address) as client:
        level = LevelRun(client, Plan(("x",), max_requests=10), OpenLoad(200.0))
        running = asyncio.create_task(level.run())
        while len(level.outcomes) < 8:  # noqa: ASYNC110  the level has no event for it
            await asyncio.sleep(0.01)
        assert level.num_in_flight == 2
        stage.is_released = True
        summary = summarise(OpenLoad(200.0), list(await running))
    assert (summary.ok_count, summary.unsent_count, summary.peak_in_flight) == (2, 8, 2)
    assert summary.audio_continuity_ok == 1.0  # those that were never sent say nothing about the server
    assert level.share_done == 1.0


async def test_a_sweep_compares_the_bytes_of_a_piece_at_every_level(stage: Any, script: Any) -> None:
    plan = Plan(("x",), max_requests=3)
    seen: list[str] = []
    async with StrettoClient(stage.address) as client:
        found = await sweep(client, plan, [ClosedLoad(1), ClosedLoad(2)], lambda load, level: seen.append(str(load)))
        assert (found.byte_difference_count, len(found.levels), len(stage.requests)) == (0, 2, 7)
        assert set(seen) == {"1 at once", "2 at once"}
        stage.script_of = lambda number: script(salt="company" if number >= 7 + 4 else "")  # the second level's
        found = await sweep(client, plan, [ClosedLoad(1), ClosedLoad(2)])
    assert found.byte_difference_count == 3


async def test_a_server_that_cannot_make_one_piece_is_not_loaded(stage: Any, script: Any) -> None:
    stage.script_of = lambda number: script(error=InvalidInput("prompt", "expected a better one."))
    async with StrettoClient(stage.address) as client:
        with pytest.raises(StrettoError, match="before any load, failed: prompt: expected a better one"):
            await sweep(client, Plan(("x",)), [ClosedLoad(4)])
    assert len(stage.requests) == 1
