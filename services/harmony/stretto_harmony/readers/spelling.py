"""Spellings for MIDI pitches: stage 1 of ps13 (Meredith 2006, "The ps13 pitch spelling algorithm").

Every pitch class that sounds around a note votes, by how often it does, for the letter that the note would have in a
scale on it with flat seconds, thirds, sixths and sevenths and a sharp fourth. Departures: the whole piece is moved by
twelve fifths where that brings it nearer to the key signature, or to the naturals without one; and a spelling beyond
two accidentals gives way to its enharmonic neighbour.

Legend: N notes.
"""

from __future__ import annotations

import numpy as np

from stretto_harmony.scores.pitch import MAX_FIFTHS, MIN_FIFTHS
from stretto_harmony.scores.score import Ints

NOTES_BEFORE = 10
NOTES_AFTER = 42
"""The published context, this note included."""
_STEPS = np.array([0, 1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 6])
"""Letters above the voter, by semitones above it."""
_NATURALS = np.array([0, 2, 4, 5, 7, 9, 11])
_LETTER_FIFTHS = np.array([0, 2, 4, -1, 1, 3, 5])
_CENTRE = 2
"""The place of D, in the middle of the naturals."""


def spell(midi: Ints, key_signature: int = 0) -> Ints:
    """Places on the line of fifths [N] of MIDI pitches [N] in order of onset, within -15 to 19.

    Args:
        midi: int64 [N], 0 to 127.
        key_signature: Sharps, or flats below 0, of the signature if there is one.
    """
    if not midi.size:
        return np.zeros(0, np.int64)
    classes = np.asarray(midi % 12)
    strengths = np.zeros((midi.size, 7))
    counts = _counts(classes)
    first_letter = int(_STEPS[classes[0]])
    for voter in range(12):
        letter_of_voter = first_letter - _STEPS[(classes[0] - voter) % 12]
        letters = (letter_of_voter + _STEPS[(classes - voter) % 12]) % 7
        strengths[np.arange(midi.size), letters] += counts[:, voter]
    letters = strengths.argmax(axis=1)
    alteration = (classes - _NATURALS[letters] + 6) % 12 - 6
    return _in_range(_centred(_LETTER_FIFTHS[letters] + 7 * alteration, key_signature))


def _counts(classes: Ints) -> Ints:
    """How often each pitch class sounds around each note: [N, 12]."""
    so_far = np.zeros((classes.size + 1, 12), np.int64)
    so_far[1:] = np.cumsum(np.eye(12, dtype=np.int64)[classes], axis=0)
    places = np.arange(classes.size)
    return so_far[np.minimum(places + NOTES_AFTER, classes.size)] - so_far[np.maximum(places - NOTES_BEFORE, 0)]


def _centred(fifths: Ints, key_signature: int) -> Ints:
    moves = (0, 12, -12)
    return fifths + min(moves, key=lambda move: float(np.abs(fifths + move - _CENTRE - key_signature).mean()))


def _in_range(fifths: Ints) -> Ints:
    above = -12 * np.maximum(0, np.ceil((fifths - MAX_FIFTHS) / 12)).astype(np.int64)
    below = 12 * np.maximum(0, np.ceil((MIN_FIFTHS - fifths) / 12)).astype(np.int64)
    return np.asarray(fifths + above + below)
