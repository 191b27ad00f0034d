"""`AcousticClient`: codec tokens, made of a text or of the tokens of the stage before."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import grpc
from stretto.acoustic.v1 import acoustic_pb2, acoustic_pb2_grpc
from stretto_shared.errors import NotFound, NotReady
from stretto_shared.features import Chromagram, ModelInfo, SamplingOptions, StyleSpan, TextStates
from stretto_shared.grpc import convert
from stretto_shared.grpc.streams import exchange
from stretto_shared.tokens import TokenMatrix

from stretto_orchestrator.clients.calling import STAGE_MISSING, errors_of, read
from stretto_orchestrator.clients.tokens import (
    BEST_EFFORT,
    OWN_TOKEN_FIELDS,
    GeneratedTokens,
    Pacing,
    pace_to_proto,
    read_generated,
)


@dataclass(frozen=True)
class TokenRequest:
    """What the acoustic stage should generate; the fields are those of `GenerateTokensRequest`."""

    model: str
    text: TextStates | None
    melody: Chromagram | None
    prompt: TokenMatrix | None
    duration_s: float
    seed: int
    sampling: SamplingOptions
    pacing: Pacing = BEST_EFFORT


@dataclass(frozen=True)
class RefineRequest:
    """What the acoustic stage should make of the tokens before; the fields are those of `RefineConfig`."""

    model: str
    styles: tuple[StyleSpan, ...]
    prompt: TokenMatrix | None
    duration_s: float
    seed: int
    sampling: SamplingOptions
    pacing: Pacing = BEST_EFFORT


class AcousticClient:
    """`stretto.acoustic.v1.AcousticService`; remembers which language model answered to which name."""

    stage = "acoustic"

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub = acoustic_pb2_grpc.AcousticServiceStub(channel)
        self._timeout_s = timeout_s
        self._last_known: dict[str, ModelInfo] = {}

    async def generate(
        self, request: TokenRequest, resume_from: TokenMatrix | None = None
    ) -> AsyncGenerator[GeneratedTokens, None]:
        """New frames as they are made; with `resume_from`, those after the ones that the caller has."""
        call = self._stub.GenerateTokens(_token_request_to_proto(request, resume_from), timeout=self._timeout_s)
        try:
            with errors_of(self.stage, OWN_TOKEN_FIELDS):
                async for response in call:
                    yield self._remembered(request.model, read_generated(response, self.stage))
        finally:
            call.cancel()

    async def refine(
        self, request: RefineRequest, source: AsyncGenerator[TokenMatrix, None], resume_from: TokenMatrix | None = None
    ) -> AsyncGenerator[GeneratedTokens, None]:
        """New frames of one stage while those of the stage before come; `resume_from` as in `generate`.

        What `source` raises is raised here; closing this iterator closes `source`.
        """
        call = self._stub.RefineTokens(timeout=self._timeout_s)
        async with (
            aclosing(source),
            aclosing(_refine_requests(request, source, resume_from)) as requests,
            aclosing(exchange(call, requests)) as responses,
        ):
            with errors_of(self.stage, {f"config.{field}": own for field, own in OWN_TOKEN_FIELDS.items()}):
                async for response in responses:
                    yield self._remembered(request.model, read_generated(response, self.stage))

    async def check_admission(
        self, model: str, *, duration_s: float, sampling: SamplingOptions, pacing: Pacing, is_conditional: bool
    ) -> None:
        """Raise what `generate` would be refused with now; an older stage, which cannot say, has no objection.

        Raises:
            Overloaded: If there is no room, with the stage's own estimate of when there will be.
        """
        request = acoustic_pb2.CheckAdmissionRequest(
            model=model,
            duration_s=duration_s,
            sampling=convert.sampling_to_proto(sampling),
            pace=pace_to_proto(pacing),
            priority=pacing.priority,
            is_conditional=is_conditional,
        )
        try:
            with errors_of(self.stage, OWN_TOKEN_FIELDS):
                await self._stub.CheckAdmission(request, timeout=self._timeout_s)
        except NotReady as error:
            if error.reason != STAGE_MISSING:
                raise

    async def last_known(self, name: str) -> ModelInfo:
        """The language model that answered to that name last, which need not be the next; asked for if none has."""
        return self._last_known.get(name) or await self.ask_for(name)

    async def ask_for(self, name: str) -> ModelInfo:
        """The language model that the stage lists under that name; empty is its default one.

        Raises:
            NotFound: If there is none.
        """
        models = await self.list_models()
        self._last_known |= {model.name: model for model in models}
        for model in models:
            if model.name == name or (not name and model.is_default):
                self._last_known[name] = model
                return model
        wanted = f"acoustic model {name!r}" if name else "default acoustic model"
        raise NotFound("cascade", f"its {wanted} is not served. Choose another cascade.")

    async def list_models(self) -> list[ModelInfo]:
        """The language models that the stage can serve."""
        with errors_of(self.stage):
            response = await self._stub.ListModels(acoustic_pb2.ListModelsRequest(), timeout=self._timeout_s)
        return [read(convert.model_info_from_proto, each, self.stage) for each in response.models]

    def _remembered(self, name: str, part: GeneratedTokens) -> GeneratedTokens:
        if part.model is not None:
            self._last_known[name] = part.model
        return part


async def _refine_requests(
    request: RefineRequest, source: AsyncGenerator[TokenMatrix, None], resume_from: TokenMatrix | None
) -> AsyncGenerator[bytes, None]:
    """The messages of a refining stream."""
    config = acoustic_pb2.RefineConfig(
        model=request.model,
        styles=convert.style_spans_to_proto(request.styles),
        prompt=None if request.prompt is None else convert.tokens_to_proto(request.prompt),
        resume_from=None if resume_from is None else convert.tokens_to_proto(resume_from),
        duration_s=request.duration_s,
        seed=request.seed,
        sampling=convert.sampling_to_proto(request.sampling),
        pace=pace_to_proto(request.pacing),
        priority=request.pacing.priority,
    )
    yield acoustic_pb2.RefineTokensRequest(config=config).SerializeToString()
    async for part in source:
        yield acoustic_pb2.RefineTokensRequest(source=convert.tokens_to_proto(part)).SerializeToString()


def _token_request_to_proto(
    request: TokenRequest, resume_from: TokenMatrix | None
) -> acoustic_pb2.GenerateTokensRequest:
    return acoustic_pb2.GenerateTokensRequest(
        model=request.model,
        text=None if request.text is None else convert.text_states_to_proto(request.text),
        melody=None if request.melody is None else convert.chromagram_to_proto(request.melody),
        prompt=None if request.prompt is None else convert.tokens_to_proto(request.prompt),
        resume_from=None if resume_from is None else convert.tokens_to_proto(resume_from),
        duration_s=request.duration_s,
        seed=request.seed,
        sampling=convert.sampling_to_proto(request.sampling),
        pace=pace_to_proto(request.pacing),
        priority=request.pacing.priority,
    )
