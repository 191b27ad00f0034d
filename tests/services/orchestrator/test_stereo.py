"""A stereo language model over a mono codec, as the official stereo checkpoints of MusicGen have it."""

import asyncio
import dataclasses

import grpc
import numpy as np
import pytest
import torch
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stretto.acoustic.v1 import acoustic_pb2, acoustic_pb2_grpc
from stretto.common.v1 import audio_pb2
from stretto.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto_acoustic.engine import AcousticEngine
from stretto_acoustic.loading import make_loaded
from stretto_acoustic.main import host
from stretto_acoustic.models.musicgen import PRESETS, MusicGenLM
from stretto_codec.loading import load
from stretto_codec.main import build as build_codec
from stretto_codec.models.encodec import GEOMETRIES, Encodec
from stretto_codec.models.streaming import decode_on_grid
from stretto_codec.settings import CodecSettings
from stretto_orchestrator.clients import DecodedAudio
from stretto_orchestrator.flows.resuming import ResumePolicy, Resumes, TokenLog
from stretto_orchestrator.flows.stereo import resumed_stereo
from stretto_shared import weights
from stretto_shared.audio import Waveform
from stretto_shared.errors import Conflict, InvalidInput, Overloaded
from stretto_shared.features import ModelInfo
from stretto_shared.tokens import TokenMatrix

HOP = 160
STEREO = {"num_codebooks": 4, "num_channels": 2}


@pytest.fixture
def stereo_house(house):
    """The language model speaks for two channels, with both of the tiny codec's codebooks each."""
    house.acoustic.watched.info = dataclasses.replace(house.acoustic.watched.info, **STEREO)
    return house


def sides(music):
    assert {chunk.waveform.channel_count for chunk in music.chunks} == {2}
    return music.samples.reshape(-1, 2).T


def recording(*channels, rate_hz=8_000):
    samples = np.stack(channels, axis=1).astype("<f4")
    return audio_pb2.Waveform(sample_rate_hz=rate_hz, channel_count=len(channels), samples=samples.tobytes())


def continuation(audio, **fields):
    return orchestrator_pb2.ContinueMusicRequest(**({"audio": audio, "duration_s": 1.5, "seed": 3} | fields))


async def tokens_of(house, request, *, num_codebooks):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{house.ports['acoustic']}") as channel:
        parts = [part async for part in acoustic_pb2_grpc.AcousticServiceStub(channel).GenerateTokens(request)]
    return np.concatenate([np.array(part.tokens.codes).reshape(num_codebooks, -1) for part in parts], axis=1)


async def test_even_rows_sound_left_and_odd_rows_right(stereo_house, collect, request_music):
    music = await collect(stereo_house.stub.GenerateMusic(request_music(duration_s=1.23)))
    left, right = sides(music)
    assert left.size == right.size == round(1.23 * 8_000)
    codes = await tokens_of(stereo_house, stereo_house.acoustic.requests[-1], num_codebooks=4)
    for side, samples in enumerate((left, right)):  # the tiny codec sounds 64 * coarse + fine
        coarse, fine = codes[side], codes[side + 2]
        np.testing.assert_array_equal(samples, np.repeat((coarse * 64 + fine) / 4096, HOP)[: samples.size])


def num_calls(house):
    return {stage: getattr(house, stage).watched.num_calls for stage in ("embedding", "acoustic", "codec")}


@pytest.mark.parametrize("num_channels", [0, 1])
async def test_mono_music_calls_each_stage_once_and_stays_mono(house, collect, request_music, num_channels):
    house.acoustic.watched.info = dataclasses.replace(house.acoustic.watched.info, num_channels=num_channels)
    music = await collect(house.stub.GenerateMusic(request_music()))
    assert {chunk.waveform.channel_count for chunk in music.chunks} == {1}
    assert num_calls(house) == {"embedding": 1, "acoustic": 1, "codec": 1}


async def test_stereo_music_takes_one_stream_of_the_codec_for_each_side(stereo_house, collect, request_music):
    await collect(stereo_house.stub.GenerateMusic(request_music()))
    assert num_calls(stereo_house) == {"embedding": 1, "acoustic": 1, "codec": 2}


@pytest.mark.parametrize("lost", [{"codec": [1]}, {"codec": [3, 4]}, {"acoustic": [5], "codec": [2]}])
async def test_a_lost_stage_gives_the_same_bytes_on_both_sides(stereo_house, collect, request_music, lost):
    whole = await collect(stereo_house.stub.GenerateMusic(request_music()))
    for stage, lose_after in lost.items():
        getattr(stereo_house, stage).watched.lose_after = list(lose_after)
    resumed = await collect(stereo_house.stub.GenerateMusic(request_music()))
    assert resumed.samples.tobytes() == whole.samples.tobytes()
    assert resumed.receipt.resume_count == sum(map(len, lost.values()))


