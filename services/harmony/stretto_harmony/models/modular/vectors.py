"""What the modules read and write, as numbers: notes, chords and keys as vectors, and the relative vocabularies.

The layouts are McLeod and Rohrmeier's (2021), read off their published tensors of the Functional Harmony corpus and
held to them by `evals/quality/harmony_modular.py`:

- a note, 71: spelling 35, octave 10, metrical level of its onset 4 and of its end 4, its onset, end and duration as
  shares of the chord's span 3, whole notes from the note before and to the next 2, whether it is the lowest 1,
  octaves above the lowest 10, semitones above C0 / 127, and its height between the lowest and the highest 1. What is
  relative to a span is 0 where there is none.
- a chord in a key, 84: root above the tonic 29 (-14 to 14 fifths), type 12, bass above the tonic 29, inversion 4,
  metrical level of its onset 4 and of its end 4, duration in whole notes 1, whether the key is major 1. The key
  modules see a chord in the key before it, which may be further away: 39 (-19 to 19) instead of 29, so 104.
- a change of key, 32: the new tonic above the old 29, the new mode 2, whether there is a change 1. It follows the
  vector of the first chord in a new key, and is 0 elsewhere: 116 and 136 in all.

Chords are numbered root by root, as `labels.chord_index` does, which differs from the order in the published tensors.
Knows no torch, no files and no search.

Legend: N notes, C chords.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_harmony.scores import pitch
from stretto_harmony.scores.labels import VOCABULARY, ChordType
from stretto_harmony.scores.score import TICKS_PER_WHOLE, Score

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

NUM_OCTAVES = 10
NUM_LEVELS = 4
NOTE_DIM = 71
REACH, WIDE_REACH = 14, 19
"""Fifths from the tonic to a root or bass: of a chord in its key, and in the key before."""
NUM_RELATIVE = 2 * REACH + 1
NUM_KEY_CHANGES = 2 * NUM_RELATIVE
KEY_CHANGE_DIM = NUM_RELATIVE + 3
CHORD_DIM = 2 * NUM_RELATIVE + 12 + 4 + 2 * NUM_LEVELS + 2 + KEY_CHANGE_DIM
WIDE_CHORD_DIM = CHORD_DIM + 4 * (WIDE_REACH - REACH)

_INVERTED = [(type_, inversion) for type_ in VOCABULARY for inversion in range(type_.num_inversions)]
NUM_INVERTED = len(_INVERTED)
"""Types with their inversions under one root: 44."""
TYPE_OF: Ints = np.array([VOCABULARY.index(type_) for type_, _ in _INVERTED])
INVERSION_OF: Ints = np.array([inversion for _, inversion in _INVERTED])
BASS_OF: Ints = np.array([type_.intervals[inversion] for type_, inversion in _INVERTED])
"""Of the 44: the bass above the root, in fifths."""
_TRIADS = [type_ for type_ in VOCABULARY if type_.num_inversions == 3]
TRIAD_OF: Ints = np.array([_TRIADS.index(type_.triad) for type_, _ in _INVERTED])
REDUCED_OF: dict[str, Ints] = {"none": np.arange(NUM_INVERTED), "roots": TYPE_OF, "triads": TRIAD_OF}
"""Of the 44: what a chord sequence module of that reduction takes them for."""

NUM_FLANKING = 2
"""Notes on either side of a span that the chord classifier sees too."""
MAX_HELD = 64
"""Notes before a span, at most, that it sees because one of them is held into the span; published without a bound."""
# Where the parts of a note's vector begin.
OCTAVE, ONSET_LEVEL, OFFSET_LEVEL, IN_SPAN, GAPS = 35, 45, 49, 53, 56
IS_LOWEST, RELATIVE_OCTAVE, HEIGHT, RELATIVE_HEIGHT = 58, 59, 69, 70


_PLACES = {pair: place for place, pair in enumerate(_INVERTED)}


def inverted_of(quality: ChordType, inversion: int) -> int:
    """The place of a type and inversion among the 44; of an augmented sixth that of its reduced type."""
    return _PLACES[quality.reduced, inversion]


def num_reduced(reduction: str) -> int:
    """Chords above one root that a chord sequence module of that reduction tells apart."""
    return int(REDUCED_OF[reduction].max()) + 1


@dataclass(frozen=True, eq=False)
class NoteTable:
    """The notes of a piece as the modules see them, in order of onset and then of pitch; all arrays are [N].

    Args:
        spelling: 0 to 34, from F double flat.
        height: Semitones above C0, 0 to 115.
        octave: Of its written name where it is known, 0 to 9.
        onset, duration: Whole notes.
        onset_level, offset_level: Metrical levels, 0 to 3.
    """

    spelling: Ints
    height: Ints
    octave: Ints
    onset: NDArray[np.float64]
    duration: NDArray[np.float64]
    onset_level: Ints
    offset_level: Ints

    @property
    def first(self) -> Ints:
        """The first note of each onset: indices, ascending."""
        return np.flatnonzero(np.diff(self.onset, prepend=-np.inf) > 0)

    @property
    def end(self) -> float:
        """Where the last note ends, in whole notes."""
        return float((self.onset + self.duration).max())


def note_table(score: Score) -> NoteTable:
    """The notes of `score`; heights below C0 and above B8 are held at these."""
    height = np.clip(score.midi - 12, 0, 12 * NUM_OCTAVES - 5)
    return NoteTable(
        spelling=score.fifths - pitch.MIN_FIFTHS,
        height=height,
        octave=np.clip(score.octave, 0, NUM_OCTAVES - 1),
        onset=score.onset / TICKS_PER_WHOLE,
        duration=score.duration / TICKS_PER_WHOLE,
        onset_level=score.metrical_level(score.onset),
        offset_level=score.metrical_level(score.offset),
    )


def note_vectors(notes: NoteTable) -> Floats:
    """The vectors [N, 71] of a whole piece, without what is relative to a span."""
    count = len(notes.onset)
    vectors = np.zeros((count, NOTE_DIM), np.float32)
    rows = np.arange(count)
    vectors[rows, notes.spelling] = 1
    vectors[rows, OCTAVE + notes.octave] = 1
    vectors[rows, ONSET_LEVEL + notes.onset_level] = 1
    vectors[rows, OFFSET_LEVEL + notes.offset_level] = 1
    gaps = np.diff(notes.onset)
    vectors[1:, GAPS] = gaps
    vectors[:-1, GAPS + 1] = gaps
    vectors[-1:, GAPS + 1] = notes.duration[-1:]
    vectors[:, HEIGHT] = notes.height / 127
    return vectors


def first_sounding(notes: NoteTable, begin: int) -> int:
    """The first note that sounds where note `begin` begins: `begin` itself, or one that is held."""
    low = max(0, begin - MAX_HELD)
    ends = notes.onset[low:begin] + notes.duration[low:begin]
    held = np.flatnonzero(ends > notes.onset[begin] + 1e-6)
    return low + int(held[0]) if len(held) else begin


def span_vectors(notes: NoteTable, vectors: Floats, begin: int, end: int, until: float) -> Floats:
    """The vectors [n, 71] of a chord's span: from the first note held into it, with two notes on either side.

    Args:
        notes: The piece.
        vectors: Its `note_vectors`.
        begin: The first note that begins in the span.
        end: The first note after it.
        until: Where the span ends, in whole notes.
    """
    low, high = max(0, first_sounding(notes, begin) - NUM_FLANKING), min(len(notes.onset), end + NUM_FLANKING)
    window = vectors[low:high].copy()
    length = max(until - notes.onset[begin], 1e-6)
    onset = (notes.onset[low:high] - notes.onset[begin]) / length
    duration = notes.duration[low:high] / length
    window[:, IN_SPAN : IN_SPAN + 3] = np.stack([onset, onset + duration, duration], -1)
    height = notes.height[low:high]
    lowest, highest = height.min(), height.max()
    window[:, IS_LOWEST] = height == lowest
    octaves = notes.octave[low:high] - notes.octave[low:high][height.argmin()]
    window[np.arange(high - low), RELATIVE_OCTAVE + np.clip(octaves, 0, NUM_OCTAVES - 1)] = 1
    window[:, RELATIVE_HEIGHT] = (height - lowest) / max(1, highest - lowest)
    return window


@dataclass(frozen=True, eq=False)
class ChordColumns:
    """Chords in their keys as columns of numbers, all [C].

    Args:
        root: Places on the line of fifths, -15 to 19.
        inverted: 0 to 43, the type and inversion.
        tonic: Of the key, -15 to 19.
        is_minor: Whether the key is.
        onset_level, offset_level: Metrical levels, 0 to 3.
        duration: Whole notes.
        old_tonic: Of the key before, where `is_change`.
        is_change: Whether the chord is the first in a new key.
    """

    root: Ints
    inverted: Ints
    tonic: Ints
    is_minor: Ints
    onset_level: Ints
    offset_level: Ints
    duration: NDArray[np.float64]
    old_tonic: Ints
    is_change: NDArray[np.bool_]


def within_reach(root: Ints, inverted: Ints, tonic: Ints, reach: int = REACH) -> NDArray[np.bool_]:
    """Whether root and bass are at most `reach` fifths from the tonic."""
    relative = root - tonic
    bass = relative + BASS_OF[inverted]
    return np.asarray((np.abs(relative) <= reach) & (np.abs(bass) <= reach))


def chord_vectors(chords: ChordColumns, *, reach: int = REACH) -> Floats:
    """The vectors [C, 116], or [C, 136] with `WIDE_REACH`, of chords that are within reach of their tonics."""
    count, width = len(chords.root), 2 * reach + 1
    vectors = np.zeros((count, 2 * width + 26 + KEY_CHANGE_DIM), np.float32)
    rows = np.arange(count)
    relative = chords.root - chords.tonic + reach
    vectors[rows, relative] = 1
    vectors[rows, width + TYPE_OF[chords.inverted]] = 1
    vectors[rows, width + 12 + relative + BASS_OF[chords.inverted]] = 1
    vectors[rows, 2 * width + 12 + INVERSION_OF[chords.inverted]] = 1
    vectors[rows, 2 * width + 16 + chords.onset_level] = 1
    vectors[rows, 2 * width + 20 + chords.offset_level] = 1
    vectors[:, 2 * width + 24] = chords.duration
    vectors[:, 2 * width + 25] = 1 - chords.is_minor
    change = np.flatnonzero(chords.is_change)
    key = 2 * width + 26
    interval = chords.tonic[change] - chords.old_tonic[change]
    near = np.abs(interval) <= REACH  # a change beyond it has no tonic in the vector, as published
    vectors[change[near], key + interval[near] + REACH] = 1
    vectors[change, key + NUM_RELATIVE + chords.is_minor[change]] = 1
    vectors[change, key + NUM_RELATIVE + 2] = 1
    return vectors


def relative_chord(root: Ints, inverted: Ints, tonic: Ints, reduction: str = "none") -> Ints:
    """The place [C] among the relative chords of that reduction: roots from 14 fifths below the tonic up."""
    return np.asarray((root - tonic + REACH) * num_reduced(reduction) + REDUCED_OF[reduction][inverted])


def key_change(old_tonic: Ints, tonic: Ints, is_minor: Ints) -> Ints:
    """The place [C] among the 58 changes: to major keys from 14 fifths below up, then to minor ones; -1 beyond."""
    interval = tonic - old_tonic
    place = is_minor * NUM_RELATIVE + interval + REACH
    return np.where(np.abs(interval) <= REACH, place, -1)
