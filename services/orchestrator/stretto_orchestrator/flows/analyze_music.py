"""What was played in a recording: notes while it comes, then its beats, the score of both, and the score's harmony."""

from __future__ import annotations

import asyncio
import enum
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.features import ModelInfo
from stretto_shared.harmony import HarmonyLabel, joined
from stretto_shared.score import MAX_NAME_CHARACTERS, Part, Score

from stretto_orchestrator.clients import HarmonyClient, HeardBeats, HeardNotes, NoteEnds, Stages, TranscriberClient
from stretto_orchestrator.flows.events import PROGRESS_INTERVAL_S
from stretto_orchestrator.flows.forking import Branch, Fork, KeptAudio
from stretto_orchestrator.flows.rehearing import heard_beats, heard_notes
from stretto_orchestrator.flows.resuming import Resumes

NOTES_STAGE, BEATS_STAGE, SCORE_STAGE = "transcriber/notes", "transcriber/beats", "transcriber/score"
HARMONY_STAGE = "harmony"
MAX_ENGRAVED_NOTES = 20_000  # what EngraveScore takes; its proto says so
MIN_BEATS = 2


class Section(enum.Enum):
    """One part of an analysis."""

    NOTES = "notes"
    BEATS = "beats"
    SCORE = "score"
    HARMONY = "harmony"


DEFAULT_SECTIONS = (Section.NOTES, Section.BEATS, Section.SCORE)


@dataclass(frozen=True)
class AnalysisRequest:
    """What somebody wants to know of a recording; no section is all of them but harmony.

    Raises:
        InvalidInput: On a title above 200 characters.
    """

    sections: tuple[Section, ...] = ()
    note_model: str = ""
    beat_model: str = ""
    title: str = ""
    harmony_model: str = ""
    note_ends: NoteEnds = "sound"

    def __post_init__(self) -> None:
        wanted = [section for section in Section if section in (self.sections or DEFAULT_SECTIONS)]
        object.__setattr__(self, "sections", tuple(wanted))
        if len(self.title) > MAX_NAME_CHARACTERS:
            raise InvalidInput(
                "config.title", f"expected at most {MAX_NAME_CHARACTERS} characters, got {len(self.title)}. Shorten it."
            )

    @property
    def hears_notes(self) -> bool:
        return Section.NOTES in self.sections or self.needs_score

    @property
    def hears_beats(self) -> bool:
        return Section.BEATS in self.sections or self.needs_score

    @property
    def wants_score(self) -> bool:
        return Section.SCORE in self.sections

    @property
    def wants_harmony(self) -> bool:
        return Section.HARMONY in self.sections

    @property
    def needs_score(self) -> bool:
        return self.wants_score or self.wants_harmony


@dataclass(frozen=True)
class AnalysisProgress:
    """How many seconds a stage is done with; 0 where it begins, or does not tell."""

    stage: str
    done_s: float = 0.0


@dataclass(frozen=True, eq=False)
class AnalyzedScore:
    """The score as written, and as MusicXML."""

    score: Score
    musicxml: bytes


@dataclass(frozen=True, eq=False)
class AnalyzedHarmony:
    """The harmony of the score, neighbours that say the same as one, and the score with its numerals as MusicXML."""

    labels: tuple[HarmonyLabel, ...]
    musicxml: bytes


@dataclass(frozen=True)
class AnalysisReceipt:
    """What made the analysis; the fields are those of `stretto.orchestrator.v1.AnalysisReceipt`."""

    sections: tuple[Section, ...]
    models: tuple[ModelInfo, ...]
    duration_s: float
    input_sha256: str
    total_latency_s: float


AnalysisEvent = AnalysisProgress | HeardNotes | HeardBeats | AnalyzedScore | AnalyzedHarmony | AnalysisReceipt


