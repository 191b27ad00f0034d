"""`EmbeddingClient`: texts, recordings and melodies as the language models hear them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from stretto.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.features import Chromagram, JointEmbedding, ModelInfo, TextStates
from stretto_shared.grpc import convert
from stretto_shared.tokens import TokenMatrix

from stretto_orchestrator.clients.calling import errors_of, read


@dataclass(frozen=True)
class RankedCandidate:
    """A recording by its place among those that were sent, and its cosine with the text, -1 to 1."""

    index: int
    similarity: float


class EmbeddingClient:
    """`stretto.embedding.v1.EmbeddingService`."""

    stage = "embedding"

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        self._rank_audio = channel.unary_unary(  # takes bytes
            "/stretto.embedding.v1.EmbeddingService/RankAudio",
            response_deserializer=embedding_pb2.RankAudioResponse.FromString,
        )
        self._timeout_s = timeout_s

    async def embed_text(self, model: str, text: str, *, field: str) -> tuple[TextStates, ModelInfo]:
        """The states of one text; errors name it `field`."""
        request = embedding_pb2.EmbedTextRequest(model=model, texts=[text])
        with errors_of(self.stage, {"texts[0]": field}):
            response = await self._stub.EmbedText(request, timeout=self._timeout_s)
        if len(response.states) != 1:
            raise RuntimeError(f"The embedding stage answered {len(response.states)} states for one text.")
        states = read(convert.text_states_from_proto, response.states[0], self.stage)
        return states, read(convert.model_info_from_proto, response.model, self.stage)

    async def embed_jointly(
        self, model: str, texts: Sequence[str], *, fields: Sequence[str]
    ) -> tuple[tuple[JointEmbedding, ...], ModelInfo]:
        """Each text as a point of a joint space, all in one call; errors name them by `fields`.

        Raises:
            InvalidInput: If the model is no joint encoder.
        """
        request = embedding_pb2.EmbedTextRequest(model=model, texts=texts)
        with errors_of(self.stage, {f"texts[{index}]": field for index, field in enumerate(fields)}):
            response = await self._stub.EmbedText(request, timeout=self._timeout_s)
        if response.states:
            raise InvalidInput("cascade", f"its joint encoder {model!r} hears texts only. Choose another cascade.")
        if len(response.embeddings) != len(texts):
            raise RuntimeError(
                f"The embedding stage answered {len(response.embeddings)} points for {len(texts)} texts."
            )
        points = [read(convert.joint_embedding_from_proto, each, self.stage) for each in response.embeddings]
        return tuple(points), read(convert.model_info_from_proto, response.model, self.stage)

    async def embed_audio(self, model: str, waveform: Waveform, *, field: str) -> tuple[JointEmbedding, ModelInfo]:
        """A whole recording as a point of a joint space; errors name it `field`."""
        request = embedding_pb2.EmbedAudioRequest(model=model, waveform=convert.waveform_to_proto(waveform))
        with errors_of(self.stage, {"waveform": field}):
            response = await self._stub.EmbedAudio(request, timeout=self._timeout_s)
        point = read(convert.joint_embedding_from_proto, response.embedding, self.stage)
        return point, read(convert.model_info_from_proto, response.model, self.stage)

    async def quantize(self, model: str, points: Sequence[JointEmbedding]) -> tuple[JointEmbedding, ...]:
        """The same points with their codes."""
        request = embedding_pb2.QuantizeEmbeddingsRequest(
            model=model, embeddings=[convert.joint_embedding_to_proto(point) for point in points]
        )
        with errors_of(self.stage, {}):
            response = await self._stub.QuantizeEmbeddings(request, timeout=self._timeout_s)
        if len(response.embeddings) != len(points):
            raise RuntimeError(f"The embedding stage answered {len(response.embeddings)} of {len(points)} points.")
        return tuple(read(convert.joint_embedding_from_proto, each, self.stage) for each in response.embeddings)

    async def rank_audio(
        self, model: str, text: str, candidates: Sequence[Waveform], *, field: str
    ) -> tuple[RankedCandidate, ModelInfo]:
        """The recording that fits a text best; errors name the text `field`."""

        def written() -> bytes:
            recordings = [convert.waveform_to_proto(each) for each in candidates]
            message = embedding_pb2.RankAudioRequest(model=model, text=text, candidates=recordings)
            return bytes(message.SerializeToString())

        request = await asyncio.to_thread(written)  # up to 60 MB, for which other listeners would have to wait
        with errors_of(self.stage, {"text": field}):
            response = await self._rank_audio(request, timeout=self._timeout_s)
        indices = [each.candidate_index for each in response.ranking]
        if sorted(indices) != list(range(len(candidates))):
            raise RuntimeError(f"The embedding stage ranked {indices} of {len(candidates)} recordings.")
        best = RankedCandidate(indices[0], response.ranking[0].similarity)
        return best, read(convert.model_info_from_proto, response.model, self.stage)

    async def embed_melody(self, waveform: Waveform, *, field: str) -> Chromagram:
        """The melody of a clip; errors name it `field`."""
        request = embedding_pb2.EmbedMelodyRequest(waveform=convert.waveform_to_proto(waveform))
        with errors_of(self.stage, {"waveform": field}):
            response = await self._stub.EmbedMelody(request, timeout=self._timeout_s)
        return read(convert.chromagram_from_proto, response.melody, self.stage)

    async def melody_codes(self, model: str, waveform: Waveform, *, field: str) -> tuple[TokenMatrix, ModelInfo]:
        """The melody of a clip in the codes of a melody encoder; errors name the clip `field`."""
        request = embedding_pb2.EmbedMelodyRequest(waveform=convert.waveform_to_proto(waveform), model=model)
        with errors_of(self.stage, {"waveform": field}):
            response = await self._stub.EmbedMelody(request, timeout=self._timeout_s)
        codes = read(convert.tokens_from_proto, response.codes, self.stage)
        return codes, read(convert.model_info_from_proto, response.model, self.stage)

    async def list_models(self) -> list[ModelInfo]:
        """The encoders that the stage can serve."""
        with errors_of(self.stage):
            response = await self._stub.ListModels(embedding_pb2.ListModelsRequest(), timeout=self._timeout_s)
        return [read(convert.model_info_from_proto, each, self.stage) for each in response.models]
