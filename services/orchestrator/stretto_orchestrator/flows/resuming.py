"""A stage that is lost in mid-stream costs a pause, not a piece: open it again and go on where it stopped.

A language model takes the frames that it had made and continues at the next one; if it reads the tokens of a stage
before it, it is sent them again from the first. The codec is sent all tokens again; what it had already delivered is
skipped. All give the bytes of an unbroken run (laws 3 to 5 of the design). A replica that is full when a stage is
opened again is asked once more after the time that it names: what was made is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from stretto_shared.audio import Waveform
from stretto_shared.errors import Conflict, InvalidInput, NotFound, NotReady, Overloaded
from stretto_shared.features import ModelInfo
from stretto_shared.tokens import TokenMatrix, concatenate

from stretto_orchestrator.clients import DecodedAudio, GeneratedTokens


@dataclass(frozen=True)
class ResumePolicy:
    """How often one request may resume a stage, and the wait before the first time; it doubles with each."""

    max_resumes: int = 4
    backoff_s: float = 0.2


def _no_deadline() -> float | None:
    return None


class Resumes:
    """Counts the resumes of one request, over all stages; `count` never exceeds the policy's maximum.

    Args:
        policy: How often, and how long to wait.
        on_resume: Told the stage of each resume.
        remaining_s: The time that the request has left; None without a deadline.
    """

    def __init__(
        self,
        policy: ResumePolicy,
        on_resume: Callable[[str], None],
        remaining_s: Callable[[], float | None] = _no_deadline,
    ) -> None:
        self.count = 0
        self._policy = policy
        self._on_resume = on_resume
        self._remaining_s = remaining_s

    async def wait_or_raise(self, stage: str, error: NotReady | Overloaded) -> None:
        """Return when `stage` may be tried again, which for a full one is not before the time that it asks for.

        Raises `error` at once if the stage was tried often enough, or if the wait would outlast the request's deadline:
        the error says more than the deadline would.
        """
        if self.count >= self._policy.max_resumes:
            raise error
        wait_s = self._policy.backoff_s * 2**self.count
        if isinstance(error, Overloaded):
            wait_s = max(wait_s, error.retry_after_s)
        remaining_s = self._remaining_s()
        if remaining_s is not None and wait_s >= remaining_s:
            raise error
        self.count += 1
        self._on_resume(stage)
        await asyncio.sleep(wait_s)


async def resumed_tokens(
    open_stream: Callable[[TokenMatrix | None], AsyncGenerator[GeneratedTokens, None]],
    resumes: Resumes,
    *,
    stage: str,
    source: TokenLog | None = None,
) -> AsyncGenerator[GeneratedTokens, None]:
    """All frames of a language model's stream, however often it is lost after its first message.

    One that reads a source may be lost before its first message too, for no channel tries a call again that takes a
    stream.

    Args:
        open_stream: Opens the stream after the frames that it is given, if any.
        resumes: Who allows it.
        stage: What the stage is called.
        source: What the stream reads, from its first frame each time it is opened. An error of it is no loss of the
            stage.

    Raises:
        NotReady: If it was not reached, or lost too often.
        Overloaded: If it was full from the start, or once too often after it was lost.
        Conflict: If another model answers than the one that began, or refuses what that one had made.
    """
    received: list[TokenMatrix] = []
    model: ModelInfo | None = None
    is_whole = has_begun = False
    while not is_whole:
        has_answered = False
        try:
            async with aclosing(open_stream(concatenate(received) if received else None)) as stream:
                async for part in stream:
                    model = _same_model(model, part.model, stage)
                    has_answered = has_begun = True
                    received.append(part.tokens)
                    is_whole = part.first_frame_index + part.tokens.num_frames >= part.num_total_frames
                    yield part
            if not is_whole:
                raise NotReady(f"The {stage} stage ended its stream before the last frame. Try again.")
        except (NotReady, Overloaded) as error:
            if is_whole:
                return
            has_begun = has_begun or (isinstance(error, NotReady) and source is not None)
            if not has_begun or (source is not None and source.error is not None):
                raise
            await resumes.wait_or_raise(stage, error)
        except (InvalidInput, NotFound) as error:
            if not received or has_answered or (source is not None and source.error is not None):
                raise
            raise _other_model(model, stage) from error


class TokenLog:
    """The tokens of one request as they come, kept so that a second codec stream can be fed from the start.

    Invariant: at most `max_ahead` messages wait for the reader that is furthest; then the source is held back.
    """

    def __init__(self, max_ahead: int) -> None:
        self._max_ahead = max_ahead
        self._parts: list[TokenMatrix] = []
        self._num_read = 0
        self._num_frames = 0
        self._is_ended = False
        self._changed = asyncio.Condition()
        self.error: Exception | None = None

    @property
    def num_frames(self) -> int:
        """Frames that have come so far."""
        return self._num_frames

    async def ended(self) -> None:
        """Return when no more will come, whether or not that is for an error."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_ended)

    async def fill(self, source: AsyncGenerator[TokenMatrix, None]) -> None:
        """Take everything from `source`, then close it; an error of it is kept for the readers."""
        try:
            async with aclosing(source):
                async for part in source:
                    async with self._changed:
                        await self._changed.wait_for(lambda: len(self._parts) - self._num_read < self._max_ahead)
                        self._parts.append(part)
                        self._num_frames += part.num_frames
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
    """All audio of the log's tokens, without gap or repetition, however often the codec is lost.

    Raises:
        NotReady: If the codec was not reached, or lost too often.
        Overloaded: If it was full from the start, or once too often after it was lost.
        Conflict: If another codec answers than the one that began, or refuses the tokens that that one took.
    """
    num_delivered = 0
    model: ModelInfo | None = None
    has_begun = False
    while True:
        has_answered = False
        try:
            async with aclosing(open_stream(log.read())) as stream:
                async for part in stream:
                    model = _same_model(model, part.model, "codec")
                    has_answered = True
                    stop = part.first_sample_index + part.waveform.num_samples
                    if stop > num_delivered:
                        yield _from(part, num_delivered)
                        num_delivered = stop
            return
        except (NotReady, Overloaded) as error:
            has_begun = has_begun or num_delivered > 0 or isinstance(error, NotReady)
            if log.error is not None or not has_begun:
                raise
            await resumes.wait_or_raise("codec", error)
        except (InvalidInput, NotFound) as error:
            if log.error is not None or num_delivered == 0 or has_answered:
                raise
            raise _other_model(model, "codec") from error


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


def _other_model(began: ModelInfo | None, stage: str) -> Conflict:
    """The error of a stage that was lost and refuses, before it has said who it is, what it took or made before."""
    name = "one model" if began is None else began.model_id
    return Conflict(
        f"The {stage} stage began with {name} and came back with a model that refuses what that one had taken, so the "
        "music cannot be continued. Send the request again.",
        reason="MODEL_CHANGED",
    )
