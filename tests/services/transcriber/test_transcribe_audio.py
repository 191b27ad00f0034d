"""TranscribeAudio over a real channel, with tiny random models."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tiny_listeners
import torch
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from stretto.common.v1 import audio_pb2
from stretto.transcriber.v1 import transcriber_pb2, transcriber_pb2_grpc
from stretto_shared.errors import NotFound, NotReady
from transcriber_calls import (
    consume,
    failure,
    noise,
    notes_of,
    retry_after_s,
    transcribe,
    transcribe_requests,
    violation,
    wave,
)

SERVICE = "stretto.transcriber.v1.TranscriberService"
Request = transcriber_pb2.TranscribeAudioRequest


def stub_of(channel: Any) -> Any:
    return transcriber_pb2_grpc.TranscriberServiceStub(channel)


async def once_there_is_room(stub: Any, samples: Any) -> list[Any]:
    """`transcribe`, asked again while the server still clears away the call that had the place."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await transcribe(stub, samples)
            except grpc.aio.AioRpcError as busy:
                assert busy.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                await asyncio.sleep(0.05)


async def test_every_known_model_of_the_folder_is_served_and_the_first_of_each_kind_is_a_default(
    serve: Any, weights_dir: Path
) -> None:
    (weights_dir / "stranger").mkdir()
    (weights_dir / "stranger" / "config.json").write_text(json.dumps({"architecture": "Stranger"}))
    async with serve() as channel:
        listed = await stub_of(channel).ListModels(transcriber_pb2.ListModelsRequest())
    assert [(each.name, each.is_default) for each in listed.models] == [
        ("beats", True),
        ("first", True),
        ("second", False),
    ]
    for model in listed.models:
        assert (model.service, model.sample_rate_hz, model.frame_rate_hz) == ("transcriber", 8000, 0.0)
        assert (model.codebook_count, model.channel_count, model.licence) == (0, 0, "CC0-1.0")
        assert len(model.digest_sha256) == 64 and model.parameter_count == 4 * 240


async def test_a_list_of_models_says_which_are_served_and_which_is_the_default(serve: Any, weights_dir: Path) -> None:
    async with serve(models=f"second,other={(weights_dir / 'first').as_uri()}") as channel:
        stub, samples = stub_of(channel), noise(0.5)
        listed = (await stub.ListModels(transcriber_pb2.ListModelsRequest())).models
        assert [(each.name, each.is_default) for each in listed] == [("other", False), ("second", True)]
        by_default, by_name = await transcribe(stub, samples), await transcribe(stub, samples, model="second")
        assert notes_of(by_default) == notes_of(by_name) != notes_of(await transcribe(stub, samples, model="other"))
        assert by_default[0].model.name == "second"


async def test_without_any_model_the_service_starts_and_says_so(serve: Any, tmp_path: Path) -> None:
    async with serve(weights_dir=tmp_path / "nothing") as channel:
        stub = stub_of(channel)
        assert not (await stub.ListModels(transcriber_pb2.ListModelsRequest())).models
        error = await failure(transcribe(stub, noise(0.1)))
        assert error.code() is grpc.StatusCode.NOT_FOUND and "STRETTO_TRANSCRIBER_MODELS" in error.details()


async def test_notes_are_those_of_the_whole_audio_and_say_who_heard_them(serve: Any) -> None:
    samples = noise(1.055)
    async with serve(models="first") as channel:
        responses = await transcribe(stub_of(channel), samples)
    net = tiny_listeners.make_net("first")
    whole = torch.from_numpy(np.pad(samples[:, 0], (4 * 80, 4 * 80 + 40)))
    with torch.inference_mode():
        frames = net(whole[None])[0].numpy()
    decoder = tiny_listeners.TinyDecoder(net.config)
    parts = [decoder.push(frames), decoder.flush()]
    expected = sorted(
        (onset_s, offset_s - onset_s, pitch, velocity)
        for part in parts
        for onset_s, offset_s, pitch, velocity in zip(part.onset_s, part.offset_s, part.pitch_midi, part.velocity)
    )
    found = notes_of(responses)
    assert len(frames) == 106 and len(found) == len(expected) > 40
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert [response.HasField("model") for response in responses] == [True, *[False] * 6]
    assert responses[0].model.name == "first"
    assert responses[-1].complete_s == pytest.approx(1.055)


