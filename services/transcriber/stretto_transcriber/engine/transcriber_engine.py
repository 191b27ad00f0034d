"""`TranscriberEngine`: what the service does, as one; notes, beats and scores have a file each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from stretto_shared.audio import Waveform
from stretto_shared.errors import NotReady
from stretto_shared.features import ModelInfo
from stretto_shared.score import Score

from stretto_transcriber.engine.engraving import EngravedMusic, Engraving
from stretto_transcriber.engine.tracking import Tracking
from stretto_transcriber.engine.transcribing import NewNotes, Transcribing
from stretto_transcriber.models.beats import TrackedBeats
from stretto_transcriber.models.notes import NoteEnds


class TranscriberEngine:
    """Starts, stops and lists the models of both kinds.

    Args:
        transcribing: Notes.
        tracking: Beats. No model's name is in both.
        engraving: Scores.
    """

    def __init__(self, transcribing: Transcribing, tracking: Tracking, engraving: Engraving) -> None:
        self._transcribing = transcribing
        self._tracking = tracking
        self._engraving = engraving
        self._is_ready = False

    async def start(self) -> None:
        """Load every model on its own thread.

        Raises:
            StrettoError: What the loading of a model raised.
        """
        await asyncio.gather(self._transcribing.hearing.start(), self._tracking.hearing.start())
        self._is_ready = True

    async def stop(self) -> None:
        """Fail what waits, and end the threads."""
        self._is_ready = False
        await asyncio.gather(
            self._transcribing.hearing.stop(),
            self._tracking.hearing.stop(),
            self._tracking.stop(),
            self._engraving.stop(),
        )

    def count_waiting(self) -> int:
        """Count the requests that wait for a thread."""
        return (
            self._transcribing.hearing.count_waiting()
            + self._tracking.count_waiting()
            + self._engraving.count_waiting()
        )

    def list_models(self) -> list[ModelInfo]:
        """The models, sorted by name."""
        self._check_ready()
        models = [*self._transcribing.hearing.list_models(), *self._tracking.hearing.list_models()]
        return sorted(models, key=lambda info: info.name)

    def transcribe(self, model: str, audio: AsyncIterator[Waveform], ends: NoteEnds) -> AsyncGenerator[NewNotes, None]:
        """What `Transcribing.transcribe` does."""
        return self._transcribing.transcribe(model, audio, ends)

    async def track(self, model: str, audio: AsyncIterator[Waveform]) -> tuple[TrackedBeats, ModelInfo]:
        """What `Tracking.track` does."""
        return await self._tracking.track(model, audio)

    async def engrave(self, score: Score, title: str) -> EngravedMusic:
        """What `Engraving.engrave` does."""
        self._check_ready()
        return await self._engraving.engrave(score, title)

    def _check_ready(self) -> None:
        if not self._is_ready:
            raise NotReady("The transcriber service has not loaded its models, or is stopping. Retry shortly.")
