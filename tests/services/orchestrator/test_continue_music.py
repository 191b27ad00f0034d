"""ContinueMusic over real channels: what is heard, what is sent, and in which bytes."""

import hashlib

import grpc
import numpy as np
import pytest
from stretto.common.v1 import audio_pb2
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto_client import client
from stretto_orchestrator.flows.recording import MAX_HEARD_S, last_whole_frames
from stretto_shared.audio import Waveform


def recording(duration_s=3.0, rate_hz=16_000):
    samples = np.abs(np.sin(np.arange(round(duration_s * rate_hz)) / 5_000)).astype("<f4")
    return audio_pb2.Waveform(sample_rate_hz=rate_hz, channel_count=1, samples=samples.tobytes())


def request(**fields):
    return orchestrator_pb2.ContinueMusicRequest(**({"audio": recording(), "duration_s": 1.5, "seed": 3} | fields))


async def test_only_the_new_music_is_sent_unless_the_recording_is_asked_for(house, collect):
    new = await collect(house.stub.ContinueMusic(request()))
    both = await collect(house.stub.ContinueMusic(request(include_recording=True)))
    assert len(new.samples) == 12_000 and len(both.samples) == 12_000 + 24_000
    assert both.samples[24_000:].tobytes() == new.samples.tobytes()
    assert new.receipt.duration_s == both.receipt.duration_s == 1.5
    assert new.receipt.input_sha256 == hashlib.sha256(recording().samples).hexdigest()
    assert both.receipt.output_sha256 == hashlib.sha256(both.samples.tobytes()).hexdigest()


async def test_the_last_ten_seconds_are_heard_and_counted_in_the_duration(house, collect):
    await collect(house.stub.ContinueMusic(request(audio=recording(17.3), duration_s=2)))
    asked = house.acoustic.requests[-1]
    assert len(asked.prompt.codes) == 2 * 500
    assert asked.duration_s == pytest.approx(12.0)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
async def test_what_lies_before_the_last_ten_seconds_changes_only_the_digest_of_the_input(house, collect, rate_hz):
    long = recording(17.3, rate_hz)
    end = audio_pb2.Waveform(sample_rate_hz=rate_hz, channel_count=1, samples=long.samples[-10 * rate_hz * 4 :])
    whole = await collect(house.stub.ContinueMusic(request(audio=long, include_recording=True)))
    cut = await collect(house.stub.ContinueMusic(request(audio=end, include_recording=True)))
    assert cut.samples.tobytes() == whole.samples.tobytes()
    assert cut.receipt.input_sha256 == hashlib.sha256(end.samples).hexdigest() != whole.receipt.input_sha256
    assert client.MAX_HEARD_S == MAX_HEARD_S, "what our own client sends"


async def test_without_a_prompt_the_text_encoder_is_not_asked(house, collect):
    music = await collect(house.stub.ContinueMusic(request()))
    assert house.embedding.watched.num_calls == 0 and not house.acoustic.requests[-1].HasField("text")
    assert [model.service for model in music.receipt.models] == ["acoustic", "codec"]
    prompted = await collect(house.stub.ContinueMusic(request(prompt="a waltz")))
    assert [model.service for model in prompted.receipt.models] == ["embedding", "acoustic", "codec"]
    assert prompted.samples.tobytes() != music.samples.tobytes()


async def test_the_recording_changes_the_music(house, collect):
    one = await collect(house.stub.ContinueMusic(request()))
    other = await collect(house.stub.ContinueMusic(request(audio=recording(2.0))))
    assert one.samples.tobytes() != other.samples.tobytes()


async def test_acoustic_lost_in_mid_stream_resumes_after_the_prompt(house, collect):
    whole = await collect(house.stub.ContinueMusic(request()))
    house.acoustic.watched.lose_after = [2]
    resumed = await collect(house.stub.ContinueMusic(request()))
    assert resumed.samples.tobytes() == whole.samples.tobytes()
    asked = house.acoustic.requests[-1]
    assert len(asked.prompt.codes) == 2 * 150 and len(asked.resume_from.codes) == 2 * 10


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"audio": recording(0.05)}, "audio"),
        ({"audio": None}, "audio"),
        ({"duration_s": 20.5}, "duration_s"),
        ({"duration_s": 1e-5}, "duration_s"),
        ({"prompt": "x" * 2001}, "prompt"),
    ],
)
async def test_an_invalid_field_is_named(house, fields, word):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in house.stub.ContinueMusic(request(**fields)):
            pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith(word)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000])
def test_what_is_heard_ends_with_the_recording_and_is_whole_frames(rate_hz):
    clip = Waveform(np.arange(round(3.017 * rate_hz)) / 1e6, rate_hz)
    heard = last_whole_frames(clip, 50.0)
    assert heard.num_samples == round(3.0 * rate_hz)
    assert heard.samples[0, -1] == clip.samples[0, -1]
