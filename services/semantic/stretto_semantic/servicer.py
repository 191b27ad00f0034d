"""The wire: convert in, await the engine, convert out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from stretto.semantic.v1 import semantic_pb2, semantic_pb2_grpc
from stretto_shared.audio import Waveform
from stretto_shared.engine.stage_requests import StageRequest
from stretto_shared.errors import InvalidInput
from stretto_shared.grpc import convert

from stretto_semantic.engine import SemanticEngine, TokenizedWindow

Context = Any  # grpc.aio.ServicerContext; its stubs are generic in a way that generated code is not


class SemanticServicer(semantic_pb2_grpc.SemanticServiceServicer):
    """`stretto.semantic.v1.SemanticService`; the proto is its documentation."""

    def __init__(self, engine: SemanticEngine) -> None:
        self._engine = engine

    async def TokenizeAudio(
        self, request_iterator: AsyncIterator[semantic_pb2.TokenizeAudioRequest], context: Context
    ) -> AsyncIterator[semantic_pb2.TokenizeAudioResponse]:
        config = await _first_config(request_iterator)
        async with (
            aclosing(_waveforms(request_iterator)) as audio,
            aclosing(self._engine.tokenize(config.model, audio)) as windows,
        ):
            async for window in windows:
                yield _tokenized_to_proto(window)

    async def GenerateTokens(
        self, request: semantic_pb2.GenerateTokensRequest, context: Context
    ) -> AsyncIterator[semantic_pb2.GenerateTokensResponse]:
        async with aclosing(self._engine.generate(_generate_request_from_proto(request))) as stream:
            async for frames in stream:
                yield convert.frames_to_proto(frames, semantic_pb2.GenerateTokensResponse)

    async def ListModels(
        self, request: semantic_pb2.ListModelsRequest, context: Context
    ) -> semantic_pb2.ListModelsResponse:
        models = self._engine.list_models()
        return semantic_pb2.ListModelsResponse(models=[convert.model_info_to_proto(info) for info in models])


async def _first_config(requests: AsyncIterator[semantic_pb2.TokenizeAudioRequest]) -> semantic_pb2.TokenizeConfig:
    async for request in requests:
        if request.WhichOneof("payload") == "config":
            return request.config
        break
    raise InvalidInput("config", "expected the first message of the stream to carry it. Send config, then waveforms.")


async def _waveforms(
    requests: AsyncIterator[semantic_pb2.TokenizeAudioRequest],
) -> AsyncGenerator[Waveform, None]:
    async for request in requests:
        if request.WhichOneof("payload") == "config":
            raise InvalidInput("config", "expected in the first message only, and it came again. Open another stream.")
        yield await asyncio.to_thread(convert.waveform_from_proto, request.waveform)


def _tokenized_to_proto(window: TokenizedWindow) -> semantic_pb2.TokenizeAudioResponse:
    return semantic_pb2.TokenizeAudioResponse(
        tokens=convert.tokens_to_proto(window.tokens),
        first_frame_index=window.first_frame_index,
        model=convert.model_info_to_proto(window.model) if window.first_frame_index == 0 else None,
    )


def _generate_request_from_proto(request: semantic_pb2.GenerateTokensRequest) -> StageRequest:
    return StageRequest(
        model=request.model,
        duration_s=request.duration_s,
        seed=request.seed,
        sampling=convert.sampling_from_proto(request.sampling),
        styles=convert.style_spans_from_proto(request.styles),
        melody=convert.tokens_from_proto(request.melody, "melody") if request.HasField("melody") else None,
        prompt=convert.tokens_from_proto(request.prompt, "prompt") if request.HasField("prompt") else None,
        resume_from=convert.tokens_from_proto(request.resume_from, "resume_from")
        if request.HasField("resume_from")
        else None,
        is_realtime=convert.is_realtime_from_proto(request.pace),
        priority=request.priority,
    )
