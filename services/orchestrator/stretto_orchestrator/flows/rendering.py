"""From language models to trimmed audio: the chain of them, the codec and resumes at work at the same time.

Knows what the stories that make music share, and none of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from stretto_shared.audio import Waveform
from stretto_shared.features import ModelInfo, SamplingOptions
from stretto_shared.tokens import TokenMatrix

from stretto_orchestrator.clients import CodecClient, DecodedAudio
from stretto_orchestrator.flows.chain import Chain, TokenStage
from stretto_orchestrator.flows.events import PROGRESS_INTERVAL_S, AudioChunk, Herald, Progress
from stretto_orchestrator.flows.patience import HeldMusic
from stretto_orchestrator.flows.resuming import ResumePolicy, Resumes, resumed_audio
from stretto_orchestrator.flows.starting import Starts
from stretto_orchestrator.flows.stereo import resumed_stereo

T = TypeVar("T")


@dataclass(frozen=True)
class RenderOptions:
    """What the operator decides about every rendering."""

    resume_policy: ResumePolicy
    max_messages_ahead: int
    held_music: HeldMusic
    max_candidates_at_once: int = 2
    starts: Starts = field(default_factory=Starts)


class Rendering:
    """One piece of music in the making; once `events` has ended, `models` and `sampling` say what made it.

    Invariant: the chunks are without gaps and hold exactly `round(duration_s * rate)` samples of new music, after
    those of the last stage's prompt where it is kept.

    Args:
        codec: Who makes audio of the last stage's tokens.
        token_stages: Who makes the tokens, in order.
        resumes: Who allows to open a lost stage again.
        max_ahead: Token messages that may wait between two stages.
        duration_s: How much of the music is new.
        keep_prompt: Whether the audio begins with the prompt's.
        streams: False has each stage wait until the one before has made all.
    """

    def __init__(
        self,
        codec: CodecClient,
        token_stages: Sequence[TokenStage],
        resumes: Resumes,
        *,
        max_ahead: int,
        duration_s: float,
        keep_prompt: bool = False,
        streams: bool = True,
    ) -> None:
        self._codec = codec
        self._chain = Chain(token_stages, resumes, max_ahead=max_ahead, streams=streams)
        self._last_stage = token_stages[-1]
        self._resumes = resumes
        self._duration_s = duration_s
        self._keep_prompt = keep_prompt
        self._streams = streams
        self._codec_model: ModelInfo | None = None

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The language models and the codec, as far as they have answered."""
        return self._chain.models + (() if self._codec_model is None else (self._codec_model,))

    @property
    def sampling(self) -> SamplingOptions:
        """The options that applied in every stage."""
        return self._chain.sampling

    def progress(self) -> list[Progress]:
        """How far the stages are that have begun."""
        return self._chain.progress()

    async def events(self) -> AsyncGenerator[Progress | AudioChunk, None]:
        """Progress and audio, as they come."""
        herald = Herald()
        num_sent, start, stop = 0, 0, 0
        async with (
            self._chain,
            aclosing(self._audio()) as audio,
            aclosing(_or_nothing_for(audio, PROGRESS_INTERVAL_S)) as parts,
        ):
            for progress in herald.news(self.progress()):
                yield progress
            async for part in parts:
                for progress in herald.news(self.progress()):
                    yield progress
                if part is None:
                    continue
                self._codec_model = self._codec_model or part.model
                start, stop = self._kept_samples(part.waveform.sample_rate_hz)
                chunk = _cut(part.waveform, part.first_sample_index, start, stop)
                if chunk is not None:
                    yield AudioChunk(chunk, num_sent)
                    num_sent += chunk.num_samples
        if num_sent == 0 or num_sent != stop - start:
            raise RuntimeError(f"The stages made {num_sent} samples for {self._duration_s} s of music.")

    async def _audio(self) -> AsyncGenerator[DecodedAudio, None]:
        """What the codec makes of the tokens: in two streams if the last language model is stereo, else in one."""
        log = self._chain.log
        if not self._streams:
            await log.ended()
        async with aclosing(log.read()) as tokens:
            await anext(tokens, None)  # the prompt, or the first answer of a language model, which says what it is
        model = self._last_stage.prompt_model or self._chain.last_model
        if model is not None and model.is_stereo:
            audio = resumed_stereo(self._codec, log, self._resumes)
        else:
            audio = resumed_audio(self._codec.decode, log, self._resumes)
        async with aclosing(audio):
            async for part in audio:
                yield part

    def _kept_samples(self, sample_rate_hz: int) -> tuple[int, int]:
        """First sample to send, and the one after the last."""
        num_prompt_samples = _num_samples(self._last_stage.prompt, sample_rate_hz)
        start = 0 if self._keep_prompt else num_prompt_samples
        return start, num_prompt_samples + round(self._duration_s * sample_rate_hz)


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


def _num_samples(prompt: TokenMatrix | None, sample_rate_hz: int) -> int:
    return 0 if prompt is None else round(prompt.num_frames / prompt.frame_rate_hz * sample_rate_hz)


def _cut(waveform: Waveform, first_sample_index: int, start: int, stop: int) -> Waveform | None:
    """What of a chunk lies in [start, stop); None if nothing does."""
    samples = waveform.samples[:, max(0, start - first_sample_index) : max(0, stop - first_sample_index)]
    return Waveform(samples, waveform.sample_rate_hz) if samples.shape[1] else None
