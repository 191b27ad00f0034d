"""The wire: convert in, await the engine, convert out. What may be large is converted beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from stretto.common.v1 import audio_pb2, features_pb2
from stretto.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.features import JointEmbedding
from stretto_shared.grpc import convert

from stretto_embedding.engine import MAX_CANDIDATES, MAX_POINTS, EmbeddedAudio, EmbeddedTexts, EmbeddingEngine

Context = Any  # grpc.aio.ServicerContext; its stubs are generic in a way that generated code is not


class EmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """`stretto.embedding.v1.EmbeddingService`; the proto is its documentation."""

    def __init__(self, engine: EmbeddingEngine) -> None:
        self._engine = engine

    async def EmbedText(
        self, request: embedding_pb2.EmbedTextRequest, context: Context
    ) -> embedding_pb2.EmbedTextResponse:
        embedded = await self._engine.embed_text(request.model, request.texts)
        return await asyncio.to_thread(_embedded_texts_to_proto, embedded)

    async def EmbedAudio(
        self, request: embedding_pb2.EmbedAudioRequest, context: Context
    ) -> embedding_pb2.EmbedAudioResponse:
        waveform = await asyncio.to_thread(convert.waveform_from_proto, request.waveform)
        embedded = await self._engine.embed_audio(request.model, waveform)
        return await asyncio.to_thread(_embedded_audio_to_proto, embedded)

    async def RankAudio(
        self, request: embedding_pb2.RankAudioRequest, context: Context
    ) -> embedding_pb2.RankAudioResponse:
        query = await _query_from_proto(request)
        candidates = await asyncio.to_thread(_candidates_from_proto, request.candidates)
        ranking, info = await self._engine.rank_audio(request.model, query, candidates)
        return embedding_pb2.RankAudioResponse(
            ranking=[
                embedding_pb2.RankedAudio(candidate_index=each.candidate_index, similarity=each.similarity)
                for each in ranking
            ],
            model=convert.model_info_to_proto(info),
        )

    async def TagAudio(
        self, request: embedding_pb2.TagAudioRequest, context: Context
    ) -> embedding_pb2.TagAudioResponse:
        waveform = await asyncio.to_thread(convert.waveform_from_proto, request.waveform)
        tags, info = await self._engine.tag_audio(request.model, waveform, request.tags)
        return embedding_pb2.TagAudioResponse(
            tags=[
                embedding_pb2.AudioTag(tag=each.tag, similarity=each.similarity, probability=each.probability)
                for each in tags
            ],
            model=convert.model_info_to_proto(info),
        )

    async def QuantizeEmbeddings(
        self, request: embedding_pb2.QuantizeEmbeddingsRequest, context: Context
    ) -> embedding_pb2.QuantizeEmbeddingsResponse:
        points = await asyncio.to_thread(_points_from_proto, request.embeddings)
        coded, info = await self._engine.quantize(request.model, points)
        return embedding_pb2.QuantizeEmbeddingsResponse(
            embeddings=await asyncio.to_thread(lambda: [convert.joint_embedding_to_proto(each) for each in coded]),
            model=convert.model_info_to_proto(info),
        )

    async def EmbedMelody(
        self, request: embedding_pb2.EmbedMelodyRequest, context: Context
    ) -> embedding_pb2.EmbedMelodyResponse:
        waveform = await asyncio.to_thread(convert.waveform_from_proto, request.waveform)
        melody = await self._engine.embed_melody(waveform, request.model)
        return embedding_pb2.EmbedMelodyResponse(
            melody=None if melody.chromagram is None else convert.chromagram_to_proto(melody.chromagram),
            codes=None if melody.codes is None else convert.tokens_to_proto(melody.codes),
            model=None if melody.model is None else convert.model_info_to_proto(melody.model),
        )

    async def ListModels(
        self, request: embedding_pb2.ListModelsRequest, context: Context
    ) -> embedding_pb2.ListModelsResponse:
        models = self._engine.list_models()
        return embedding_pb2.ListModelsResponse(models=[convert.model_info_to_proto(info) for info in models])


async def _query_from_proto(request: embedding_pb2.RankAudioRequest) -> str | Waveform:
    match request.WhichOneof("query"):
        case "text":
            return str(request.text)
        case "reference":
            return await asyncio.to_thread(convert.waveform_from_proto, request.reference, "reference")
        case _:
            raise InvalidInput("query", "expected a text or a reference recording, got neither. Send one.")


def _candidates_from_proto(messages: Sequence[audio_pb2.Waveform]) -> list[Waveform]:
    _check_not_more(len(messages), "candidates", MAX_CANDIDATES)
    return [convert.waveform_from_proto(each, f"candidates[{index}]") for index, each in enumerate(messages)]


def _points_from_proto(messages: Sequence[features_pb2.JointEmbedding]) -> list[JointEmbedding]:
    _check_not_more(len(messages), "embeddings", MAX_POINTS)
    return [convert.joint_embedding_from_proto(each, f"embeddings[{index}]") for index, each in enumerate(messages)]


def _check_not_more(count: int, field: str, most: int) -> None:
    """Before anything is copied; the engine counts again."""
    if count > most:
        raise InvalidInput(field, f"expected 1 to {most} {field}, got {count}. Split the request.")


def _embedded_texts_to_proto(embedded: EmbeddedTexts) -> embedding_pb2.EmbedTextResponse:
    return embedding_pb2.EmbedTextResponse(
        states=[convert.text_states_to_proto(each) for each in embedded.states],
        model=convert.model_info_to_proto(embedded.model),
        embeddings=[convert.joint_embedding_to_proto(each) for each in embedded.embeddings],
    )


def _embedded_audio_to_proto(embedded: EmbeddedAudio) -> embedding_pb2.EmbedAudioResponse:
    return embedding_pb2.EmbedAudioResponse(
        embedding=convert.joint_embedding_to_proto(embedded.embedding),
        windows=[convert.joint_embedding_to_proto(each) for each in embedded.windows],
        window_s=embedded.window_s,
        stride_s=embedded.stride_s,
        model=convert.model_info_to_proto(embedded.model),
    )
