"""Typed clients of the stages: domain values in, domain values out; the only part that knows their protos.

A stage's deliberate errors come out as they were raised there; other failed calls stay `AioRpcError`, which the shell
passes on (deadline, cancellation) or answers as INTERNAL. Closing an iterator cancels its call.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from stretto.acoustic.v1 import acoustic_pb2, acoustic_pb2_grpc
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto.common.v1 import model_pb2
from stretto.embedding.v1 import embedding_pb2, embedding_pb2_grpc
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput, NotFound, NotReady
from stretto_shared.features import Chromagram, ModelInfo, SamplingOptions, TextStates
from stretto_shared.grpc import convert
from stretto_shared.grpc.call import current_call
from stretto_shared.grpc.status import error_from_rpc
from stretto_shared.grpc.streams import exchange
from stretto_shared.tokens import TokenMatrix

M = TypeVar("M")
T = TypeVar("T")

_OWN_TOKEN_FIELDS = {field: field for field in ("duration_s", "seed", "sampling", "melody", "pace", "priority")}


@dataclass(frozen=True)
class Pacing:
    """Whether somebody listens while a piece is made, and of one for which nobody does, its priority of 0 to 9."""

    is_realtime: bool = False
    priority: int = 0


BEST_EFFORT = Pacing()


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
class GeneratedTokens:
    """Consecutive new frames; `model` and `sampling` come with the first of a stream."""

    tokens: TokenMatrix
    first_frame_index: int
    num_total_frames: int
    model: ModelInfo | None
    sampling: SamplingOptions | None


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


class EmbeddingClient:
    """`stretto.embedding.v1.EmbeddingService`."""

    stage = "embedding"

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        self._timeout_s = timeout_s

    async def embed_text(self, model: str, text: str, *, field: str) -> tuple[TextStates, ModelInfo]:
        """The states of one text; errors name it `field`."""
        request = embedding_pb2.EmbedTextRequest(model=model, texts=[text])
        with _errors_of(self.stage, {"texts[0]": field}):
            response = await self._stub.EmbedText(request, timeout=self._timeout_s)
        if len(response.states) != 1:
            raise RuntimeError(f"The embedding stage answered {len(response.states)} states for one text.")
        states = _read(convert.text_states_from_proto, response.states[0], self.stage)
        return states, _read(convert.model_info_from_proto, response.model, self.stage)

    async def embed_melody(self, waveform: Waveform, *, field: str) -> Chromagram:
        """The melody of a clip; errors name it `field`."""
        request = embedding_pb2.EmbedMelodyRequest(waveform=convert.waveform_to_proto(waveform))
        with _errors_of(self.stage, {"waveform": field}):
            response = await self._stub.EmbedMelody(request, timeout=self._timeout_s)
        return _read(convert.chromagram_from_proto, response.melody, self.stage)

    async def list_models(self) -> list[ModelInfo]:
        """The encoders that the stage can serve."""
        with _errors_of(self.stage):
            response = await self._stub.ListModels(embedding_pb2.ListModelsRequest(), timeout=self._timeout_s)
        return [_read(convert.model_info_from_proto, each, self.stage) for each in response.models]


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
            with _errors_of(self.stage, _OWN_TOKEN_FIELDS):
                async for response in call:
                    model = _read_model(response, self.stage)
                    if model is not None:
                        self._last_known[request.model] = model
                    yield GeneratedTokens(
                        _read(convert.tokens_from_proto, response.tokens, self.stage),
                        response.first_frame_index,
                        response.total_frame_count,
                        model,
                        convert.sampling_from_proto(response.sampling) if response.HasField("sampling") else None,
                    )
        finally:
            call.cancel()

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
            pace=_pace_to_proto(pacing),
            priority=pacing.priority,
            is_conditional=is_conditional,
        )
        try:
            with _errors_of(self.stage, _OWN_TOKEN_FIELDS):
                await self._stub.CheckAdmission(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise

    async def last_known(self, name: str) -> ModelInfo:
        """The language model that answered to that name last, which need not be the next; asked for if none has."""
        return self._last_known.get(name) or await self.ask_for(name)

    async def ask_for(self, name: str) -> ModelInfo:
        """The language model that the stage lists under that name; empty is its default one.

        Raises:
            NotFound: If there is none.
        """
        for model in await self.list_models():
            if model.name == name or (not name and model.is_default):
                self._last_known[name] = model
                return model
        wanted = f"acoustic model {name!r}" if name else "default acoustic model"
        raise NotFound("cascade", f"its {wanted} is not served. Choose another cascade.")

    async def list_models(self) -> list[ModelInfo]:
        """The language models that the stage can serve."""
        with _errors_of(self.stage):
            response = await self._stub.ListModels(acoustic_pb2.ListModelsRequest(), timeout=self._timeout_s)
        return [_read(convert.model_info_from_proto, each, self.stage) for each in response.models]


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
        with _errors_of(self.stage, {"waveform": field}):
            response = await self._stub.EncodeAudio(request, timeout=self._timeout_s)
        return EncodedAudio(
            _read(convert.tokens_from_proto, response.tokens, self.stage),
            _read(convert.model_info_from_proto, response.model, self.stage),
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
                with _errors_of(self.stage, {}):
                    async for response in responses:
                        yield DecodedAudio(
                            _read(convert.waveform_from_proto, response.waveform, self.stage),
                            response.first_sample_index,
                            _read_model(response, self.stage),
                        )

    async def list_models(self) -> list[ModelInfo]:
        """The codecs that the stage can serve."""
        with _errors_of(self.stage):
            response = await self._stub.ListModels(codec_pb2.ListModelsRequest(), timeout=self._timeout_s)
        return [_read(convert.model_info_from_proto, each, self.stage) for each in response.models]


@dataclass(frozen=True)
class Stages:
    """One client for each stage of a cascade."""

    embedding: EmbeddingClient
    acoustic: AcousticClient
    codec: CodecClient


def remaining_s() -> float | None:
    """The time that the request being served has left for its stages; None without a deadline."""
    served = current_call()
    return None if served is None else served.remaining_s


def unreachable(stage: str) -> NotReady:
    """The error of a stage that nobody answers for: by its name, and not by the address that failed."""
    return NotReady(f"The {stage} service cannot be reached. Try again.", reason="UNREACHABLE")


async def _decode_requests(
    first: TokenMatrix, others: AsyncGenerator[TokenMatrix, None]
) -> AsyncGenerator[bytes, None]:
    """The messages of a decoding stream; the first tokens name its codec."""
    config = codec_pb2.DecodeConfig(model=first.codec_id.partition("@")[0])
    yield codec_pb2.DecodeTokensRequest(config=config).SerializeToString()
    yield codec_pb2.DecodeTokensRequest(tokens=convert.tokens_to_proto(first)).SerializeToString()
    async for part in others:
        yield codec_pb2.DecodeTokensRequest(tokens=convert.tokens_to_proto(part)).SerializeToString()


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
        pace=_pace_to_proto(request.pacing),
        priority=request.pacing.priority,
    )


def _pace_to_proto(pacing: Pacing) -> model_pb2.Pace:
    return model_pb2.PACE_REALTIME if pacing.is_realtime else model_pb2.PACE_BEST_EFFORT


@contextmanager
def _errors_of(stage: str, fields: Mapping[str, str] | None = None) -> Iterator[None]:
    """Raise a failed call as the error that it stands for.

    Args:
        stage: Whom the call went to.
        fields: The stage's name to the client's own, of every field that holds what the client sent. An error in any
            other is the cascade's: its stages do not go together. None leaves names alone.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        known = error_from_rpc(error)
        match known:
            case None:
                raise
            case NotReady(reason="UNREACHABLE"):
                raise unreachable(stage) from error
            case InvalidInput() | NotFound() if fields is not None:
                raise _in_clients_words(known, stage, fields) from error
        raise known from error


def _in_clients_words(error: InvalidInput | NotFound, stage: str, fields: Mapping[str, str]) -> InvalidInput | NotFound:
    """The error of a stage with the field that the client knows."""
    for stage_field, field in fields.items():
        rest = error.field.removeprefix(stage_field)
        if error.field.startswith(stage_field) and rest[:1] in ("", ".", "["):
            return type(error)(field + rest, error.description, reason=error.reason)
    description = f"its stages do not go together: {stage} answers '{error.message}' Choose another cascade."
    return type(error)("cascade", description, reason=error.reason)


def _read(from_proto: Callable[[M], T], message: M, stage: str) -> T:
    """Read what a stage answered; a malformed answer is the stage's fault, never the client's."""
    try:
        return from_proto(message)
    except InvalidInput as error:
        raise RuntimeError(f"The {stage} stage gave a malformed answer: {error}") from error


def _read_model(response: Any, stage: str) -> ModelInfo | None:
    return _read(convert.model_info_from_proto, response.model, stage) if response.HasField("model") else None
