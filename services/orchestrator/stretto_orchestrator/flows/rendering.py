"""From a token request to trimmed audio: acoustic stage, codec and resumes at work at the same time.

Knows what the two stories that make music share, and neither of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from stretto_shared.audio import Waveform
from stretto_shared.errors import Conflict
from stretto_shared.features import ModelInfo, SamplingOptions
from stretto_shared.tokens import TokenMatrix

from stretto_orchestrator.clients import DecodedAudio, GeneratedTokens, Pacing, Stages, TokenRequest, remaining_s
from stretto_orchestrator.flows.listening import Listener, ListenerMeter
from stretto_orchestrator.flows.resuming import ResumePolicy, Resumes, TokenLog, resumed_audio, resumed_tokens
from stretto_orchestrator.flows.stereo import resumed_stereo

T = TypeVar("T")

PROGRESS_INTERVAL_S = 0.2
"""Progress is told at most once in this time."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is, in token frames of the whole piece."""

    stage: str
    num_done_frames: int = 0
    num_total_frames: int = 0


@dataclass(frozen=True, eq=False)
class AudioChunk:
    """The next piece of audio."""

    waveform: Waveform
    first_sample_index: int


@dataclass(frozen=True)
class Receipt:
    """What made the music; the fields are those of `stretto.orchestrator.v1.Receipt`."""

    cascade: str
    prompt: str
    seed: int
    duration_s: float
    sampling: SamplingOptions
    models: tuple[ModelInfo, ...]
    input_sha256: str
    output_sha256: str
    first_audio_latency_s: float
    total_latency_s: float
    num_resumes: int


MusicEvent = Progress | AudioChunk | Receipt


class CascadeObserver(Protocol):
    """Who counts what the cascades do."""

    def meter_of(self, cascade: str) -> ListenerMeter:
        """Who counts what the listeners of one cascade hear."""

    def observe_music(self, real_time_factor: float) -> None:
        """One piece of music was finished."""

    def observe_resume(self, stage: str) -> None:
        """A stage was resumed."""


@dataclass(frozen=True)
class RenderOptions:
    """What the operator decides about every rendering."""

    resume_policy: ResumePolicy
    max_messages_ahead: int


class Rendering:
    """One piece of music in the making; once `events` has ended, `receipt` says what made it.

    Invariant: the chunks are without gaps and hold exactly `round(duration_s * rate)` samples of new music, after
    those of the prompt where it is kept.

    Args:
        stages: Who works.
        options: What the operator decides.
        observer: Who counts.
        cascade: The cascade's name.
        pacing: How the piece is paced.
    """

    def __init__(
        self, stages: Stages, options: RenderOptions, observer: CascadeObserver, *, cascade: str, pacing: Pacing
    ) -> None:
        self._stages = stages
        self._observer = observer
        self._listener = Listener(observer.meter_of(cascade), is_realtime=pacing.is_realtime)
        self._resumes = Resumes(options.resume_policy, observer.observe_resume, remaining_s)
        self._log = TokenLog(options.max_messages_ahead)
        self._began_s = time.monotonic()
        self._digest = hashlib.sha256()
        self._num_total_frames = 0
        self._sampling = SamplingOptions()
        self._acoustic_model: ModelInfo | None = None
        self._codec_model: ModelInfo | None = None
        self._told: Progress | None = None
        self._told_at_s = -math.inf

    async def events(
        self,
        request: TokenRequest,
        *,
        duration_s: float,
        keep_prompt: bool = False,
        prompt_model: ModelInfo | None = None,
    ) -> AsyncGenerator[Progress | AudioChunk, None]:
        """Progress and audio of `duration_s` of new music, after the prompt's own if that is kept.

        Args:
            request: What the acoustic stage should make.
            duration_s: How much of it is new.
            keep_prompt: Whether the audio begins with the prompt's.
            prompt_model: The language model that the request's prompt was made for.

        Raises:
            Conflict: If another one answers, and it would have taken another prompt.
        """
        made = self._made(request, duration_s, keep_prompt, prompt_model)
        with self._listener as listener:
            async with aclosing(made):
                async for event in made:
                    if isinstance(event, AudioChunk):
                        listener.hear(event.waveform)
                        self._digest.update(_wire_bytes(event.waveform))
                    with listener.reading():
                        yield event

    async def _made(
        self, request: TokenRequest, duration_s: float, keep_prompt: bool, prompt_model: ModelInfo | None
    ) -> AsyncGenerator[Progress | AudioChunk, None]:
        """What the stages make, as it comes."""
        pump = asyncio.create_task(self._log.fill(self._tokens(request, prompt_model)))
        num_sent = 0
        try:
            async with (
                aclosing(self._audio(prompt_model)) as audio,
                aclosing(_or_nothing_for(audio, PROGRESS_INTERVAL_S)) as parts,
            ):
                async for part in parts:
                    progress = self._news()
                    if progress is not None:
                        yield progress
                    if part is None:
                        continue
                    self._codec_model = self._codec_model or part.model
                    start, stop = _kept_samples(part.waveform.sample_rate_hz, request.prompt, duration_s, keep_prompt)
                    chunk = _cut(part.waveform, part.first_sample_index, start, stop)
                    if chunk is not None:
                        yield AudioChunk(chunk, num_sent)
                        num_sent += chunk.num_samples
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
        if num_sent == 0 or num_sent != stop - start:
            raise RuntimeError(f"The stages made {num_sent} samples for {duration_s} s of music.")

    def _news(self) -> Progress | None:
        """How far the acoustic stage is, if frames have come and it was not said just now; its end is always said."""
        progress = Progress("acoustic", self._log.num_frames, self._num_total_frames)
        now_s = time.monotonic()
        is_whole = progress.num_done_frames == progress.num_total_frames
        if not progress.num_total_frames or progress == self._told:
            return None
        if not is_whole and now_s - self._told_at_s < PROGRESS_INTERVAL_S:
            return None
        self._told, self._told_at_s = progress, now_s
        return progress

    def receipt(
        self, *, cascade: str, prompt: str, text_model: ModelInfo | None, source: Waveform | None, duration_s: float,
        seed: int,
    ) -> Receipt:  # fmt: skip
        """What made the music; tells the observer that it is finished."""
        total_s = time.monotonic() - self._began_s
        self._observer.observe_music(total_s / duration_s)
        models = (text_model, self._acoustic_model, self._codec_model)
        return Receipt(
            cascade=cascade,
            prompt=prompt,
            seed=seed,
            duration_s=duration_s,
            sampling=self._sampling,
            models=tuple(model for model in models if model is not None),
            input_sha256="" if source is None else hashlib.sha256(_wire_bytes(source)).hexdigest(),
            output_sha256=self._digest.hexdigest(),
            first_audio_latency_s=self._listener.first_audio_s,
            total_latency_s=total_s,
            num_resumes=self._resumes.count,
        )

    async def _tokens(self, request: TokenRequest, prompt_model: ModelInfo | None) -> AsyncGenerator[TokenMatrix, None]:
        """The prompt's frames, so that the codec is warm when the music begins, then the new ones."""
        if request.prompt is not None:
            yield request.prompt

        def open_stream(resume_from: TokenMatrix | None) -> AsyncGenerator[GeneratedTokens, None]:
            return self._stages.acoustic.generate(request, resume_from)

        async with aclosing(resumed_tokens(open_stream, self._resumes)) as stream:
            async for part in stream:
                if prompt_model is not None and part.model is not None and not _hear_alike(prompt_model, part.model):
                    raise was_replaced(prompt_model, part.model)
                self._num_total_frames = part.num_total_frames
                self._acoustic_model = self._acoustic_model or part.model
                self._sampling = part.sampling or self._sampling
                yield part.tokens

    async def _audio(self, prompt_model: ModelInfo | None) -> AsyncGenerator[DecodedAudio, None]:
        """What the codec makes of the tokens: in two streams if the language model is stereo, else in one."""
        async with aclosing(self._log.read()) as tokens:
            await anext(tokens, None)  # the prompt, or the first answer of a language model, which says what it is
        model = prompt_model or self._acoustic_model
        if model is not None and model.is_stereo:
            audio = resumed_stereo(self._stages.codec, self._log, self._resumes)
        else:
            audio = resumed_audio(self._stages.codec.decode, self._log, self._resumes)
        async with aclosing(audio):
            async for part in audio:
                yield part