async def test_notes_end_with_their_sounds_or_with_their_keys_as_is_asked(serve: Any) -> None:
    samples = noise(0.5)
    async with serve() as channel:
        stub = stub_of(channel)
        by_default, sounds, keys = [notes_of(await transcribe(stub, samples, ends=ends)) for ends in range(3)]
        error = await failure(transcribe(stub, samples, ends=7))
    assert by_default == sounds != keys
    assert max(note[1] for note in keys) < 0.011 < max(note[1] for note in sounds)
    assert violation(error)[0] == "config.ends"


async def test_streamed_notes_equal_those_of_one_message_whatever_the_messages(serve: Any) -> None:
    generator = np.random.default_rng(0)
    async with serve() as channel:
        stub = stub_of(channel)
        for rate_hz, num_channels in itertools.product([8000, 22_050, 44_100], [1, 2]):
            samples = noise(0.7, rate_hz=rate_hz, num_channels=num_channels)
            whole = await transcribe(stub, samples, rate_hz=rate_hz)
            assert len(notes_of(whole)) > 10
            for num_cuts in (1, 60):
                cuts = sorted(set(generator.integers(1, len(samples), num_cuts).tolist()))
                streamed = await transcribe(stub, samples, rate_hz=rate_hz, cuts=cuts)
                assert notes_of(streamed) == notes_of(whole)
                assert [each.notes for each in streamed] == [each.notes for each in whole]


async def test_stereo_is_the_mean_of_its_channels(serve: Any) -> None:
    async with serve() as channel:
        stub, stereo = stub_of(channel), noise(0.5, num_channels=2)
        mixed = notes_of(await transcribe(stub, stereo.mean(axis=1, keepdims=True)))
        assert notes_of(await transcribe(stub, stereo)) == mixed != notes_of(await transcribe(stub, stereo[:, :1]))


async def test_silence_has_no_notes_and_is_complete_to_its_end(serve: Any) -> None:
    async with serve(models="first") as channel:
        responses = await transcribe(stub_of(channel), np.zeros((8000, 1), np.float32))
    assert len(responses) == 6 and not notes_of(responses)
    assert [round(response.complete_s, 6) for response in responses] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]


async def test_notes_of_a_window_come_before_the_audio_ends_and_say_how_far_they_are_complete(serve: Any) -> None:
    async with serve(models="first") as channel:
        call = stub_of(channel).TranscribeAudio(timeout=60)
        for request in transcribe_requests(noise(0.25)):  # a window and its right context are 0.24 s
            await call.write(request)
        first = await call.read()
        assert len(first.notes.onset_s) > 0
        assert 0 < first.complete_s <= 0.2
        call.cancel()


async def test_concurrent_streams_give_the_notes_of_streams_alone(serve: Any) -> None:
    async with serve() as channel:
        stub = stub_of(channel)
        clips = [noise(1.0, seed=seed) for seed in range(6)]
        alone = [notes_of(await transcribe(stub, clip)) for clip in clips]
        together = await asyncio.gather(*(transcribe(stub, clip, cuts=[100, 5000]) for clip in clips))
    assert [notes_of(responses) for responses in together] == alone
    assert len({tuple(notes) for notes in alone}) == 6


