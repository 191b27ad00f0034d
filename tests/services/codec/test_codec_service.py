"""The codec service over a real channel, with tiny random codecs of every architecture."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto.common.v1 import audio_pb2, tokens_pb2
from stretto_shared.errors import NotFound, NotReady
from stretto_shared.grpc import convert

NAMES = ["encodec_24khz", "encodec_32khz", "encodec_48khz", "framecodec", "soundstream"]
SERVICE = "stretto.codec.v1.CodecService"


def noise(duration_s: float, *, rate_hz: int = 24_000, num_channels: int = 1, seed: int = 0) -> audio_pb2.Waveform:
    samples = np.random.default_rng(seed).normal(0, 0.1, (round(duration_s * rate_hz), num_channels))
    return audio_pb2.Waveform(
        sample_rate_hz=rate_hz, channel_count=num_channels, samples=samples.astype("<f4").tobytes()
    )


def configure(model: str = "") -> codec_pb2.DecodeTokensRequest:
    return codec_pb2.DecodeTokensRequest(config=codec_pb2.DecodeConfig(model=model))


def run_of(
    tokens: tokens_pb2.TokenMatrix, start: int, stop: int, *, scales: Sequence[float] = ()
) -> codec_pb2.DecodeTokensRequest:
    codes = np.array(tokens.codes).reshape(tokens.codebook_count, -1)[:, start:stop]
    return codec_pb2.DecodeTokensRequest(
        tokens=tokens_pb2.TokenMatrix(
            codec_id=tokens.codec_id,
            frame_rate_hz=tokens.frame_rate_hz,
            codebook_count=tokens.codebook_count,
            codes=codes.ravel().tolist(),
            chunk_scales=scales,
        )
    )


def num_frames(tokens: tokens_pb2.TokenMatrix) -> int:
    return len(tokens.codes) // tokens.codebook_count


async def decode(
    stub: Any, model: str, tokens: tokens_pb2.TokenMatrix, cuts: Sequence[int] = ()
) -> list[codec_pb2.DecodeTokensResponse]:
    edges = [0, *cuts, num_frames(tokens)]
    requests, scales = [configure(model)], list(tokens.chunk_scales)
    for start, stop in itertools.pairwise(edges):  # as early as the wire allows: one scale a frame
        requests.append(run_of(tokens, start, stop, scales=scales[: stop - start]))
        del scales[: stop - start]
    return [response async for response in stub.DecodeTokens(iter(requests), timeout=60)]


async def decode_once_there_is_room(
    stub: Any, model: str, tokens: tokens_pb2.TokenMatrix
) -> list[codec_pb2.DecodeTokensResponse]:
    """`decode`, asked again while the server still clears away the call that had the place."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await decode(stub, model, tokens)
            except grpc.aio.AioRpcError as busy:
                assert busy.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                await asyncio.sleep(0.05)


def joined(responses: list[codec_pb2.DecodeTokensResponse]) -> bytes:
    return b"".join(response.waveform.samples for response in responses)


async def encode(stub: Any, model: str = "", **options: Any) -> codec_pb2.EncodeAudioResponse:
    options = {"waveform": noise(0.5)} | options
    return await stub.EncodeAudio(codec_pb2.EncodeAudioRequest(model=model, **options), timeout=60)


async def test_models_are_listed_by_name_with_their_digests(serve: Any) -> None:
    async with serve(models="soundstream,framecodec") as channel:
        listed = await codec_pb2_grpc.CodecServiceStub(channel).ListModels(codec_pb2.ListModelsRequest())
    assert [(model.name, model.is_default) for model in listed.models] == [("framecodec", False), ("soundstream", True)]
    assert all(len(model.digest_sha256) == 64 and model.service == "codec" for model in listed.models)
    assert [model.codebook_count for model in listed.models] == [4, 4]
    assert all(model.parameter_count > 1000 for model in listed.models)


