"""Chunks that wait for company: only of streams that nobody can be hearing as they come, and only so long."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from stretto_codec.engine import CodecEngine, codec_engine
from stretto_codec.engine.frames import Chunk
from stretto_codec.engine.shared_steps import SharedSteps
from stretto_codec.loading import LoadedCodec
from stretto_shared.engine.clock import PlayClock
from stretto_shared.engine.thread import ModelThread
from stretto_shared.tokens import TokenMatrix

LONG_S = 60.0


def codes_of(codec: LoadedCodec, num_frames: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 31, (codec.config.num_codebooks, num_frames))


def chunk_of(codec: LoadedCodec, num_frames: int) -> Chunk:
    return Chunk(0, codes_of(codec, num_frames).astype(np.int32), None)


@pytest.fixture
async def thread() -> AsyncIterator[ModelThread]:
    made = ModelThread("patience")
    yield made
    await made.close()


@pytest.mark.parametrize("reason", ["its size is its own", "nobody is joined"])
async def test_a_chunk_that_takes_no_company_does_not_wait_for_it(load: Any, thread: ModelThread, reason: str) -> None:
    codec = dataclasses.replace(load("encodec_32khz"), max_joined=8)
    size = codec.grid.size(0)
    if reason == "nobody is joined":
        codec = dataclasses.replace(codec, max_joined=1)
    else:
        size -= 1
    step = SharedSteps(codec, thread, None).step(codec.open_decoder(), chunk_of(codec, size), patience_s=LONG_S)
    assert await asyncio.wait_for(step, LONG_S / 4) is not None


async def test_a_patient_chunk_is_decoded_with_one_that_is_not(load: Any, thread: ModelThread) -> None:
    codec = dataclasses.replace(load("encodec_32khz"), max_joined=8)
    steps, chunk = SharedSteps(codec, thread, None), chunk_of(codec, codec.grid.size(0))
    patient = asyncio.create_task(steps.step(codec.open_decoder(), chunk, patience_s=LONG_S))
    while not steps.num_waiting:  # noqa: ASYNC110
        await asyncio.sleep(0)
    hasty = await steps.step(codec.open_decoder(), chunk)
    found = await asyncio.wait_for(patient, LONG_S / 4)
    assert hasty is not None and found is not None
    assert found.samples.tobytes() == hasty.samples.tobytes()


@pytest.mark.parametrize(
    ("num_streams", "underrun_s", "apart_s", "patience_s"),
    [
        (2, 1.5, 0.4, 0.28),
        (2, 1.5, 5.0, 0.6),  # no longer
        (1, 1.5, 0.4, 0.0),  # alone
        (2, 0.9, 0.4, 0.0),  # a listener may be there
        (2, 0.0, 0.4, 0.0),
    ],
)
def test_patience_is_a_share_of_the_time_between_chunks(
    load: Any, num_streams: int, underrun_s: float, apart_s: float, patience_s: float
) -> None:
    codec = load("framecodec")
    engine = CodecEngine({codec.info.name: lambda: codec})
    engine._num_streams[codec.info.name] = num_streams
    found = engine._patience_s(codec, PlayClock(16_000.0, underrun_s=underrun_s), apart_s)
    assert found == pytest.approx(patience_s)


@pytest.mark.parametrize(("num_streams", "threshold_s", "waits"), [(2, -1.0, True), (1, -1.0, False), (2, 1.0, False)])
async def test_streams_whose_tokens_come_slowly_are_patient(
    load: Any, monkeypatch: pytest.MonkeyPatch, num_streams: int, threshold_s: float, waits: bool
) -> None:
    asked: list[float] = []
    real = SharedSteps.step

    async def step(self: SharedSteps, clip: Any, chunk: Chunk, *, due_s: float, patience_s: float) -> Any:
        asked.append(patience_s)
        return await real(self, clip, chunk, due_s=due_s, patience_s=patience_s)

    monkeypatch.setattr(SharedSteps, "step", step)
    monkeypatch.setattr(codec_engine, "UNHEARD_UNDERRUN_S", threshold_s)
    codec = load("framecodec")
    engine = CodecEngine({codec.info.name: lambda: codec}, num_threads=1)
    await engine.start()
    codes = codes_of(codec, 100)

    async def tokens() -> AsyncIterator[TokenMatrix]:
        for run in np.split(codes, 4, axis=1):
            await asyncio.sleep(0.05)
            yield TokenMatrix(run, codec.config.frame_rate_hz, codec.info.name)

    async def decode() -> bytes:
        return b"".join([chunk.waveform.samples.tobytes() async for chunk in engine.decode("", tokens())])

    try:
        found = await asyncio.gather(*(decode() for _ in range(num_streams)))
    finally:
        await engine.stop()
    assert len(set(found)) == 1 and len(asked) > num_streams
    assert (max(asked) > 0.02) == waits
    assert max(asked) <= codec_engine.MAX_PATIENCE_S


@pytest.mark.parametrize("lengths", [(60, 60, 60), (25, 60)])
async def test_streams_wait_only_while_company_can_come(
    load: Any, monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, ...]
) -> None:
    """All of them are as patient as can be: they go on when all wait, and when one that they waited for has ended."""
    monkeypatch.setattr(CodecEngine, "_patience_s", lambda self, codec, clock, apart_s: LONG_S)
    codec = dataclasses.replace(load("encodec_32khz"), max_joined=8)
    engine = CodecEngine({codec.info.name: lambda: codec}, num_threads=1)
    await engine.start()

    async def decode(num_frames: int) -> int:
        async def tokens() -> AsyncIterator[TokenMatrix]:
            yield TokenMatrix(codes_of(codec, num_frames), codec.config.frame_rate_hz, codec.info.name)

        return sum([chunk.waveform.num_samples async for chunk in engine.decode("", tokens())])

    try:
        found = await asyncio.wait_for(asyncio.gather(*map(decode, lengths)), LONG_S / 2)
    finally:
        await engine.stop()
    assert found == [num_frames * codec.config.hop_length for num_frames in lengths]