async def test_a_codec_with_room_for_one_side_only_refuses_the_piece(stereo_house, collect, request_music):
    stereo_house.codec.watched.refusals = [None, Overloaded("Full.", retry_after_s=1)]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(stereo_house.stub.GenerateMusic(request_music()))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await collect(stereo_house.stub.GenerateMusic(request_music()))).receipt is not None


async def test_cancellation_and_deadline_reach_both_sides(stereo_house, request_music, eventually):
    stereo_house.acoustic.watched.gate = asyncio.Event()
    watched = stereo_house.codec.watched
    call = stereo_house.stub.GenerateMusic(request_music(duration_s=10), timeout=30)
    async for response in call:
        if response.WhichOneof("payload") == "chunk":
            break
    assert watched.num_active == 2 and 0 < watched.remaining_s < 31
    call.cancel()
    await eventually(lambda: stereo_house.acoustic.watched.num_active == watched.num_active == 0)


async def test_both_sides_of_a_recording_are_heard_and_mono_is_heard_on_both(stereo_house, collect):
    loud, soft = np.full(8_000, 0.5), np.full(8_000, 0.2)
    both = await collect(stereo_house.stub.ContinueMusic(continuation(recording(loud, soft), include_recording=True)))
    rows = np.array(stereo_house.acoustic.requests[-1].prompt.codes).reshape(4, 50)
    assert (rows == [[5], [2], [5], [2]]).all()
    left, right = sides(both)
    assert left.size == 8_000 + 12_000
    assert (left[:8_000] == (5 * 64 + 5) / 4096).all() and (right[:8_000] == (2 * 64 + 2) / 4096).all()
    await collect(stereo_house.stub.ContinueMusic(continuation(recording(soft))))
    assert set(stereo_house.acoustic.requests[-1].prompt.codes) == {2}


async def test_a_language_model_is_asked_for_once_and_then_known_by_its_answers(house, collect, request_music):
    soft = continuation(recording(np.full(8_000, 0.2)))
    await collect(house.stub.ContinueMusic(soft))
    assert num_calls(house) == {"embedding": 0, "acoustic": 2, "codec": 2}, "listed, and the recording was encoded"
    await collect(house.stub.ContinueMusic(soft))
    assert num_calls(house) == {"embedding": 0, "acoustic": 3, "codec": 4}
    house.acoustic.watched.info = dataclasses.replace(house.acoustic.watched.info, digest_sha256="c" * 64, **STEREO)
    sides(await collect(house.stub.GenerateMusic(request_music())))
    sides(await collect(house.stub.ContinueMusic(soft)))
    assert num_calls(house)["acoustic"] == 5


@pytest.mark.parametrize("change", [STEREO, {"num_channels": 2}, {"frame_rate_hz": 25.0}])
@pytest.mark.parametrize("refusal", [None, InvalidInput("prompt.codebook_count", "expected 4, got 2.")])
async def test_a_recording_is_not_continued_by_a_model_that_it_was_not_encoded_for(house, collect, change, refusal):
    soft = continuation(recording(np.full(8_000, 0.2)))
    await collect(house.stub.ContinueMusic(soft))
    watched = house.acoustic.watched
    watched.info = dataclasses.replace(watched.info, digest_sha256="c" * 64, **change)
    watched.refusals = [refusal]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(house.stub.ContinueMusic(soft))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "tinylm@bbb" in caught.value.details() and "tinylm@ccc" in caught.value.details()
    info = error_details_pb2.ErrorInfo()
    assert any(packed.Unpack(info) for packed in rpc_status.from_call(caught.value).details)
    assert info.reason == "MODEL_CHANGED"
    if change != {"num_channels": 2}:  # the tiny codec has no sound for one codebook a side
        again = await collect(house.stub.ContinueMusic(soft))
        assert {chunk.waveform.channel_count for chunk in again.chunks} == {change.get("num_channels", 1)}


async def test_a_model_that_hears_as_the_one_before_it_goes_on_at_once(house, collect):
    soft = continuation(recording(np.full(8_000, 0.2)))
    watched = house.acoustic.watched
    await collect(house.stub.ContinueMusic(soft))
    watched.info = dataclasses.replace(watched.info, digest_sha256="c" * 64, num_channels=1)
    music = await collect(house.stub.ContinueMusic(soft))
    assert [model.digest_sha256[0] for model in music.receipt.models] == ["c", "a"]
    watched.refusals = [InvalidInput("prompt.codec_id", "expected another.")]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(house.stub.ContinueMusic(soft))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and "cascade" in caught.value.details()


