"""`Audition`: several pieces for one request, of which the one that fits the prompt best is sent.

One alone is sent while it is made. Of several, at most so many as the operator allows are made at once; they are judged
when all are there. One that a full stage refuses is made anew when the stage has room, so that the others are not lost.
Knows renderings and a judge, and not what they are made of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing

import numpy as np
from stretto_shared.audio import Waveform
from stretto_shared.errors import Overloaded
from stretto_shared.features import ModelInfo

from stretto_orchestrator.clients import RankedCandidate
from stretto_orchestrator.flows.events import PROGRESS_INTERVAL_S, AudioChunk, Herald, Progress
from stretto_orchestrator.flows.patience import Patience
from stretto_orchestrator.flows.rendering import Rendering

Judge = Callable[[Sequence[Waveform]], Awaitable[tuple[RankedCandidate, ModelInfo]]]
"""Says which recording fits best, and who judged."""


class Audition:
    """The candidates of one request; once `events` has ended, `chosen`, `seed`, `similarity` and `judge` say who won.

    Args:
        candidates: What makes a rendering, by seed; at least one.
        judge: Who chooses among several.
        max_at_once: How many are made at the same time.
        patience: How long one of several waits for room.
    """

    def __init__(
        self, candidates: Mapping[int, Callable[[], Rendering]], judge: Judge, *, max_at_once: int, patience: Patience
    ) -> None:
        self._seeds = list(candidates)
        self._makers = list(candidates.values())
        self._renderings = [make() for make in self._makers]
        self._ask_judge = judge
        self._patience = patience
        self._places = asyncio.Semaphore(max_at_once)
        self.similarity = 0.0
        self.judge: ModelInfo | None = None
        self._choose(0)

    def models_after(self, listeners: Sequence[ModelInfo]) -> tuple[ModelInfo, ...]:
        """Who made the one that was sent, after those who heard the request; the judge last, if it is none of them."""
        models = (*listeners, *self.chosen.models)
        judge = self.judge
        return models if judge is None or judge.model_id in {each.model_id for each in models} else (*models, judge)

    async def events(self) -> AsyncGenerator[Progress | AudioChunk, None]:
        """Progress of all candidates together, then the audio of the best."""
        if len(self._renderings) == 1:
            async with aclosing(self.chosen.events()) as events:
                async for event in events:
                    yield event
            return
        takes: list[list[AudioChunk]] = [[] for _ in self._renderings]
        async with aclosing(self._make_all(takes)) as told:
            async for progress in told:
                yield progress
        yield Progress("embedding")
        recordings = await asyncio.to_thread(lambda: [_joined(take) for take in takes])
        best, self.judge = await self._ask_judge(recordings)
        self._choose(best.index)
        self.similarity = best.similarity
        chunks = takes[best.index]
        del recordings
        takes.clear()  # however slowly somebody listens, only the best is kept
        for chunk in chunks:
            yield chunk

    async def _make_all(self, takes: list[list[AudioChunk]]) -> AsyncGenerator[Progress, None]:
        """Progress of all candidates, whose audio is in `takes` in the end."""
        herald = Herald()
        tasks = [asyncio.create_task(self._take(index, takes)) for index in range(len(takes))]
        try:
            pending = set(tasks)
            while pending:
                done, pending = await asyncio.wait(
                    pending, timeout=PROGRESS_INTERVAL_S, return_when=asyncio.FIRST_EXCEPTION
                )
                for task in done:
                    task.result()
                for progress in herald.news(self._progress()):
                    yield progress
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, index: int, takes: list[list[AudioChunk]]) -> None:
        """Put all audio of a candidate in its place, made anew as often as it may wait for room.

        It is no task's result: those stay in memory until the garbage collector comes.
        """
        num_refusals = 0
        async with self._places:
            while True:
                try:
                    with self._patience.useful():
                        takes[index] = await _all_of(self._renderings[index])
                        return
                except Overloaded as error:
                    num_refusals += 1
                    await self._patience.wait_or_raise(error, num_refusals)
                self._renderings[index] = self._makers[index]()

    def _progress(self) -> list[Progress]:
        """Frames of all candidates by stage; those of one that has not begun are as many as of one that has."""
        told = [progress for rendering in self._renderings for progress in rendering.progress()]
        stages = dict.fromkeys(progress.stage for progress in told)
        return [self._summed([progress for progress in told if progress.stage == stage]) for stage in stages]

    def _summed(self, parts: Sequence[Progress]) -> Progress:
        num_total_frames = max(part.num_total_frames for part in parts)
        return Progress(
            parts[0].stage, sum(part.num_done_frames for part in parts), num_total_frames * len(self._renderings)
        )

    def _choose(self, index: int) -> None:
        self.chosen, self.seed = self._renderings[index], self._seeds[index]


async def _all_of(rendering: Rendering) -> list[AudioChunk]:
    async with aclosing(rendering.events()) as events:
        return [event async for event in events if isinstance(event, AudioChunk)]


def _joined(chunks: Sequence[AudioChunk]) -> Waveform:
    samples = np.concatenate([chunk.waveform.samples for chunk in chunks], axis=1)
    return Waveform(samples, chunks[0].waveform.sample_rate_hz)