async def analyze_music(
    stages: Stages,
    request: AnalysisRequest,
    audio: AsyncIterator[Waveform],
    *,
    resumes: Resumes,
    kept: KeptAudio,
) -> AsyncGenerator[AnalysisEvent, None]:
    """Progress, the sections that were asked for, and the receipt last.

    Args:
        stages: Who hears, and who analyses.
        request: What somebody wants to know.
        audio: The recording.
        resumes: Who allows a stage that was lost to hear the recording again.
        kept: Who has room for the recording until then.
    """
    began_s = time.monotonic()
    if request.wants_harmony or request.harmony_model:  # an hour may be heard before an analyzer is wanted
        await stages.harmony.check_model(request.harmony_model, field="config.harmony_model")
    hearing = _Hearing(stages.transcriber, request, audio, resumes, kept)
    models: list[ModelInfo] = []
    try:
        async with aclosing(hearing.events()) as events:
            async for event in events:
                yield event
        if Section.BEATS in request.sections and hearing.beats is not None:
            yield hearing.beats
        if request.needs_score and (performance := hearing.performance()) is not None:
            yield AnalysisProgress(SCORE_STAGE)
            score = await _engraved(stages.transcriber, performance, request.title)
            if request.wants_score and score is not None:
                yield score
            if request.wants_harmony and score is not None:
                yield AnalysisProgress(HARMONY_STAGE)
                yield await _labelled(stages.harmony, request, score, models)
    finally:
        await hearing.stop()
    yield AnalysisReceipt(
        request.sections,
        (*hearing.models, *models),
        hearing.fork.heard_s,
        hearing.fork.sha256,
        time.monotonic() - began_s,
    )


async def _engraved(transcriber: TranscriberClient, performance: Score, title: str) -> AnalyzedScore | None:
    """The score; None where the stage finds that this performance has none, as with notes far away from all beats."""
    try:
        return AnalyzedScore(*await transcriber.engrave(performance, title))
    except InvalidInput as error:
        if error.field.partition(".")[0] != "score":
            raise
        return None


async def _labelled(
    harmony: HarmonyClient, request: AnalysisRequest, score: AnalyzedScore, models: list[ModelInfo]
) -> AnalyzedHarmony:
    """The harmony of a score; the analyzer joins `models`."""
    found: list[HarmonyLabel] = []
    async with aclosing(harmony.analyze(request.harmony_model, score.musicxml, field="config.harmony_model")) as parts:
        async for part in parts:
            found += part.labels
            models[:] = [part.model]
    labels = tuple(joined(found))
    return AnalyzedHarmony(labels, await harmony.write_musicxml(score.musicxml, labels, request.title))


