"""A piece that ends by itself: with the first frame whose codebook 0 holds its end token."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stretto_shared.engine.config import TokenEngineConfig
from stretto_shared.engine.program import Program, StateCost, TokenRequest
from stretto_shared.engine.sampling import Sampling
from stretto_shared.engine.scheduler import Scheduler
from stretto_shared.engine.slots import Stream
from stretto_shared.engine.step_times import StepTimes
from stretto_shared.engine.thread import ModelThread
from stretto_shared.engine.token_engine import TokenEngine
from stretto_shared.errors import Overloaded
from torch import Tensor

END = 9
GREEDY = Sampling(temperature=0.0)


def script(num_frames: int, end_at: int | None, num_codebooks: int = 1) -> NDArray[np.int32]:
    """Codes [K, T] to be drawn: codebook k of frame t is (t + k) % 9, and codebook 0 of frame `end_at` is the end."""
    codes = (np.arange(num_frames) + np.arange(num_codebooks)[:, None]) % END
    if end_at is not None:
        codes[0, end_at] = END
    return codes.astype(np.int32)


def request(
    num_frames: int = 20, *, end_at: int | None = 7, known: int = 0, end_token: int | None = END, num_codebooks: int = 1
) -> TokenRequest[Any]:
    codes = script(num_frames, end_at, num_codebooks)
    return TokenRequest(codes, num_frames, codes[:, :0], codes[:, :known], GREEDY, 0, end_token=end_token)


@dataclass
class Page:
    """A script and how much of it was read."""

    codes: NDArray[np.int32]
    num_steps: int = 0


class Reciter:
    """Draws a script, whatever it reads; its delays are the test's."""

    cardinality = END + 1
    special_token = END + 1
    is_row_invariant = True

    def __init__(self, delays: tuple[int, ...] = (0,)) -> None:
        self.delays = delays
        self.num_columns = 0
        self.max_steps: list[int] = []

    def cost(self, condition: Any, *, num_steps: int, guidance_scale: float) -> StateCost:
        return StateCost(1, num_steps)

    def open(self, condition: NDArray[np.int32], *, num_steps: int, guidance_scale: float) -> Page:
        self.max_steps.append(num_steps)
        return Page(condition)

    def step(
        self, states: Sequence[Page], columns: Sequence[NDArray[np.int64]], wants_logits: Sequence[bool]
    ) -> list[Tensor | None]:
        for page, column in zip(states, columns, strict=True):
            page.num_steps += column.shape[1]
            self.num_columns += column.shape[1]
        return [self._logits(page) if wants else None for page, wants in zip(states, wants_logits, strict=True)]

    def _logits(self, page: Page) -> Tensor:
        frames = (page.num_steps - 1 - np.array(self.delays)).clip(0, page.codes.shape[1] - 1)
        codes = page.codes[np.arange(len(self.delays)), frames]
        return torch.nn.functional.one_hot(torch.tensor(codes, dtype=torch.int64), self.cardinality).float()


def program(wanted: TokenRequest[Any], delays: tuple[int, ...] = (0,)) -> Program:
    return Program(wanted, delays=delays, special_token=END + 1, stage=0)


def walk(model: Reciter, wanted: TokenRequest[Any]) -> tuple[Program, list[NDArray[np.int64]]]:
    """Follow a request to its end, one column at a time, and note what the model read."""
    course, read = program(wanted, model.delays), []
    page = model.open(wanted.condition, num_steps=course.num_steps, guidance_scale=1.0)
    while course.num_steps_left:
        read.append(course.next_column())
        (logits,) = model.step([page], [read[-1][:, None]], [course.needs_logits])
        course.advance(logits)
    return course, read


@pytest.mark.parametrize("end_at", [0, 1, 7, 18, 19])
@pytest.mark.parametrize("delays", [(0,), (0, 0), (0, 1, 2), (1, 0), (2, 0, 1)])
def test_the_last_frame_is_the_one_with_the_end_token_and_is_whole(delays: tuple[int, ...], end_at: int) -> None:
    wanted = request(end_at=end_at, num_codebooks=len(delays))
    course, read = walk(Reciter(delays), wanted)
    block = course.take_frames()
    np.testing.assert_array_equal(block.codes, wanted.condition[:, : end_at + 1])
    assert course.num_steps == len(read) == end_at + 1 + max(delays) and course.num_frames_ready == 0
    for step in range(end_at + delays[0] + 1, len(read)):  # what is past the end is read as nothing
        past = step - 1 - np.array(delays) > end_at
        assert (read[step][past] == END + 1).all()