async def test_without_a_list_every_codec_in_the_folder_is_served(serve: Any) -> None:
    async with serve(models="") as channel:
        listed = await codec_pb2_grpc.CodecServiceStub(channel).ListModels(codec_pb2.ListModelsRequest())
    assert [model.name for model in listed.models] == NAMES
    assert [model.name for model in listed.models if model.is_default] == ["framecodec"]
    assert [model.name for model in listed.models if model.channel_count != 1] == ["encodec_48khz"]


@pytest.mark.parametrize("name", NAMES)
async def test_streamed_bytes_equal_unary_bytes(serve: Any, name: str) -> None:
    generator = np.random.default_rng(NAMES.index(name))
    async with serve(models=name) as channel:
        stub = codec_pb2_grpc.CodecServiceStub(channel)
        clip = await encode(stub, waveform=noise(2.2))
        whole = await decode(stub, name, clip.tokens)
        total = num_frames(clip.tokens)
        for num_cuts in (1, 4, total // 2):
            cuts = sorted(generator.choice(np.arange(1, total), size=num_cuts, replace=False).tolist())
            streamed = await decode(stub, name, clip.tokens, cuts)
            assert joined(streamed) == joined(whole)
            assert [r.first_sample_index for r in streamed] == [r.first_sample_index for r in whole]
    assert len(whole) > 1
    assert whole[0].model.name == name and whole[0].model == clip.model
    assert not any(response.HasField("model") for response in whole[1:])
    num_channels, index = whole[0].waveform.channel_count, 0
    for response in whole:
        assert response.first_sample_index == index
        index += len(response.waveform.samples) // 4 // num_channels
    assert clip.sample_count <= index < clip.sample_count + 48_000 // 20
    audio = np.frombuffer(joined(whole), dtype="<f4")
    assert np.isfinite(audio).all() and np.abs(audio).max() > 1e-4


async def test_audio_flows_out_while_tokens_still_come_in(serve: Any) -> None:
    async with serve(models="framecodec") as channel:
        stub = codec_pb2_grpc.CodecServiceStub(channel)
        clip = await encode(stub, waveform=noise(1.0))
        call = stub.DecodeTokens()
        await call.write(configure())
        received = []
        for start in range(0, 80, 40):  # a chunk each
            await call.write(run_of(clip.tokens, start, start + 40))
            received.append(await asyncio.wait_for(call.read(), 60))
        await call.write(run_of(clip.tokens, 80, num_frames(clip.tokens)))
        await call.done_writing()
        while (response := await call.read()) is not grpc.aio.EOF:
            received.append(response)
        assert joined(received) == joined(await decode(stub, "", clip.tokens))


async def test_tokens_are_the_same_in_every_number_format_and_audio_nearly_so(serve: Any) -> None:
    decoded = {}
    async with serve(models="framecodec") as channel:
        clip = await encode(codec_pb2_grpc.CodecServiceStub(channel))
    for dtype in ("float32", "bfloat16"):
        async with serve(models="framecodec", dtype=dtype) as channel:
            stub = codec_pb2_grpc.CodecServiceStub(channel)
            again = await encode(stub)
            assert again.tokens == clip.tokens
            assert again.model.source == ("default" if dtype == "float32" else "default#bfloat16")
            decoded[dtype] = np.frombuffer(joined(await decode(stub, "", clip.tokens)), dtype="<f4")
            clip.tokens.codec_id = f"framecodec@{again.model.digest_sha256[:12]}"
            assert joined(await decode(stub, "", clip.tokens)) == decoded[dtype].tobytes()
            clip.tokens.codec_id = again.tokens.codec_id
    assert not np.array_equal(decoded["float32"], decoded["bfloat16"])
    np.testing.assert_allclose(decoded["bfloat16"], decoded["float32"], atol=0.1)


async def test_concurrent_requests_give_the_bytes_of_requests_alone(serve: Any) -> None:
    async with serve(models="framecodec,soundstream") as channel:
        stub = codec_pb2_grpc.CodecServiceStub(channel)
        clips = [await encode(stub, waveform=noise(0.6, seed=seed)) for seed in range(4)]
        alone = [joined(await decode(stub, "", clip.tokens)) for clip in clips]
        together = await asyncio.gather(*(decode(stub, "", clip.tokens, [3, 9]) for clip in clips))
        again = await asyncio.gather(*(encode(stub, waveform=noise(0.6, seed=seed)) for seed in range(4)))
    assert [joined(responses) for responses in together] == alone
    assert len(set(alone)) == 4
    assert again == clips


async def test_other_rates_and_channels_are_converted(serve: Any) -> None:
    async with serve(models="framecodec,encodec_48khz") as channel:
        stub = codec_pb2_grpc.CodecServiceStub(channel)
        clip = await encode(stub, waveform=noise(1.0, rate_hz=44_100, num_channels=2))
        assert clip.sample_count == 24_000 and num_frames(clip.tokens) == -(-24_000 // 256)
        stereo = await encode(stub, "encodec_48khz", waveform=noise(1.2, rate_hz=44_100))
        assert stereo.sample_count == 57_600 and len(stereo.tokens.chunk_scales) == 2
        assert (await decode(stub, "encodec_48khz", stereo.tokens))[0].waveform.channel_count == 2


@pytest.mark.parametrize("name", ["framecodec", "encodec_24khz"])
async def test_fewer_codebooks_are_the_coarsest_and_can_be_decoded(serve: Any, name: str) -> None:
    async with serve(models=name) as channel:
        stub = codec_pb2_grpc.CodecServiceStub(channel)
        whole, coarse = await encode(stub), await encode(stub, codebook_count=2)
        assert coarse.tokens.codebook_count == 2
        assert list(coarse.tokens.codes) == list(whole.tokens.codes)[: len(coarse.tokens.codes)]
        assert joined(await decode(stub, "", coarse.tokens)) != joined(await decode(stub, "", whole.tokens))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"waveform": None}, "waveform"),
        ({"waveform": audio_pb2.Waveform(sample_rate_hz=24_000, channel_count=1)}, "waveform.samples"),
        ({"waveform": audio_pb2.Waveform(sample_rate_hz=24_000, channel_count=3, samples=b"1234")}, "waveform"),
        ({"waveform": audio_pb2.Waveform(sample_rate_hz=10, channel_count=1, samples=b"1234")}, "waveform"),
        ({"waveform": audio_pb2.Waveform(sample_rate_hz=24_000, channel_count=1, samples=b"123")}, "waveform.samples"),
        (
            {"waveform": audio_pb2.Waveform(sample_rate_hz=24_000, channel_count=1, samples=b"\x00\x00\xc0\x7f")},
            "waveform.samples",
        ),
        ({"codebook_count": 5}, "codebook_count"),
        ({"codebook_count": -1}, "codebook_count"),
        ({"waveform": noise(601, rate_hz=8000)}, "waveform"),
    ],
)
async def test_bad_audio_is_refused_by_field_and_the_next_request_works(
    serve: Any, options: dict[str, Any], field: str
) -> None:
    async with serve(models="framecodec") as channel:
        stub = codec_pb2_grpc.CodecServiceStub(channel)
        error = await failure(encode(stub, **options))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violated_field(error).startswith(field)
        assert (await encode(stub)).sample_count == 12_000


