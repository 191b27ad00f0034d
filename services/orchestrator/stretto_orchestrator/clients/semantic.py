"""`SemanticClient`: what happens in music, of a recording or made up."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

import grpc
from stretto.semantic.v1 import semantic_pb2, semantic_pb2_grpc
from stretto_shared.audio import Waveform
from stretto_shared.features import ModelInfo, SamplingOptions, StyleSpan
from stretto_shared.grpc import convert
from stretto_shared.grpc.streams import exchange
from stretto_shared.tokens import TokenMatrix, concatenate

from stretto_orchestrator.clients.calling import errors_of, read, read_model
from stretto_orchestrator.clients.tokens import (
    BEST_EFFORT,
    OWN_TOKEN_FIELDS,
    GeneratedTokens,
    Pacing,
    pace_to_proto,
    read_generated,
)

SECONDS_PER_MESSAGE = 1.0  # of a recording that is tokenized: any rate fits in a message


@dataclass(frozen=True)
class SemanticRequest:
    """What the semantic stage should generate; the fields are those of its `GenerateTokensRequest`."""

    model: str
    styles: tuple[StyleSpan, ...]
    melody: TokenMatrix | None
    prompt: TokenMatrix | None
    duration_s: float
    seed: int
    sampling: SamplingOptions
    pacing: Pacing = BEST_EFFORT


class SemanticClient:
    """`stretto.semantic.v1.SemanticService`."""

    stage = "semantic"

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub = semantic_pb2_grpc.SemanticServiceStub(channel)
        self._timeout_s = timeout_s

    async def generate(
        self, request: SemanticRequest, resume_from: TokenMatrix | None = None
    ) -> AsyncGenerator[GeneratedTokens, None]:
        """New frames as they are made; with `resume_from`, those after the ones that the caller has."""
        call = self._stub.GenerateTokens(_request_to_proto(request, resume_from), timeout=self._timeout_s)
        try:
            with errors_of(self.stage, OWN_TOKEN_FIELDS):
                async for response in call:
                    yield read_generated(response, self.stage)
        finally:
            call.cancel()

    async def tokenize(self, model: str, waveform: Waveform, *, field: str) -> tuple[TokenMatrix, ModelInfo]:
        """A recording as semantic tokens, and who made them; errors name it `field`."""

        async def requests() -> AsyncGenerator[bytes, None]:
            config = semantic_pb2.TokenizeConfig(model=model)
            yield semantic_pb2.TokenizeAudioRequest(config=config).SerializeToString()
            for part in _parts(waveform):
                message = convert.waveform_to_proto(part)
                yield semantic_pb2.TokenizeAudioRequest(waveform=message).SerializeToString()

        parts: list[TokenMatrix] = []
        tokenizer: ModelInfo | None = None
        call = self._stub.TokenizeAudio(timeout=self._timeout_s)
        async with aclosing(requests()) as sent, aclosing(exchange(call, sent)) as responses:
            with errors_of(self.stage, {"waveform": field}):
                async for response in responses:
                    tokenizer = tokenizer or read_model(response, self.stage)
                    parts.append(read(convert.tokens_from_proto, response.tokens, self.stage))
        if tokenizer is None:
            raise RuntimeError("The semantic stage gave no tokens of a recording.")
        return concatenate(parts), tokenizer

    async def list_models(self) -> list[ModelInfo]:
        """The tokenizers and language models that the stage can serve."""
        with errors_of(self.stage):
            response = await self._stub.ListModels(semantic_pb2.ListModelsRequest(), timeout=self._timeout_s)
        return [read(convert.model_info_from_proto, each, self.stage) for each in response.models]


def _parts(waveform: Waveform) -> Iterator[Waveform]:
    step = round(SECONDS_PER_MESSAGE * waveform.sample_rate_hz)
    for start in range(0, waveform.num_samples, step):
        yield Waveform(waveform.samples[:, start : start + step], waveform.sample_rate_hz)


def _request_to_proto(request: SemanticRequest, resume_from: TokenMatrix | None) -> semantic_pb2.GenerateTokensRequest:
    return semantic_pb2.GenerateTokensRequest(
        model=request.model,
        styles=convert.style_spans_to_proto(request.styles),
        melody=None if request.melody is None else convert.tokens_to_proto(request.melody),
        prompt=None if request.prompt is None else convert.tokens_to_proto(request.prompt),
        resume_from=None if resume_from is None else convert.tokens_to_proto(resume_from),
        duration_s=request.duration_s,
        seed=request.seed,
        sampling=convert.sampling_to_proto(request.sampling),
        pace=pace_to_proto(request.pacing),
        priority=request.pacing.priority,
    )
