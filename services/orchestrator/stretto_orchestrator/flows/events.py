"""What a flow tells its caller: progress, audio, and the receipt last; and who counts it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stretto_shared.audio import Waveform
from stretto_shared.features import ModelInfo, SamplingOptions

from stretto_orchestrator.flows.listening import ListenerMeter
from stretto_orchestrator.flows.story import PromptSpan

PROGRESS_INTERVAL_S = 0.2
"""While frames come, progress is told once in this time."""


@dataclass(frozen=True)
class Progress:
    """How far a stage is, in token frames of the whole piece."""

    stage: str
    num_done_frames: int = 0
    num_total_frames: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether all frames are done."""
        return 0 < self.num_total_frames == self.num_done_frames


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
    story: tuple[PromptSpan, ...] = ()
    num_candidates: int = 1
    similarity: float = 0.0


MusicEvent = Progress | AudioChunk | Receipt


class CascadeObserver(Protocol):
    """Who counts what the cascades do."""

    def meter_of(self, cascade: str) -> ListenerMeter:
        """Who counts what the listeners of one cascade hear."""

    def observe_music(self, real_time_factor: float) -> None:
        """One piece of music was finished."""

    def observe_resume(self, stage: str) -> None:
        """A stage was resumed."""


class Herald:
    """Tells how far several stages are: beginnings and ends at once, what lies between once in `PROGRESS_INTERVAL_S`.

    The stages take turns, so that a quick one does not hide a slow one.
    """

    def __init__(self) -> None:
        self._told: dict[str, Progress] = {}  # the stage told last is the last
        self._told_at_s = -math.inf

    def news(self, stages: Sequence[Progress]) -> list[Progress]:
        """What of this is to be told now."""
        changed = [progress for progress in stages if progress != self._told.get(progress.stage)]
        due = [each for each in changed if each.stage not in self._told or each.is_whole]
        now_s = time.monotonic()
        if now_s - self._told_at_s >= PROGRESS_INTERVAL_S:
            turns = list(self._told)
            moving = [each for each in changed if each not in due]
            due += sorted(moving, key=lambda each: turns.index(each.stage))[:1]
        for progress in due:
            self._told.pop(progress.stage, None)
            self._told[progress.stage] = progress
            if progress.num_total_frames:
                self._told_at_s = now_s
        return due
