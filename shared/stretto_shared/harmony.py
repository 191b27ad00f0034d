"""`HarmonyLabel`: one chord in its key for some time, as the harmony service gives it; written time, no notes.

Roots and tonics are places on the line of fifths: F is -1, C 0, G 1, F sharp 6; -15 (F double flat) to 19 (B double
sharp) are in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from stretto_shared.errors import InvalidInput

TICKS_PER_QUARTER = 10_080
MIN_FIFTHS, MAX_FIFTHS = -15, 19
MAX_NUMERAL_CHARACTERS = 64
_LETTERS = "FCGDAEB"


class ChordQuality(StrEnum):
    """The tones of a chord above its root."""

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


@dataclass(frozen=True)
class HarmonyKey:
    """A tonic on the line of fifths and its mode.

    Raises:
        InvalidInput: On a tonic outside -15 to 19.
    """

    tonic_fifths: int = 0
    is_minor: bool = False

    def __post_init__(self) -> None:
        _check_place("key.tonic_fifths", self.tonic_fifths)

    @property
    def name(self) -> str:
        """`Eb` for E flat major, `f#` for F sharp minor."""
        name = fifths_name(self.tonic_fifths)
        return name[0].lower() + name[1:] if self.is_minor else name


@dataclass(frozen=True)
class HarmonyLabel:
    """One chord; the fields are those of `stretto.common.v1.HarmonyLabel`.

    Raises:
        InvalidInput: On a time, a root, an inversion or a confidence outside its range.
    """

    start_ticks: int
    end_ticks: int
    key: HarmonyKey
    numeral: str
    tonicised_key: HarmonyKey
    root_fifths: int
    quality: ChordQuality
    inversion: int
    confidence: float = 1.0
    measure_index: int = 0
    measure_number: str = ""
    beat: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start_ticks < self.end_ticks:
            raise InvalidInput(
                "label.end_ticks", f"expected above {self.start_ticks}, the start, got {self.end_ticks}."
            )
        _check_place("label.root_fifths", self.root_fifths)
        if not 0 <= self.inversion <= 3:
            raise InvalidInput("label.inversion", f"expected 0 to 3, got {self.inversion}. Name a chord tone.")
        if not 0 <= self.confidence <= 1:
            raise InvalidInput("label.confidence", f"expected 0 to 1, got {self.confidence}. Give a probability.")

    @property
    def root_name(self) -> str:
        """`F#`, `Bb`."""
        return fifths_name(self.root_fifths)

    def says_what(self, other: HarmonyLabel) -> bool:
        """Whether the two name the same chord in the same key."""
        return _named(self) == _named(other)


def joined(labels: Iterable[HarmonyLabel]) -> Iterator[HarmonyLabel]:
    """The labels, neighbours that say the same as one; its confidence is theirs, each for its time."""
    held: HarmonyLabel | None = None
    for label in labels:
        if held is not None and held.end_ticks == label.start_ticks and held.says_what(label):
            own, new = held.end_ticks - held.start_ticks, label.end_ticks - label.start_ticks
            mean = (held.confidence * own + label.confidence * new) / (own + new)
            held = replace(held, end_ticks=label.end_ticks, confidence=min(1.0, max(0.0, mean)))
            continue
        if held is not None:
            yield held
        held = label
    if held is not None:
        yield held


def fifths_name(fifths: int) -> str:
    """`F#` of 6, `Bb` of -2."""
    accidentals, letter = divmod(fifths + 1, 7)
    return _LETTERS[letter] + ("#" * accidentals if accidentals > 0 else "b" * -accidentals)


def _named(label: HarmonyLabel) -> tuple[object, ...]:
    return label.key, label.numeral, label.tonicised_key, label.root_fifths, label.quality, label.inversion


def _check_place(field: str, fifths: int) -> None:
    if not MIN_FIFTHS <= fifths <= MAX_FIFTHS:
        raise InvalidInput(field, f"expected {MIN_FIFTHS} to {MAX_FIFTHS}, got {fifths}. Respell it.")
