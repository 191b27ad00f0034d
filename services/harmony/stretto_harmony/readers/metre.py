"""Where the bars of a piece are that does not say so: the period and phase whose downbeats have the heaviest notes.

A note weighs as much as it lasts, and more in the bass. This tells duple from triple bars on a given beat; it finds no
tempo, and a piece without accents gets 4/4 from its first note.

Legend: N notes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BASS_WEIGHT = 1.0
"""Added to a note that is lowest at its onset, in quarter notes."""
LONGEST_WEIGHT = 4.0
MARGIN = 1.06
"""By how much a longer or shorter bar must be clearer than one of four quarters."""


@dataclass(frozen=True)
class Metre:
    """Bars of `numerator` notes of 1/`denominator`, the first full one `pickup` quarter notes after the first onset."""

    numerator: int
    denominator: int
    pickup: float

    @property
    def bar_quarters(self) -> float:
        return 4.0 * self.numerator / self.denominator


CANDIDATES = (Metre(4, 4, 0.0), Metre(2, 4, 0.0), Metre(3, 4, 0.0), Metre(6, 8, 0.0))


def infer_metre(onset: NDArray[np.float64], duration: NDArray[np.float64], midi: NDArray[np.int64]) -> Metre:
    """The metre of notes [N] in order of onset, times in quarter notes from the first."""
    if not onset.size:
        return CANDIDATES[0]
    weight = np.minimum(duration, LONGEST_WEIGHT) + BASS_WEIGHT * _is_lowest(onset, midi)
    halves = np.rint(2 * onset).astype(np.int64)
    on_grid = np.abs(2 * onset - halves) < 0.05
    accents = np.bincount(halves[on_grid], weight[on_grid], halves.max() + 1)
    best, clearest = CANDIDATES[0], 0.0
    for metre in CANDIDATES:
        phase, clarity = _phase(accents, metre)
        clarity = clarity * MARGIN if metre is CANDIDATES[0] else clarity
        if clarity > clearest:
            best, clearest = Metre(metre.numerator, metre.denominator, phase / 2), clarity
    return best


def _phase(accents: NDArray[np.float64], metre: Metre) -> tuple[int, float]:
    """The downbeat's place in half quarters, and the share of all accents there against chance."""
    period = round(2 * metre.bar_quarters)
    padded = np.zeros(-(-accents.size // period) * period)
    padded[: accents.size] = accents
    profile = padded.reshape(-1, period).sum(axis=0)
    phase = int(profile.argmax())
    inner = 3 if metre.denominator == 8 else 2
    on_beats = float(np.roll(profile, -phase)[::inner].sum())
    total = float(profile.sum()) or 1.0
    return phase, float(profile[phase]) / total * period**0.5 * (on_beats / total)


def _is_lowest(onset: NDArray[np.float64], midi: NDArray[np.int64]) -> NDArray[np.bool_]:
    lowest = np.ones(onset.size, bool)
    lowest[1:] = np.diff(onset) > 0
    order = np.lexsort((midi, onset))
    result = np.zeros(onset.size, bool)
    result[order[lowest[order]]] = True
    return result
