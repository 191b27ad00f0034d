"""GenerateMusic over real channels: overlap, laws of bytes, receipts, errors, deadline, cancellation."""

import asyncio
import hashlib
import time

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.common.v1 import audio_pb2, model_pb2
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto_orchestrator.flows import events
from stretto_shared.errors import InvalidInput, NotFound, NotReady, Overloaded
from stretto_shared.grpc.status import code_of


def clip(duration_s=0.5, level=0.5, rate_hz=16_000):
    samples = np.full(round(duration_s * rate_hz), level, "<f4").tobytes()
    return audio_pb2.Waveform(sample_rate_hz=rate_hz, channel_count=1, samples=samples)


def details_of(error, kind):
    found = kind()
    for packed in rpc_status.from_call(error).details:
        if packed.Unpack(found):
            return found
    raise AssertionError(f"no {kind.__name__} in {error}")


async def failure(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value


async def test_a_prompt_becomes_exactly_the_asked_duration_with_a_receipt(house, collect, request_music):
    music = await collect(house.stub.GenerateMusic(request_music(duration_s=1.23456)))
    assert len(music.samples) == round(1.23456 * 8_000)
    receipt = music.receipt
    assert [model.service for model in receipt.models] == ["embedding", "acoustic", "codec"]
    assert [model.digest_sha256[0] for model in receipt.models] == ["a", "b", "a"]
    assert (receipt.cascade, receipt.prompt, receipt.seed, receipt.duration_s) == (
        "musicgen",
        "a slow waltz",
        7,
        1.23456,
    )
    assert receipt.output_sha256 == hashlib.sha256(music.samples.tobytes()).hexdigest()
    assert receipt.input_sha256 == "" and receipt.resume_count == 0 and receipt.stretto_version == "0.1.0"
    assert (receipt.sampling.temperature, receipt.sampling.top_k, receipt.sampling.guidance_scale) == (1.0, 250, 3.0)
    assert 0 < receipt.first_audio_latency.ToNanoseconds() <= receipt.total_latency.ToNanoseconds()


async def test_duration_zero_takes_ten_seconds(house, collect, request_music):
    music = await collect(house.stub.GenerateMusic(request_music(duration_s=0)))
    assert len(music.samples) == 80_000 and music.receipt.duration_s == 10


async def test_a_tenth_of_a_second_is_the_shortest_piece(house, collect, request_music):
    assert len((await collect(house.stub.GenerateMusic(request_music(duration_s=0.1)))).samples) == 800
    await failure(house.stub.GenerateMusic(request_music(duration_s=1e-5)))
    assert house.embedding.watched.num_calls == house.acoustic.watched.num_calls == 1, "refused before any stage works"


async def test_progress_counts_up_to_the_whole_piece(house, collect, request_music):
    music = await collect(house.stub.GenerateMusic(request_music()))
    assert music.progress[0].stage == "embedding"
    done = [progress.done_frame_count for progress in music.progress if progress.total_frame_count]
    assert done == sorted(done) and done[-1] == 100
    assert {progress.total_frame_count for progress in music.progress if progress.total_frame_count} == {100}


async def test_progress_is_told_before_the_first_audio_and_at_most_five_times_a_second(house, request_music):
    house.codec.watched.gate = asyncio.Event()
    house.acoustic.watched.step_s = 0.03
    call = house.stub.GenerateMusic(request_music(duration_s=3), timeout=60)  # 30 messages in 0.9 s or more
    began_s, done = time.monotonic(), []
    async for response in call:
        assert response.WhichOneof("payload") == "progress"
        if response.progress.total_frame_count:
            assert (response.progress.stage, response.progress.total_frame_count) == ("acoustic", 150)
            done.append(response.progress.done_frame_count)
        if done and done[-1] == 150:
            break
    elapsed_s = time.monotonic() - began_s
    assert done == sorted(set(done)) and 0 < done[0] < 150
    assert len(done) <= elapsed_s / 0.2 + 2
    house.codec.watched.gate.set()
    rest = [response.WhichOneof("payload") async for response in call]
    assert set(rest) == {"chunk", "receipt"}, "all frames were told before"


async def test_within_the_interval_only_the_first_and_the_last_progress_is_told(
    house, collect, request_music, monkeypatch
):
    monkeypatch.setattr(events, "PROGRESS_INTERVAL_S", 1e6)
    music = await collect(house.stub.GenerateMusic(request_music(duration_s=10)))
    done = [progress.done_frame_count for progress in music.progress if progress.total_frame_count]
    assert len(music.chunks) == 50
    assert len(done) <= 2 and done[-1] == 500


async def test_first_audio_comes_before_the_last_token_is_made(house, request_music):
    house.acoustic.watched.gate = asyncio.Event()
    call = house.stub.GenerateMusic(request_music(duration_s=10), timeout=60)
    async for response in call:
        if response.WhichOneof("payload") == "chunk":
            break
    assert house.acoustic.watched.num_sent <= 4, "of 100 messages; the stage waits after the fourth"
    house.acoustic.watched.gate.set()
    async for response in call:
        last = response
    assert last.HasField("receipt")


async def test_same_request_gives_same_bytes_and_each_input_changes_them(house, collect, request_music):
    first = await collect(house.stub.GenerateMusic(request_music()))
    again = await collect(house.stub.GenerateMusic(request_music()))
    assert first.samples.tobytes() == again.samples.tobytes()
    assert first.receipt.output_sha256 == again.receipt.output_sha256
    for change in ({"seed": 8}, {"prompt": "a fast reel"}, {"melody": clip()}, {"melody": clip(level=0.9)}):
        other = await collect(house.stub.GenerateMusic(request_music(**change)))
        assert other.samples.tobytes() != first.samples.tobytes(), change


async def test_a_melody_is_in_the_receipt_by_its_digest(house, collect, request_music):
    music = await collect(house.stub.GenerateMusic(request_music(melody=clip())))
    assert music.receipt.input_sha256 == hashlib.sha256(clip().samples).hexdigest()
    assert list(house.acoustic.requests[-1].melody.pitch_classes) == [5] * 4


async def test_sampling_reaches_the_acoustic_stage_as_it_came(house, collect, request_music):
    await collect(house.stub.GenerateMusic(request_music(sampling=model_pb2.SamplingOptions(temperature=0, top_k=3))))
    sampling = house.acoustic.requests[-1].sampling
    assert sampling.temperature == 0 and sampling.HasField("temperature") and sampling.top_k == 3
    assert not sampling.HasField("top_p") and not sampling.HasField("guidance_scale")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "   "}, "prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"prompt": "x" * 1500}, "prompt"),  # the embedding stage refuses it, and calls it texts[0]
        ({"duration_s": -1}, "duration_s"),
        ({"duration_s": 1e-5}, "duration_s"),
        ({"duration_s": 0.0999}, "duration_s"),
        ({"duration_s": 30.5}, "duration_s"),
        ({"duration_s": float("nan")}, "duration_s"),
        ({"sampling": model_pb2.SamplingOptions(top_p=2)}, "sampling.top_p"),
        ({"sampling": model_pb2.SamplingOptions(top_k=65)}, "sampling.top_k"),  # the acoustic stage refuses it
        (
            {"melody": audio_pb2.Waveform(sample_rate_hz=8_000, channel_count=3, samples=b"1234")},
            "melody.channel_count",
        ),
        ({"melody": clip(0.05)}, "melody"),  # the embedding stage refuses it, and calls it waveform
    ],
)
async def test_an_invalid_field_is_named_and_the_next_request_works(house, collect, request_music, fields, field):
    error = await failure(house.stub.GenerateMusic(request_music(**fields)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details_of(error, error_details_pb2.BadRequest).field_violations[0].field == field
    assert len((await collect(house.stub.GenerateMusic(request_music()))).samples) == 16_000


async def test_an_unknown_cascade_is_not_found_and_the_known_ones_are_named(house, request_music):
    error = await failure(house.stub.GenerateMusic(request_music(cascade="jukebox")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "musicgen" in error.details() and "jukebox" in error.details()


async def test_an_extra_cascade_asks_for_its_own_models(house_with, collect, request_music):
    cascade = {"text_model": "t5-base", "acoustic_model": "musicgen-small"}
    async with house_with(extra_cascades={"official": cascade}) as house:
        music = await collect(house.stub.GenerateMusic(request_music(cascade="official")))
        assert house.acoustic.requests[-1].model == "musicgen-small"
        assert music.receipt.cascade == "official"


@pytest.mark.parametrize("stage", ["embedding", "acoustic", "codec"])
@pytest.mark.parametrize(
    "refusal",
    [
        NotFound("model", "expected one of minilm, got 't5-base'. Choose one."),
        InvalidInput("tokens.codec_id", "expected 'a@1', got 'a@2'. Decode with the codec that made the tokens."),
    ],
)
async def test_stages_that_do_not_go_together_are_the_cascades_fault(house, request_music, stage, refusal):
    getattr(house, stage).watched.error = refusal
    error = await failure(house.stub.GenerateMusic(request_music()))
    assert error.code() is code_of(refusal)
    assert details_of(error, error_details_pb2.ErrorInfo).metadata["field"] == "cascade"
    assert stage in error.details() and refusal.message in error.details()


@pytest.mark.parametrize("stage", ["embedding", "acoustic", "codec"])
async def test_a_full_stage_passes_its_retry_time_through(house, collect, request_music, stage):
    getattr(house, stage).watched.error = Overloaded("Full.", retry_after_s=2.5)
    error = await failure(house.stub.GenerateMusic(request_music()))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details_of(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 2500
    getattr(house, stage).watched.error = None
    assert (await collect(house.stub.GenerateMusic(request_music()))).receipt is not None


@pytest.mark.parametrize("stage", ["embedding", "acoustic", "codec"])
async def test_a_crash_in_a_stage_is_internal_and_leaks_nothing(house, request_music, stage):
    getattr(house, stage).watched.error = RuntimeError("secret path")
    error = await failure(house.stub.GenerateMusic(request_music()))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()


@pytest.mark.parametrize("stage", ["embedding", "acoustic", "codec"])
async def test_an_unreachable_stage_is_unavailable_by_name(house, request_music, stage):
    await house.servers[stage].stop()
    error = await failure(house.stub.GenerateMusic(request_music(), timeout=20))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert stage in error.details()


async def test_cancellation_reaches_every_stage(house, request_music, eventually):
    house.acoustic.watched.gate = asyncio.Event()
    call = house.stub.GenerateMusic(request_music(duration_s=10))
    async for response in call:
        if response.WhichOneof("payload") == "chunk":
            break
    assert (house.acoustic.watched.num_active, house.codec.watched.num_active) == (1, 1)
    call.cancel()
    await eventually(lambda: house.acoustic.watched.num_active == house.codec.watched.num_active == 0)
    assert house.acoustic.watched.num_cancelled == 1
    assert house.acoustic.watched.num_sent < 100 and house.codec.watched.num_sent < 50


async def test_the_deadline_reaches_every_stage(house, request_music):
    house.acoustic.watched.gate = asyncio.Event()
    call = house.stub.GenerateMusic(request_music(duration_s=10), timeout=60)
    async for response in call:
        if response.WhichOneof("payload") == "chunk":
            break
    call.cancel()
    for stage in (house.embedding, house.acoustic, house.codec):
        assert 0 < stage.watched.remaining_s < 60.5, "each hop rounds up a little; a stage alone would get 600 s"


async def test_a_piece_that_is_not_ready_at_its_deadline_ends_there_in_every_stage(house, request_music, eventually):
    house.acoustic.watched.gate = asyncio.Event()
    error = await failure(house.stub.GenerateMusic(request_music(duration_s=10), timeout=4.0))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: house.acoustic.watched.num_active == house.codec.watched.num_active == 0)


async def test_a_stage_that_refuses_from_the_start_is_not_resumed(house, request_music):
    house.acoustic.watched.error = NotReady("Loading.")
    error = await failure(house.stub.GenerateMusic(request_music(), timeout=20))
    assert error.code() is grpc.StatusCode.UNAVAILABLE and "Loading" in error.details()


async def test_list_models_names_all_and_whom_it_could_not_reach(house):
    answer = await house.stub.ListModels(orchestrator_pb2.ListModelsRequest())
    assert [(model.service, model.name) for model in answer.models] == [
        ("acoustic", "musiclm_coarse"), ("acoustic", "musiclm_fine"), ("acoustic", "tinylm"), ("codec", "tinycodec"),
        ("embedding", "tinytext"), ("harmony", "tinyharmony"), ("semantic", "musiclm_semantic"),
        ("transcriber", "tinybeats"), ("transcriber", "tinynotes"),
    ]  # fmt: skip
    await house.servers["codec"].stop()
    answer = await house.stub.ListModels(orchestrator_pb2.ListModelsRequest())
    assert list(answer.unreachable_services) == ["codec"] and len(answer.models) == 8
