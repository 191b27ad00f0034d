"""`StrettoClient`: every user story of Stretto as one typed coroutine or async iterator.

It knows one address, the orchestrator's: the door passes the calls for a codec or an encoder on. No method returns
or takes protobuf, and every failure is a `StrettoError`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from grpc_health.v1 import health_pb2, health_pb2_grpc
from stretto.codec.v1 import codec_pb2, codec_pb2_grpc
from stretto.embedding.v1 import embedding_pb2_grpc
from stretto.harmony.v1 import harmony_pb2_grpc
from stretto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from stretto.semantic.v1 import semantic_pb2, semantic_pb2_grpc
from stretto.transcriber.v1 import transcriber_pb2_grpc
from stretto_shared.audio import Waveform
from stretto_shared.features import SamplingOptions
from stretto_shared.grpc import convert
from stretto_shared.grpc.channel import open_channel
from stretto_shared.grpc.setting_errors import named_settings
from stretto_shared.grpc.settings import ChannelSettings
from stretto_shared.tokens import TokenMatrix

from stretto_client.calls import answer, stream
from stretto_client.convert import (
    check_candidates,
    check_priority,
    check_seed,
    pace_to_proto,
    story_to_proto,
)
from stretto_client.embedding_calls import SHORT_TIMEOUT_S, EmbeddingCalls
from stretto_client.harmony_calls import HarmonyCalls
from stretto_client.outliving import outlived_music
from stretto_client.transcription_calls import TranscriptionCalls, pieces
from stretto_client.values import AudioChunk, EncodedAudio, ModelList, MusicEvent, Pace, PromptSpan, TokenChunk

MUSIC_TIMEOUT_S = 300.0
CODEC_TIMEOUT_S = 300.0
TOKENIZER_TIMEOUT_S = 300.0
FRAMES_PER_MESSAGE = 512
MAX_HEARD_S = 10.0  # what every cascade hears of a recording at most; the proto of ContinueMusic says so


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of an encrypted connection; a certificate and its key only where the server asks for one (mTLS)."""

    ca_path: Path | None = None
    cert_path: Path | None = None
    key_path: Path | None = None


