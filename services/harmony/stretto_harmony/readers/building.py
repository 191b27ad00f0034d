"""What every score reader needs: notes as they are met, ties joined, measures put behind each other.

Times that no tick holds (a quintuplet of septuplets) go to the nearest tick.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from stretto_shared.errors import InvalidInput

from stretto_harmony.scores.pitch import in_range
from stretto_harmony.scores.score import (
    MAX_MEASURES,
    MAX_NOTES,
    MAX_TICKS,
    MEASURE_ARRAYS,
    NOTE_ARRAYS,
    TICKS_PER_QUARTER,
    TICKS_PER_WHOLE,
    Score,
)
from stretto_harmony.scores.score import in_order as order_of


@dataclass(frozen=True)
class Note:
    """One written note; times in ticks, the spelling on the line of fifths."""

    onset: int
    duration: int
    midi: int
    fifths: int
    staff: int
    voice: int


def ticks_of(quarters: Fraction) -> int:
    """Ticks of a length in quarter notes, the nearest; a length that no piece has is refused by `Score`."""
    return min(round(quarters * TICKS_PER_QUARTER), MAX_TICKS + 1)


def joined(notes: Iterable[tuple[Note, bool]]) -> list[Note]:
    """The notes with every one that is tied to the one before (the flag) added to it.

    A tie without a note before it, as at the start of a second ending, begins a note of its own.
    """
    ends: dict[tuple[int, int, int], int] = {}
    kept: list[Note] = []
    for note, is_continuation in sorted(notes, key=lambda pair: pair[0].onset):
        before = ends.pop((note.onset, note.midi, note.staff), None) if is_continuation else None
        if before is None:
            before = len(kept)
            kept.append(note)
        else:
            kept[before] = replace(kept[before], duration=note.onset + note.duration - kept[before].onset)
        ends[(note.onset + note.duration, note.midi, note.staff)] = before
    return kept


@dataclass
class ScoreBuilder:
    """Measures in order, and then the notes."""

    num_ticks: int = 0
    _rows: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    _numbers: list[str] = field(default_factory=list)

    @property
    def num_measures(self) -> int:
        return len(self._rows)

    def add_measure(
        self, *, length: int, offset: int, numerator: int, denominator: int, key_signature: int, number: str
    ) -> None:
        """Put a measure behind the last one; a first one that is too short is a pickup, whatever `offset` says."""
        if len(self._rows) >= MAX_MEASURES:
            raise InvalidInput("score", f"expected up to {MAX_MEASURES} measures, got more. Split the piece.")
        if not self._rows and not offset and denominator > 0:
            offset = max(0, numerator * TICKS_PER_WHOLE // denominator - length)
        self._rows.append((self.num_ticks, length, offset, numerator, denominator, key_signature))
        self._numbers.append(number)
        self.num_ticks += length

    def build(self, notes: Sequence[Note]) -> Score:
        """The score of the measures and these notes; what has no length or no spelling in range is left out.

        Raises:
            InvalidInput: When the measures or the notes are such as no `Score` has.
        """
        if len(notes) > MAX_NOTES:
            raise InvalidInput("score", f"expected up to {MAX_NOTES} notes, got {len(notes)}. Split the piece.")
        held = [note for note in notes if note.duration > 0 and in_range(note.fifths)]
        columns = np.array(
            [(note.onset, note.duration, note.midi, note.fifths, note.staff, note.voice) for note in held], np.int64
        ).reshape(-1, 6)
        columns = columns[order_of(columns[:, 0], columns[:, 2])]
        measures = np.array(self._rows, np.int64).reshape(-1, 6)
        arrays = dict(zip((*NOTE_ARRAYS, *MEASURE_ARRAYS), (*columns.T, *measures.T), strict=True))
        return Score(**arrays, measure_number=tuple(self._numbers))


_NUMBER = re.compile(r"\s*([+-]?\d{1,9})(?:\.(\d{0,18}))?(?:/(\d{1,9}))?\s*\Z")


def fraction_of(text: str) -> Fraction:
    """The number that `3`, `0.25` or `3/8` writes; no exponents, whose powers of ten would take forever.

    Raises:
        ValueError: When it is none.
    """
    match = _NUMBER.match(text)
    if match is None or (match[2] is not None and match[3] is not None):
        raise ValueError(f"expected a number, got {text[:40]!r}")
    if match[3] is not None:
        if int(match[3]) == 0:
            raise ValueError(f"expected a denominator above 0, got {text[:40]!r}")
        return Fraction(int(match[1]), int(match[3]))
    return Fraction(f"{match[1]}.{match[2] or 0}")
