"""`CodecClient`: audio to codec tokens and back."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import grpc
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto_shared.audio import Waveform
from stretto_shared.features import ModelInfo
from stretto_shared.grpc import convert
from stretto_shared.grpc.streams import exchange
from stretto_shared.tokens import TokenMatrix

from stretto_orchestrator.clients.calling import errors_of, read, read_model


@dataclass(frozen=True)
class EncodedAudio:
    """A clip as tokens, and how many samples it has at the codec's own rate."""

    tokens: TokenMatrix
    model: ModelInfo
    num_samples: int


@dataclass(frozen=True)
class DecodedAudio:
    """The next piece of audio; `model` comes with the first of a stream."""

    waveform: Waveform
    first_sample_index: int
    model: ModelInfo | None


class CodecClient:
    """`stretto.codec.v1.CodecService`."""

    stage = "codec"

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub = codec_pb2_grpc.CodecServiceStub(channel)
        self._timeout_s = timeout_s

    async def encode(self, model: str, waveform: Waveform, *, num_codebooks: int, field: str) -> EncodedAudio:
        """A clip as tokens of the coarsest `num_codebooks` (0: all); errors name it `field`."""
        request = codec_pb2.EncodeAudioRequest(
            model=model, waveform=convert.waveform_to_proto(waveform), codebook_count=num_codebooks
        )
        with errors_of(self.stage, {"waveform": field}):
            response = await self._stub.EncodeAudio(request, timeout=self._timeout_s)
        return EncodedAudio(
            read(convert.tokens_from_proto, response.tokens, self.stage),
            read(convert.model_info_from_proto, response.model, self.stage),
            response.sample_count,
        )

    async def decode(self, tokens: AsyncGenerator[TokenMatrix, None]) -> AsyncGenerator[DecodedAudio, None]:
        """Audio of the tokens while they come, by the codec that the first of them names.

        What `tokens` raises is raised here; closing this iterator closes `tokens`.
        """
        async with aclosing(tokens) as source:
            first = await anext(source, None)
            if first is None:
                return
            call = self._stub.DecodeTokens(timeout=self._timeout_s)
            async with (
                aclosing(_decode_requests(first, source)) as requests,
                aclosing(exchange(call, requests)) as responses,
            ):
                with errors_of(self.stage, {}):
                    async for response in responses:
                        yield DecodedAudio(
                            read(convert.waveform_from_proto, response.waveform, self.stage),
                            response.first_sample_index,
                            read_model(response, self.stage),
                        )

    async def list_models(self) -> list[ModelInfo]:
        """The codecs that the stage can serve."""
        with errors_of(self.stage):
            response = await self._stub.ListModels(codec_pb2.ListModelsRequest(), timeout=self._timeout_s)
        return [read(convert.model_info_from_proto, each, self.stage) for each in response.models]


async def _decode_requests(
    first: TokenMatrix, others: AsyncGenerator[TokenMatrix, None]
) -> AsyncGenerator[bytes, None]:
    """The messages of a decoding stream; the first tokens name its codec."""
    config = codec_pb2.DecodeConfig(model=first.codec_id.partition("@")[0])
    yield codec_pb2.DecodeTokensRequest(config=config).SerializeToString()
    yield codec_pb2.DecodeTokensRequest(tokens=convert.tokens_to_proto(first)).SerializeToString()
    async for part in others:
        yield codec_pb2.DecodeTokensRequest(tokens=convert.tokens_to_proto(part)).SerializeToString()