async def test_bad_tokens_are_refused_by_field_and_the_next_request_works(serve: Any) -> None:
    async with serve(models="framecodec,soundstream") as channel:
        stub = codec_pb2_grpc.CodecServiceStub(channel)
        clip = await encode(stub)
        good = [configure(), codec_pb2.DecodeTokensRequest(tokens=clip.tokens)]
        expected = joined([response async for response in stub.DecodeTokens(iter(good))])

        def changed(**changes: Any) -> codec_pb2.DecodeTokensRequest:
            tokens = tokens_pb2.TokenMatrix()
            tokens.CopyFrom(clip.tokens)
            for key, value in changes.items():
                if key == "codes":
                    del tokens.codes[:]
                    tokens.codes.extend(value)
                elif key == "chunk_scales":
                    tokens.chunk_scales.extend(value)
                else:
                    setattr(tokens, key, value)
            return codec_pb2.DecodeTokensRequest(tokens=tokens)

        codes = list(clip.tokens.codes)
        invalid: list[tuple[list[codec_pb2.DecodeTokensRequest], str]] = [
            ([], "config"),
            ([good[1]], "config"),
            ([codec_pb2.DecodeTokensRequest()], "config"),
            ([configure()], "tokens"),
            ([configure(), codec_pb2.DecodeTokensRequest()], "tokens"),
            ([configure("soundstream"), good[1]], "tokens.codec_id"),
            ([configure(), changed(codec_id="")], "tokens.codec_id"),
            ([configure(), changed(codebook_count=0)], "tokens.codebook_count"),
            ([configure(), changed(codebook_count=65)], "tokens.codebook_count"),
            ([configure(), changed(codebook_count=8, codes=codes * 2)], "tokens.codebook_count"),
            ([configure(), changed(codes=codes[:-1])], "tokens.codes"),
            ([configure(), changed(codes=[])], "tokens.codes"),
            ([configure(), changed(codes=[*codes[:6], 32, *codes[7:]])], "tokens.codes[6]"),
            ([configure(), changed(codes=[-1, *codes[1:]])], "tokens.codes"),
            ([configure(), changed(frame_rate_hz=50.0)], "tokens.frame_rate_hz"),
            ([configure(), changed(frame_rate_hz=float("nan"))], "tokens.frame_rate_hz"),
            ([configure(), changed(chunk_scales=[1.0])], "tokens.chunk_scales"),
        ]
        for requests, field in invalid:
            error = await failure(consume(stub.DecodeTokens(iter(requests))))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, (field, error)
            assert violated_field(error) == field
        for requests in (
            [configure(), good[1], configure()],
            [configure(), good[1], changed(codebook_count=2)],
        ):
            error = await failure(consume(stub.DecodeTokens(iter(requests))))
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        error = await failure(consume(stub.DecodeTokens(iter([configure("absent"), good[1]]))))
        assert error.code() is grpc.StatusCode.NOT_FOUND and "framecodec, soundstream" in error.details()
        error = await failure(encode(stub, "absent"))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert joined([response async for response in stub.DecodeTokens(iter(good))]) == expected


