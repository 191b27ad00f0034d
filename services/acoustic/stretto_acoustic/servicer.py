"""The wire: convert in, await the engine, convert out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from stretto.acoustic.v1 import acoustic_pb2, acoustic_pb2_grpc
from stretto_shared.engine.stage_requests import StageRequest
from stretto_shared.errors import InvalidInput
from stretto_shared.grpc import convert
from stretto_shared.tokens import TokenMatrix

from stretto_acoustic.engine import AcousticModels, GenerateRequest

Context = Any  # grpc.aio.ServicerContext; its stubs are generic in a way that generated code is not


class AcousticServicer(acoustic_pb2_grpc.AcousticServiceServicer):
    """`stretto.acoustic.v1.AcousticService`; the proto is its documentation."""

    def __init__(self, engine: AcousticModels) -> None:
        self._engine = engine

    async def GenerateTokens(
        self, request: acoustic_pb2.GenerateTokensRequest, context: Context
    ) -> AsyncIterator[acoustic_pb2.GenerateTokensResponse]:
        async with aclosing(self._engine.generate(_request_from_proto(request))) as stream:
            async for frames in stream:
                yield convert.frames_to_proto(frames, acoustic_pb2.GenerateTokensResponse)

    async def RefineTokens(
        self, request_iterator: AsyncIterator[acoustic_pb2.RefineTokensRequest], context: Context
    ) -> AsyncIterator[acoustic_pb2.RefineTokensResponse]:
        config = await _first_config(request_iterator)
        async with (
            aclosing(_source(request_iterator)) as source,
            aclosing(self._engine.refine(_refine_request_from_proto(config), source)) as stream,
        ):
            async for frames in stream:
                yield convert.frames_to_proto(frames, acoustic_pb2.RefineTokensResponse)

    async def CheckAdmission(
        self, request: acoustic_pb2.CheckAdmissionRequest, context: Context
    ) -> acoustic_pb2.CheckAdmissionResponse:
        wanted = GenerateRequest(
            model=request.model,
            duration_s=request.duration_s,
            seed=0,
            sampling=convert.sampling_from_proto(request.sampling),
            is_realtime=convert.is_realtime_from_proto(request.pace),
            priority=request.priority,
        )
        self._engine.check_admission(wanted, is_conditional=request.is_conditional)
        return acoustic_pb2.CheckAdmissionResponse()

    async def ListModels(
        self, request: acoustic_pb2.ListModelsRequest, context: Context
    ) -> acoustic_pb2.ListModelsResponse:
        return acoustic_pb2.ListModelsResponse(
            models=[convert.model_info_to_proto(info) for info in self._engine.list_models()]
        )


def _request_from_proto(request: acoustic_pb2.GenerateTokensRequest) -> GenerateRequest:
    return GenerateRequest(
        model=request.model,
        duration_s=request.duration_s,
        seed=request.seed,
        sampling=convert.sampling_from_proto(request.sampling),
        text=convert.text_states_from_proto(request.text) if request.HasField("text") else None,
        melody=convert.chromagram_from_proto(request.melody) if request.HasField("melody") else None,
        prompt=convert.tokens_from_proto(request.prompt, "prompt") if request.HasField("prompt") else None,
        resume_from=convert.tokens_from_proto(request.resume_from, "resume_from")
        if request.HasField("resume_from")
        else None,
        is_realtime=convert.is_realtime_from_proto(request.pace),
        priority=request.priority,
    )


async def _first_config(requests: AsyncIterator[acoustic_pb2.RefineTokensRequest]) -> acoustic_pb2.RefineConfig:
    async for request in requests:
        if request.WhichOneof("payload") == "config":
            return request.config
        break
    raise InvalidInput("config", "expected the first message of the stream to carry it. Send config, then source.")


async def _source(requests: AsyncIterator[acoustic_pb2.RefineTokensRequest]) -> AsyncGenerator[TokenMatrix, None]:
    async for request in requests:
        if request.WhichOneof("payload") == "config":
            raise InvalidInput("config", "expected in the first message only, and it came again. Open another stream.")
        yield convert.tokens_from_proto(request.source, "source")


def _refine_request_from_proto(config: acoustic_pb2.RefineConfig) -> StageRequest:
    return StageRequest(
        model=config.model,
        duration_s=config.duration_s,
        seed=config.seed,
        sampling=convert.sampling_from_proto(config.sampling, "config.sampling"),
        styles=convert.style_spans_from_proto(config.styles, "config.styles"),
        prompt=convert.tokens_from_proto(config.prompt, "config.prompt") if config.HasField("prompt") else None,
        resume_from=convert.tokens_from_proto(config.resume_from, "config.resume_from")
        if config.HasField("resume_from")
        else None,
        is_realtime=convert.is_realtime_from_proto(config.pace, "config.pace"),
        priority=config.priority,
    )
