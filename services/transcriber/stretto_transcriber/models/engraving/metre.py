"""Bars and time signatures from beats.

Bars are where the beats say; without `beat_in_bar` they are where accents say. What note value a beat is written as,
and whether it is dotted, no recording tells: `unit_of_beat` takes the likeliest by tempo, density and the share of
beats in three parts, as they were over ASAP's training compositions (`recipes/fit_engraving.py`).

Legend: B beats, M bars.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from stretto_shared.errors import InvalidInput
from stretto_shared.score import MAX_BEATS_PER_BAR

from stretto_transcriber.models.engraving.grids import DIVISIONS, TICKS_PER_BEAT, smallest_grid

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

BARS_OF_BEATS = (4, 3, 2)
BAR_PRIOR = {4: 0.0, 3: -0.1, 2: 0.05}
"""What a bar of so many beats must be better by than one of four, in deviations of accent."""


@dataclass(frozen=True)
class UnitProfile:
    """How pieces with bars of `num_beats` beats, each `beat` quarter notes, were played.

    Args:
        num_beats: Beats in a bar.
        beat: Quarter notes in a beat.
        log_share: Of all such pieces, in nats.
        mean: Of the log of the beat's length in seconds, of the log of notes in a beat, and of the share of beats in
            three parts.
        spread: Their standard deviations.
    """

    num_beats: int
    beat: Fraction
    log_share: float
    mean: tuple[float, float, float]
    spread: tuple[float, float, float]

    def log_chance(self, features: Array) -> float:
        """The log of the chance of features [3], in nats."""
        spread = np.array(self.spread)
        deviation = (features - np.array(self.mean)) / spread
        return float(self.log_share - np.log(spread).sum() - 0.5 * (deviation**2).sum())


def beat_features(tick: Ints, beat_s: Array) -> Array:
    """What `unit_of_beat` goes by, float64 [3], of notes at places in ticks on beats at `beat_s`.

    The log of the usual length of a beat in seconds, the log of the mean number of different places in a beat that has
    notes, and the share of beats in three parts among those that are divided.
    """
    places = np.unique(tick)
    beat, phase = places // TICKS_PER_BEAT, places % TICKS_PER_BEAT
    starts = np.flatnonzero(np.diff(beat, prepend=beat[0] - 1)) if len(beat) else np.zeros(0, np.int64)
    grids = [smallest_grid(each) for each in np.split(phase, starts[1:])] if len(beat) else []
    divided = [DIVISIONS[grid] for grid in grids if grid > 0]
    num_triple = sum(all(division % 3 == 0 for division in divisions) for divisions in divided)
    density = len(places) / max(1, len(starts))
    return np.array(
        [math.log(float(np.median(np.diff(beat_s)))), math.log(max(density, 1e-3)), num_triple / max(1, len(divided))]
    )


def signature(num_beats: int, beat: Fraction) -> tuple[int, int]:
    """Numerator and denominator: (6, 8) for two beats of three eighths."""
    if beat.numerator == 3:
        return 3 * num_beats, 4 * beat.denominator
    return num_beats, int(4 / beat)


def check_bars(beat_in_bar: Ints, beat: Fraction) -> None:
    """Refuse bars that no time signature has, as its numerator counts to 64.

    Args:
        beat_in_bar: int64 [B], 1 on downbeats; there may be none, and no places either.
        beat: Quarter notes in a beat.

    Raises:
        InvalidInput: On the downbeat of the first bar that is too long; without a whole bar, on the highest place.
    """
    parts, _ = signature(1, beat)
    most = MAX_BEATS_PER_BAR // parts
    starts = np.flatnonzero(beat_in_bar == 1)
    lengths = np.diff(starts)
    if len(beat_in_bar) and not len(lengths):
        starts, lengths = np.array([beat_in_bar.argmax()]), np.array([beat_in_bar.max()])
    too_long = np.flatnonzero(lengths > most)
    if len(too_long):
        index = too_long[0]
        kind = "" if parts == 1 else f" in {parts} parts each"
        raise InvalidInput(
            f"score.beat_in_bar[{starts[index]}]",
            f"expected a bar of at most {most} beats{kind}, got {lengths[index]}. Divide the bar.",
        )


def unit_of_beat(num_beats: int, features: Array, profiles: tuple[UnitProfile, ...]) -> Fraction:
    """Quarter notes in a beat, the likeliest of the profiles with bars of so many beats, or else of all."""
    fitting = [each for each in profiles if each.num_beats == num_beats] or list(profiles)
    return max(fitting, key=lambda profile: profile.log_chance(features)).beat


def bar_lines(num_beats: int, beat_in_bar: Ints, first: int, end: int) -> list[int]:
    """Indices of the beats at which bars begin, and of the end of the last.

    Args:
        num_beats: B.
        beat_in_bar: int64 [B], 1 on downbeats; there may be none.
        first: The first beat that must lie in a bar; below 0 if notes come before all beats.
        end: The beat by which all notes have ended.
    """
    downbeats = [int(index) for index in np.flatnonzero(beat_in_bar == 1)]
    usual = usual_beats(beat_in_bar)
    lines = downbeats or [0]
    last = lines[-1] - lines[-2] if len(lines) > 1 else usual
    start = min(first, 0)
    while lines[0] - usual >= start:
        lines.insert(0, lines[0] - usual)
    if lines[0] > start:
        lines.insert(0, start)
    while len(lines) == 1 or lines[-1] < max(end, num_beats - 1):
        lines.append(lines[-1] + last)
    return lines


def usual_beats(beat_in_bar: Ints) -> int:
    """Beats of the commonest bar; without a whole bar, the highest place."""
    lengths = np.diff(np.flatnonzero(beat_in_bar == 1))
    if len(lengths):
        return int(np.bincount(lengths).argmax())
    return int(beat_in_bar.max(initial=1))


def beats_in_bars(accent: Array) -> Ints:
    """Places in bars, int64 [B] from 1, of beats with accents float64 [B]: the period and phase that they favour."""
    if len(accent) < 2 * max(BARS_OF_BEATS) or accent.std() == 0:
        return np.arange(len(accent)) % BARS_OF_BEATS[0] + 1
    level = (accent - accent.mean()) / accent.std()
    best, place = -np.inf, np.zeros(0, np.int64)
    for num_beats in BARS_OF_BEATS:
        means = np.array([level[phase::num_beats].mean() for phase in range(num_beats)])
        found = float(means.max() + BAR_PRIOR[num_beats])
        if found > best:
            best = found
            place = (np.arange(len(accent)) - int(means.argmax())) % num_beats + 1
    return place