def was_replaced(expected: ModelInfo, found: ModelInfo) -> Conflict:
    """The error of a recording that was encoded for one language model when another answers by now."""
    return Conflict(
        f"The recording was encoded for the language model {expected.model_id}, which {found.model_id} has replaced. "
        "Send the request again.",
        reason="MODEL_CHANGED",
    )


def _hear_alike(one: ModelInfo, other: ModelInfo) -> bool:
    """Whether a recording is encoded in the same way for both language models."""
    return (one.num_codebooks, one.frame_rate_hz, one.is_stereo) == (
        other.num_codebooks,
        other.frame_rate_hz,
        other.is_stereo,
    )


async def _or_nothing_for(source: AsyncGenerator[T, None], interval_s: float) -> AsyncGenerator[T | None, None]:
    """What comes from `source`, and None whenever nothing came for `interval_s`."""
    upcoming = asyncio.ensure_future(anext(source))
    try:
        while True:
            await asyncio.wait([upcoming], timeout=interval_s)
            if not upcoming.done():
                yield None
                continue
            try:
                item = upcoming.result()
            except StopAsyncIteration:
                return
            yield item
            upcoming = asyncio.ensure_future(anext(source))
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)


def _kept_samples(
    sample_rate_hz: int, prompt: TokenMatrix | None, duration_s: float, keep_prompt: bool
) -> tuple[int, int]:
    """First sample to send, and the one after the last."""
    num_prompt_samples = 0 if prompt is None else round(prompt.num_frames / prompt.frame_rate_hz * sample_rate_hz)
    return 0 if keep_prompt else num_prompt_samples, num_prompt_samples + round(duration_s * sample_rate_hz)


def _cut(waveform: Waveform, first_sample_index: int, start: int, stop: int) -> Waveform | None:
    """What of a chunk lies in [start, stop); None if nothing does."""
    samples = waveform.samples[:, max(0, start - first_sample_index) : max(0, stop - first_sample_index)]
    return Waveform(samples, waveform.sample_rate_hz) if samples.shape[1] else None


def _wire_bytes(waveform: Waveform) -> bytes:
    """The samples as they travel: 32-bit little-endian floats, interleaved."""
    return np.ascontiguousarray(waveform.samples.T, dtype="<f4").tobytes()
