"""A served MusicLM cascade as a whole, and its stages one by one, for evals that change what flows between them.

Every call goes over the wire to the services of one all-in-one server; nothing is loaded here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stretto.acoustic.v1 import acoustic_pb2, acoustic_pb2_grpc
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from stretto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from stretto.semantic.v1 import semantic_pb2, semantic_pb2_grpc
from stretto_client.calls import answer, stream
from stretto_shared.audio import Waveform
from stretto_shared.features import JointEmbedding, SamplingOptions, StyleSpan
from stretto_shared.grpc import convert
from stretto_shared.grpc.channel import open_channel
from stretto_shared.tokens import TokenMatrix, concatenate

TIMEOUT_S = 900.0
GREEDY = SamplingOptions(temperature=0.0)


@dataclass(frozen=True)
class MusicLmModels:
    """The models of the cascade, by the names that the default one gives them."""

    cascade: str = "musiclm"
    joint: str = "mulan"
    semantic: str = "musiclm_semantic"
    coarse: str = "musiclm_coarse"
    fine: str = "musiclm_fine"


@dataclass(frozen=True)
class StoryPart:
    """What the music becomes at `start_s`, changing for `blend_s`."""

    start_s: float
    prompt: str
    blend_s: float


class Stages:
    """The calls; a piece of music is a `Waveform`, a style a `JointEmbedding`."""

    def __init__(self, channel: Any, models: MusicLmModels | None = None) -> None:
        self.models = models or MusicLmModels()
        self._door = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        self._embedding = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        self._semantic = semantic_pb2_grpc.SemanticServiceStub(channel)
        self._acoustic = acoustic_pb2_grpc.AcousticServiceStub(channel)
        self._codec = codec_pb2_grpc.CodecServiceStub(channel)

    async def music(
        self,
        prompt: str,
        *,
        duration_s: float,
        seed: int,
        cascade: str = "",
        melody: Waveform | None = None,
        story: Sequence[StoryPart] = (),
    ) -> Waveform:
        """One piece by the whole cascade; an empty one is MusicLM's."""
        request = orchestrator_pb2.GenerateMusicRequest(
            cascade=cascade or self.models.cascade,
            prompt=prompt,
            duration_s=duration_s,
            seed=seed,
            melody=None if melody is None else convert.waveform_to_proto(melody),
            story=[
                orchestrator_pb2.PromptSpan(start_s=part.start_s, prompt=part.prompt, blend_s=part.blend_s)
                for part in story
            ],
        )
        parts = [
            convert.waveform_from_proto(message.chunk.waveform)
            async for message in stream(self._door.GenerateMusic(request, timeout=TIMEOUT_S))
            if message.WhichOneof("payload") == "chunk"
        ]
        return joined(parts)

    async def style_of_text(self, text: str) -> JointEmbedding:
        """A prompt as the language models hear it."""
        request = embedding_pb2.EmbedTextRequest(model=self.models.joint, texts=[text])
        reply = await answer(self._embedding.EmbedText(request, timeout=TIMEOUT_S))
        return convert.joint_embedding_from_proto(reply.embeddings[0])

    async def style_of_audio(self, waveform: Waveform) -> JointEmbedding:
        """A recording in the space of the prompts."""
        message = convert.waveform_to_proto(waveform)
        request = embedding_pb2.EmbedAudioRequest(model=self.models.joint, waveform=message)
        reply = await answer(self._embedding.EmbedAudio(request, timeout=TIMEOUT_S))
        return convert.joint_embedding_from_proto(reply.embedding)

    async def tokenize(self, waveform: Waveform) -> TokenMatrix:
        """A recording as semantic tokens."""

        async def requests() -> AsyncGenerator[bytes, None]:
            config = semantic_pb2.TokenizeConfig()
            yield semantic_pb2.TokenizeAudioRequest(config=config).SerializeToString()
            step = waveform.sample_rate_hz
            for start in range(0, waveform.num_samples, step):
                part = Waveform(waveform.samples[:, start : start + step], waveform.sample_rate_hz)
                message = convert.waveform_to_proto(part)
                yield semantic_pb2.TokenizeAudioRequest(waveform=message).SerializeToString()

        return await _tokens(stream(self._semantic.TokenizeAudio(timeout=TIMEOUT_S), requests()))

    async def semantic(
        self,
        style: JointEmbedding,
        *,
        duration_s: float,
        seed: int,
        prompt: TokenMatrix | None = None,
        sampling: SamplingOptions | None = None,
    ) -> TokenMatrix:
        """The new semantic tokens of a piece of `duration_s`, prompt included."""
        request = semantic_pb2.GenerateTokensRequest(
            model=self.models.semantic,
            styles=_styles(style),
            prompt=None if prompt is None else convert.tokens_to_proto(prompt),
            duration_s=duration_s,
            seed=seed,
            sampling=convert.sampling_to_proto(sampling or SamplingOptions()),
        )
        return await _tokens(stream(self._semantic.GenerateTokens(request, timeout=TIMEOUT_S)))

    async def sound_of(self, semantic: TokenMatrix, style: JointEmbedding, *, seed: int) -> Waveform:
        """Semantic tokens through the coarse stage, the fine one and the codec."""
        coarse = await self._refine(self.models.coarse, semantic, style, semantic.duration_s, seed)
        fine = await self._refine(self.models.fine, coarse, None, semantic.duration_s, seed)
        return await self.decode(fine)

    async def decode(self, tokens: TokenMatrix) -> Waveform:
        """Codec tokens as audio."""

        async def requests() -> AsyncGenerator[bytes, None]:
            config = codec_pb2.DecodeConfig(model=tokens.codec_id.partition("@")[0])
            yield codec_pb2.DecodeTokensRequest(config=config).SerializeToString()
            yield codec_pb2.DecodeTokensRequest(tokens=convert.tokens_to_proto(tokens)).SerializeToString()

        messages = stream(self._codec.DecodeTokens(timeout=TIMEOUT_S), requests())
        return joined([convert.waveform_from_proto(message.waveform) async for message in messages])

    async def through_codec(self, waveform: Waveform) -> Waveform:
        """A recording as the cascade's codec renders it."""
        request = codec_pb2.EncodeAudioRequest(waveform=convert.waveform_to_proto(waveform))
        reply = await answer(self._codec.EncodeAudio(request, timeout=TIMEOUT_S))
        return await self.decode(convert.tokens_from_proto(reply.tokens))

    async def _refine(
        self, model: str, source: TokenMatrix, style: JointEmbedding | None, duration_s: float, seed: int
    ) -> TokenMatrix:
        async def requests() -> AsyncGenerator[bytes, None]:
            config = acoustic_pb2.RefineConfig(
                model=model, styles=[] if style is None else _styles(style), duration_s=duration_s, seed=seed
            )
            yield acoustic_pb2.RefineTokensRequest(config=config).SerializeToString()
            yield acoustic_pb2.RefineTokensRequest(source=convert.tokens_to_proto(source)).SerializeToString()

        return await _tokens(stream(self._acoustic.RefineTokens(timeout=TIMEOUT_S), requests()))


@asynccontextmanager
async def open_stages(address: str, models: MusicLmModels | None = None) -> AsyncIterator[Stages]:
    """The stages behind one address."""
    channel = open_channel(address)
    try:
        yield Stages(channel, models)
    finally:
        await channel.close()


def joined(parts: Sequence[Waveform]) -> Waveform:
    """Consecutive audio as one, mixed to mono.

    Raises:
        RuntimeError: If there is none.
    """
    if not parts:
        raise RuntimeError("no audio came")
    samples: NDArray[np.float32] = np.concatenate([part.mono().samples for part in parts], axis=1)
    return Waveform(samples, parts[0].sample_rate_hz)


async def _tokens(messages: AsyncGenerator[Any, None]) -> TokenMatrix:
    return concatenate([convert.tokens_from_proto(message.tokens) async for message in messages])


def _styles(style: JointEmbedding) -> list[Any]:
    return list(convert.style_spans_to_proto([StyleSpan(0.0, style.encoder_id, style.codes)]))
