"""Harmony labels: chords and keys with spelled roots, and an `Analysis` of them in time.

The vocabularies are McLeod and Rohrmeier's (2021): 35 spelled roots, 12 chord types with their inversions (1,540
chords) and 70 keys. Augmented sixths have types of their own here, since Roman numerals name them; `reduced` gives the
type among the twelve that has the same spelling above the root but for the altered tone. The root of an Italian or
German sixth is the raised fourth degree, of a French one the second, as DCML and music21 have it.

Knows no notation of numerals (that is `numerals.py`), no notes and no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from stretto_shared.errors import InvalidInput

from stretto_harmony.scores import pitch


class Mode(Enum):
    """Major or minor; the value is the word in files."""

    MAJOR = "major"
    MINOR = "minor"


class ChordType(Enum):
    """A chord's tones above its root; the value is the word in files. The first twelve are the vocabulary."""

    MAJOR = "major"
    MINOR = "minor"
    DIMINISHED = "diminished"
    AUGMENTED = "augmented"
    MAJOR_SEVENTH = "major-seventh"
    DOMINANT_SEVENTH = "dominant-seventh"
    MINOR_MAJOR_SEVENTH = "minor-major-seventh"
    MINOR_SEVENTH = "minor-seventh"
    DIMINISHED_SEVENTH = "diminished-seventh"
    HALF_DIMINISHED_SEVENTH = "half-diminished-seventh"
    AUGMENTED_SEVENTH = "augmented-seventh"
    AUGMENTED_MAJOR_SEVENTH = "augmented-major-seventh"
    ITALIAN_SIXTH = "italian-sixth"
    GERMAN_SIXTH = "german-sixth"
    FRENCH_SIXTH = "french-sixth"

    @property
    def intervals(self) -> tuple[int, ...]:
        """The tones above the root on the line of fifths, in thirds: (0, 4, 1) of a major triad."""
        return _INTERVALS[self]

    @property
    def num_inversions(self) -> int:
        """Root position among them: 3 of a triad, 4 of a chord of four tones."""
        return len(_INTERVALS[self])

    @property
    def reduced(self) -> ChordType:
        """This type, or the one of the twelve that stands for an augmented sixth."""
        return _REDUCED.get(self, self)

    @property
    def triad(self) -> ChordType:
        """The triad under a seventh chord; the reduced type's for an augmented sixth."""
        return _TRIADS.get(self.reduced, self.reduced)


_INTERVALS = {
    ChordType.MAJOR: (0, 4, 1),
    ChordType.MINOR: (0, -3, 1),
    ChordType.DIMINISHED: (0, -3, -6),
    ChordType.AUGMENTED: (0, 4, 8),
    ChordType.MAJOR_SEVENTH: (0, 4, 1, 5),
    ChordType.DOMINANT_SEVENTH: (0, 4, 1, -2),
    ChordType.MINOR_MAJOR_SEVENTH: (0, -3, 1, 5),
    ChordType.MINOR_SEVENTH: (0, -3, 1, -2),
    ChordType.DIMINISHED_SEVENTH: (0, -3, -6, -9),
    ChordType.HALF_DIMINISHED_SEVENTH: (0, -3, -6, -2),
    ChordType.AUGMENTED_SEVENTH: (0, 4, 8, -2),
    ChordType.AUGMENTED_MAJOR_SEVENTH: (0, 4, 8, 5),
    ChordType.ITALIAN_SIXTH: (0, -10, -6),
    ChordType.GERMAN_SIXTH: (0, -10, -6, -9),
    ChordType.FRENCH_SIXTH: (0, 4, -6, -2),
}
_REDUCED = {
    ChordType.ITALIAN_SIXTH: ChordType.DIMINISHED,
    ChordType.GERMAN_SIXTH: ChordType.DIMINISHED_SEVENTH,
    ChordType.FRENCH_SIXTH: ChordType.DOMINANT_SEVENTH,
}
_TRIADS = {
    ChordType.MAJOR_SEVENTH: ChordType.MAJOR,
    ChordType.DOMINANT_SEVENTH: ChordType.MAJOR,
    ChordType.MINOR_MAJOR_SEVENTH: ChordType.MINOR,
    ChordType.MINOR_SEVENTH: ChordType.MINOR,
    ChordType.DIMINISHED_SEVENTH: ChordType.DIMINISHED,
    ChordType.HALF_DIMINISHED_SEVENTH: ChordType.DIMINISHED,
    ChordType.AUGMENTED_SEVENTH: ChordType.AUGMENTED,
    ChordType.AUGMENTED_MAJOR_SEVENTH: ChordType.AUGMENTED,
}
VOCABULARY = tuple(ChordType)[:12]
_INVERTED = tuple((type_, inversion) for type_ in VOCABULARY for inversion in range(type_.num_inversions))
NUM_CHORDS = pitch.NUM_SPELLINGS * len(_INVERTED)
NUM_KEYS = pitch.NUM_SPELLINGS * 2