class _Hearing:
    """The stages that hear one recording, at work at the same time."""

    def __init__(
        self,
        transcriber: TranscriberClient,
        request: AnalysisRequest,
        audio: AsyncIterator[Waveform],
        resumes: Resumes,
        kept: KeptAudio,
    ) -> None:
        self._transcriber = transcriber
        self._request = request
        self._resumes = resumes
        self.fork = Fork(audio, int(request.hears_notes) + int(request.hears_beats), kept)
        self._tasks: list[asyncio.Task[Any]] = [asyncio.create_task(self.fork.run())]
        self._heard: list[HeardNotes] = []
        self._num_notes = 0
        self._told: dict[str, float] = {}
        self._told_at_s = -math.inf
        self.beats: HeardBeats | None = None
        self.models: tuple[ModelInfo, ...] = ()

    async def events(self) -> AsyncGenerator[AnalysisProgress | HeardNotes, None]:
        """Progress, and the notes if they were asked for; ends when all was heard.

        Raises:
            StrettoError: What a stage raised, as soon as it did.
        """
        tracking: list[asyncio.Task[HeardBeats]] = []
        if self._request.hears_beats:
            tracking.append(asyncio.create_task(self._track(self.fork.branches[-1])))
            self._tasks += tracking
            yield AnalysisProgress(BEATS_STAGE)
        if self._request.hears_notes:
            yield AnalysisProgress(NOTES_STAGE)
            async with aclosing(_beside(self._notes(self.fork.branches[0]), tracking)) as parts:
                async for part in parts:
                    if part is not None and self._keep(part):
                        yield part
                    for progress in self._news():
                        yield progress
        while tracking and not tracking[0].done():
            await asyncio.wait(tracking, timeout=PROGRESS_INTERVAL_S)
            for progress in self._news():
                yield progress
        for task in tracking:
            self.beats = task.result()
            self.models += (self.beats.model,)

    def performance(self) -> Score | None:
        """What is to be engraved; None where nothing can be."""
        columns = [
            np.concatenate([getattr(part.notes, name) for part in self._heard])
            for name in ("onset_s", "duration_s", "pitch_midi", "velocity")
        ]
        if self.beats is None or len(self.beats.beat_s) < MIN_BEATS or not columns[0].size:
            return None
        order = np.lexsort((columns[2], columns[0]))
        onset_s, duration_s, pitch_midi, velocity = (column[order] for column in columns)
        return Score(
            onset_s,
            duration_s,
            pitch_midi,
            velocity,
            np.zeros(len(order), np.int32),
            (Part("piano"),),
            beat_s=np.array(self.beats.beat_s),
            beat_in_bar=np.array(self.beats.beat_in_bar, np.int32),
        )

    async def stop(self) -> None:
        """End what is still at work."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.fork.close()

    def _notes(self, branch: Branch) -> AsyncGenerator[HeardNotes, None]:
        def transcribe() -> AsyncGenerator[HeardNotes, None]:
            wanted = self._request
            fields = {"field": "config.note_model", "ends_field": "config.note_ends"}
            return self._transcriber.transcribe(wanted.note_model, branch, wanted.note_ends, **fields)

        return heard_notes(transcribe, branch, self._resumes, stage=NOTES_STAGE)

    async def _track(self, branch: Branch) -> HeardBeats:
        async def track() -> HeardBeats:
            return await self._transcriber.track(self._request.beat_model, branch, field="config.beat_model")

        try:
            return await heard_beats(track, branch, self._resumes, stage=BEATS_STAGE)
        finally:
            await branch.leave()

    def _keep(self, part: HeardNotes) -> bool:
        """Take note of what was heard; tells whether the caller wants it too."""
        if part.model is not None:
            self.models = (part.model, *self.models)
        self._told[NOTES_STAGE] = part.complete_s
        if self._request.needs_score:
            self._heard.append(part)
            self._num_notes += part.notes.num_notes
            if self._num_notes > MAX_ENGRAVED_NOTES:
                raise InvalidInput(
                    "config.sections",
                    f"expected at most {MAX_ENGRAVED_NOTES} notes to make a score of, heard {self._num_notes}. Ask for "
                    "notes and beats only, or send a part of the recording.",
                )
        return Section.NOTES in self._request.sections

    def _news(self) -> Sequence[AnalysisProgress]:
        now_s = time.monotonic()
        if now_s - self._told_at_s < PROGRESS_INTERVAL_S:
            return ()
        self._told_at_s = now_s
        if self._request.hears_beats:
            self._told[BEATS_STAGE] = self.fork.heard_s
        return [AnalysisProgress(stage, done_s) for stage, done_s in self._told.items()]


async def _beside(
    stream: AsyncGenerator[HeardNotes, None], others: Sequence[asyncio.Task[HeardBeats]]
) -> AsyncGenerator[HeardNotes | None, None]:
    """The items of a stream, None whenever none came for a while; raises at once what one of the others raises."""
    step: asyncio.Task[HeardNotes | None] | None = None
    async with aclosing(stream):
        try:
            while True:
                step = step or asyncio.create_task(_next_of(stream))
                running = [task for task in others if not task.done()]
                await asyncio.wait([step, *running], timeout=PROGRESS_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
                for task in others:
                    if task.done():
                        task.result()
                if not step.done():
                    yield None
                    continue
                item, step = step.result(), None
                if item is None:
                    return
                yield item
        finally:
            if step is not None:
                step.cancel()
                await asyncio.gather(step, return_exceptions=True)


async def _next_of(stream: AsyncGenerator[HeardNotes, None]) -> HeardNotes | None:
    return await anext(stream, None)
