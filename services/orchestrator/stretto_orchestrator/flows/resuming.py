"""A stage that is lost in mid-stream costs a pause, not a piece: open it again and go on where it stopped.

The acoustic stage takes the frames that it had made and continues at the next one. The codec is sent all tokens again;
what it had already delivered is skipped. Both give the bytes of an unbroken run (laws 3 to 5 of the design).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from stretto_shared.audio import Waveform
from stretto_shared.errors import Conflict, NotReady
from stretto_shared.features import ModelInfo
from stretto_shared.tokens import TokenMatrix, concatenate

from stretto_orchestrator.clients import DecodedAudio, GeneratedTokens


@dataclass(frozen=True)
class ResumePolicy:
    """How often one request may resume a stage, and the wait before the first time; it doubles with each."""

    max_resumes: int = 4
    backoff_s: float = 0.2


class Resumes:
    """Counts the resumes of one request, over all stages; `count` never exceeds the policy's maximum."""

    def __init__(self, policy: ResumePolicy, on_resume: Callable[[str], None]) -> None:
        self.count = 0
        self._policy = policy
        self._on_resume = on_resume

    async def wait_or_raise(self, stage: str, error: NotReady) -> None:
        """Return when `stage` may be tried again; raise `error` if it was tried often enough."""
        if self.count >= self._policy.max_resumes:
            raise error
        self.count += 1
        self._on_resume(stage)
        await asyncio.sleep(self._policy.backoff_s * 2 ** (self.count - 1))


async def resumed_tokens(
    open_stream: Callable[[TokenMatrix | None], AsyncGenerator[GeneratedTokens, None]], resumes: Resumes
) -> AsyncGenerator[GeneratedTokens, None]:
    """All frames of an acoustic stream, however often it is lost after its first message.

    Raises:
        NotReady: If it was never reached, or lost too often.
        Conflict: If another model answers than the one that began.
    """
    received: list[TokenMatrix] = []
    model: ModelInfo | None = None
    is_whole = False
    while not is_whole:
        try:
            async with aclosing(open_stream(concatenate(received) if received else None)) as stream:
                async for part in stream:
                    model = _same_model(model, part.model, "acoustic")
                    received.append(part.tokens)
                    is_whole = part.first_frame_index + part.tokens.num_frames >= part.num_total_frames
                    yield part
            if not is_whole:
                raise NotReady("The acoustic stage ended its stream before the last frame. Try again.")
        except NotReady as error:
            if is_whole:
                return
            if not received:
                raise
            await resumes.wait_or_raise("acoustic", error)


class TokenLog:
    """The tokens of one request as they come, kept so that a second codec stream can be fed from the start.

    Invariant: at most `max_ahead` messages wait for the reader that is furthest; then the source is held back.
    """

    def __init__(self, max_ahead: int) -> None:
        self._max_ahead = max_ahead
        self._parts: list[TokenMatrix] = []
        self._num_read = 0
        self._is_ended = False
        self._changed = asyncio.Condition()
        self.error: Exception | None = None

    @property
    def num_frames(self) -> int:
        """Frames that have come so far."""
        return sum(part.num_frames for part in self._parts)

    async def fill(self, source: AsyncGenerator[TokenMatrix, None]) -> None:
        """Take everything from `source`, then close it; an error of it is kept for the readers."""
        try:
            async with aclosing(source):
                async for part in source:
                    async with self._changed:
                        await self._changed.wait_for(lambda: len(self._parts) - self._num_read < self._max_ahead)
                        self._parts.append(part)
                        self._changed.notify_all()
        except Exception as error:  # raised again where the tokens are read
            self.error = error
        async with self._changed:
            self._is_ended = True
            self._changed.notify_all()

    async def read(self) -> AsyncGenerator[TokenMatrix, None]:
        """Every part from the first on, waiting for those to come."""
        index = 0
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: index < len(self._parts) or self._is_ended)  # noqa: B023
                if index == len(self._parts):
                    if self.error is not None:
                        raise self.error
                    return
                part = self._parts[index]
                index += 1
                self._num_read = max(self._num_read, index)
                self._changed.notify_all()
            yield part


async def resumed_audio(
    open_stream: Callable[[AsyncGenerator[TokenMatrix, None]], AsyncGenerator[DecodedAudio, None]],
    log: TokenLog,
    resumes: Resumes,
) -> AsyncGenerator[DecodedAudio, None]:
    """All audio of the log's tokens, without gap or repetition, however often the codec is lost after its first chunk.

    Raises:
        NotReady: If the codec was never reached, or lost too often.
        Conflict: If another codec answers than the one that began.
    """
    num_delivered = 0
    model: ModelInfo | None = None
    while True:
        try:
            async with aclosing(open_stream(log.read())) as stream:
                async for part in stream:
                    model = _same_model(model, part.model, "codec")
                    stop = part.first_sample_index + part.waveform.num_samples
                    if stop > num_delivered:
                        yield _from(part, num_delivered)
                        num_delivered = stop
            return
        except NotReady as error:
            if log.error is not None or num_delivered == 0:
                raise
            await resumes.wait_or_raise("codec", error)


def _from(part: DecodedAudio, first_sample_index: int) -> DecodedAudio:
    """The part without the samples before that index."""
    if part.first_sample_index >= first_sample_index:
        return part
    samples = part.waveform.samples[:, first_sample_index - part.first_sample_index :]
    return DecodedAudio(Waveform(samples, part.waveform.sample_rate_hz), first_sample_index, part.model)


def _same_model(began: ModelInfo | None, now: ModelInfo | None, stage: str) -> ModelInfo | None:
    if began is not None and now is not None and began.model_id != now.model_id:
        raise Conflict(
            f"The {stage} stage began with {began.model_id} and came back as {now.model_id}, so the music cannot be "
            "continued. Send the request again.",
            reason="MODEL_CHANGED",
        )
    return began or now
