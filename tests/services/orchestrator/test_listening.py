"""What a listener hears, by a clock that the test moves; and what the door reports of real streams."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from stretto.common.v1 import model_pb2
from stretto_orchestrator.clients import (
    AcousticClient,
    CodecClient,
    EmbeddingClient,
    HarmonyClient,
    SemanticClient,
    Stages,
    TranscriberClient,
)
from stretto_orchestrator.flows.cascades import cascades_with
from stretto_orchestrator.flows.events import AudioChunk
from stretto_orchestrator.flows.generate_music import MusicRequest, generate_music
from stretto_orchestrator.flows.listening import Listener
from stretto_orchestrator.flows.patience import HeldMusic
from stretto_orchestrator.flows.rendering import RenderOptions
from stretto_orchestrator.flows.resuming import ResumePolicy
from stretto_shared.audio import Waveform
from stretto_shared.errors import NotReady, Overloaded
from stretto_shared.features import SamplingOptions

RATE_HZ = 8_000
SECOND = Waveform(np.zeros((1, RATE_HZ), np.float32), RATE_HZ)
TENTH = Waveform(np.zeros((1, RATE_HZ // 10), np.float32), RATE_HZ)


@dataclass
class Ledger:
    """A clock that stands still unless a test moves it, and what the meter was told."""

    now_s: float = 1000.0
    first_audio_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    streams: list[tuple[float, bool, bool]] = field(default_factory=list)

    def observe_first_audio(self, latency_s):
        self.first_audio_s.append(latency_s)

    def observe_gap(self, gap_s):
        self.gaps_s.append(gap_s)

    def observe_stream(self, underrun_s, *, is_realtime, is_continuous):
        self.streams.append((underrun_s, is_realtime, is_continuous))

    def listener(self, *, is_realtime=True):
        return Listener(self, is_realtime=is_realtime, now_s=lambda: self.now_s)

    def hear(self, listener, wait_s, chunk=SECOND, reading_s=0.0):
        self.now_s += wait_s
        listener.hear(chunk)
        with listener.reading():
            self.now_s += reading_s


def test_a_piece_that_keeps_up_is_continuous_and_each_gap_is_told():
    ledger = Ledger()
    with ledger.listener() as listener:
        for wait_s in (0.4, 0.9, 1.1, 0.0):
            ledger.hear(listener, wait_s)
        ledger.now_s += 60  # what comes after the last chunk is nobody's wait
    assert ledger.first_audio_s == pytest.approx([0.4]) and ledger.gaps_s == pytest.approx([0.9, 1.1, 0.0])
    assert ledger.streams == [(0.0, True, True)] and listener.first_audio_s == pytest.approx(0.4)


def test_what_came_too_late_is_an_underrun_by_its_seconds():
    ledger = Ledger()
    with ledger.listener(is_realtime=False) as listener:
        for wait_s in (0.0, 1.25, 0.5, 2.0):  # late by 0.25 s, early, then late by 0.5 s
            ledger.hear(listener, wait_s)
    assert ledger.streams == [(pytest.approx(0.75), False, False)]


def test_a_reader_that_takes_its_time_makes_no_underrun_but_a_stage_beside_it_does():
    ledger = Ledger()
    with ledger.listener() as listener:
        ledger.hear(listener, 0.0, reading_s=30.0)
        ledger.hear(listener, 0.5, reading_s=30.0)
        ledger.hear(listener, 1.75)  # 1.5 s were ahead
    assert ledger.gaps_s == pytest.approx([0.5, 1.75])
    assert ledger.streams == [(pytest.approx(0.25), True, False)]


def test_a_piece_that_breaks_off_counts_the_wait_that_ended_it_and_is_not_continuous():
    ledger = Ledger()
    with pytest.raises(NotReady), ledger.listener() as listener:
        ledger.hear(listener, 0.0)
        ledger.now_s += 3.5
        raise NotReady("gone")
    with pytest.raises(NotReady), ledger.listener() as listener:
        ledger.hear(listener, 0.0)
        raise NotReady("gone at once")
    assert ledger.streams == [(pytest.approx(2.5), True, False), (0.0, True, False)]


def test_a_caller_who_leaves_is_no_fault_unless_the_music_had_stopped():
    ledger = Ledger()
    for wait_s in (0.25, 1.5):
        with pytest.raises(asyncio.CancelledError), ledger.listener() as listener:
            ledger.hear(listener, 0.0)
            ledger.now_s += wait_s
            raise asyncio.CancelledError
    assert ledger.streams == [(0.0, True, True), (pytest.approx(0.5), True, False)]


def test_a_piece_without_audio_is_not_counted():
    ledger = Ledger()
    with pytest.raises(Overloaded), ledger.listener():
        raise Overloaded("full", retry_after_s=1)
    assert ledger.first_audio_s == ledger.gaps_s == ledger.streams == []


def test_sums_of_many_short_chunks_make_no_underrun_by_rounding():
    ledger = Ledger()
    with ledger.listener() as listener:
        for _ in range(500):
            ledger.hear(listener, 0.1, TENTH)
    assert ledger.streams == [(0.0, True, True)]


def sample(house, name, **labels):
    registry = house.servers["orchestrator"].metrics.registry
    return registry.get_sample_value(name, {"stage": "orchestrator"} | labels)


def streams(house, cascade, pace):
    name = "stretto_audio_continuity_total"
    return sum(sample(house, name, model=cascade, pace=pace, ok=ok) or 0 for ok in ("true", "false"))


async def test_each_piece_is_counted_by_cascade_and_pace(house_with, collect, request_music):
    async with house_with(extra_cascades={"mine": {}}) as house:
        live = model_pb2.PACE_REALTIME
        for fields in ({}, {"pace": live}, {"pace": live, "cascade": "mine"}):
            music = await collect(house.stub.GenerateMusic(request_music(**fields)))
        counts = [
            streams(house, *which)
            for which in (("musicgen", "best_effort"), ("musicgen", "realtime"), ("mine", "realtime"))
        ]
        assert counts == [1, 1, 1] and streams(house, "mine", "best_effort") == 0
        assert sample(house, "stretto_audio_underrun_s_count", model="mine", pace="realtime") == 1
        assert sample(house, "stretto_chunk_gap_s_count", model="mine") == len(music.chunks) - 1
        assert sample(house, "stretto_audio_ttfp_s_count") == 3 and sample(house, "stretto_audio_rtf_count") == 3


async def test_a_starved_stream_is_an_underrun_and_not_continuous(house, request_music):
    # The fourth message is held until the second chunk's 0.2 s must long have been played.
    house.acoustic.watched.gate = asyncio.Event()
    async for response in (call := house.stub.GenerateMusic(request_music(), timeout=60)):
        if response.WhichOneof("payload") == "chunk" and not house.acoustic.watched.gate.is_set():
            await asyncio.sleep(1.0)
            house.acoustic.watched.gate.set()
    assert call.done()
    labels = {"model": "musicgen", "pace": "best_effort"}
    assert sample(house, "stretto_audio_underrun_s_sum", **labels) > 0.3
    assert sample(house, "stretto_audio_continuity_total", **labels, ok="false") == 1


async def test_a_caller_who_takes_a_second_for_each_chunk_is_its_own_starvation(house, request_music):
    ledger = Ledger()
    observer = SimpleNamespace(meter_of=lambda cascade: ledger, observe_resume=None, observe_music=lambda factor: None)
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{house.ports[name]}"))
            for name in ("embedding", "semantic", "acoustic", "codec", "transcriber", "harmony")
        ]
        kinds = (EmbeddingClient, SemanticClient, AcousticClient, CodecClient, TranscriberClient, HarmonyClient)
        stages = Stages(*(kind(channel, timeout_s=60) for kind, channel in zip(kinds, channels, strict=True)))
        request = MusicRequest("", "a waltz", 1.0, 0, SamplingOptions(), None)
        options = RenderOptions(ResumePolicy(), 64, HeldMusic(600))
        async with aclosing(generate_music(stages, cascades_with({}), request, options, observer)) as events:
            async for event in events:
                if isinstance(event, AudioChunk):
                    await asyncio.sleep(1.0)  # five times as long as it plays
    ((underrun_s, _, _),) = ledger.streams
    assert len(ledger.gaps_s) == 4 and underrun_s < 4 * 0.8 / 2, "its own four waits of 0.8 s are not among them"


async def test_an_unknown_cascade_makes_no_label(house, request_music):
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in house.stub.GenerateMusic(request_music(cascade="x" * 50)):
            pass
    text = [family.samples for family in house.servers["orchestrator"].metrics.registry.collect()]
    assert not any("x" * 50 in each.labels.values() for samples in text for each in samples)


async def test_a_refused_piece_is_no_stream(house, request_music):
    house.acoustic.admission_error = Overloaded("Full.", retry_after_s=1)
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in house.stub.GenerateMusic(request_music(pace=model_pb2.PACE_REALTIME)):
            pass
    assert streams(house, "musicgen", "realtime") == 0
    labels = {"method": "/stretto.orchestrator.v1.OrchestratorService/GenerateMusic", "code": "RESOURCE_EXHAUSTED"}
    registry = house.servers["orchestrator"].metrics.registry
    assert registry.get_sample_value("stretto_rpc_handled_total", labels) == 1
