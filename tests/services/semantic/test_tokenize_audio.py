"""TokenizeAudio over a real channel, with tiny random tokenizers."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from stretto.common.v1 import audio_pb2
from stretto.semantic.v1 import semantic_pb2, semantic_pb2_grpc
from stretto_semantic.engine import Tokenizing
from stretto_shared.audio import Waveform
from stretto_shared.dsp.audio_windows import AudioWindows
from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import NotFound, NotReady
from stretto_shared.grpc.metrics import Metrics

SERVICE = "stretto.semantic.v1.SemanticService"


def noise(duration_s: float, *, rate_hz: int = 8000, num_channels: int = 1, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 0.1, (round(duration_s * rate_hz), num_channels)).astype("<f4")


def configure(model: str = "") -> semantic_pb2.TokenizeAudioRequest:
    return semantic_pb2.TokenizeAudioRequest(config=semantic_pb2.TokenizeConfig(model=model))


def sound(samples: Any, rate_hz: int = 8000) -> semantic_pb2.TokenizeAudioRequest:
    waveform = audio_pb2.Waveform(
        sample_rate_hz=rate_hz, channel_count=samples.shape[1], samples=samples.astype("<f4").tobytes()
    )
    return semantic_pb2.TokenizeAudioRequest(waveform=waveform)


async def tokenize(
    stub: Any, samples: Any, *, model: str = "", rate_hz: int = 8000, cuts: Sequence[int] = ()
) -> list[semantic_pb2.TokenizeAudioResponse]:
    parts = [samples[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(samples)])]
    requests = [configure(model), *(sound(part, rate_hz) for part in parts)]
    return [response async for response in stub.TokenizeAudio(iter(requests), timeout=60)]


async def tokenize_once_there_is_room(stub: Any, samples: Any) -> list[semantic_pb2.TokenizeAudioResponse]:
    """`tokenize`, asked again while the server still clears away the call that had the place."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await tokenize(stub, samples)
            except grpc.aio.AioRpcError as busy:
                assert busy.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                await asyncio.sleep(0.05)


def joined(responses: list[semantic_pb2.TokenizeAudioResponse]) -> list[int]:
    """All ids; every message must begin where the one before ended."""
    ids: list[int] = []
    for response in responses:
        assert response.first_frame_index == len(ids) and response.tokens.codebook_count == 1
        ids += response.tokens.codes
    return ids


async def test_every_known_tokenizer_of_the_folder_is_served_and_the_first_is_the_default(
    serve: Any, weights_dir: Path
) -> None:
    (weights_dir / "stranger").mkdir()
    (weights_dir / "stranger" / "config.json").write_text(json.dumps({"architecture": "Stranger"}))
    async with serve() as channel:
        listed = await semantic_pb2_grpc.SemanticServiceStub(channel).ListModels(semantic_pb2.ListModelsRequest())
    assert [(model.name, model.is_default) for model in listed.models] == [("first", True), ("second", False)]
    for model in listed.models:
        assert (model.service, model.sample_rate_hz, model.frame_rate_hz) == ("semantic", 8000, 200.0)
        assert (model.codebook_count, model.channel_count, model.licence) == (1, 1, "CC0-1.0")
        assert len(model.digest_sha256) == 64 and model.parameter_count == 64 * 120 + 64


async def test_a_list_of_models_says_which_are_served_and_which_is_the_default(serve: Any, weights_dir: Path) -> None:
    async with serve(models=f"second,other={(weights_dir / 'first').as_uri()}") as channel:
        stub = semantic_pb2_grpc.SemanticServiceStub(channel)
        listed = (await stub.ListModels(semantic_pb2.ListModelsRequest())).models
        assert [(model.name, model.is_default) for model in listed] == [("other", False), ("second", True)]
        samples = noise(0.5)
        by_default, by_name = await tokenize(stub, samples), await tokenize(stub, samples, model="second")
        assert joined(by_default) == joined(by_name) != joined(await tokenize(stub, samples, model="other"))
        assert by_default[0].model.name == "second"


async def test_without_any_tokenizer_the_service_starts_and_says_so(serve: Any, tmp_path: Path) -> None:
    async with serve(weights_dir=tmp_path / "nothing") as channel:
        stub = semantic_pb2_grpc.SemanticServiceStub(channel)
        assert not (await stub.ListModels(semantic_pb2.ListModelsRequest())).models
        error = await failure(tokenize(stub, noise(0.1)))
        assert error.code() is grpc.StatusCode.NOT_FOUND and "STRETTO_SEMANTIC_MODELS" in error.details()


