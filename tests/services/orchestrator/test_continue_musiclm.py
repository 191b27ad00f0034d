"""ContinueMusic with the cascade `musiclm`: what each stage hears of the recording, bytes, resumes, replacements."""

import dataclasses

import grpc
import numpy as np
import pytest
from fake_stages import FINE, MULAN
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.common.v1 import audio_pb2
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto_shared.errors import InvalidInput

TOKEN_STAGES = ("semantic", "acoustic/musiclm_coarse", "acoustic/musiclm_fine")


def recording(duration_s=1.0, rate_hz=8_000):
    samples = np.linspace(0.1, 0.9, round(duration_s * rate_hz)).astype("<f4")
    return audio_pb2.Waveform(sample_rate_hz=rate_hz, channel_count=1, samples=samples.tobytes())


def continuation(**fields):
    values = {"cascade": "musiclm-fine", "audio": recording(), "duration_s": 1.0, "seed": 7}
    return orchestrator_pb2.ContinueMusicRequest(**(values | fields))


async def test_every_stage_goes_on_from_what_it_hears_of_the_recording(house, collect):
    music = await collect(house.stub.ContinueMusic(continuation(prompt="a waltz")))
    semantic, coarse, fine = (house.watched[name].requests[-1] for name in TOKEN_STAGES)
    assert len(semantic.prompt.codes) == 100 and semantic.prompt.codec_id.startswith("w2vbert@")
    assert (fine.prompt.codebook_count, len(fine.prompt.codes)) == (2, 100)
    assert (coarse.prompt.codebook_count, list(coarse.prompt.codes)) == (1, list(fine.prompt.codes)[:50])
    assert semantic.duration_s == coarse.duration_s == fine.duration_s == 2.0
    assert len(music.samples) == 8_000
    assert [model.name for model in music.receipt.models] == [
        "mulan", "w2vbert", "musiclm_semantic", "musiclm_coarse", "musiclm_fine", "tinycodec",
    ]  # fmt: skip
    assert [progress.stage for progress in music.progress if not progress.total_frame_count] == [
        "embedding", "codec", *TOKEN_STAGES,
    ]  # fmt: skip


async def test_with_the_recording_in_front_the_rest_is_the_same(house, collect):
    new = await collect(house.stub.ContinueMusic(continuation()))
    whole = await collect(house.stub.ContinueMusic(continuation(include_recording=True)))
    assert len(whole.samples) == 16_000
    assert whole.samples[8_000:].tobytes() == new.samples.tobytes()


async def test_a_recording_that_ends_within_a_frame_is_heard_in_whole_frames_by_all(house, collect):
    await collect(house.stub.ContinueMusic(continuation(audio=recording(0.995))))
    semantic, coarse, fine = (house.watched[name].requests[-1] for name in TOKEN_STAGES)
    assert (len(semantic.prompt.codes), len(coarse.prompt.codes), len(fine.prompt.codes)) == (98, 49, 98)


async def test_without_a_prompt_the_style_is_that_of_the_recordings_end(house, collect):
    plain = await collect(house.stub.ContinueMusic(continuation()))
    assert [request.DESCRIPTOR.name for request in house.embedding.watched.requests] == ["EmbedAudioRequest"]
    assert house.semantic.watched.requests[-1].styles[0].encoder_id == MULAN.model_id
    assert plain.receipt.models[0].name == "mulan"
    told = await collect(house.stub.ContinueMusic(continuation(prompt="a waltz")))
    assert [request.DESCRIPTOR.name for request in house.embedding.watched.requests][1:] == ["EmbedTextRequest"]
    assert told.samples.tobytes() != plain.samples.tobytes()


async def test_only_the_last_ten_seconds_are_embedded(house, collect):
    await collect(house.stub.ContinueMusic(continuation(audio=recording(12.0))))
    assert len(house.embedding.watched.requests[0].waveform.samples) == 4 * 80_000


@pytest.mark.parametrize("name", TOKEN_STAGES)
async def test_a_lost_stage_resumes_after_the_prompt(house, collect, name):
    whole = await collect(house.stub.ContinueMusic(continuation()))
    house.watched[name].lose_after = [2]
    resumed = await collect(house.stub.ContinueMusic(continuation()))
    assert resumed.samples.tobytes() == whole.samples.tobytes() and resumed.receipt.resume_count == 1
    again = house.watched[name].requests[-1]
    assert len(again.prompt.codes) in (50, 100) and len(again.resume_from.codes) in (10, 20)


async def test_a_refused_recording_is_named(house):
    house.semantic.watched.error = InvalidInput("waveform", "expected at least a second.")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in house.stub.ContinueMusic(continuation()):
            pass
    assert caught.value.details().startswith("audio: ")


@pytest.mark.parametrize("change", [{"frame_rate_hz": 25.0}, {"num_codebooks": 4}])
async def test_a_recording_is_not_continued_by_a_model_that_it_was_not_encoded_for(house, collect, change):
    await collect(house.stub.ContinueMusic(continuation()))
    watched = house.watched["acoustic/musiclm_fine"]
    watched.info = dataclasses.replace(FINE, digest_sha256="9" * 64, **change)
    watched.refusals = [InvalidInput("prompt.codebook_count", "expected 4, got 2.")]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(house.stub.ContinueMusic(continuation()))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    info = error_details_pb2.ErrorInfo()
    assert any(packed.Unpack(info) for packed in rpc_status.from_call(caught.value).details)
    assert info.reason == "MODEL_CHANGED" and "musiclm_fine@999" in caught.value.details()


async def test_without_a_fine_stage_a_recording_is_heard_in_the_coarse_codebooks(house, collect):
    music = await collect(house.stub.ContinueMusic(continuation(cascade="musiclm")))
    semantic, coarse = (house.watched[name].requests[-1] for name in TOKEN_STAGES[:2])
    assert (len(semantic.prompt.codes), coarse.prompt.codebook_count, len(coarse.prompt.codes)) == (100, 1, 50)
    assert house.watched["acoustic/musiclm_fine"].num_calls == 0 and len(music.samples) == 8_000