async def test_a_full_codec_says_when_to_retry_and_a_cancelled_stream_makes_room(serve: Any) -> None:
    async with serve(models="framecodec", max_requests=1) as channel:
        stub = codec_pb2_grpc.CodecServiceStub(channel)
        clip = await encode(stub, waveform=noise(1.0))
        open_call = stub.DecodeTokens()
        await open_call.write(configure())
        await open_call.write(run_of(clip.tokens, 0, 40))
        first = await open_call.read()

        error = await failure(encode(stub))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = detail(error, error_details_pb2.RetryInfo())
        assert retry.retry_delay.ToNanoseconds() >= 100_000_000
        assert (await failure(decode(stub, "", clip.tokens))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED

        open_call.cancel()
        responses = await decode_once_there_is_room(stub, "", clip.tokens)
        assert responses[0].waveform == first.waveform


async def test_a_late_stream_ends_with_its_deadline_and_the_next_request_works(serve: Any) -> None:
    async with serve(models="framecodec", max_requests=1) as channel:
        stub = codec_pb2_grpc.CodecServiceStub(channel)
        clip = await encode(stub)

        async def stalling() -> AsyncIterator[codec_pb2.DecodeTokensRequest]:
            yield configure()
            yield run_of(clip.tokens, 0, 3)
            await asyncio.sleep(30)

        error = await failure(consume(stub.DecodeTokens(stalling(), timeout=1)))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert joined(await decode_once_there_is_room(stub, "", clip.tokens))


async def test_idle_streams_give_their_places_back_at_the_servers_own_deadline(serve: Any) -> None:
    async with serve(models="framecodec", max_requests=2, grpc={"default_deadline_s": 2.0}) as channel:
        stub = codec_pb2_grpc.CodecServiceStub(channel)
        clip = await encode(stub)
        idle = [stub.DecodeTokens() for _ in range(2)]
        for call in idle:
            await call.write(configure())
        for call in idle:
            error = await failure(call.read())
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and "default deadline" in error.details()
        assert joined(await decode_once_there_is_room(stub, "", clip.tokens))


async def test_a_loudness_outside_its_range_is_refused_and_the_loudest_one_decodes(serve: Any) -> None:
    async with serve(models="encodec_48khz") as channel:
        stub = codec_pb2_grpc.CodecServiceStub(channel)
        clip = (await encode(stub, waveform=noise(0.5, rate_hz=48_000))).tokens
        total = num_frames(clip)
        for scales in ([3.4e38], [1.1e4], [-1.0], [0.0], [float("nan")], [1.0] * (total + 1)):
            requests = [configure(), run_of(clip, 0, total, scales=scales)]
            error = await failure(consume(stub.DecodeTokens(iter(requests))))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, (scales[:2], error)
            assert violated_field(error) == "tokens.chunk_scales"
        loudest = [configure(), run_of(clip, 0, total, scales=[1e4])]
        audio = np.frombuffer(joined(await consume(stub.DecodeTokens(iter(loudest)))), dtype="<f4")
        assert np.isfinite(audio).all() and np.abs(audio).max() > 1


@pytest.mark.parametrize("level", [2e4, 3e38])
async def test_a_clip_too_loud_to_be_decoded_again_is_not_encoded(serve: Any, level: float) -> None:
    samples = np.full((2, 4800), level, dtype="<f4")
    loud = audio_pb2.Waveform(sample_rate_hz=48_000, channel_count=2, samples=samples.tobytes())
    async with serve(models="encodec_48khz") as channel:
        stub = codec_pb2_grpc.CodecServiceStub(channel)
        error = await failure(encode(stub, waveform=loud))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and violated_field(error) == "waveform"
        assert "[-1, 1]" in error.details()


async def test_whole_clips_are_converted_beside_the_event_loop(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[threading.Thread] = []

    def watched(name: str) -> None:
        function = getattr(convert, name)

        def call(*args: Any) -> Any:
            seen.append(threading.current_thread())
            return function(*args)

        monkeypatch.setattr(convert, name, call)

    watched("waveform_from_proto")
    watched("tokens_to_proto")
    async with serve(models="framecodec") as channel:
        await encode(codec_pb2_grpc.CodecServiceStub(channel))
    assert len(seen) == 2 and threading.current_thread() not in seen


async def test_malformed_and_oversized_requests_are_refused_and_the_next_request_works(serve: Any) -> None:
    async with serve(models="framecodec", grpc={"max_receive_bytes": 200_000}) as channel:
        stub = codec_pb2_grpc.CodecServiceStub(channel)
        unary = channel.unary_unary(f"/{SERVICE}/EncodeAudio", request_serializer=bytes)
        assert (await failure(unary(b"\xff\xff\xff"))).code() is grpc.StatusCode.INVALID_ARGUMENT
        stream = channel.stream_stream(f"/{SERVICE}/DecodeTokens", request_serializer=bytes)
        assert (await failure(consume(stream(iter([b"\xff\xff\xff"]))))).code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await failure(encode(stub, waveform=noise(3)))).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await encode(stub)).sample_count == 12_000


async def test_a_server_does_not_start_without_its_weights(serve: Any, tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="framecodec"):
        async with serve(models="", weights_dir=tmp_path):
            pass


async def test_a_server_does_not_start_with_a_foreign_architecture(serve: Any, tmp_path: Path) -> None:
    import torch
    from stretto_shared import weights

    weights.write(
        tmp_path / "odd",
        {"weight": torch.zeros(2)},
        name="odd",
        architecture="Odd",
        config={},
        licence="CC0-1.0",
        score="",
        training={},
    )
    with pytest.raises(NotFound, match="Odd"):
        async with serve(models="odd", weights_dir=tmp_path):
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
