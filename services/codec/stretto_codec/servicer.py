"""The wire: convert in, await the engine, convert out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto_shared.errors import Conflict, InvalidInput
from stretto_shared.grpc import convert
from stretto_shared.tokens import TokenMatrix

from stretto_codec.engine import CodecEngine, DecodedChunk

Context = Any  # grpc.aio.ServicerContext; its stubs are generic in a way that generated code is not


class CodecServicer(codec_pb2_grpc.CodecServiceServicer):
    """`stretto.codec.v1.CodecService`; the proto is its documentation."""

    def __init__(self, engine: CodecEngine) -> None:
        self._engine = engine

    async def EncodeAudio(
        self, request: codec_pb2.EncodeAudioRequest, context: Context
    ) -> codec_pb2.EncodeAudioResponse:
        waveform = await asyncio.to_thread(convert.waveform_from_proto, request.waveform)
        clip = await self._engine.encode(request.model, waveform, request.codebook_count)
        return codec_pb2.EncodeAudioResponse(
            tokens=await asyncio.to_thread(convert.tokens_to_proto, clip.tokens),
            model=convert.model_info_to_proto(clip.model),
            sample_count=clip.num_samples,
        )

    async def DecodeTokens(
        self, request_iterator: AsyncIterator[codec_pb2.DecodeTokensRequest], context: Context
    ) -> AsyncIterator[codec_pb2.DecodeTokensResponse]:
        config = await _first_config(request_iterator)
        async with (
            aclosing(_tokens(request_iterator)) as tokens,
            aclosing(self._engine.decode(config.model, tokens)) as chunks,
        ):
            async for chunk in chunks:
                yield _decoded_to_proto(chunk)

    async def ListModels(self, request: codec_pb2.ListModelsRequest, context: Context) -> codec_pb2.ListModelsResponse:
        models = self._engine.list_models()
        return codec_pb2.ListModelsResponse(models=[convert.model_info_to_proto(info) for info in models])


async def _first_config(requests: AsyncIterator[codec_pb2.DecodeTokensRequest]) -> codec_pb2.DecodeConfig:
    async for request in requests:
        if request.WhichOneof("payload") == "config":
            return request.config
        break
    raise InvalidInput("config", "expected the first message of the stream to carry it. Send config, then tokens.")


async def _tokens(requests: AsyncIterator[codec_pb2.DecodeTokensRequest]) -> AsyncGenerator[TokenMatrix, None]:
    async for request in requests:
        if request.WhichOneof("payload") == "config":
            raise Conflict("config: expected in the first message only, and it came again. Open another stream.")
        yield convert.tokens_from_proto(request.tokens)


def _decoded_to_proto(chunk: DecodedChunk) -> codec_pb2.DecodeTokensResponse:
    return codec_pb2.DecodeTokensResponse(
        waveform=convert.waveform_to_proto(chunk.waveform),
        first_sample_index=chunk.first_sample_index,
        model=convert.model_info_to_proto(chunk.model) if chunk.first_sample_index == 0 else None,
    )