def test_only_codebook_0_ends_a_piece_and_without_an_end_token_nothing_does() -> None:
    wanted = request(end_at=None, num_codebooks=2)
    wanted.condition[1, 4] = END
    assert walk(Reciter((0, 0)), wanted)[0].take_frames().codes.shape == (2, 20)
    assert walk(Reciter(), request(end_token=None))[0].take_frames().codes.shape == (1, 20)


@pytest.mark.parametrize("delays", [(0,), (0, 1, 2), (1, 0)])
def test_the_first_end_token_counts_and_what_a_model_says_after_it_does_not(delays: tuple[int, ...]) -> None:
    wanted = request(end_at=4, num_codebooks=len(delays))
    wanted.condition[0, 5:7] = END
    assert walk(Reciter(delays), wanted)[0].take_frames().codes.shape == (len(delays), 5)


def test_what_can_come_is_counted_by_the_longest_until_the_end_is_drawn() -> None:
    course, model = program(request(end_at=2)), Reciter()
    page = model.open(script(20, 2), num_steps=course.num_steps, guidance_scale=1.0)
    left = []
    while course.num_steps_left:
        left.append(course.num_steps_left)
        course.advance(model.step([page], [course.next_column()[:, None]], [True])[0])
    assert left == [20, 19, 18] and course.num_steps_left == 0
    stream: Stream[Any, Any] = Stream(request(), program(request()), StateCost(1, 20), None, 0.0)
    scheduler = Scheduler(TokenEngineConfig(), StepTimes({1: 0.5}), joins=True)
    assert scheduler.estimate_end_s([stream]) == pytest.approx(10.0)


def test_known_frames_that_hold_the_end_token_are_refused() -> None:
    with pytest.raises(ValueError, match="end token 9"):
        program(request(end_at=2, known=3))
    assert program(request(end_at=2, known=3, end_token=None)).num_steps == 20


async def collect(engine: TokenEngine[Any, Page], wanted: TokenRequest[Any]) -> list[NDArray[np.int32]]:
    return [block.codes async for block in engine.generate(wanted)]


async def engine_with(model: Reciter, **limits: int) -> tuple[TokenEngine[Any, Page], ModelThread]:
    thread = ModelThread("reciter")
    return TokenEngine(thread, model, stage="test", config=TokenEngineConfig(**limits)), thread


@pytest.mark.parametrize("known", [0, 1, 4, 6])
async def test_streamed_and_resumed_at_any_frame_a_piece_ends_in_the_middle_of_a_block(known: int) -> None:
    model = Reciter()
    engine, thread = await engine_with(model, first_block_frames=3, block_frames=4)
    blocks = await collect(engine, request(known=known))
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), script(20, 7)[:, known:8])
    whole = [3, 4, 1] if known == 0 else [min(3, 8 - known), *([5 - known] if known < 5 else [])]
    assert [block.shape[1] for block in blocks] == whole
    assert model.num_columns == 8 and model.max_steps == [20]
    await engine.close()
    await thread.close()


async def test_the_end_gives_slot_and_memory_to_who_waits_for_them() -> None:
    model = Reciter()
    engine, thread = await engine_with(model, max_slots=2, kv_budget_bytes=30)
    results = await asyncio.wait_for(asyncio.gather(*(collect(engine, request(end_at=n)) for n in range(6))), 60)
    assert [sum(block.shape[1] for block in blocks) for blocks in results] == [1, 2, 3, 4, 5, 6]
    assert engine.num_running == engine.num_waiting == engine.kv_bytes_used == 0
    await engine.close()
    await thread.close()


async def test_a_piece_that_was_cancelled_before_its_end_leaves_its_slot_and_others_end_as_ever() -> None:
    engine, thread = await engine_with(
        Reciter(), max_slots=1, first_block_frames=1, block_frames=1, max_unread_blocks=1
    )
    async with aclosing(engine.generate(request(end_at=18))) as blocks:
        await anext(blocks)
        waiting = asyncio.ensure_future(collect(engine, request()))
        while not engine.num_waiting:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert engine.num_running == 1
    assert sum(block.shape[1] for block in await asyncio.wait_for(waiting, 60)) == 8
    await engine.close()
    await thread.close()


async def test_a_full_engine_estimates_by_the_most_that_can_come() -> None:
    engine, thread = await engine_with(Reciter(), max_slots=1, max_queued=1, block_frames=1, max_unread_blocks=1)
    # a reader that lags keeps the slot, however fast the model is
    async with aclosing(engine.generate(request(num_frames=5_000, end_at=4_000))) as blocks:
        await anext(blocks)
        waiting = asyncio.ensure_future(collect(engine, request()))
        while not engine.num_waiting:  # noqa: ASYNC110
            await asyncio.sleep(0)
        with pytest.raises(Overloaded) as caught:
            await collect(engine, request())
        assert caught.value.retry_after_s > 0
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await engine.close()
    await thread.close()