@pytest.mark.parametrize("name", ["first", "second"])
async def test_tokens_are_those_of_the_whole_audio_and_say_who_made_them(serve: Any, make: Any, name: str) -> None:
    samples = noise(0.47)
    async with serve(models=name) as channel:
        responses = await tokenize(semantic_pb2_grpc.SemanticServiceStub(channel), samples)
    ids = joined(responses)
    tokenizer = make(name)
    silence = torch.zeros(tokenizer.grid.margin)
    whole = torch.cat([silence, torch.from_numpy(samples[:, 0].copy()), silence])
    # its frames hear one frame on either side, which both grids give them
    assert ids == tokenizer.scores(whole[None], [(0, 0)])[0].argmax(-1).tolist() and len(ids) == 94
    assert [response.HasField("model") for response in responses] == [True, *[False] * (len(responses) - 1)]
    model_id = f"{name}@{responses[0].model.digest_sha256[:12]}"
    assert all(each.tokens.codec_id == model_id and each.tokens.frame_rate_hz == 200 for each in responses)
    size = tokenizer.grid.window_frames
    assert [len(each.tokens.codes) for each in responses[:-1]] == [size] * (len(responses) - 1)
    assert len(set(ids)) > 8


async def test_streamed_tokens_equal_those_of_one_message_whatever_the_messages(serve: Any) -> None:
    generator = np.random.default_rng(0)
    async with serve() as channel:
        stub = semantic_pb2_grpc.SemanticServiceStub(channel)
        for rate_hz, num_channels, model in itertools.product([8000, 22_050, 44_100], [1, 2], ["first", "second"]):
            samples = noise(0.4, rate_hz=rate_hz, num_channels=num_channels)
            whole = await tokenize(stub, samples, model=model, rate_hz=rate_hz)
            assert len(joined(whole)) == 80
            for num_cuts in (1, 12, 100):
                cuts = sorted(set(generator.integers(1, len(samples), num_cuts).tolist()))
                streamed = await tokenize(stub, samples, model=model, rate_hz=rate_hz, cuts=cuts)
                assert [each.tokens for each in streamed] == [each.tokens for each in whole]


async def test_stereo_is_the_mean_of_its_channels(serve: Any) -> None:
    async with serve() as channel:
        stub = semantic_pb2_grpc.SemanticServiceStub(channel)
        stereo = noise(0.3, num_channels=2)
        mixed = joined(await tokenize(stub, stereo.mean(axis=1, keepdims=True)))
        assert joined(await tokenize(stub, stereo)) == mixed != joined(await tokenize(stub, stereo[:, :1]))


async def test_tokens_of_a_window_come_before_the_audio_ends(serve: Any) -> None:
    async with serve() as channel:
        stub = semantic_pb2_grpc.SemanticServiceStub(channel)
        call = stub.TokenizeAudio(timeout=60)
        await call.write(configure())
        await call.write(sound(noise(0.2)))  # a window and its right context are 0.12 s
        first = await call.read()
        assert len(first.tokens.codes) == 20 and first.first_frame_index == 0
        call.cancel()


async def test_concurrent_streams_give_the_tokens_of_streams_alone(serve: Any) -> None:
    async with serve() as channel:
        stub = semantic_pb2_grpc.SemanticServiceStub(channel)
        clips = [noise(1.0, seed=seed) for seed in range(6)]
        alone = [joined(await tokenize(stub, clip)) for clip in clips]
        together = await asyncio.gather(*(tokenize(stub, clip, cuts=[100, 5000]) for clip in clips))
    assert [joined(responses) for responses in together] == alone
    assert len({tuple(ids) for ids in alone}) == 6


async def test_bad_streams_are_refused_by_field_and_the_next_one_works(serve: Any) -> None:
    good, empty = sound(noise(0.1)), semantic_pb2.TokenizeAudioRequest()
    stereo, faster = sound(noise(0.1, num_channels=2)), sound(noise(0.1), 16_000)
    nan, loud = np.full((10, 1), np.nan), np.full((10, 1), 2e4)
    odd = semantic_pb2.TokenizeAudioRequest(
        waveform=audio_pb2.Waveform(sample_rate_hz=8000, channel_count=1, samples=b"123")
    )
    invalid: list[tuple[list[semantic_pb2.TokenizeAudioRequest], str]] = [
        ([], "config"),
        ([good], "config"),
        ([empty], "config"),
        ([configure()], "waveform"),
        ([configure(), empty], "waveform"),
        ([configure(), configure()], "config"),
        ([configure(), good, configure()], "config"),
        ([configure(), good, faster], "waveform.sample_rate_hz"),
        ([configure(), good, stereo], "waveform.channel_count"),
        ([configure(), sound(noise(0.1), 4000)], "waveform.sample_rate_hz"),
        ([configure(), sound(noise(0.1, num_channels=3))], "waveform.channel_count"),
        ([configure(), sound(np.zeros((0, 1)))], "waveform.samples"),
        ([configure(), odd], "waveform.samples"),
        ([configure(), good, sound(nan)], "waveform.samples"),
        ([configure(), good, sound(loud)], "waveform.samples"),
        ([configure(), sound(np.zeros((1, 1)), 192_000)], "waveform"),
    ]
    async with serve() as channel:
        stub = semantic_pb2_grpc.SemanticServiceStub(channel)
        for requests, field in invalid:
            error = await failure(consume(stub.TokenizeAudio(iter(requests))))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, (field, error)
            assert violated_field(error) == field
        error = await failure(tokenize(stub, noise(0.1), model="absent"))
        assert error.code() is grpc.StatusCode.NOT_FOUND and "first, second" in error.details()
        assert len(joined(await tokenize(stub, noise(0.1)))) == 20


