"""What the client's calls on harmony take and return: frozen dataclasses, no protobuf."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from stretto_shared.errors import InvalidInput
from stretto_shared.features import ModelInfo
from stretto_shared.harmony import ChordQuality, HarmonyKey, HarmonyLabel, joined

from stretto_client.errors import ServerFailure

Ints = NDArray[np.int64]


class ScoreFormat(StrEnum):
    """A format of scores."""

    MUSICXML = "musicxml"
    MIDI = "midi"
    HUMDRUM = "humdrum"


class AnalysisFormat(StrEnum):
    """A format of analyses; MusicXML is the score with the numerals under its lowest staff."""

    ROMANTEXT = "romantext"
    DCML_TSV = "dcml_tsv"
    JSON = "json"
    MUSICXML = "musicxml"


SCORE_SUFFIXES = {
    ".musicxml": ScoreFormat.MUSICXML,
    ".xml": ScoreFormat.MUSICXML,
    ".mxl": ScoreFormat.MUSICXML,
    ".mid": ScoreFormat.MIDI,
    ".midi": ScoreFormat.MIDI,
    ".krn": ScoreFormat.HUMDRUM,
}
ANALYSIS_SUFFIXES = {
    ".rntxt": AnalysisFormat.ROMANTEXT,
    ".tsv": AnalysisFormat.DCML_TSV,
    ".json": AnalysisFormat.JSON,
    ".musicxml": AnalysisFormat.MUSICXML,
    ".xml": AnalysisFormat.MUSICXML,
}


@dataclass(frozen=True, eq=False)
class ScoreFile:
    """The bytes of a score, and what they are."""

    data: bytes
    format: ScoreFormat

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file at `path`, whose suffix says what it is.

        Raises:
            InvalidInput: If no score has this suffix.
            OSError: If it cannot be read.
        """
        if path.suffix.lower() not in SCORE_SUFFIXES:
            known = ", ".join(SCORE_SUFFIXES)
            raise InvalidInput("score", f"expected a file that ends in {known}, got {str(path)!r}. Convert it.")
        return cls(path.read_bytes(), SCORE_SUFFIXES[path.suffix.lower()])


@dataclass(frozen=True, eq=False)
class NotatedScore:
    """Written notes and measures as columns; they are those of `stretto.harmony.v1.NotatedScore`.

    Notes are int64 [N], in order of onset and then of pitch; measures int64 [M]. The server checks what they hold.
    """

    onset_ticks: Ints
    duration_ticks: Ints
    pitch_midi: Ints
    spelling_fifths: Ints
    staff_index: Ints
    voice_index: Ints
    measure_length_ticks: Ints
    measure_offset_ticks: Ints
    time_signature_numerator: Ints
    time_signature_denominator: Ints
    key_signature_fifths: Ints
    measure_numbers: tuple[str, ...]

    @property
    def num_measures(self) -> int:
        return len(self.measure_length_ticks)

    def measure_start(self, index: int) -> int:
        """Where a measure begins, in ticks; the end of the score where there is none any more."""
        return int(self.measure_length_ticks[:index].sum())

    def measures(self, first: int, last: int) -> NotatedScore:
        """Measures `first` to before `last` with the notes that begin in them, in ticks from the start of `first`."""
        start, end = self.measure_start(first), self.measure_start(last)
        notes = slice(*np.searchsorted(self.onset_ticks, [start, end]))
        kept = {name: getattr(self, name)[notes] for name in NOTE_COLUMNS}
        kept |= {name: getattr(self, name)[first:last] for name in MEASURE_COLUMNS}
        kept["onset_ticks"] = kept["onset_ticks"] - start
        return NotatedScore(**kept, measure_numbers=self.measure_numbers[first:last])


NOTE_COLUMNS = ("onset_ticks", "duration_ticks", "pitch_midi", "spelling_fifths", "staff_index", "voice_index")
MEASURE_COLUMNS = tuple(
    field.name for field in fields(NotatedScore) if field.name not in (*NOTE_COLUMNS, "measure_numbers")
)


@dataclass(frozen=True)
class HarmonyOutline:
    """What will be analysed, by whom, and on which grid of measures."""

    model: ModelInfo
    num_measures: int
    num_notes: int
    length_ticks: int
    window_measures: int
    context_measures: int


@dataclass(frozen=True)
class HarmonyWindow:
    """The labels of consecutive measures."""

    first_measure: int
    num_measures: int
    labels: tuple[HarmonyLabel, ...]


@dataclass(frozen=True)
class HarmonyReceipt:
    """What made an analysis: with the score, enough to make it again."""

    model: ModelInfo
    input_sha256: str
    num_windows: int
    stretto_version: str
    total_latency_s: float


HarmonyEvent = HarmonyOutline | HarmonyWindow | HarmonyReceipt


@dataclass(frozen=True)
class HarmonyAnalysis:
    """All labels of a score as they came, a window after the other, and what is needed to amend them."""

    outline: HarmonyOutline
    labels: tuple[HarmonyLabel, ...]

    @classmethod
    async def collect(cls, events: AsyncIterator[HarmonyEvent]) -> Self:
        """The analysis that a stream brings.

        Raises:
            ServerFailure: If the stream ended before it was done.
        """
        outline: HarmonyOutline | None = None
        labels: list[HarmonyLabel] = []
        is_done = False
        async for event in events:
            match event:
                case HarmonyOutline():
                    outline = event
                case HarmonyWindow():
                    labels += event.labels
                case HarmonyReceipt():
                    is_done = True
        if outline is None or not is_done:
            raise ServerFailure("The server ended the stream before it was done. Its log has the reason.")
        return cls(outline, tuple(labels))

    @property
    def joined(self) -> tuple[HarmonyLabel, ...]:
        """The labels, neighbours that say the same as one."""
        return tuple(joined(self.labels))

    def needed_measures(self, first: int, last: int, num_measures: int) -> tuple[int, int]:
        """Which measures an edit of those from `first` to before `last` needs: the windows it touches with context."""
        window, context = self.outline.window_measures, self.outline.context_measures
        first_window = max(0, first - context) // window
        last_window = -(-min(num_measures, last + context) // window)
        return max(0, first_window * window - context), min(num_measures, last_window * window + context)

    def amended(self, window: HarmonyWindow, score: NotatedScore) -> HarmonyAnalysis:
        """This analysis with the labels of some measures replaced, as those of the edited `score`."""
        length_ticks = score.measure_start(score.num_measures)
        before = [label for label in self.labels if label.measure_index < window.first_measure]
        after: list[HarmonyLabel] = []
        if score.num_measures == self.outline.num_measures:
            shift = length_ticks - self.outline.length_ticks
            last = window.first_measure + window.num_measures
            after = [
                replace(label, start_ticks=label.start_ticks + shift, end_ticks=label.end_ticks + shift)
                for label in self.labels
                if label.measure_index >= last
            ]
        outline = replace(
            self.outline,
            num_measures=score.num_measures,
            num_notes=len(score.onset_ticks),
            length_ticks=length_ticks,
        )
        return HarmonyAnalysis(outline, (*before, *window.labels, *after))


@dataclass(frozen=True)
class ChordCandidate:
    """A chord among the 1,540, and how probable it is."""

    root_fifths: int
    quality: ChordQuality
    inversion: int
    probability: float


@dataclass(frozen=True)
class KeyCandidate:
    """A key, and how probable it is."""

    key: HarmonyKey
    probability: float


Spans = Sequence[tuple[int, int]]
