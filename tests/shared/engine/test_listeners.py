"""How many real-time listeners a token engine lets in, until when each counts, and when refused ones come back."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import numpy as np
import pytest
from hash_engine import LIVE, collect, live_engine
from stretto_shared.engine.program import TokenBlock
from stretto_shared.engine.token_engine import RETURN_SPACING_S
from stretto_shared.errors import Overloaded


async def test_real_time_streams_that_come_at_once_take_all_slots_that_are_free() -> None:
    async with live_engine() as engine:
        streams = [engine.generate(LIVE) for _ in range(3)]
        firsts = await asyncio.gather(*(anext(stream) for stream in streams), return_exceptions=True)
        assert [type(first) for first in firsts] == [TokenBlock, TokenBlock, Overloaded]
        assert "No slot is free" in str(firsts[2])
        for stream in streams:
            await stream.aclose()


async def test_a_promised_place_is_kept_for_who_comes_and_given_back_when_nobody_does() -> None:
    async with live_engine(promise_s=1e6) as engine:
        engine.check_admission(LIVE)
        engine.check_admission(LIVE)
        with pytest.raises(Overloaded) as caught:
            engine.check_admission(LIVE)
        assert caught.value.retry_after_s == pytest.approx(602 / 0.1)  # as long as they play, though none has begun
        streams = [engine.generate(LIVE) for _ in range(2)]
        for stream in streams:
            assert isinstance(await anext(stream), TokenBlock)
        with pytest.raises(Overloaded):
            await anext(engine.generate(LIVE))
        for stream in streams:
            await stream.aclose()
        engine.check_admission(LIVE)  # the promises were kept, and are over
    async with live_engine(promise_s=1e-9) as engine:
        for _ in range(5):
            engine.check_admission(LIVE)


async def test_a_piece_that_was_made_faster_than_it_plays_keeps_its_listener_s_place() -> None:
    async with live_engine(max_unread_blocks=99, max_slots=2) as engine:
        blocks = [block async for block in engine.generate(LIVE)]  # 600 frames of 10 s each, made at once
        assert sum(block.codes.shape[1] for block in blocks) == 600
        stream = engine.generate(LIVE)
        assert isinstance(await anext(stream), TokenBlock)
        with pytest.raises(Overloaded) as caught:
            engine.check_admission(LIVE)
        assert 5_900 < caught.value.retry_after_s < 6_100
        await stream.aclose()
        engine.check_admission(LIVE)  # who left listens no more
        plain = dataclasses.replace(LIVE, is_realtime=False)
        assert len([block async for block in engine.generate(plain)]) == len(blocks)  # best effort has no listener


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_piece_of_several_requests_keeps_one_listener_s_place_and_only_if_it_was_made_whole(
    is_whole: bool,
) -> None:
    async with live_engine(max_unread_blocks=99, max_slots=3) as engine:
        piece = engine.open_piece(LIVE)
        for num_later in (600, 0) if is_whole else (600,):
            wanted = dataclasses.replace(LIVE, num_later_frames=num_later)
            assert [block async for block in engine.generate(wanted, piece=piece)]
            engine.check_admission(LIVE)  # the piece takes one place of three, whatever it has made so far
            engine._promised.clear()
        engine.close_piece(piece)
        assert len(engine._play_until_s) == is_whole


async def test_no_two_refused_listeners_are_told_to_come_back_at_once() -> None:
    async with live_engine(promise_s=1e6, max_slots=1) as engine:
        engine.check_admission(LIVE)
        told_s = []
        for _ in range(5):
            with pytest.raises(Overloaded) as caught:
                engine.check_admission(LIVE)
            told_s.append(caught.value.retry_after_s)
        assert np.diff(told_s) == pytest.approx([RETURN_SPACING_S] * 4, abs=0.05)


async def test_a_promise_counts_as_a_stream_that_others_must_not_make_run_dry() -> None:
    async with live_engine(frame_rate_hz=60.0, max_slots=8, promise_s=1e6, realtime_utilisation=0.05) as engine:
        engine.check_admission(LIVE)
        with pytest.raises(Overloaded, match="run dry"):
            engine.check_admission(LIVE)
        await collect(engine, dataclasses.replace(LIVE, is_realtime=False))  # best effort is not asked


async def test_a_real_time_stream_rests_and_goes_on_by_itself_to_the_same_bytes() -> None:
    async with live_engine(frame_rate_hz=1000.0, max_unread_blocks=99) as engine:
        whole = await collect(engine, LIVE)
    limits = {"realtime_lead_s": 0.05, "realtime_max_lead_s": 0.1}
    async with live_engine(frame_rate_hz=1000.0, max_unread_blocks=99, **limits) as engine:
        began_s = time.perf_counter()
        assert np.array_equal(await collect(engine, LIVE), whole)
        assert time.perf_counter() - began_s > 0.6 - 0.1 - 0.1, "600 frames of 1 ms are not made much faster than heard"
        began_s = time.perf_counter()
        best_effort = dataclasses.replace(LIVE, is_realtime=False)
        assert np.array_equal(await collect(engine, best_effort), whole)


async def test_a_refused_listener_is_not_told_to_come_back_while_all_who_rest_still_play() -> None:
    limits = {"realtime_lead_s": 10.0, "realtime_max_lead_s": 60.0, "realtime_utilisation": 1e-9}
    async with live_engine(max_unread_blocks=99, max_slots=8, **limits) as engine:
        stream = engine.generate(LIVE)
        assert isinstance(await anext(stream), TokenBlock)
        with pytest.raises(Overloaded, match="run dry") as caught:
            engine.check_admission(LIVE)
        assert caught.value.retry_after_s == pytest.approx(602 / 0.1 - 60.0, rel=0.05)
        await stream.aclose()
