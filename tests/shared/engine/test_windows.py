"""Pieces window by window: which frames where, whose noise, what may change no byte, and who holds a slot."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stretto_shared.engine.program import TokenRequest
from stretto_shared.engine.sampling import Sampling, stage_key, uniform_noise
from stretto_shared.engine.windows import Window, WindowedRequest, WindowLayout
from stretto_shared.errors import InvalidInput, NotReady, Overloaded
from windowed_stage import LAYOUT, NONE, FlatModel, K, Stage, V, blocks_of, by_start, codes, codes_of, request, running


def test_windows_lie_a_stride_apart_and_the_last_may_be_shorter() -> None:
    assert list(LAYOUT.windows(20)) == [Window(0, 0, 8), Window(5, 8, 13), Window(10, 13, 18), Window(15, 18, 20)]
    assert list(LAYOUT.windows(8)) == [Window(0, 0, 8)] and list(LAYOUT.windows(3)) == [Window(0, 0, 3)]
    assert list(WindowLayout(1, 4, 4).windows(9)) == [Window(0, 0, 4), Window(4, 4, 8), Window(8, 8, 9)]


def test_a_window_ends_at_a_change_and_the_next_one_reaches_as_far_back_as_ever() -> None:
    assert list(LAYOUT.windows(15, cuts=(2, 10))) == [
        Window(0, 0, 2),
        Window(0, 2, 8),
        Window(5, 8, 10),
        Window(7, 10, 15),
    ]
    assert list(LAYOUT.windows(8, cuts=(0, 8, 9))) == [Window(0, 0, 8)]


@given(
    num_frames=st.integers(1, 200),
    window=st.integers(1, 40),
    stride=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 220), unique=True).map(sorted),
)
def test_every_frame_is_drawn_once_in_a_window_that_holds_it_and_no_window_is_too_long(
    num_frames: int, window: int, stride: int, cuts: list[int]
) -> None:
    stride = min(stride, window)
    windows = list(WindowLayout(3, window, stride).windows(num_frames, cuts))
    drawn = [frame for w in windows for frame in range(w.first_new, w.stop)]
    assert drawn == list(range(num_frames))
    for each in windows:
        assert 0 <= each.start <= each.first_new < each.stop and each.num_frames <= window
        assert each.start == max(0, each.first_new - (window - stride))
        assert not any(each.first_new < cut < each.stop for cut in cuts)


@pytest.mark.parametrize("sizes", [(0, 8, 4), (1, 8, 0), (1, 8, 9)])
def test_a_layout_that_makes_no_headway_is_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="stride"):
        WindowLayout(*sizes)


async def test_frames_come_whole_in_order_and_in_growing_blocks() -> None:
    async with running() as stage:
        blocks = await blocks_of(stage, request(30))
    assert [block.first_frame for block in blocks] == np.cumsum([0, *(b.codes.shape[1] for b in blocks)])[:-1].tolist()
    # 2, 4, 4, ... frames, and what is left at the end of each window: 8, 13, 18, 23, 28, 30; fewer when few are to come
    assert [block.codes.shape for block in blocks] == [(K, n) for n in (2, 4, 2, 4, 1, 4, 1, 4, 1, 3, 2, 2)]


async def test_each_window_is_told_its_own_condition_and_reads_what_it_shares() -> None:
    model = FlatModel()
    async with running(model) as stage:
        whole = await codes_of(stage, request(20))
    assert [each for each, _ in model.opened] == [8, 5013, 10018, 15020]
    assert whole.shape == (K, 20)
    # each window reads the column before its first token and all of its tokens but the last
    assert model.num_columns_read == K * (8 + 8 + 8 + 5)


async def test_the_tokens_are_drawn_with_the_noise_of_their_place_in_the_piece() -> None:
    """Where logits say nothing a token is the argmax of the noise of (seed, stage, frame, codebook), in any window."""
    async with running(FlatModel(is_deaf=True)) as stage:
        whole = await codes_of(stage, request(30))
    places = np.arange(30 * K, dtype=np.int64)
    noise = uniform_noise(3, stage_key("test"), places, np.zeros_like(places), np.tile(np.arange(V), (30 * K, 1)))
    np.testing.assert_array_equal(whole, noise.argmax(axis=1).reshape(30, K).T)
    assert len({row.tobytes() for row in noise}) == 30 * K


async def test_a_change_is_heard_from_its_frame_on_and_not_before() -> None:
    async def styled(window: Window) -> int:
        return 7 if window.first_new >= 10 else 5

    async def plain(window: Window) -> int:
        return 5

    async with running() as stage:
        changed = await codes_of(stage, request(30, cuts=(10,)), styled)
        same = await codes_of(stage, request(30, cuts=(10,)), plain)
    np.testing.assert_array_equal(changed[:, :10], same[:, :10])
    assert not np.array_equal(changed[:, 10:13], same[:, 10:13])


@dataclass(frozen=True)
class Arrival:
    """One piece of a schedule, how late its sources come, and where it resumes or is left."""

    seed: int
    num_frames: int
    prompt: int
    cuts: tuple[int, ...]
    resume_share: float
    max_blocks: int | None
    wait_ms: int
    lag_ms: int
    is_realtime: bool

    def wanted(self) -> WindowedRequest[int]:
        prompt = codes(min(self.prompt, self.num_frames - 1), self.seed)
        return request(
            self.num_frames, prompt=prompt, seed=self.seed, cuts=self.cuts, is_realtime=self.is_realtime, priority=0
        )

    async def condition_of(self, window: Window) -> int:
        await asyncio.sleep(self.lag_ms / 1000)
        return await by_start(window)


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        seed=st.integers(0, 5),
        num_frames=st.integers(1, 33),
        prompt=st.sampled_from([0, 0, 3, 8, 17]),
        cuts=st.lists(st.integers(1, 30), max_size=3, unique=True).map(lambda cuts: tuple(sorted(cuts))),
        resume_share=st.sampled_from([0.0, 0.0, 0.2, 0.5, 0.99]),
        max_blocks=st.sampled_from([None, None, None, 0, 1, 3]),
        wait_ms=st.integers(0, 10),
        lag_ms=st.sampled_from([0, 0, 3]),
        is_realtime=st.booleans(),
    ),
    min_size=1,
    max_size=7,
)


async def alone(wanted: WindowedRequest[int]) -> NDArray[np.int32]:
    async with running(FlatModel(is_row_invariant=False), max_slots=1, first_block_frames=1, block_frames=1) as stage:
        return await codes_of(stage, wanted)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(arrivals=ARRIVALS, max_slots=st.integers(1, 4), prefill=st.integers(1, 9), block=st.integers(1, 9))
def test_every_piece_of_every_schedule_equals_its_solo_run(
    arrivals: list[Arrival], max_slots: int, prefill: int, block: int
) -> None:
    async def come(stage: Stage, arrival: Arrival) -> None:
        wanted = arrival.wanted()
        whole = await alone(wanted)
        start = int(arrival.resume_share * whole.shape[1])
        await asyncio.sleep(arrival.wait_ms / 1000)
        parts = [NONE]
        resumed = dataclasses.replace(wanted, resume_from=whole[:, :start])
        async with aclosing(stage.windowed.generate(resumed, arrival.condition_of)) as stream:
            while arrival.max_blocks is None or len(parts) <= arrival.max_blocks:
                if (next_block := await anext(stream, None)) is None:
                    break
                assert next_block.first_frame == wanted.prompt.shape[1] + start + sum(p.shape[1] for p in parts)
                parts.append(next_block.codes)
        got = np.concatenate(parts, axis=1)
        if arrival.max_blocks is None:
            assert got.shape[1] == whole.shape[1] - start
        np.testing.assert_array_equal(got, whole[:, start : start + got.shape[1]])

    async def play() -> None:
        async with running(
            max_slots=max_slots,
            max_queued=99,
            prefill_columns=prefill,
            first_block_frames=1 + block // 2,
            block_frames=block,
            max_realtime_wait_s=1e9,
        ) as stage:
            await asyncio.gather(*(come(stage, arrival) for arrival in arrivals))
            assert stage.tokens.num_waiting == 0

    asyncio.run(play())


async def test_a_piece_resumes_at_every_frame() -> None:
    async with running() as stage:
        wanted = request(27, prompt=codes(2), cuts=(11,))
        whole = await codes_of(stage, wanted)
        for known in range(whole.shape[1]):
            rest = await codes_of(stage, dataclasses.replace(wanted, resume_from=whole[:, :known]))
            np.testing.assert_array_equal(rest, whole[:, known:])


async def until(is_true: Any) -> None:
    async with asyncio.timeout(60):
        while not is_true():  # noqa: ASYNC110 - the engine tells nobody when a slot is freed
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def lagging(stage: Stage, wanted: WindowedRequest[int], **arrived: int) -> AsyncIterator[tuple[Any, Any]]:
    """A piece whose windows wait for a semaphore, read in a task of its own: (task, semaphore)."""
    source = asyncio.Semaphore(arrived.get("windows", 0))

    async def condition_of(window: Window) -> int:
        await source.acquire()
        return await by_start(window)

    task = asyncio.create_task(codes_of(stage, wanted, condition_of))
    yield task, source
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_piece_that_waits_for_its_source_holds_no_slot_and_starts_as_soon_as_it_is_there() -> None:
    async with running(max_slots=1) as stage, lagging(stage, request(30), windows=1) as (task, source):
        await until(lambda: stage.meter.num_tokens and stage.tokens.num_running == 0)
        assert sum(stage.meter.num_tokens) == 8 * K and stage.tokens.kv_bytes_used == 0
        assert (await codes_of(stage, request(12, seed=9))).shape == (K, 12)  # the only slot is free
        for _ in range(5):
            source.release()
        np.testing.assert_array_equal(await task, await alone(request(30)))


async def test_a_reader_that_stops_stops_the_piece_after_its_window_without_a_slot() -> None:
    model = FlatModel()
    async with running(model, max_slots=1) as stage, aclosing(stage.windowed.generate(request(30), by_start)) as stream:
        await anext(stream)
        await until(lambda: stage.tokens.num_running == 0)
        assert len(model.opened) == 1 and sum(stage.meter.num_tokens) == 8 * K
        assert (await codes_of(stage, request(12, seed=9))).shape == (K, 12)


async def test_pieces_that_hold_no_slot_still_count_and_the_limit_is_told_at_the_start() -> None:
    async with running(max_slots=1, max_queued=1) as stage:
        async with lagging(stage, request(30)), lagging(stage, request(30, seed=4)):
            await until(lambda: stage.tokens.num_idle == 2)
            asked = []

            async def note(window: Window) -> int:
                asked.append(window)
                return 0

            with pytest.raises(Overloaded) as caught:
                await codes_of(stage, request(5), note)
            assert caught.value.retry_after_s > 0 and not asked
        assert (await codes_of(stage, request(5))).shape == (K, 5)


async def test_a_piece_whose_last_window_nobody_reads_counts_too() -> None:
    async with (
        running(max_slots=1, max_queued=1) as stage,
        aclosing(stage.windowed.generate(request(30), by_start)) as first,
        aclosing(stage.windowed.generate(request(30), by_start)) as second,
    ):
        for stream in (first, second):
            await anext(stream)
        await until(lambda: stage.tokens.num_idle == 2)
        with pytest.raises(Overloaded):
            await codes_of(stage, request(5))


async def test_a_piece_that_was_let_in_is_never_refused_later() -> None:
    """Its next window comes when the queue is as full as it may be."""
    async with running(max_slots=1, max_queued=1) as stage, lagging(stage, request(30), windows=1) as (task, source):
        await until(lambda: stage.tokens.num_running == 0 and stage.meter.num_tokens)
        async with aclosing(stage.windowed.generate(request(30, seed=8), by_start)) as other:
            await anext(other)
            with pytest.raises(Overloaded):
                await codes_of(stage, request(5))
            for _ in range(5):
                source.release()
            await task
            assert sum([block.codes.shape[1] async for block in other]) == 28


async def test_best_effort_does_not_take_the_place_of_a_real_time_piece_between_its_windows() -> None:
    async with running(max_slots=1, max_queued=4) as stage:
        async with lagging(stage, request(30, is_realtime=True)):
            await until(lambda: stage.tokens.num_idle == 1)
            waits = asyncio.create_task(codes_of(stage, request(5)))
            await until(lambda: stage.tokens.num_waiting == 1)
            await asyncio.sleep(0.02)
            assert stage.tokens.num_running == 0 and not waits.done()
        assert (await waits).shape == (K, 5)  # and gets it when that one is gone


async def test_a_real_time_piece_without_room_is_refused_before_its_source_is_asked_for() -> None:
    live = request(30, is_realtime=True)
    async with running(max_slots=1, max_queued=4, max_realtime_wait_s=1e-9) as stage, lagging(stage, live):
        await until(lambda: stage.tokens.num_idle == 1)
        with pytest.raises(Overloaded, match="real-time"):
            await codes_of(stage, request(5, is_realtime=True))


async def test_a_piece_is_one_stream_to_the_meter_whose_standstill_for_its_source_is_not_the_models() -> None:
    live, began_s = request(30, is_realtime=True), time.perf_counter()
    async with running(frame_rate_hz=1e4) as stage, lagging(stage, live, windows=1) as (task, source):
        await until(lambda: stage.tokens.num_running == 0 and stage.meter.num_tokens)
        lag_s = 0.05 + 2 * (time.perf_counter() - began_s)  # longer than all that the model may be blamed for
        await asyncio.sleep(lag_s)
        for _ in range(5):
            source.release()
        await task
    assert stage.meter.num_first == 1
    ((underrun_s, is_realtime),) = stage.meter.streams
    assert is_realtime and underrun_s < time.perf_counter() - began_s - lag_s


async def test_waiting_for_a_slot_once_the_source_is_there_is_the_engines_standstill() -> None:
    none = np.zeros((1, 0), dtype=np.int32)
    long = TokenRequest(0, 20_000, none, none, Sampling(top_k=0), 4, is_realtime=True)
    limits = {"max_slots": 1, "max_queued": 4, "max_realtime_wait_s": 1e9}
    live = request(30, is_realtime=True)
    async with running(frame_rate_hz=20.0, **limits) as stage, lagging(stage, live, windows=1) as (task, source):
        await until(lambda: stage.tokens.num_idle == 1)
        async with aclosing(stage.tokens.generate(long)) as other:
            await anext(other)  # has the slot, and then stands still with all its places for blocks full
            for _ in range(5):
                source.release()
            await until(lambda: stage.tokens.num_waiting == 1)
            await asyncio.sleep(0.6)  # 8 frames play for 0.4 s
        await task
    underruns_s = [underrun_s for underrun_s, _ in stage.meter.streams]
    assert max(underruns_s) >= 0.1


async def test_a_piece_is_planned_by_all_of_its_windows() -> None:
    async with running() as stage:
        asked: list[int] = []
        generate = stage.tokens.generate

        def noted(wanted: TokenRequest[int], **options: Any) -> Any:
            asked.append(wanted.num_later_frames)
            return generate(wanted, **options)

        stage.tokens.generate = noted  # type: ignore[assignment,method-assign]
        await codes_of(stage, request(20))
    assert asked == [12 * K, 7 * K, 2 * K, 0]


async def test_a_piece_that_can_never_fit_is_told_apart_before_anything_is_asked() -> None:
    async with running(kv_budget_bytes=5) as stage:
        with pytest.raises(InvalidInput, match="duration_s"):
            stage.windowed.check_fits(request(30))
        stage.windowed.check_fits(request(1))
        assert stage.tokens.num_idle == stage.tokens.num_waiting == 0


async def test_closing_frees_the_slot_and_a_failure_of_the_source_reaches_the_reader() -> None:
    async def fail(window: Window) -> int:
        if window.start:
            raise InvalidInput("source", "expected more frames.")
        return 0

    async with running(max_slots=1) as stage:
        with pytest.raises(InvalidInput, match="more frames"):
            await codes_of(stage, request(30), fail)
        stream = stage.windowed.generate(request(30), by_start)
        await anext(stream)
        await stream.aclose()
        await until(lambda: stage.tokens.num_running == 0)
        assert (await codes_of(stage, request(5))).shape == (K, 5)


async def test_a_closed_engine_says_so_at_the_next_window() -> None:
    async with running() as stage, lagging(stage, request(30), windows=1) as (task, source):
        await until(lambda: stage.tokens.num_running == 0 and stage.meter.num_tokens)
        await stage.tokens.close()
        source.release()
        with pytest.raises(NotReady):
            await task


async def test_each_window_tells_how_long_it_waited_and_ran() -> None:
    told: list[tuple[float, float]] = []
    async with running() as stage:
        stream = stage.windowed.generate(request(30), by_start, on_window=lambda *times: told.append(times))
        async for _ in stream:
            pass
    assert len(told) == 6 and all(wait_s >= 0 and ran_s > 0 for wait_s, ran_s in told)