async def test_bad_streams_are_refused_by_field_and_value_and_the_next_one_works(serve: Any) -> None:
    config, good = transcribe_requests(noise(0.1))
    empty = Request()
    stereo, faster = Request(waveform=wave(noise(0.1, num_channels=2))), Request(waveform=wave(noise(0.1), 16_000))
    odd = Request(waveform=audio_pb2.Waveform(sample_rate_hz=8000, channel_count=1, samples=b"123"))
    invalid: list[tuple[list[Request], str, str]] = [
        ([], "config", "first message"),
        ([good], "config", "first message"),
        ([empty], "config", "first message"),
        ([config], "waveform", "got none"),
        ([config, empty], "waveform", "required"),
        ([config, config], "config", "came again"),
        ([config, good, config], "config", "came again"),
        ([config, good, faster], "waveform.sample_rate_hz", "16000"),
        ([config, good, stereo], "waveform.channel_count", "got 2"),
        ([config, Request(waveform=wave(noise(0.1), 4000))], "waveform.sample_rate_hz", "4000"),
        ([config, Request(waveform=wave(noise(0.1, num_channels=3)))], "waveform.channel_count", "got 3"),
        ([config, Request(waveform=wave(np.zeros((0, 1))))], "waveform.samples", "got 0"),
        ([config, odd], "waveform.samples", "got 3"),
        ([config, good, Request(waveform=wave(np.full((10, 1), np.nan)))], "waveform.samples", "NaN"),
        ([config, good, Request(waveform=wave(np.full((10, 1), 2e4)))], "waveform.samples", "20000"),
        ([config, Request(waveform=wave(np.zeros((1, 1)), 192_000))], "waveform", "at least one sample"),
    ]
    async with serve() as channel:
        stub = stub_of(channel)
        for requests, field, said in invalid:
            found, description = violation(await failure(consume(stub.TranscribeAudio(iter(requests)))))
            assert found == field and said in description, (field, description)
        for absent in ("absent", "beats"):
            error = await failure(transcribe(stub, noise(0.1), model=absent))
            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert "hears notes: first, second" in error.details() and repr(absent) in error.details()
        assert await transcribe(stub, noise(0.1))


async def test_a_full_model_says_when_to_retry_and_a_cancelled_stream_makes_room(serve: Any) -> None:
    async with serve(max_requests=1) as channel:
        stub, samples = stub_of(channel), noise(0.25)
        open_call = stub.TranscribeAudio()
        for request in transcribe_requests(samples):
            await open_call.write(request)
        first = await open_call.read()
        assert retry_after_s(await failure(transcribe(stub, samples))) >= 0.1
        assert await transcribe(stub, samples, model="second"), "each model has places of its own"
        open_call.cancel()
        assert (await once_there_is_room(stub, samples))[0].notes == first.notes


async def test_a_late_stream_ends_with_its_deadline_and_the_next_one_works(serve: Any) -> None:
    async def stalling() -> AsyncIterator[Request]:
        for request in transcribe_requests(noise(0.05)):
            yield request
        await asyncio.sleep(30)

    async with serve(max_requests=1) as channel:
        stub = stub_of(channel)
        error = await failure(consume(stub.TranscribeAudio(stalling(), timeout=1)))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await once_there_is_room(stub, noise(0.1))


async def test_malformed_and_oversized_messages_are_refused_and_the_next_stream_works(serve: Any) -> None:
    async with serve(grpc={"max_receive_bytes": 50_000}) as channel:
        stub = stub_of(channel)
        stream = channel.stream_stream(f"/{SERVICE}/TranscribeAudio", request_serializer=bytes)
        assert (await failure(consume(stream(iter([b"\xff\xff\xff"]))))).code() is grpc.StatusCode.INVALID_ARGUMENT
        error = await failure(transcribe(stub, noise(3.0)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert notes_of(await transcribe(stub, noise(3.0), cuts=[10_000, 20_000]))


async def test_a_span_stands_for_a_stream(serve: Any) -> None:
    exporter = InMemorySpanExporter()
    async with serve(span_exporter=exporter) as channel:
        await transcribe(stub_of(channel), noise(0.1))
    (span,) = exporter.get_finished_spans()
    assert span.name == f"{SERVICE}/TranscribeAudio"
    assert span.attributes is not None and span.attributes["rpc.grpc.status_code"] == 0


async def test_a_server_does_not_start_with_a_foreign_architecture_or_damaged_weights(
    serve: Any, weights_dir: Path
) -> None:
    (weights_dir / "first" / "config.json").write_text(
        (weights_dir / "first" / "config.json").read_text().replace('"TinyNotes"', '"Odd"')
    )
    with pytest.raises(NotFound, match=r"TinyNotes.*Odd"):
        async with serve(models="first"):
            pass
    content = json.loads((weights_dir / "second" / "config.json").read_text())
    (weights_dir / "second" / "config.json").write_text(json.dumps(content | {"config": {"num_outputs": 9}}))
    with pytest.raises(NotReady, match="do not fit together"):
        async with serve(models="second"):
            pass
    with pytest.raises(NotReady, match="expects a folder"):
        async with serve(models="absent"):
            pass
