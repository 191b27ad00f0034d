"""The wire: convert in, await the engine, convert out."""

from __future__ import annotations

import asyncio
from typing import Any

from stretto.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from stretto_shared.grpc import convert

from stretto_embedding.engine import EmbeddingEngine

Context = Any  # grpc.aio.ServicerContext; its stubs are generic in a way that generated code is not


class EmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """`stretto.embedding.v1.EmbeddingService`; the proto is its documentation."""

    def __init__(self, engine: EmbeddingEngine) -> None:
        self._engine = engine

    async def EmbedText(
        self, request: embedding_pb2.EmbedTextRequest, context: Context
    ) -> embedding_pb2.EmbedTextResponse:
        states, info = await self._engine.embed_text(request.model, request.texts)
        return embedding_pb2.EmbedTextResponse(
            states=[convert.text_states_to_proto(each) for each in states], model=convert.model_info_to_proto(info)
        )

    async def EmbedMelody(
        self, request: embedding_pb2.EmbedMelodyRequest, context: Context
    ) -> embedding_pb2.EmbedMelodyResponse:
        waveform = await asyncio.to_thread(convert.waveform_from_proto, request.waveform)
        melody = await self._engine.embed_melody(waveform)
        return embedding_pb2.EmbedMelodyResponse(melody=convert.chromagram_to_proto(melody))

    async def ListModels(
        self, request: embedding_pb2.ListModelsRequest, context: Context
    ) -> embedding_pb2.ListModelsResponse:
        models = self._engine.list_models()
        return embedding_pb2.ListModelsResponse(models=[convert.model_info_to_proto(info) for info in models])
