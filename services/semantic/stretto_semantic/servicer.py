"""The wire: convert in, await the engine, convert out."""

from __future__ import annotations

from typing import Any

from stretto.semantic.v1 import semantic_pb2, semantic_pb2_grpc
from stretto_shared.grpc import convert

from stretto_semantic.engine import SemanticEngine

Context = Any  # grpc.aio.ServicerContext; its stubs are generic in a way that generated code is not


class SemanticServicer(semantic_pb2_grpc.SemanticServiceServicer):
    """`stretto.semantic.v1.SemanticService`; the proto is its documentation."""

    def __init__(self, engine: SemanticEngine) -> None:
        self._engine = engine

    async def ListModels(
        self, request: semantic_pb2.ListModelsRequest, context: Context
    ) -> semantic_pb2.ListModelsResponse:
        return semantic_pb2.ListModelsResponse(
            models=[convert.model_info_to_proto(info) for info in self._engine.list_models()]
        )
