"""Where the bars of a piece are that does not say so: the period and phase whose downbeats have the most accents.

A place has an accent by the lengths of the notes that begin there, by a note in the bass, and by how much the pitch
classes of the quarter note from it differ from those of the one before. It tells bars of two, three and four quarters
from one another and finds a pickup; 6/8 comes out as 3/4, and no tempo is looked for.

Legend: N notes, H half quarters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BASS_WEIGHT = 1.0
"""Added to a note that is lowest at its onset, in quarter notes."""
LONGEST_WEIGHT = 4.0
LONGEST_IN_HARMONY = 2.0
CHANGE_WEIGHT = 1.0
"""Of the change of harmony against the lengths."""
START_BONUS = 1.2
"""How much clearer another downbeat must be than one on the first note."""
FOUR_AGAINST_TWO = 0.99
"""A tie goes to the shorter bar."""
GRID_TOLERANCE = 0.05
MAX_HALVES = 200_000
"""Where a longer piece's accents stop counting: what comes later has the metre of what came before."""


@dataclass(frozen=True)
class Metre:
    """Bars of `numerator` quarters; the first downbeat is `pickup` quarter notes after the first onset."""

    numerator: int
    pickup: float


def infer_metre(onset: Floats, duration: Floats, midi: Ints) -> Metre:
    """The metre of notes [N], times in quarter notes from the first onset."""
    halves = np.rint(2 * onset).astype(np.int64)
    counted = (np.abs(2 * onset - halves) < GRID_TOLERANCE) & (halves < MAX_HALVES)
    if not counted.any():
        return Metre(4, 0.0)
    accents = _accents(halves[counted], onset[counted], duration[counted], midi[counted])
    profiles = {numerator: _profile(accents, 2 * numerator) for numerator in (2, 3, 4)}
    numerator = max(profiles, key=lambda beats: profiles[beats].max() * (1.0 if beats < 4 else FOUR_AGAINST_TWO))
    profile = profiles[numerator]
    profile[0] *= START_BONUS
    return Metre(numerator, float(profile.argmax()) / 2)


def _accents(halves: Ints, onset: Floats, duration: Floats, midi: Ints) -> Floats:
    """The accent of each half quarter [H], in means of its two kinds."""
    size = int(halves.max()) + 1
    weight = np.minimum(duration, LONGEST_WEIGHT) + BASS_WEIGHT * _is_lowest(onset, midi)
    lengths = np.bincount(halves, weight, size).astype(np.float64)
    change = np.where(lengths > 0, _harmonic_change(halves, duration, midi, size), 0.0)
    return _in_means(lengths) + CHANGE_WEIGHT * _in_means(change)


def _harmonic_change(halves: Ints, duration: Floats, midi: Ints, size: int) -> Floats:
    """One minus the cosine of the pitch classes from here on and before, a quarter note each: [H]."""
    classes = np.zeros((size + 1, 12))
    np.add.at(classes, (halves, midi % 12), np.minimum(duration, LONGEST_IN_HARMONY))
    quarter = classes[:-1] + classes[1:]
    quarter /= np.linalg.norm(quarter, axis=1, keepdims=True) + 1e-9
    change = np.zeros(size)
    change[2:] = 1.0 - (quarter[2:] * quarter[:-2]).sum(axis=1)
    heard = change[change > 0]
    change[0] = heard.mean() if heard.size else 0.0  # whatever was before the first note
    return change


def _profile(accents: Floats, period: int) -> Floats:
    """The mean accent at each half quarter of a bar [period]."""
    padded = np.zeros(-(-accents.size // period) * period)
    padded[: accents.size] = accents
    return np.asarray(padded.reshape(-1, period).sum(axis=0) * period / accents.size)


def _in_means(accents: Floats) -> Floats:
    mean = float(accents.mean())
    return accents / mean if mean > 0 else accents


def _is_lowest(onset: Floats, midi: Ints) -> NDArray[np.bool_]:
    order = np.lexsort((midi, onset))
    begins = np.insert(np.diff(onset[order]) > 0, 0, True)
    lowest = np.zeros(onset.size, bool)
    lowest[order[begins]] = True
    return lowest
