"""Chord symbol recall of readings, as McLeod and Rohrmeier (2021) count it.

At each onset, weighted by the time to the next one, the chord and key of the reading are those of the analysis, all
spelled: the root; and the type; and the inversion; the key, in which applied chords stand; and all of it. Means over
pieces. After the last chord that has a place among the notes nothing is counted.

Legend: O onsets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from modular_pieces import Piece
from numpy.typing import NDArray
from stretto_harmony.models.modular import vectors
from stretto_harmony.models.modular.search import Reading
from stretto_harmony.scores import pitch

MEASURES = ("root", "type", "inversion", "key", "full")
"""Each of the first three counts what the one before it does, and more."""


@dataclass(frozen=True, eq=False)
class Told:
    """What is said at each onset: all [O]. `key` is the place among the 70, `chord` among the 1,540."""

    chord: NDArray[np.int64]
    key: NDArray[np.int64]


def told_by_analysis(piece: Piece) -> Told:
    """The analysis of a piece at its onsets."""
    at = piece.which[np.searchsorted(piece.begin, piece.notes.first, side="right") - 1]
    chords = piece.chords
    chord = (chords.root[at] - pitch.MIN_FIFTHS) * vectors.NUM_INVERTED + chords.inverted[at]
    return Told(chord, chords.tonic[at] - pitch.MIN_FIFTHS + pitch.NUM_SPELLINGS * chords.is_minor[at])


def told_by_reading(reading: Reading, num_onsets: int) -> Told:
    """A reading at all onsets."""
    at = np.searchsorted(reading.begin, np.arange(num_onsets), side="right") - 1
    return Told(reading.chord[at], reading.key[at])


def onset_weights(piece: Piece) -> NDArray[np.float64]:
    """Whole notes [O] to the next onset; 0 before the first chord, and after the last one has ended."""
    onset = piece.notes.onset[piece.notes.first]
    end = piece.notes.onset[piece.begin[-1]] + piece.chords.duration[piece.which[-1]]
    until = np.append(onset[1:], max(piece.notes.end, onset[-1]))
    weights = np.clip(np.minimum(until, end) - onset, 0.0, None)
    weights[onset < piece.notes.onset[piece.begin[0]]] = 0.0
    return np.asarray(weights)


def recall(found: Told, true: Told, weights: NDArray[np.float64]) -> Mapping[str, float]:
    """The share of the time for which each of `MEASURES` is right."""
    per = vectors.NUM_INVERTED
    root = found.chord // per == true.chord // per
    kind = root & (vectors.TYPE_OF[found.chord % per] == vectors.TYPE_OF[true.chord % per])
    whole = found.chord == true.chord
    key = found.key == true.key
    right = {"root": root, "type": kind, "inversion": whole, "key": key, "full": whole & key}
    return {name: float(np.average(values, weights=weights)) for name, values in right.items()}


def score_of(reading: Reading, piece: Piece) -> Mapping[str, float]:
    """The recall of a reading of a piece's notes."""
    true = told_by_analysis(piece)
    return recall(told_by_reading(reading, len(true.chord)), true, onset_weights(piece))


def mean_of(scores: list[Mapping[str, float]]) -> dict[str, float]:
    """The mean over pieces of each measure."""
    return {name: float(np.mean([score[name] for score in scores])) for name in MEASURES}
