"""`Chain`: the language models of a cascade at work on one piece at once, each on what the one before has made.

Each has a log of what it made, which the next one reads, so that a stage that is lost reads its source again from the
first frame. Where the next one is slow, the log fills up and holds its own stage back. Knows neither what the stages
are told nor what becomes of the last one's tokens.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from stretto_shared.errors import Conflict
from stretto_shared.features import ModelInfo, SamplingOptions
from stretto_shared.tokens import TokenMatrix

from stretto_orchestrator.clients import GeneratedTokens
from stretto_orchestrator.flows.events import Progress
from stretto_orchestrator.flows.resuming import Resumes, TokenLog, resumed_tokens

V = TypeVar("V", int, float)

OpenStream = Callable[[AsyncGenerator[TokenMatrix, None], TokenMatrix | None], AsyncGenerator[GeneratedTokens, None]]
"""Opens a stage's stream: of the tokens of the stage before it, after the frames that it had made already."""


@dataclass(frozen=True)
class TokenStage:
    """One language model, told all but the tokens of the stage before it.

    Args:
        name: What progress, errors and metrics call it.
        open_stream: Sets it to work.
        prompt: The frames before its own; the next stage reads them first.
        prompt_model: The language model that the prompt was made for.
    """

    name: str
    open_stream: OpenStream
    prompt: TokenMatrix | None = None
    prompt_model: ModelInfo | None = None


class StageAtWork:
    """A stage on one piece: `log` has its tokens as they come, `progress` how far it is.

    Args:
        stage: Which.
        source: The log of the stage before it; None for the first.
        resumes: Who allows to open it again.
        max_ahead: Messages that may wait in its log.
        streams: False waits for the end of the source before it begins.
    """

    def __init__(
        self, stage: TokenStage, source: TokenLog | None, resumes: Resumes, *, max_ahead: int, streams: bool
    ) -> None:
        self.log = TokenLog(max_ahead)
        self.model: ModelInfo | None = None
        self.sampling = SamplingOptions()
        self.has_begun = streams or source is None
        self._stage = stage
        self._source = source
        self._resumes = resumes
        self._num_total_frames = 0

    @property
    def progress(self) -> Progress:
        """How far it is; 0 of 0 frames before its first message."""
        num_done_frames = self.log.num_frames if self._num_total_frames else 0
        return Progress(self._stage.name, num_done_frames, self._num_total_frames)

    async def work(self) -> None:
        """Make all tokens; an error is for the readers of the log."""
        await self.log.fill(self._tokens())

    async def _tokens(self) -> AsyncGenerator[TokenMatrix, None]:
        """The prompt's frames, then the new ones."""
        stage = self._stage
        if stage.prompt is not None:
            yield stage.prompt
        if self._source is not None and not self.has_begun:
            await self._source.ended()
            self.has_begun = True
        async with aclosing(resumed_tokens(self._open, self._resumes, stage=stage.name, source=self._source)) as stream:
            async for part in stream:
                if stage.prompt_model is not None and part.model is not None:
                    _check_hears_alike(stage.prompt_model, part.model)
                self._num_total_frames = part.num_total_frames
                self.model = self.model or part.model
                self.sampling = part.sampling or self.sampling
                yield part.tokens

    def _open(self, resume_from: TokenMatrix | None) -> AsyncGenerator[GeneratedTokens, None]:
        return self._stage.open_stream(_nothing() if self._source is None else self._source.read(), resume_from)


class Chain:
    """Stages in order, at work from enter to exit; whatever still works at the exit is cancelled.

    Invariant: `log` is that of the last stage; an error of any stage comes out of it.

    Args:
        stages: At least one, in order.
        resumes: Who allows to open one again.
        max_ahead: Messages that may wait between two stages.
        streams: False has each stage wait until the one before has made all; then nothing holds that one back.
    """

    def __init__(self, stages: Sequence[TokenStage], resumes: Resumes, *, max_ahead: int, streams: bool = True) -> None:
        self._workers: list[StageAtWork] = []
        self._tasks: list[asyncio.Task[None]] = []
        source = None
        for stage in stages:
            worker = StageAtWork(
                stage, source, resumes, max_ahead=max_ahead if streams else sys.maxsize, streams=streams
            )
            self._workers.append(worker)
            source = worker.log

    @property
    def log(self) -> TokenLog:
        """What the last stage makes."""
        return self._workers[-1].log

    @property
    def last_model(self) -> ModelInfo | None:
        """The last language model, once it has answered."""
        return self._workers[-1].model

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The language models that have answered, in order."""
        return tuple(worker.model for worker in self._workers if worker.model is not None)

    @property
    def sampling(self) -> SamplingOptions:
        """The options that applied. One in which the stages differ is None: each took its model's own default."""
        options = [worker.sampling for worker in self._workers]
        return SamplingOptions(
            temperature=_shared([each.temperature for each in options]),
            top_k=_shared([each.top_k for each in options]),
            top_p=_shared([each.top_p for each in options]),
            guidance_scale=_shared([each.guidance_scale for each in options]),
        )

    def progress(self) -> list[Progress]:
        """How far the stages are that have begun."""
        return [worker.progress for worker in self._workers if worker.has_begun]

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(worker.work()) for worker in self._workers]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in reversed(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def was_replaced(expected: ModelInfo, found: ModelInfo) -> Conflict:
    """The error of a recording that was encoded for one language model when another answers by now."""
    return Conflict(
        f"The recording was encoded for the language model {expected.model_id}, which {found.model_id} has replaced. "
        "Send the request again.",
        reason="MODEL_CHANGED",
    )


def _check_hears_alike(expected: ModelInfo, found: ModelInfo) -> None:
    """Raise a Conflict unless a recording is encoded in the same way for both language models."""
    if (expected.num_codebooks, expected.frame_rate_hz, expected.is_stereo) != (
        found.num_codebooks,
        found.frame_rate_hz,
        found.is_stereo,
    ):
        raise was_replaced(expected, found)


def _shared(values: Sequence[V | None]) -> V | None:
    return values[0] if len(set(values)) == 1 else None


async def _nothing() -> AsyncGenerator[TokenMatrix, None]:
    """The source of a first stage."""
    return
    yield
