"""TrackBeats over a real channel, with tiny random models."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
import tiny_listeners
from stretto.transcriber.v1 import transcriber_pb2, transcriber_pb2_grpc
from stretto_shared.audio import Waveform
from stretto_shared.errors import NotReady
from stretto_shared.features import ModelInfo
from stretto_transcriber.engine import Hearing, Tracking
from stretto_transcriber.loading import LoadedTracker
from stretto_transcriber.models.hearing import BeatListener
from transcriber_calls import failure, noise, retry_after_s, track, track_requests, until, violation

Request = transcriber_pb2.TrackBeatsRequest


def stub_of(channel: Any) -> Any:
    return transcriber_pb2_grpc.TranscriberServiceStub(channel)


async def test_beats_bars_tempo_and_onsets_are_those_of_the_whole_audio(serve: Any) -> None:
    async with serve() as channel:
        beats = await track(stub_of(channel), noise(0.615))
    assert list(beats.beat_s) == pytest.approx(np.arange(7) / 10), "62 frames, the last of them half beyond the end"
    assert list(beats.beat_in_bar) == [1, 2, 3, 1, 2, 3, 1] and beats.time_signature_numerator == 3
    assert list(beats.tempo_bpm) == [600.0] * 7
    assert len(beats.onset_s) > 3 and list(beats.onset_s) == sorted(beats.onset_s)
    assert beats.model.name == "beats" and len(beats.model.digest_sha256) == 64


async def test_streamed_beats_equal_those_of_one_message_whatever_the_messages(serve: Any) -> None:
    generator = np.random.default_rng(0)
    async with serve() as channel:
        stub = stub_of(channel)
        for rate_hz, num_channels in ((8000, 1), (44_100, 2)):
            samples = noise(0.7, rate_hz=rate_hz, num_channels=num_channels)
            whole = await track(stub, samples, rate_hz=rate_hz)
            cuts = sorted(set(generator.integers(1, len(samples), 30).tolist()))
            assert await track(stub, samples, rate_hz=rate_hz, cuts=cuts) == whole and len(whole.onset_s) > 3


async def test_bad_streams_are_refused_by_field_and_the_next_one_works(serve: Any) -> None:
    config, good = track_requests(noise(0.1))
    faster = track_requests(noise(0.1), rate_hz=16_000)[1]
    invalid: list[tuple[list[Request], str]] = [
        ([], "config"),
        ([good], "config"),
        ([config], "waveform"),
        ([config, config], "config"),
        ([config, good, faster], "waveform.sample_rate_hz"),
    ]
    async with serve() as channel:
        stub = stub_of(channel)
        for requests, field in invalid:
            assert violation(await failure(stub.TrackBeats(iter(requests))))[0] == field
        for absent in ("absent", "first"):
            error = await failure(track(stub, noise(0.1), model=absent))
            assert error.code() is grpc.StatusCode.NOT_FOUND and "hears beats: beats" in error.details()
        assert (await track(stub, noise(0.1))).beat_s


async def test_a_full_model_says_when_to_retry_and_a_late_stream_makes_room(serve: Any) -> None:
    async def stalling(is_open: asyncio.Event) -> AsyncIterator[Request]:
        for request in track_requests(noise(0.05)):
            yield request
        is_open.set()
        await asyncio.sleep(30)

    async with serve(max_requests=1) as channel:
        stub, is_open = stub_of(channel), asyncio.Event()
        late = asyncio.create_task(failure(stub.TrackBeats(stalling(is_open), timeout=2)))
        await is_open.wait()
        async with asyncio.timeout(60):
            while True:  # until the server has read the stalling stream, the other is served
                try:
                    await track(stub, noise(0.1))
                except grpc.aio.AioRpcError as busy:
                    assert retry_after_s(busy) >= 0.1
                    break
        assert (await late).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(60):
            while True:
                try:
                    assert (await track(stub, noise(0.1))).beat_s
                    break
                except grpc.aio.AioRpcError as busy:
                    assert busy.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                    await asyncio.sleep(0.05)


async def clip() -> AsyncIterator[Waveform]:
    yield Waveform(noise(0.3)[:, 0], 8000)


async def test_recordings_are_decoded_one_at_a_time_and_those_given_up_are_not() -> None:
    gate, decoded = threading.Event(), []

    def slow(frames: Any) -> Any:
        decoded.append(threading.current_thread().name)
        gate.wait(60)
        return tiny_listeners.track(frames)

    net = tiny_listeners.make_net("beats")
    info = ModelInfo("beats", "transcriber", "0" * 64, "CC0-1.0")
    loaded = LoadedTracker(info, BeatListener(net.config, net, net, slow))
    engine = Tracking(Hearing({"beats": lambda: loaded}, purpose="hears beats"), max_waiting=3)
    await engine.hearing.start()
    tasks = [asyncio.create_task(engine.track("", clip())) for _ in range(3)]
    await until(lambda: bool(decoded) and engine.count_waiting() == 2)
    tasks[2].cancel()
    await asyncio.gather(tasks[2], return_exceptions=True)
    gate.set()
    for beats, _ in await asyncio.gather(*tasks[:2]):
        assert len(beats.beat_s) == 3
    assert decoded == ["model-beats-decoding"] * 2
    await engine.stop()
    with pytest.raises(NotReady):
        await engine.track("", clip())
    await engine.hearing.stop()