class StrettoClient(EmbeddingCalls, TranscriptionCalls, HarmonyCalls):
    """A connection to one Stretto door; use it as `async with StrettoClient(address) as client`.

    Invariant: one channel from enter to exit, shared by all calls, which may run at the same time.

    Args:
        address: `host:port`, `dns:///name:port` or `unix:path`.
        tls: Files of an encrypted connection; False connects in the clear; None does as the environment
            (`STRETTO_CHANNEL_*`) says, in the clear by default.
        api_key: The key that the server asks for, or the path of a file that holds it; None takes that of the
            environment, if any. Without TLS anybody between can read it.
    """

    def __init__(
        self, address: str, *, tls: TlsFiles | Literal[False] | None = None, api_key: str | Path | None = None
    ) -> None:
        self.address = address
        self._tls = tls
        self._api_key = api_key
        self._channel: Any = None

    async def __aenter__(self) -> Self:
        settings = _channel_settings(self._tls, self._api_key)
        self._max_bytes = settings.max_receive_bytes
        self._channel = open_channel(self.address, settings)
        self._orchestrator = orchestrator_pb2_grpc.OrchestratorServiceStub(self._channel)
        self._codec = codec_pb2_grpc.CodecServiceStub(self._channel)
        self._embedding = embedding_pb2_grpc.EmbeddingServiceStub(self._channel)
        self._semantic = semantic_pb2_grpc.SemanticServiceStub(self._channel)
        self._transcriber = transcriber_pb2_grpc.TranscriberServiceStub(self._channel)
        self._harmony = harmony_pb2_grpc.HarmonyServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def generate_music(
        self,
        prompt: str,
        *,
        cascade: str = "",
        duration_s: float = 10.0,
        seed: int = 0,
        sampling: SamplingOptions | None = None,
        melody: Waveform | None = None,
        story: Sequence[PromptSpan] = (),
        candidates: int = 1,
        pace: Pace = Pace.BEST_EFFORT,
        priority: int = 0,
        timeout_s: float = MUSIC_TIMEOUT_S,
    ) -> AsyncGenerator[MusicEvent, None]:
        """Music from a text, and a melody if there is one: progress and audio as they come, the receipt last.

        A door that is lost in the midst of it costs a pause (`stretto_client.outliving`).

        Args:
            prompt: What the music should be, in English.
            cascade: Empty takes the server's default.
            duration_s: Seconds of music, at most 30, with `musiclm` 300.
            seed: Same request and seed, same bytes.
            sampling: How to draw; None takes the models' defaults.
            melody: A recording whose melody the music follows.
            story: What the music should become after the prompt, in order of time; only with `musiclm`.
            candidates: How many pieces to make, of which the one that fits the prompt best is sent once all are made;
                at most 8.
            pace: Whether somebody listens while it is made.
            priority: Of a best-effort piece, 0 to 9: higher ones go first.
            timeout_s: Deadline of the whole call, which every stage behind the door obeys.
        """
        request = orchestrator_pb2.GenerateMusicRequest(
            cascade=cascade,
            prompt=prompt,
            duration_s=duration_s,
            seed=check_seed(seed),
            pace=pace_to_proto(pace),
            priority=check_priority(priority),
            story=story_to_proto(story),
            candidate_count=check_candidates(candidates),
        )
        if sampling is not None:
            request.sampling.CopyFrom(convert.sampling_to_proto(sampling))
        if melody is not None:
            request.melody.CopyFrom(convert.waveform_to_proto(melody))
            self._check_size(request, melody, "melody")
        async with aclosing(outlived_music(self._orchestrator.GenerateMusic, request, timeout_s)) as events:
            async for event in events:
                yield event

    async def continue_music(
        self,
        audio: Waveform,
        *,
        prompt: str = "",
        cascade: str = "",
        duration_s: float = 10.0,
        seed: int = 0,
        sampling: SamplingOptions | None = None,
        include_recording: bool = True,
        pace: Pace = Pace.BEST_EFFORT,
        priority: int = 0,
        timeout_s: float = MUSIC_TIMEOUT_S,
    ) -> AsyncGenerator[MusicEvent, None]:
        """New music that goes on where a recording ends.

        Args:
            audio: The recording, of any length; the model hears at most its last 10 seconds, and only they are sent,
                so that the receipt's `input_sha256` is theirs.
            prompt: What the music should be; empty goes on as the recording.
            cascade: Empty takes the server's default.
            duration_s: Seconds of new music, at most 20.
            seed: Same request and seed, same bytes.
            sampling: How to draw; None takes the models' defaults.
            include_recording: True puts the heard end of the recording in front, so that the join is seamless.
            pace: Whether somebody listens while it is made.
            priority: Of a best-effort piece, 0 to 9: higher ones go first.
            timeout_s: Deadline of the whole call.
        """
        request = orchestrator_pb2.ContinueMusicRequest(
            cascade=cascade,
            audio=convert.waveform_to_proto(_last_seconds(audio, MAX_HEARD_S)),
            prompt=prompt,
            duration_s=duration_s,
            seed=check_seed(seed),
            include_recording=include_recording,
            pace=pace_to_proto(pace),
            priority=check_priority(priority),
        )
        if sampling is not None:
            request.sampling.CopyFrom(convert.sampling_to_proto(sampling))
        async with aclosing(outlived_music(self._orchestrator.ContinueMusic, request, timeout_s)) as events:
            async for event in events:
                yield event

    async def encode_audio(
        self, waveform: Waveform, *, model: str = "", num_codebooks: int = 0, timeout_s: float = CODEC_TIMEOUT_S
    ) -> EncodedAudio:
        """Audio to tokens. `model` empty takes the default codec, `num_codebooks` 0 keeps all, coarsest first.

        Raises:
            InvalidInput: If the audio does not fit in one message; it says how many seconds would.
        """
        request = codec_pb2.EncodeAudioRequest(
            model=model, waveform=convert.waveform_to_proto(waveform), codebook_count=num_codebooks
        )
        self._check_size(request, waveform, "waveform")
        reply = await answer(self._codec.EncodeAudio(request, timeout=timeout_s))
        return EncodedAudio(
            convert.tokens_from_proto(reply.tokens), convert.model_info_from_proto(reply.model), reply.sample_count
        )

    async def decode_tokens(
        self,
        tokens: TokenMatrix | AsyncIterator[TokenMatrix],
        *,
        model: str = "",
        timeout_s: float = CODEC_TIMEOUT_S,
    ) -> AsyncGenerator[AudioChunk, None]:
        """Tokens to audio, chunk by chunk; a stream of consecutive matrices decodes while it comes."""

        async def requests() -> AsyncGenerator[bytes, None]:
            config = codec_pb2.DecodeConfig(model=model)
            yield codec_pb2.DecodeTokensRequest(config=config).SerializeToString()
            async for part in _parts(tokens):
                yield codec_pb2.DecodeTokensRequest(tokens=convert.tokens_to_proto(part)).SerializeToString()

        call = self._codec.DecodeTokens(timeout=timeout_s)
        async with aclosing(requests()) as sent, aclosing(stream(call, sent)) as replies:
            async for reply in replies:
                yield AudioChunk(convert.waveform_from_proto(reply.waveform), reply.first_sample_index)

    async def tokenize_audio(
        self,
        audio: Waveform | AsyncIterator[Waveform],
        *,
        model: str = "",
        timeout_s: float = TOKENIZER_TIMEOUT_S,
    ) -> AsyncGenerator[TokenChunk, None]:
        """Audio of any length to semantic tokens; a stream of consecutive waveforms is tokenised while it comes.

        Args:
            audio: At any rate, mono or stereo; all waveforms of a stream alike. Where they were cut changes nothing.
            model: Empty takes the default tokenizer.
            timeout_s: Deadline of the whole call.
        """

        async def requests() -> AsyncGenerator[bytes, None]:
            config = semantic_pb2.TokenizeConfig(model=model)
            yield semantic_pb2.TokenizeAudioRequest(config=config).SerializeToString()
            async for part in pieces(audio):
                waveform = convert.waveform_to_proto(part)
                yield semantic_pb2.TokenizeAudioRequest(waveform=waveform).SerializeToString()

        info = None
        call = self._semantic.TokenizeAudio(timeout=timeout_s)
        async with aclosing(requests()) as sent, aclosing(stream(call, sent)) as replies:
            async for reply in replies:
                info = info or convert.model_info_from_proto(reply.model)
                yield TokenChunk(convert.tokens_from_proto(reply.tokens), reply.first_frame_index, info)

    async def list_models(self, *, timeout_s: float = SHORT_TIMEOUT_S) -> ModelList:
        """Every model that the door reaches."""
        request = orchestrator_pb2.ListModelsRequest()
        reply = await answer(self._orchestrator.ListModels(request, timeout=timeout_s))
        models = tuple(convert.model_info_from_proto(model) for model in reply.models)
        return ModelList(models, tuple(reply.unreachable_services))

    async def check_health(self, service: str = "", *, timeout_s: float = SHORT_TIMEOUT_S) -> bool:
        """Whether the server, or one of its services by its full protobuf name, is ready to work."""
        request = health_pb2.HealthCheckRequest(service=service)
        reply = await answer(self._health.Check(request, timeout=timeout_s))
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def _last_seconds(audio: Waveform, max_s: float) -> Waveform:
    """The end of a recording, or all of a shorter one."""
    num_samples = round(max_s * audio.sample_rate_hz)
    if audio.num_samples <= num_samples:
        return audio
    return Waveform(audio.samples[:, -num_samples:], audio.sample_rate_hz)


async def _parts(tokens: TokenMatrix | AsyncIterator[TokenMatrix]) -> AsyncIterator[TokenMatrix]:
    """Messages of a size that streams."""
    if isinstance(tokens, TokenMatrix):
        if tokens.chunk_scales:
            yield tokens
            return
        for start in range(0, tokens.num_frames, FRAMES_PER_MESSAGE):
            yield tokens.frames(start, min(start + FRAMES_PER_MESSAGE, tokens.num_frames))
    else:
        async for part in tokens:
            yield part


def _channel_settings(tls: TlsFiles | Literal[False] | None, api_key: str | Path | None) -> ChannelSettings:
    given: dict[str, Any] = {}
    if api_key is not None:
        is_path = isinstance(api_key, Path)
        given |= {"api_key": "" if is_path else api_key, "api_key_path": api_key if is_path else None}
    if tls is not None:
        files = tls or TlsFiles()
        given |= {"tls": tls is not False, "tls_ca_path": files.ca_path}
        given |= {"tls_cert_path": files.cert_path, "tls_key_path": files.key_path}
    with named_settings():
        return ChannelSettings(**given)