async def test_a_full_tokenizer_says_when_to_retry_and_a_cancelled_stream_makes_room(serve: Any) -> None:
    async with serve(max_requests=1) as channel:
        stub = semantic_pb2_grpc.SemanticServiceStub(channel)
        open_call = stub.TokenizeAudio()
        await open_call.write(configure())
        await open_call.write(sound(noise(0.2)))
        first = await open_call.read()
        error = await failure(tokenize(stub, noise(0.2)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert detail(error, error_details_pb2.RetryInfo()).retry_delay.ToNanoseconds() >= 100_000_000
        assert joined(await tokenize(stub, noise(0.2), model="second")), "each tokenizer has places of its own"
        open_call.cancel()
        assert (await tokenize_once_there_is_room(stub, noise(0.2)))[0].tokens == first.tokens


async def test_a_late_stream_ends_with_its_deadline_and_the_next_one_works(serve: Any) -> None:
    async def stalling() -> AsyncIterator[semantic_pb2.TokenizeAudioRequest]:
        yield configure()
        yield sound(noise(0.05))
        await asyncio.sleep(30)

    async with serve(max_requests=1) as channel:
        stub = semantic_pb2_grpc.SemanticServiceStub(channel)
        error = await failure(consume(stub.TokenizeAudio(stalling(), timeout=1)))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert joined(await tokenize_once_there_is_room(stub, noise(0.1)))


async def test_an_idle_stream_gives_its_place_back_at_the_servers_own_deadline(serve: Any) -> None:
    async with serve(max_requests=1, grpc={"default_deadline_s": 1.0}) as channel:
        stub = semantic_pb2_grpc.SemanticServiceStub(channel)
        idle = stub.TokenizeAudio()
        await idle.write(configure())
        error = await failure(idle.read())
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and "default deadline" in error.details()
        assert joined(await tokenize_once_there_is_room(stub, noise(0.1)))


async def test_malformed_and_oversized_messages_are_refused_and_the_next_stream_works(serve: Any) -> None:
    async with serve(grpc={"max_receive_bytes": 50_000}) as channel:
        stub = semantic_pb2_grpc.SemanticServiceStub(channel)
        stream = channel.stream_stream(f"/{SERVICE}/TokenizeAudio", request_serializer=bytes)
        assert (await failure(consume(stream(iter([b"\xff\xff\xff"]))))).code() is grpc.StatusCode.INVALID_ARGUMENT
        error = await failure(tokenize(stub, noise(3.0)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(joined(await tokenize(stub, noise(3.0), cuts=[10_000, 20_000]))) == 600


async def test_a_span_stands_for_a_stream(serve: Any) -> None:
    exporter = InMemorySpanExporter()
    async with serve(span_exporter=exporter) as channel:
        await tokenize(semantic_pb2_grpc.SemanticServiceStub(channel), noise(0.1))
    (span,) = exporter.get_finished_spans()
    assert span.name == f"{SERVICE}/TokenizeAudio"
    assert span.attributes is not None and span.attributes["rpc.grpc.status_code"] == 0


async def messages_of(samples: Any, num_messages: int, taken: list[int]) -> AsyncIterator[Waveform]:
    for index, part in enumerate(np.array_split(samples[:, 0], num_messages)):
        taken.append(index)
        yield Waveform(part, 8000)


async def test_a_message_is_taken_only_when_no_window_is_whole(load: Any) -> None:
    engine = Tokenizing({"first": lambda: load("first")})
    await engine.start()
    try:
        taken: list[int] = []
        windows = engine.tokenize("", messages_of(noise(4.0), 100, taken))  # messages of 0.04 s
        first = await anext(windows)
        await asyncio.sleep(0.05)
        assert len(taken) == 3, "0.12 s are a window and its right context"
        assert first.tokens.num_frames == 20
        second = await anext(windows)
        assert len(taken) == 6 and second.first_frame_index == 20
        await windows.aclose()
    finally:
        await engine.stop()


async def test_messages_are_read_beside_the_event_loop(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    add = AudioWindows.add

    def watched(windows: AudioWindows, waveform: Waveform) -> None:
        threads.append(threading.current_thread().name)
        add(windows, waveform)

    monkeypatch.setattr(AudioWindows, "add", watched)
    engine = Tokenizing({"first": lambda: load("first")})
    await engine.start()
    try:
        assert [window async for window in engine.tokenize("", messages_of(noise(0.2), 3, []))]
    finally:
        await engine.stop()
    assert len(threads) == 3 and threading.main_thread().name not in threads


async def test_the_engine_reports_waits_and_speed_and_who_waits(load: Any) -> None:
    metrics = Metrics()
    engine = Tokenizing({"first": lambda: load("first")}, meter=metrics.stage("semantic"))
    await engine.start()
    try:
        assert [window async for window in engine.tokenize("", messages_of(noise(0.4), 3, []))]
    finally:
        await engine.stop()

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"stage": "semantic"})

    assert value("stretto_request_queue_wait_s_count") == 1
    assert value("stretto_audio_rtf_count") == 4, "one for each window"
    rtf = value("stretto_audio_rtf_sum")
    assert rtf is not None and rtf > 0
    assert value("stretto_stage_waiting_requests") == 0


async def test_the_wait_of_a_stream_is_that_of_its_first_window_also_when_it_gives_up(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, loaded = Metrics(), load("first")
    held, go, num_turns = threading.Event(), threading.Event(), 0
    tokenizer = loaded.tokenizer
    scores, run = tokenizer.scores, ModelThread.run

    def held_up(*arguments: Any) -> Any:
        held.set()
        go.wait(20)
        return scores(*arguments)

    async def counted(thread: ModelThread, work: Any) -> Any:
        nonlocal num_turns
        num_turns += 1
        return await run(thread, work)

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"stage": "semantic"})

    async def tokens() -> int:
        return len([window async for window in engine.tokenize("", messages_of(noise(0.1), 1, []))])

    tokenizer.scores = held_up
    engine = Tokenizing({"first": lambda: loaded}, meter=metrics.stage("semantic"))
    await engine.start()
    monkeypatch.setattr(ModelThread, "run", counted)
    try:
        streams = [asyncio.create_task(tokens())]
        assert await asyncio.to_thread(held.wait, 20)
        assert value("stretto_request_queue_wait_s_count") == 1
        streams += [asyncio.create_task(tokens()) for _ in range(2)]
        while value("stretto_stage_waiting_requests") != 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        streams[0].cancel()  # its window is being heard
        streams[1].cancel()  # its window waits
        await asyncio.gather(*streams[:2], return_exceptions=True)
        await asyncio.sleep(0.2)
        go.set()
        assert await streams[2] == 1
    finally:
        go.set()
        await engine.stop()
    assert num_turns == 3, "nothing but windows takes turns"
    assert value("stretto_request_queue_wait_s_count") == 2
    wait_s = value("stretto_request_queue_wait_s_sum")
    assert wait_s is not None and wait_s > 0.2


async def test_before_the_start_and_after_the_stop_calls_fail_as_not_ready(load: Any) -> None:
    engine = Tokenizing({"first": lambda: load("first")})
    for prepare in (None, engine.start, engine.stop):
        if prepare is not None:
            await prepare()
        if prepare == engine.start:
            assert [info.name for info in engine.list_models()] == ["first"]
            continue
        with pytest.raises(NotReady):
            engine.list_models()
        with pytest.raises(NotReady):
            await anext(engine.tokenize("", messages_of(noise(0.1), 1, [])))


async def test_a_server_does_not_start_with_a_foreign_architecture_or_damaged_weights(
    serve: Any, weights_dir: Path
) -> None:
    (weights_dir / "first" / "config.json").write_text(
        (weights_dir / "first" / "config.json").read_text().replace('"Tiny"', '"Odd"')
    )
    with pytest.raises(NotFound, match=r"Tiny.*Odd"):
        async with serve(models="first"):
            pass
    content = json.loads((weights_dir / "second" / "config.json").read_text())
    (weights_dir / "second" / "config.json").write_text(json.dumps(content | {"config": {"grid": "third"}}))
    with pytest.raises(NotReady, match="do not fit together"):
        async with serve(models="second"):
            pass
    with pytest.raises(NotReady, match="expects a folder"):
        async with serve(models="absent"):
            pass


async def consume(call: Any) -> list[Any]:
    return [response async for response in call]


async def failure(awaitable: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value


def detail(error: grpc.aio.AioRpcError, wanted: Any) -> Any:
    status = rpc_status.from_call(_Call(error))
    assert any(packed.Unpack(wanted) for packed in status.details), status
    return wanted


def violated_field(error: grpc.aio.AioRpcError) -> str:
    return detail(error, error_details_pb2.BadRequest()).field_violations[0].field


class _Call:
    """What `grpc_status` wants to see of a failed call."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code, self.details = error.code, error.details
        self.trailing_metadata = lambda: [*error.trailing_metadata()]