@dataclass(frozen=True, order=True)
class Key:
    """A tonic on the line of fifths, and its mode.

    Raises:
        InvalidInput: On a tonic outside -15 to 19.
    """

    tonic: int
    is_minor: bool = False

    def __post_init__(self) -> None:
        _check_place("key.tonic", self.tonic)

    @property
    def mode(self) -> Mode:
        return Mode.MINOR if self.is_minor else Mode.MAJOR

    @property
    def signature(self) -> int:
        """The sharps of its key signature, or flats below 0."""
        return self.tonic - (3 if self.is_minor else 0)

    @property
    def index(self) -> int:
        """Its place among the 70: major keys from F double flat up, then minor ones."""
        return self.tonic - pitch.MIN_FIFTHS + pitch.NUM_SPELLINGS * self.is_minor

    @property
    def name(self) -> str:
        """`Eb` for E flat major, `f#` for F sharp minor, as RomanText and DCML write keys."""
        name = pitch.spelled_name(self.tonic)
        return name[0].lower() + name[1:] if self.is_minor else name

    def degree(self, number: int) -> int:
        """The place of scale degree 1 to 7; of the natural minor scale in minor."""
        scale = pitch.MINOR_SCALE if self.is_minor else pitch.MAJOR_SCALE
        return self.tonic + scale[number - 1]

    def transposed(self, fifths: int) -> Key:
        return Key(self.tonic + fifths, self.is_minor)


def key_of_index(index: int) -> Key:
    """The key at a place among the 70."""
    is_minor, place = divmod(index, pitch.NUM_SPELLINGS)
    return Key(place + pitch.MIN_FIFTHS, bool(is_minor))


def key_of_name(name: str) -> Key:
    """The key that `Eb`, `E-` or `f#` names.

    Raises:
        ValueError: When it is not the name of one.
    """
    fifths = pitch.from_name(name)
    if not pitch.in_range(fifths):
        raise ValueError(f"expected a tonic with up to two accidentals, got {name!r}")
    return Key(fifths, name[0].islower())


def chord_index(root: int, quality: ChordType, inversion: int) -> int:
    """The place among the 1,540 chords: roots from F double flat up, and under each the types with their inversions.

    An augmented sixth has the place of its reduced type.
    """
    return (root - pitch.MIN_FIFTHS) * len(_INVERTED) + _INVERTED.index((quality.reduced, inversion))


def chord_of_index(index: int) -> tuple[int, ChordType, int]:
    """Root, type and inversion of a place among the 1,540 chords."""
    root, inverted = divmod(index, len(_INVERTED))
    return (root + pitch.MIN_FIFTHS, *_INVERTED[inverted])


@dataclass(frozen=True)
class HarmonyLabel:
    """One chord from tick `start` to tick `end`, in its key.

    Args:
        start: Ticks, from 0.
        end: Ticks, above `start`.
        key: The local key.
        numeral: The Roman numeral with its inversion and tonicisation in RomanText's spelling, as in `V65/V`.
        tonicised: The key in which the chord is heard: `key` itself but for an applied chord.
        root: The place of the root, -15 to 19.
        quality: The chord type.
        inversion: 0 to 3, below the type's number of tones.
        confidence: 0 to 1.

    Raises:
        InvalidInput: On a value outside these ranges.
    """

    start: int
    end: int
    key: Key
    numeral: str
    tonicised: Key
    root: int
    quality: ChordType
    inversion: int
    confidence: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise InvalidInput(
                "label.end", f"expected a tick above start {self.start}, from 0, got {self.end}. Give it a duration."
            )
        _check_place("label.root", self.root)
        if not 0 <= self.inversion < self.quality.num_inversions:
            raise InvalidInput(
                "label.inversion",
                f"expected 0 to {self.quality.num_inversions - 1} for {self.quality.value}, got {self.inversion}. "
                "Correct the inversion or the chord type.",
            )
        if not 0.0 <= self.confidence <= 1.0:
            raise InvalidInput("label.confidence", f"expected 0 to 1, got {self.confidence}. Give a probability.")

    @property
    def tones(self) -> tuple[int, ...]:
        """The chord tones on the line of fifths, from the root in thirds."""
        return tuple(self.root + interval for interval in self.quality.intervals)

    @property
    def bass(self) -> int:
        """The chord tone in the bass, on the line of fifths."""
        return self.tones[self.inversion]

    def transposed(self, fifths: int) -> HarmonyLabel:
        """The same numeral, so many fifths away."""
        return replace(
            self,
            key=self.key.transposed(fifths),
            tonicised=self.tonicised.transposed(fifths),
            root=self.root + fifths,
        )


@dataclass(frozen=True)
class Analysis:
    """The labels of a piece in order; there may be gaps, where nothing is said, but no overlaps.

    Raises:
        InvalidInput: On a label that begins before the one before it ends.
    """

    labels: tuple[HarmonyLabel, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        for place in range(1, len(self.labels)):
            before, label = self.labels[place - 1 : place + 1]
            if label.start < before.end:
                raise InvalidInput(
                    f"analysis.labels[{place}].start",
                    f"expected a tick from {before.end}, where the label before ends, got {label.start}. "
                    "Sort the labels and cut their overlaps.",
                )

    def __iter__(self) -> Iterator[HarmonyLabel]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, ticks: NDArray[np.int64]) -> NDArray[np.int64]:
        """The index of the label that holds at each tick; -1 in a gap."""
        if not self.labels:
            return np.full(np.shape(ticks), -1, np.int64)
        start, end = np.array([(label.start, label.end) for label in self.labels], np.int64).T
        index = np.searchsorted(start, ticks, side="right") - 1
        return np.where((index >= 0) & (ticks < end[index]), index, -1)

    def transposed(self, fifths: int) -> Analysis:
        """The same analysis, so many fifths away."""
        return Analysis(tuple(label.transposed(fifths) for label in self.labels))


def _check_place(field: str, fifths: int) -> None:
    if not pitch.in_range(fifths):
        raise InvalidInput(
            field,
            f"expected {pitch.MIN_FIFTHS} (F double flat) to {pitch.MAX_FIFTHS} (B double sharp), got {fifths}. "
            "Respell it.",
        )
