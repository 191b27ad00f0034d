"""The evals' calls of a cascade and of its stages say what they mean, over a real channel to made-up services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from stages import GREEDY, MusicLmModels, Stages, StoryPart, joined, open_stages
from stretto.acoustic.v1 import acoustic_pb2, acoustic_pb2_grpc
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from stretto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from stretto.semantic.v1 import semantic_pb2, semantic_pb2_grpc
from stretto_shared.audio import Waveform
from stretto_shared.features import JointEmbedding
from stretto_shared.grpc import convert
from stretto_shared.tokens import TokenMatrix

STYLE = JointEmbedding("joint@0", np.ones(4, np.float32), (3, 1))
SILENCE = Waveform(np.zeros((1, 24_000), np.float32), 24_000)


def tokens(num_codebooks: int, num_frames: int, rate_hz: float, maker: str) -> TokenMatrix:
    return TokenMatrix(np.full((num_codebooks, num_frames), num_codebooks, np.int32), rate_hz, maker)


class Services:
    """Every service of the cascade; remembers what it was asked. Methods that no test calls are none."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def __getattr__(self, name: str) -> None:
        return None

    async def EmbedText(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return embedding_pb2.EmbedTextResponse(embeddings=[convert.joint_embedding_to_proto(STYLE)])

    async def EmbedAudio(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return embedding_pb2.EmbedAudioResponse(embedding=convert.joint_embedding_to_proto(STYLE))

    async def EncodeAudio(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        made = convert.tokens_to_proto(tokens(12, 13, 12.5, "codec@0"))
        return codec_pb2.EncodeAudioResponse(tokens=made, sample_count=24_000)

    async def GenerateMusic(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.asked.append(request)
        yield orchestrator_pb2.GenerateMusicResponse(progress=orchestrator_pb2.Progress(stage="semantic"))
        for index in range(2):
            chunk = orchestrator_pb2.AudioChunk(
                waveform=convert.waveform_to_proto(SILENCE), first_sample_index=24_000 * index
            )
            yield orchestrator_pb2.GenerateMusicResponse(chunk=chunk)
        yield orchestrator_pb2.GenerateMusicResponse(receipt=orchestrator_pb2.Receipt())

    async def GenerateTokens(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.asked.append(request)
        for start in (0, 10):
            part = convert.tokens_to_proto(tokens(1, 10, 25.0, "w2v@0"))
            yield semantic_pb2.GenerateTokensResponse(tokens=part, first_frame_index=start)

    async def TokenizeAudio(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        num_samples = 0
        async for request in requests:
            self.asked.append(request)
            if request.HasField("waveform"):
                num_samples += convert.waveform_from_proto(request.waveform).num_samples
        part = convert.tokens_to_proto(tokens(1, num_samples // 960, 25.0, "w2v@0"))
        yield semantic_pb2.TokenizeAudioResponse(tokens=part)

    async def RefineTokens(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        asked = [request async for request in requests]
        self.asked += asked
        num_codebooks = 4 if asked[0].config.model == "musiclm_coarse" else 12
        part = tokens(num_codebooks, round(asked[0].config.duration_s * 12.5), 12.5, "codec@0")
        yield acoustic_pb2.RefineTokensResponse(tokens=convert.tokens_to_proto(part))

    async def DecodeTokens(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            self.asked.append(request)
            if request.HasField("tokens"):
                num_samples = convert.tokens_from_proto(request.tokens).num_frames * 1920
                audio = Waveform(np.zeros((1, num_samples), np.float32), 24_000)
                yield codec_pb2.DecodeTokensResponse(waveform=convert.waveform_to_proto(audio))


def ask(use: Callable[[Stages], Awaitable[Any]], models: MusicLmModels | None = None) -> tuple[Any, list[Any]]:
    """What a call gives, and what reached the services."""

    async def whole() -> tuple[Any, list[Any]]:
        services, server = Services(), grpc.aio.server()
        orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(services, server)
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(services, server)
        semantic_pb2_grpc.add_SemanticServiceServicer_to_server(services, server)
        acoustic_pb2_grpc.add_AcousticServiceServicer_to_server(services, server)
        codec_pb2_grpc.add_CodecServiceServicer_to_server(services, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with open_stages(f"127.0.0.1:{port}", models) as stages:
                return await use(stages), services.asked
        finally:
            await server.stop(None)

    return asyncio.run(whole())


def test_a_piece_is_asked_of_musiclm_with_its_story_and_melody() -> None:
    story = [StoryPart(5.0, "loud", 2.0)]
    music, (asked,) = ask(lambda stages: stages.music("calm", duration_s=2.0, seed=7, melody=SILENCE, story=story))
    assert music.num_samples == 48_000
    assert (asked.cascade, asked.prompt, asked.duration_s, asked.seed) == ("musiclm", "calm", 2.0, 7)
    assert convert.waveform_from_proto(asked.melody).num_samples == 24_000
    assert [(part.start_s, part.prompt, part.blend_s) for part in asked.story] == [(5.0, "loud", 2.0)]


def test_another_cascade_may_be_asked_and_no_melody_is_sent_unasked() -> None:
    _, (asked,) = ask(lambda stages: stages.music("calm", duration_s=2.0, seed=7, cascade="musicgen"))
    assert asked.cascade == "musicgen" and not asked.HasField("melody") and not asked.story


def test_texts_and_recordings_are_heard_by_the_joint_encoder() -> None:
    for use in (lambda stages: stages.style_of_text("calm"), lambda stages: stages.style_of_audio(SILENCE)):
        style, (asked,) = ask(use)
        assert asked.model == "mulan" and style.codes == (3, 1)


def test_a_recording_is_tokenized_in_messages_of_a_second() -> None:
    recording = Waveform(np.zeros((1, 60_000), np.float32), 24_000)
    made, asked = ask(lambda stages: stages.tokenize(recording))
    assert made.num_frames == 62
    assert [request.WhichOneof("payload") for request in asked] == ["config", *["waveform"] * 3]


def test_the_semantic_stage_is_told_style_prompt_and_how_to_draw() -> None:
    prompt = tokens(1, 5, 25.0, "w2v@0")
    made, (asked,) = ask(lambda stages: stages.semantic(STYLE, duration_s=1.0, seed=3, prompt=prompt, sampling=GREEDY))
    assert made.codes.shape == (1, 20)
    assert (asked.model, asked.seed, asked.duration_s) == ("musiclm_semantic", 3, 1.0)
    assert convert.style_spans_from_proto(asked.styles)[0].codes == (3, 1)
    assert convert.tokens_from_proto(asked.prompt).num_frames == 5
    assert convert.sampling_from_proto(asked.sampling) == GREEDY


def test_semantic_tokens_go_through_coarse_fine_and_codec() -> None:
    semantic = tokens(1, 50, 25.0, "w2v@0")
    music, asked = ask(lambda stages: stages.sound_of(semantic, STYLE, seed=9))
    assert music.num_samples == 48_000
    coarse, source, fine, refined, decoding, last = asked
    assert (coarse.config.model, fine.config.model) == ("musiclm_coarse", "musiclm_fine")
    assert (coarse.config.seed, fine.config.seed, coarse.config.duration_s) == (9, 9, 2.0)
    assert len(coarse.config.styles) == 1 and not fine.config.styles
    assert np.array_equal(convert.tokens_from_proto(source.source).codes, semantic.codes)
    assert convert.tokens_from_proto(refined.source).num_codebooks == 4
    assert decoding.config.model == "codec"
    assert convert.tokens_from_proto(last.tokens).num_codebooks == 12


def test_a_recording_goes_through_the_codec() -> None:
    music, asked = ask(lambda stages: stages.through_codec(SILENCE))
    assert music.num_samples == 13 * 1920
    assert len(asked) == 3 and asked[0].codebook_count == 0


def test_no_audio_is_an_error_and_stereo_is_mixed() -> None:
    with pytest.raises(RuntimeError, match="no audio"):
        joined([])
    assert joined([Waveform(np.zeros((2, 10), np.float32), 24_000)] * 2).samples.shape == (1, 20)


def test_other_models_are_asked_by_their_names() -> None:
    models = MusicLmModels(cascade="other", joint="clap", semantic="another")
    assert ask(lambda stages: stages.music("x", duration_s=1.0, seed=0), models)[1][0].cascade == "other"
    assert ask(lambda stages: stages.style_of_text("x"), models)[1][0].model == "clap"
    assert ask(lambda stages: stages.semantic(STYLE, duration_s=1.0, seed=0), models)[1][0].model == "another"
