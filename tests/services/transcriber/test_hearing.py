"""The engine without a wire: how much it takes in and keeps, what it reports, and when it is ready."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import tiny_listeners
from stretto_shared.audio import Waveform
from stretto_shared.dsp.audio_windows import AudioWindows
from stretto_shared.errors import InvalidInput, NotReady, Overloaded
from stretto_shared.features import ModelInfo
from stretto_shared.grpc.metrics import Metrics
from stretto_transcriber.engine import Hearing, Tracking, Transcribing
from stretto_transcriber.engine.hearing import MeasuredAudio
from stretto_transcriber.loading import LoadedTracker, LoadedTranscriber
from stretto_transcriber.main import TranscriberMetrics

INFO = ModelInfo("first", "transcriber", "0" * 64, "CC0-1.0")


def load_notes(net: Any = None, **options: Any) -> LoadedTranscriber:
    net = net or tiny_listeners.make_net("first")
    return LoadedTranscriber(INFO, tiny_listeners.note_listener(net), **options)


def load_beats() -> LoadedTracker:
    return LoadedTracker(INFO, tiny_listeners.beat_listener(tiny_listeners.make_net("first")))


def test_a_model_that_hears_no_keys_says_so() -> None:
    loaded = load_notes()
    assert loaded.new_decoder("key")
    deaf = dataclasses.replace(loaded, listener=dataclasses.replace(loaded.listener, new_key_decoder=None))
    with pytest.raises(InvalidInput, match="not keys"):
        deaf.new_decoder("key")
    assert deaf.new_decoder("sound")


@asynccontextmanager
async def transcribing(load: Any = load_notes, **options: Any) -> AsyncIterator[Transcribing]:
    engine = Transcribing(Hearing({"first": load}, purpose="hears notes", **options))
    await engine.hearing.start()
    try:
        yield engine
    finally:
        await engine.hearing.stop()


def noise(duration_s: float) -> Any:
    return np.random.default_rng(0).normal(0, 0.1, round(duration_s * 8000)).astype(np.float32)


async def messages_of(samples: Any, num_messages: int, taken: list[int]) -> AsyncIterator[Waveform]:
    for index, part in enumerate(np.array_split(samples, num_messages)):
        taken.append(index)
        yield Waveform(part, 8000)


async def test_a_message_is_taken_only_when_no_window_is_whole() -> None:
    async with transcribing() as engine:
        taken: list[int] = []
        stream = engine.transcribe("", messages_of(noise(4.0), 100, taken))  # messages of 0.04 s
        await anext(stream)
        await asyncio.sleep(0.05)
        assert len(taken) == 6, "0.24 s are a window and its right context"
        await anext(stream)
        assert len(taken) == 11
        await stream.aclose()


async def test_an_hour_of_audio_keeps_one_window_and_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    take = AudioWindows.take

    def watched(windows: AudioWindows) -> Any:
        window = take(windows)
        kept.append(windows.num_kept_samples)
        return window

    monkeypatch.setattr(AudioWindows, "take", watched)
    decoders: list[tiny_listeners.TinyDecoder] = []

    class Watched(tiny_listeners.TinyDecoder):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            decoders.append(self)

    monkeypatch.setattr(tiny_listeners, "TinyDecoder", Watched)
    config = tiny_listeners.TinyConfig(hop_length=4000, window_frames=40)  # 20 s, so that an hour is 180 windows
    net = tiny_listeners.TinyNet(config, tiny_listeners.NUM_PITCHES).eval()
    minute = noise(60.0)

    async def hour() -> AsyncIterator[Waveform]:
        for _ in range(60):
            yield Waveform(minute, 8000)

    most_pending, num_messages = 0, 0
    async with transcribing(lambda: load_notes(net)) as engine:
        async for new in engine.transcribe("", hour()):
            num_messages += 1
            most_pending = max(most_pending, decoders[0].num_kept)
            assert new.complete_s <= 3600
    assert num_messages == 181 and new.complete_s == 3600
    assert max(kept) <= minute.size + (config.window_frames + 3 * config.context_frames) * config.hop_length
    assert most_pending <= tiny_listeners.NUM_PITCHES and len(decoders) == 1


async def test_a_closed_stream_reads_no_more_and_frees_its_place() -> None:
    async with transcribing(max_requests=1) as engine:
        taken: list[int] = []
        stream = engine.transcribe("", messages_of(noise(4.0), 100, taken))
        await anext(stream)
        with pytest.raises(Overloaded, match="serves 1 streams"):
            await anext(engine.transcribe("", messages_of(noise(0.1), 1, [])))
        await stream.aclose()
        num_taken = len(taken)
        assert [new async for new in engine.transcribe("", messages_of(noise(0.1), 1, []))]
        assert len(taken) == num_taken


async def test_decoding_runs_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[int] = set()
    push, flush = tiny_listeners.TinyDecoder.push, tiny_listeners.TinyDecoder.flush

    def watched_push(decoder: Any, frames: Any) -> Any:
        threads.add(threading.get_ident())
        return push(decoder, frames)

    def watched_flush(decoder: Any) -> Any:
        threads.add(threading.get_ident())
        return flush(decoder)

    monkeypatch.setattr(tiny_listeners.TinyDecoder, "push", watched_push)
    monkeypatch.setattr(tiny_listeners.TinyDecoder, "flush", watched_flush)
    async with transcribing() as engine:
        assert [new async for new in engine.transcribe("", messages_of(noise(0.5), 3, []))]
    assert threads and threading.get_ident() not in threads


async def test_the_engine_reports_waits_speed_company_and_seconds() -> None:
    metrics = Metrics()
    async with transcribing(meter=TranscriberMetrics(metrics, "notes")) as engine:
        assert [new async for new in engine.transcribe("", messages_of(noise(0.9), 3, []))]

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert value("stretto_request_queue_wait_s_count", stage="transcriber") == 1
    assert value("stretto_audio_rtf_count", stage="transcriber") == 5, "one for each window"
    assert value("stretto_transcriber_pass_windows_count", kind="notes") == 5
    assert value("stretto_transcriber_pass_windows_sum", kind="notes") == 5
    assert value("stretto_transcriber_audio_s_total", kind="notes") == pytest.approx(0.9)
    rtf = value("stretto_audio_rtf_sum", stage="transcriber")
    assert rtf is not None and rtf > 0


async def test_before_the_start_and_after_the_stop_calls_fail_as_not_ready() -> None:
    engine = Transcribing(Hearing({"first": load_notes}, purpose="hears notes"))
    hearing = engine.hearing
    for prepare in (None, hearing.start, hearing.stop):
        if prepare is not None:
            await prepare()
        if prepare == hearing.start:
            assert [info.name for info in hearing.list_models()] == ["first"]
            continue
        with pytest.raises(NotReady):
            hearing.list_models()
        with pytest.raises(NotReady):
            await anext(engine.transcribe("", messages_of(noise(0.1), 1, [])))


async def test_audio_longer_than_is_taken_is_refused_with_its_length() -> None:
    measured = MeasuredAudio(messages_of(noise(1.0), 10, []), max_s=0.75)
    with pytest.raises(InvalidInput, match=r"at most 0\.75 s in all, got 0\.8 s") as caught:
        _ = [waveform async for waveform in measured.messages()]
    assert caught.value.field == "waveform"


async def test_more_than_an_hour_is_not_tracked() -> None:
    minute = np.zeros(60 * 8000, np.float32)

    async def messages() -> AsyncIterator[Waveform]:
        for _ in range(61):
            yield Waveform(minute, 8000)

    hearing = Hearing({"first": load_beats}, purpose="hears beats")
    hearing.frames = no_frames  # type: ignore[method-assign]
    engine = Tracking(hearing, max_waiting=1)
    await hearing.start()
    try:
        with pytest.raises(InvalidInput, match="at most 3600 s in all, got 3660"):
            await engine.track("", messages())
    finally:
        await hearing.stop()
        await engine.stop()


async def no_frames(loaded: Any, audio: AsyncIterator[Waveform]) -> Any:
    """What a model hears of audio that nobody listens to."""
    async for _ in audio:
        pass
    for nothing in empty():
        yield nothing


def empty() -> Iterator[Any]:
    return iter(())