class TwoCodecs:
    """Stands for a codec client whose two streams are answered by different replicas."""

    def __init__(self, models, num_channels=1):
        self.models, self.num_channels = list(models), num_channels

    async def decode(self, tokens):
        await anext(tokens)
        yield DecodedAudio(Waveform(np.zeros((self.num_channels, 8)), 8_000), 0, self.models.pop())


async def one_part(codes):
    yield TokenMatrix(codes, 50.0, "c@1")


@pytest.mark.parametrize(
    ("digests", "num_channels", "error"), [("12", 1, Conflict), ("11", 2, InvalidInput), ("11", 1, None)]
)
async def test_sides_that_do_not_belong_together_are_refused(digests, num_channels, error):
    codec = TwoCodecs((ModelInfo("c", "codec", digit * 64, "") for digit in digests), num_channels)
    log = TokenLog(max_ahead=4)
    await log.fill(one_part(np.zeros((4, 5))))
    audio = resumed_stereo(codec, log, Resumes(ResumePolicy(), lambda stage: None))
    if error is None:
        assert [part.waveform.samples.shape async for part in audio] == [(2, 8)]
        return
    with pytest.raises(error):
        await anext(audio)


class RealStages:
    """A tiny untrained MusicGen in stereo, and a tiny EnCodec of 32 kHz with four codebooks."""

    def __init__(self, weights_dir, num_codebooks):
        sizes = {"num_filters": 4, "hidden_size": 16, "cardinality": 32}
        config = dataclasses.replace(GEOMETRIES["encodec_32khz"], **sizes)
        torch.manual_seed(0)
        state = Encodec(config).state_dict()
        for key, tensor in state.items():
            if key.endswith(".embed"):
                tensor.normal_()
        weights.write(
            weights_dir / "encodec_32khz", state, name="encodec_32khz", architecture="Encodec",
            config=dataclasses.asdict(config), licence="CC0-1.0", score="", training={},
        )  # fmt: skip
        self.codec = load("encodec_32khz", "default", weights_dir=weights_dir)
        self._weights_dir = weights_dir
        self.config = dataclasses.replace(
            PRESETS["tiny"], num_codebooks=num_codebooks, num_channels=2, cardinality=32, text_dim=4, max_frames=500,
            sample_rate_hz=32_000, codec_id="encodec_32khz", text_encoder_id="tinytext",
        )  # fmt: skip

    def load_lm(self):
        torch.manual_seed(1)
        model = MusicGenLM(self.config)
        with torch.no_grad():
            model.heads.weight.mul_(6)
        return make_loaded("stereo", model, digest_sha256="b" * 64, is_default=True)

    async def move_into(self, house):
        codec_settings = CodecSettings(models="encodec_32khz", weights_dir=self._weights_dir, num_threads=1)
        builders = {
            "acoustic": lambda context: host(AcousticEngine({"stereo": self.load_lm})),
            "codec": lambda context: build_codec(context, codec_settings),
        }
        for name, build in builders.items():
            await house.servers[name].stop()
            await house.start_stage(name, house.ports[name], build)


@pytest.mark.parametrize("num_codebooks", [8, 4])  # 4 are the coarser half of each side, and not mono
async def test_real_stages_make_stereo_music_and_continue_it(house, collect, request_music, tmp_path, num_codebooks):
    stages = RealStages(tmp_path, num_codebooks)
    await stages.move_into(house)
    music = await collect(house.stub.GenerateMusic(request_music(duration_s=2.0)))
    left, right = sides(music)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{house.ports['embedding']}") as channel:
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        text = (await stub.EmbedText(embedding_pb2.EmbedTextRequest(texts=["a slow waltz"]))).states[0]
    codes = await tokens_of(
        house, acoustic_pb2.GenerateTokensRequest(text=text, duration_s=2.0, seed=7), num_codebooks=num_codebooks
    )
    for side, samples in enumerate((left, right)):
        rows = torch.from_numpy(codes[side::2].astype(np.int64))[None]
        with torch.inference_mode():
            alone = decode_on_grid(stages.codec.open_decoder(), stages.codec.grid, rows)
        np.testing.assert_array_equal(samples, alone[0, 0].numpy())
    assert not np.array_equal(left, right)
    assert [model.name for model in music.receipt.models] == ["tinytext", "stereo", "encodec_32khz"]

    noise = np.random.default_rng(0).standard_normal((2, 32_000)) * [[1.0], [0.02]]
    heard, mirrored, mono = (recording(*channels, rate_hz=32_000) for channels in (noise, noise[::-1], noise[:1]))
    new, again, other, third = [
        sides(await collect(house.stub.ContinueMusic(continuation(audio)))) for audio in (heard, heard, mirrored, mono)
    ]
    assert new.shape == (2, 48_000)
    np.testing.assert_array_equal(new, again)
    assert len({side.tobytes() for music in (new, other, third) for side in music}) == 6
