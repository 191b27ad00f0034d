"""Letters and accidentals of pitches.

Meredith's ps13s1 ("The ps13 pitch spelling algorithm", 2006): every pitch class near a note votes, as a tonic, for the
letter that the note has in its harmonic chromatic scale. Departure: ps13 fixes letters only relative to each other;
which of the enharmonic readings the piece is in, sharp or flat, the key signature says, bar by bar.

Legend: N notes in order of onset, then pitch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stretto_shared.score import MAX_FIFTHS, MIN_FIFTHS

Ints = NDArray[np.int64]

NOTES_BEFORE, NOTES_AFTER = 10, 42
STEP_OF_SEMITONE = np.array([0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 6])
"""The letters above the tonic, of its harmonic chromatic scale: C D♭ D E♭ E F F♯ G A♭ A B♭ B, but the sixth, below."""
FLAT_SIXTH = 8
FIFTHS_OF_LETTER = np.array([0, 2, 4, -1, 1, 3, 5])  # C D E F G A B
ENHARMONIC = 12
CENTRE = 2
"""The middle of the seven degrees and their usual alterations is two fifths above the signature's major tonic."""


def spell(pitch_midi: Ints, signature_fifths: Ints) -> Ints:
    """Pitches [N] on the line of fifths, int64 [N], under key signatures [N]."""
    if not len(pitch_midi):
        return np.zeros(0, np.int64)
    classes = pitch_midi % 12
    letters = _letters(classes)
    # ps13 began with the first note as the letter 0; of the seven letters it may be, take the one that fits the key
    readings = [_fifths(classes, (letters + first) % 7, signature_fifths) for first in range(7)]
    distance = [np.abs(reading - signature_fifths - CENTRE).mean() for reading in readings]
    best = readings[int(np.argmin(distance))]
    return _within(best)


def _letters(classes: Ints) -> Ints:
    """Letters [N] from 0 to 6, of which the first note's is 0."""
    step = STEP_OF_SEMITONE.copy()
    step[FLAT_SIXTH] = 5
    one_hot = np.zeros((len(classes) + 1, 12), np.int64)
    one_hot[np.arange(1, len(classes) + 1), classes] = 1
    running = one_hot.cumsum(axis=0)
    low = np.maximum(np.arange(len(classes)) - NOTES_BEFORE, 0)
    high = np.minimum(np.arange(len(classes)) + NOTES_AFTER, len(classes))
    votes = running[high] - running[low]  # [N, 12], by tonic
    tonic = np.arange(12)
    tonic_letter = -step[(classes[0] - tonic) % 12]
    letter = (tonic_letter + step[(classes[:, None] - tonic) % 12]) % 7
    strength = np.stack([(votes * (letter == each)).sum(axis=1) for each in range(7)], axis=1)
    found: Ints = strength.argmax(axis=1)
    return found


def _fifths(classes: Ints, letters: Ints, signature_fifths: Ints) -> Ints:
    """Places on the line of fifths with these letters, each the nearest to the key that has the pitch class.

    Where a piece changes its signature by more than its letters can follow, as from five flats to four sharps, the
    letters turn with it: then all of a note's enharmonic readings compete, and those two accidentals away lose.
    """
    natural = FIFTHS_OF_LETTER[letters]
    semitones = (classes - 7 * natural) % 12
    accidental = np.where(semitones > 6, semitones - 12, semitones)
    place = natural + 7 * accidental
    # readings are an octave of fifths apart, and an octave of fifths is another letter
    shift = np.round((signature_fifths + CENTRE - place) / ENHARMONIC)
    far = np.abs(place - signature_fifths - CENTRE) > 9
    turned: Ints = np.where(far, place + ENHARMONIC * shift, place).astype(np.int64)
    return turned


def _within(place: Ints) -> Ints:
    """The same pitches within what can be written with two accidentals."""
    place = np.where(place < MIN_FIFTHS, place + ENHARMONIC, place)
    return np.where(place > MAX_FIFTHS, place - ENHARMONIC, place)
