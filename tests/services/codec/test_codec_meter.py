"""What the codec engine reports: who waits for a model thread now, and how long each request waited for its turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from stretto_codec.engine import CodecEngine
from stretto_codec.loading import LoadedCodec
from stretto_shared.audio import Waveform
from stretto_shared.grpc.metrics import Metrics
from stretto_shared.tokens import TokenMatrix


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_true():  # noqa: ASYNC110 - the engine tells nobody who waits
            await asyncio.sleep(0.01)


async def test_a_clip_that_gives_its_first_audio_at_its_end_is_measured_too(load: Any) -> None:
    codec, metrics = load("encodec_32khz"), Metrics()

    async def tokens() -> AsyncIterator[TokenMatrix]:
        yield TokenMatrix(np.zeros((4, 3)), codec.config.frame_rate_hz, "encodec_32khz")

    engine = CodecEngine({"encodec_32khz": lambda: codec}, meter=metrics.stage("codec"))
    await engine.start()
    try:
        chunks = [chunk async for chunk in engine.decode("", tokens())]
    finally:
        await engine.stop()
    assert [chunk.waveform.num_samples for chunk in chunks] == [3 * 640]
    for name in ("stretto_audio_ttfp_s", "stretto_audio_rtf"):
        assert metrics.registry.get_sample_value(f"{name}_count", {"stage": "codec"}) == 1
        taken = metrics.registry.get_sample_value(f"{name}_sum", {"stage": "codec"})
        assert taken is not None and 0 < taken < 1000


async def test_waiting_requests_and_their_waits_are_seen_also_when_nobody_decodes_and_when_some_give_up(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, go = threading.Event(), threading.Event()
    open_decoder = LoadedCodec.open_decoder

    def held_up(codec: LoadedCodec) -> Any:
        held.set()
        go.wait(20)
        return open_decoder(codec)

    monkeypatch.setattr(LoadedCodec, "open_decoder", held_up)
    codec, metrics = load("framecodec"), Metrics()

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"stage": "codec"})

    async def tokens() -> AsyncIterator[TokenMatrix]:
        yield TokenMatrix(np.zeros((4, 3)), codec.config.frame_rate_hz, "framecodec")

    async def decode() -> int:
        return len([chunk async for chunk in engine.decode("", tokens())])

    engine = CodecEngine({"framecodec": lambda: codec}, meter=metrics.stage("codec"))
    await engine.start()
    try:
        assert value("stretto_stage_waiting_requests") == 0
        decoding = asyncio.create_task(decode())
        await until(held.is_set)
        clip = Waveform(np.zeros(1000), codec.config.sample_rate_hz)
        encoding = [asyncio.create_task(engine.encode("", clip)) for _ in range(2)]
        await until(lambda: value("stretto_stage_waiting_requests") == 2)
        assert value("stretto_request_queue_wait_s_count") == 1
        encoding[0].cancel()
        await asyncio.gather(encoding[0], return_exceptions=True)
        assert value("stretto_stage_waiting_requests") == 1
        await asyncio.sleep(0.3)
        go.set()
        assert await decoding == 1
        assert (await encoding[1]).num_samples == 1000
    finally:
        go.set()
        await engine.stop()
    assert value("stretto_stage_waiting_requests") == 0
    assert value("stretto_request_queue_wait_s_count") == 2
    wait_s = value("stretto_request_queue_wait_s_sum")
    assert wait_s is not None and wait_s > 0.3
