"""Letters and accidentals of pitches.

Meredith's ps13s1 ("The ps13 pitch spelling algorithm", 2006): every pitch class near a note votes, as a tonic, for the
letter that the note has in its harmonic chromatic scale. Departures: ps13 fixes letters only relative to each other, so
which of the enharmonic readings a piece is in, sharp or flat, the key signature says; and a letter that is far from the
signature on the line of fifths needs more votes, bar by bar.

Legend: N notes in order of onset, then pitch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from stretto_shared.score import MAX_FIFTHS, MIN_FIFTHS

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

NOTES_BEFORE, NOTES_AFTER = 10, 42
STEP_OF_SEMITONE = np.array([0, 1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 6])
"""The letters above the tonic of its harmonic chromatic scale: C D♭ D E♭ E F F♯ G A♭ A B♭ B."""
FIFTHS_OF_LETTER = np.array([0, 2, 4, -1, 1, 3, 5])  # C D E F G A B
CENTRE = 3
"""The middle of what is written under a signature, above its major tonic: leading notes of minor are sharp."""
DISTANCE_COST = 0.15
"""What a fifth away from the middle costs, as a share of the votes."""
FIFTHS_PER_TURN = 12


def spell(pitch_midi: Ints, signature_fifths: Ints) -> Ints:
    """Pitches [N] on the line of fifths, int64 [N], under key signatures [N]."""
    if not len(pitch_midi):
        return np.zeros(0, np.int64)
    classes = pitch_midi % 12
    votes = _votes(classes)
    centre = signature_fifths + CENTRE
    # ps13 began with the first note as the letter 0; of the seven letters it may be, take the one that fits the key
    relative = votes.argmax(axis=1)
    readings = [_places(classes, (relative + first) % 7) for first in range(7)]
    first = int(np.argmin([np.abs(reading - centre).mean() for reading in readings]))
    letters = np.arange(7)
    places = _places(classes[:, None], letters[None])  # [N, 7]
    score = np.roll(votes, first, axis=1) - DISTANCE_COST * np.abs(places - centre[:, None])
    best = places[np.arange(len(classes)), score.argmax(axis=1)]
    best = np.where(best < MIN_FIFTHS, best + FIFTHS_PER_TURN, best)
    within: Ints = np.where(best > MAX_FIFTHS, best - FIFTHS_PER_TURN, best)
    return within


def _votes(classes: Ints) -> Array:
    """Shares of the votes for each letter [N, 7], counted from the first note's."""
    one_hot = np.zeros((len(classes) + 1, 12))
    one_hot[np.arange(1, len(classes) + 1), classes] = 1
    running = one_hot.cumsum(axis=0)
    low = np.maximum(np.arange(len(classes)) - NOTES_BEFORE, 0)
    high = np.minimum(np.arange(len(classes)) + NOTES_AFTER, len(classes))
    votes = running[high] - running[low]  # [N, 12], by tonic
    tonic = np.arange(12)
    tonic_letter = -STEP_OF_SEMITONE[(classes[0] - tonic) % 12]
    letter = (tonic_letter + STEP_OF_SEMITONE[(classes[:, None] - tonic) % 12]) % 7
    strength = np.stack([(votes * (letter == each)).sum(axis=1) for each in range(7)], axis=1)
    shares: Array = strength / strength.sum(axis=1, keepdims=True)
    return shares


def _places(classes: Ints, letters: Ints) -> Ints:
    """Places on the line of fifths of pitch classes written with letters, however many accidentals it takes."""
    natural = FIFTHS_OF_LETTER[letters]
    semitones = (classes - 7 * natural) % 12
    places: Ints = natural + 7 * np.where(semitones > 6, semitones - 12, semitones)
    return places
