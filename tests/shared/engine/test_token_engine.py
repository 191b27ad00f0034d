"""The token engine, with a small counting model whose logits depend on all that it has read."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hash_engine import POISON, HashModel, HashState, K, V, collect, request, running
from stretto_shared.engine.program import TokenBlock, TokenRequest
from stretto_shared.engine.self_test import Trial, joins_exactly, measure_step_s
from stretto_shared.engine.step_times import StepTimes
from stretto_shared.engine.thread import ModelThread
from stretto_shared.engine.token_engine import TokenEngine, TokenEngineConfig
from stretto_shared.errors import InvalidInput, NotReady, Overloaded
from torch import Tensor


async def test_a_request_gives_its_frames_in_blocks_that_grow_and_then_leave_little_for_the_end() -> None:
    async with running() as engine:
        blocks = [block async for block in engine.generate(request(12))]
    assert [block.codes.shape for block in blocks] == [(K, 2), (K, 4), (K, 3), (K, 2), (K, 1)]
    codes = np.concatenate([block.codes for block in blocks], axis=1)
    assert codes.min() >= 0 and codes.max() < V


async def test_the_first_frame_costs_only_the_delay() -> None:
    model = HashModel()
    async with running(model, first_block_frames=1) as engine:
        async with aclosing(engine.generate(request(500))) as blocks:
            await anext(blocks)
            assert model.num_steps >= 3
        assert model.num_steps < 100


@pytest.mark.parametrize("num_frames", [1, 2, 3, 9])
async def test_a_piece_shorter_than_the_delay_is_whole(num_frames: int) -> None:
    async with running() as engine:
        assert (await collect(engine, request(num_frames))).shape == (K, num_frames)


@pytest.mark.parametrize("joins", [False, True])
async def test_requests_get_the_same_tokens_alone_and_beside_others(joins: bool) -> None:
    async with running(HashModel(is_row_invariant=joins), max_slots=3, max_queued=8) as engine:
        alone = [await collect(engine, request(9 + seed, seed=seed)) for seed in range(6)]
        together = await asyncio.gather(*(collect(engine, request(9 + seed, seed=seed)) for seed in range(6)))
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(alone[0][:, :9], alone[1][:, :9])


@pytest.mark.parametrize("joins", [False, True])
async def test_a_request_resumed_at_any_frame_equals_the_unbroken_one(joins: bool) -> None:
    async with running(HashModel(is_row_invariant=joins)) as engine:
        whole = await collect(engine, request(10))
        for start in range(1, 10):
            rest = await collect(engine, request(10, resume_from=whole[:, :start]))
            np.testing.assert_array_equal(whole[:, start:], rest)


@pytest.mark.parametrize("joins", [False, True])
async def test_a_prompt_shapes_what_follows_and_a_prompted_request_resumes(joins: bool) -> None:
    prompt = np.arange(4 * K, dtype=np.int32).reshape(K, 4) % V
    async with running(HashModel(is_row_invariant=joins)) as engine:
        plain, prompted = await collect(engine, request(10)), await collect(engine, request(10, prompt=prompt))
        assert prompted.shape == (K, 6) and not np.array_equal(plain[:, 4:], prompted)
        rest = await collect(engine, request(10, prompt=prompt, resume_from=prompted[:, :3]))
        np.testing.assert_array_equal(prompted[:, 3:], rest)


async def test_seed_and_condition_change_the_tokens() -> None:
    async with running() as engine:
        base = await collect(engine, request())
        assert not np.array_equal(base, await collect(engine, request(seed=1)))
        assert not np.array_equal(base, await collect(engine, request(condition=2)))
        np.testing.assert_array_equal(base, await collect(engine, request()))


async def test_closing_the_stream_frees_the_slot_before_the_next_step() -> None:
    model = HashModel(step_s=0.01)
    async with running(model, max_slots=1) as engine:
        async with aclosing(engine.generate(request(10_000))) as blocks:
            await anext(blocks)
            waiting = asyncio.ensure_future(collect(engine, request(1)))
            await asyncio.sleep(0.05)
            assert engine.num_running == 1 and engine.num_waiting == 1
            num_steps = model.num_steps
        assert (await asyncio.wait_for(waiting, 20)).shape == (K, 1)
        # the one step that ran when the stream was closed, and the three of the short request
        assert model.num_steps <= num_steps + 1 + 3 + 1
        assert engine.num_running == 0


async def test_a_request_cancelled_while_it_waits_leaves_the_queue_and_is_never_opened() -> None:
    model = HashModel(step_s=0.002)
    async with running(model, max_slots=1) as engine:
        async with aclosing(engine.generate(request(10_000))) as blocks:
            await anext(blocks)
            waiting = asyncio.ensure_future(collect(engine, request(1)))
            await asyncio.sleep(0.02)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert engine.num_waiting == 0
        assert model.num_open == 1


async def test_a_request_hears_of_its_slot_before_its_first_step_and_one_that_gave_up_never_does() -> None:
    model, heard = HashModel(step_s=0.002), []

    async def run(name: str, wanted: TokenRequest[int]) -> None:
        async for _ in engine.generate(wanted, on_start=lambda: heard.append((name, model.num_steps))):
            pass

    async with running(model, max_slots=1) as engine:
        known = np.zeros((K, 40), dtype=np.int32)  # to be read again before the first new frame
        await run("resumed", request(41, resume_from=known))
        assert heard == [("resumed", 0)]
        async with aclosing(engine.generate(request(10_000))) as blocks:
            await anext(blocks)
            impatient = asyncio.ensure_future(run("impatient", request(1)))
            patient = asyncio.ensure_future(run("patient", request(1)))
            await asyncio.sleep(0.02)
            impatient.cancel()
            await asyncio.gather(impatient, return_exceptions=True)
            assert len(heard) == 1
        await patient
    assert [name for name, _ in heard] == ["resumed", "patient"]


async def test_a_full_engine_refuses_with_an_estimate_and_recovers() -> None:
    async with running(HashModel(step_s=0.002), max_slots=1, max_queued=1) as engine:
        async with aclosing(engine.generate(request(5_000))) as blocks:
            await anext(blocks)
            waiting = asyncio.ensure_future(collect(engine, request(1)))
            await asyncio.sleep(0.02)
            with pytest.raises(Overloaded) as caught:
                await asyncio.wait_for(collect(engine, request(1)), 20)
            assert caught.value.retry_after_s > 0.5
        await waiting
        assert (await collect(engine, request(1))).shape == (K, 1)


async def test_a_request_that_fails_fails_alone() -> None:
    async with running() as engine:
        results = await asyncio.gather(
            collect(engine, request(5)), collect(engine, request(5, condition=-1)), return_exceptions=True
        )
        assert isinstance(results[0], np.ndarray) and isinstance(results[1], InvalidInput)
        assert (await collect(engine, request(5))).shape == (K, 5)


async def test_requests_that_run_together_share_their_passes_and_known_frames_are_read_several_at_a_time() -> None:
    model = HashModel(is_row_invariant=True)
    async with running(model, max_slots=4, prefill_columns=8) as engine:
        await asyncio.gather(*(collect(engine, request(50, seed=seed)) for seed in range(4)))
        assert model.num_steps <= 52 + 3  # one opens a pass
        model.num_steps = 0
        known = np.zeros((K, 80), dtype=np.int32)
        await collect(engine, request(81, resume_from=known))
        assert model.num_steps <= 81 / 9 + 3


async def test_a_long_resume_does_not_hold_up_those_who_run() -> None:
    model = HashModel(step_s=0.001, is_row_invariant=True)
    async with running(model, max_slots=2, prefill_columns=4, block_frames=1) as engine:
        async with aclosing(engine.generate(request(500))) as blocks:
            await anext(blocks)
            resumed = asyncio.ensure_future(collect(engine, request(401, resume_from=np.zeros((K, 400), np.int32))))
            await asyncio.sleep(0)
            num_steps = model.num_steps
            for _ in range(20):
                await anext(blocks)
            assert model.num_steps <= num_steps + 20 + 8 + 4 and not resumed.done()
        await resumed


async def test_logits_that_nothing_can_be_drawn_from_fail_the_culprit_alone() -> None:
    class Faulty(HashModel):
        def step(self, states: Any, columns: Any, wants_logits: Any) -> list[Tensor | None]:
            rows = super().step(states, columns, wants_logits)
            return [row if row is None or state.num_steps >= 0 else row[:1] for state, row in zip(states, rows)]

        def open(self, condition: int, *, num_steps: int, guidance_scale: float) -> HashState:
            state = super().open(condition, num_steps=num_steps, guidance_scale=guidance_scale)
            return HashState(state.word, -1 if condition == POISON + 1 else 0)

    async with running(Faulty(is_row_invariant=True)) as engine:
        alone = await collect(engine, request(seed=1))
        whole, faulty, other = await asyncio.gather(
            collect(engine, request(seed=1)),
            collect(engine, request(seed=2, condition=POISON + 1)),
            collect(engine, request(seed=1)),
            return_exceptions=True,
        )
        assert isinstance(faulty, Exception)
        assert isinstance(whole, np.ndarray) and isinstance(other, np.ndarray)
        assert np.array_equal(whole, alone) and np.array_equal(other, alone)
        assert engine.num_running == 0


async def test_a_step_that_fails_in_a_shared_pass_fails_the_culprit_alone() -> None:
    async with running(HashModel(is_row_invariant=True)) as engine:
        expected = await collect(engine, request(9))
        results = await asyncio.gather(
            collect(engine, request(9)), collect(engine, request(9, condition=POISON)), return_exceptions=True
        )
        assert isinstance(results[1], RuntimeError)
        np.testing.assert_array_equal(expected, results[0])  # type: ignore[arg-type]


async def test_a_request_beyond_the_cache_is_refused_and_others_wait_for_memory() -> None:
    # A reader that lags keeps the first request in its slot, however fast the model is.
    async with running(kv_budget_bytes=30, max_unread_blocks=1, block_frames=2) as engine:
        with pytest.raises(InvalidInput, match="cache"):
            await collect(engine, request(29))
        async with aclosing(engine.generate(request(20))) as blocks:
            await anext(blocks)
            waiting = asyncio.ensure_future(collect(engine, request(20)))
            await asyncio.sleep(0.05)  # time enough to break the promise
            assert engine.num_running == 1 and engine.num_waiting == 1 and engine.kv_bytes_used == 22
        assert (await asyncio.wait_for(waiting, 60)).shape == (K, 20)


async def test_a_real_time_stream_gets_its_frames_before_it_runs_dry_and_one_too_many_is_refused() -> None:
    thread, model = ModelThread("hash"), HashModel(step_s=0.01, is_row_invariant=True)
    config = TokenEngineConfig(max_slots=4, block_frames=1000, realtime_lead_s=0.2)
    times = StepTimes({2: 0.01, 4: 0.01, 6: 0.03})
    engine = TokenEngine(thread, model, stage="test", config=config, frame_rate_hz=60.0, step_times=times)
    live = [dataclasses.replace(request(60, seed=seed), is_realtime=True) for seed in range(3)]
    streams = [engine.generate(each) for each in live]
    first, second = [(await anext(stream)).codes for stream in streams[:2]]
    with pytest.raises(Overloaded, match="run dry") as caught:
        await anext(streams[2])
    assert caught.value.retry_after_s > 0
    for stream, start, wanted in zip(streams[:2], (first, second), live[:2]):
        codes = np.concatenate([start, *[block.codes async for block in stream]], axis=1)
        plain = await collect(engine, dataclasses.replace(wanted, is_realtime=False))
        np.testing.assert_array_equal(codes, plain)
    await engine.close()
    await thread.close()


async def test_a_reader_that_lags_pauses_its_request_only() -> None:
    model = HashModel()
    async with running(model, max_unread_blocks=2) as engine:
        lagging = engine.generate(request(10_000))
        assert isinstance(await anext(lagging), TokenBlock)
        assert (await collect(engine, request(200))).shape == (K, 200)
        await asyncio.sleep(0.1)
        paused_at = model.num_steps
        await asyncio.sleep(0.1)
        assert model.num_steps == paused_at < 1_000
        await anext(lagging)
        await lagging.aclose()


async def test_closing_the_engine_ends_its_requests_as_not_ready() -> None:
    async with running(HashModel(step_s=0.002)) as engine:
        stream = engine.generate(request(10_000))
        await anext(stream)
        await engine.close()
        with pytest.raises(NotReady):
            async for _ in stream:
                pass
        with pytest.raises(NotReady):
            await collect(engine, request(1))


@dataclass
class PlaceState(HashState):
    """A state that holds one of a fixed number of places."""

    places: list[int]

    def close(self) -> None:
        self.places.append(1)


class PlacesModel(HashModel):
    """A model with two places, which fails where a third is asked for."""

    def __init__(self, **options: float) -> None:
        super().__init__(is_row_invariant=True, **options)
        self.places = [1, 1]

    def open(self, condition: int, *, num_steps: int, guidance_scale: float) -> HashState:
        self.places.pop()
        return PlaceState(condition, 0, self.places)


async def test_the_place_of_a_request_is_given_back_however_it_ends() -> None:
    model = PlacesModel(step_s=0.001)
    async with running(model, max_slots=2, max_queued=99) as engine:
        await asyncio.gather(*(collect(engine, request(9, seed=seed)) for seed in range(4)))
        assert model.places == [1, 1]
        with pytest.raises(RuntimeError, match="poison"):
            await collect(engine, request(9, condition=POISON))
        assert model.places == [1, 1]
        for _ in range(3):  # a cancelled one's place is free for the next before its first step
            stream = engine.generate(request(10_000))
            await anext(stream)
            await stream.aclose()
            await asyncio.gather(*(collect(engine, request(5, seed=seed)) for seed in range(3)))
        assert model.places == [1, 1]
        stream = engine.generate(request(10_000))
        await anext(stream)
        await engine.close()
        assert model.places == [1, 1]
        await stream.aclose()


def test_what_a_server_tries_on_its_model_leaves_every_place_free() -> None:
    model = PlacesModel()
    assert joins_exactly(model, [Trial(1, 3.0), Trial(2, 1.0)])
    measure_step_s(model, Trial(1, 3.0), max_states=2, max_columns=3)
    assert model.places == [1, 1]
    model.open(1, num_steps=4, guidance_scale=1.0)
    with pytest.raises(IndexError):
        joins_exactly(model, [Trial(1, 3.0), Trial(2, 1.0)])
    assert model.places == [1]
