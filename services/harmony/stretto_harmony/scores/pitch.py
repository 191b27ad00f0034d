"""Spelled pitches as places on the line of fifths: F is -1, C 0, G 1, F sharp 6, G flat -6.

The 35 from F double flat (-15) to B double sharp (19) are the seven letters with up to two accidentals, as in McLeod
and Rohrmeier (2021) and in ChordGNN (2023). An interval is a difference of two places: a perfect fifth is 1, a major
third 4, a minor third -3. Works on ints and on integer arrays alike; knows no octaves but in `octave_of`.
"""

from __future__ import annotations

import re
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

MIN_FIFTHS = -15
MAX_FIFTHS = 19
NUM_SPELLINGS = MAX_FIFTHS - MIN_FIFTHS + 1
LETTERS = "FCGDAEB"
"""By place on the line of fifths, from F at -1."""
MAJOR_SCALE = (0, 2, 4, -1, 1, 3, 5)
"""Intervals of the degrees 1 to 7 above the tonic."""
MINOR_SCALE = (0, 2, -3, -1, 1, -4, -2)
_NATURAL_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_NAME = re.compile(r"([A-Ga-g])(#{0,3}|b{0,3}|-{0,3})\Z")

Place = TypeVar("Place", int, NDArray[np.int64])


def pitch_class(fifths: Place) -> Place:
    """The semitones above C, 0 to 11."""
    return (7 * fifths) % 12


def spelled_name(fifths: int) -> str:
    """`F#` of 6, `Bb` of -2."""
    accidentals, letter = divmod(fifths + 1, 7)
    return LETTERS[letter] + ("#" * accidentals if accidentals > 0 else "b" * -accidentals)


def from_name(name: str) -> int:
    """The place of `F#`, `Bb`, `B-` or `c`; the octave and whatever else is the caller's to cut off.

    Raises:
        ValueError: When it is no letter with up to three accidentals of one kind.
    """
    match = _NAME.match(name)
    if match is None:
        raise ValueError(f"expected a letter from A to G and its accidentals, got {name!r}")
    letter, accidentals = match.groups()
    alteration = len(accidentals) if accidentals.startswith("#") else -len(accidentals)
    return LETTERS.index(letter.upper()) - 1 + 7 * alteration


def from_step(step: str, alteration: int) -> int:
    """The place of a letter with its alteration in semitones, as MusicXML writes pitches."""
    return LETTERS.index(step) - 1 + 7 * alteration


def midi_of(fifths: int, octave: int) -> int:
    """The MIDI pitch of a spelled pitch in its written octave: C4 is 60, and so is B#3."""
    accidentals, letter = divmod(fifths + 1, 7)
    return 12 * (octave + 1) + _NATURAL_SEMITONES[LETTERS[letter]] + accidentals


def octave_of(midi: NDArray[np.int64], fifths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The written octaves of MIDI pitches under their spellings: 60 is in octave 4 as C and in octave 3 as B sharp."""
    accidentals, _ = np.divmod(fifths + 1, 7)
    return (midi - accidentals) // 12 - 1


def transposition_semitones(fifths: int) -> int:
    """The least move in semitones, -6 to 5, that carries a pitch `fifths` places along the line."""
    return (7 * fifths + 6) % 12 - 6


def in_range(fifths: int) -> bool:
    """Whether the place is one of the 35."""
    return MIN_FIFTHS <= fifths <= MAX_FIFTHS
