"""Seeded scores for the tests of ChordGNN: none is music."""

from __future__ import annotations

import numpy as np
from stretto_harmony.scores.labels import Analysis, ChordType, HarmonyLabel, Key
from stretto_harmony.scores.numerals import figure_of
from stretto_harmony.scores.pitch import midi_of, pitch_class
from stretto_harmony.scores.score import TICKS_PER_QUARTER, Score

BAR = 4 * TICKS_PER_QUARTER
SCALE = (0, 2, 4, -1, 1, 3, 5)


def made_score(onset: np.ndarray, duration: np.ndarray, midi: np.ndarray, fifths: np.ndarray) -> Score:
    """A score in common time of these notes."""
    order = np.lexsort((midi, onset))
    bars = int((onset + duration).max() // BAR) + 1
    column = np.ones(bars, np.int64)
    return Score(
        onset=onset[order],
        duration=duration[order],
        midi=midi[order],
        fifths=fifths[order],
        staff=(midi[order] < 60).astype(np.int64),
        voice=0 * order,
        measure_start=BAR * np.arange(bars),
        measure_length=BAR * column,
        measure_offset=0 * column,
        numerator=4 * column,
        denominator=4 * column,
        key_signature=0 * column,
        measure_number=tuple(str(bar + 1) for bar in range(bars)),
    )


def random_score(seed: int, num_notes: int = 60, num_bars: int = 6) -> Score:
    """Notes anywhere on a grid of eighths, many together, some long, with rests between."""
    random = np.random.default_rng(seed)
    eighth = TICKS_PER_QUARTER // 2
    onset = eighth * random.integers(0, 8 * num_bars, num_notes)
    duration = eighth * random.choice([1, 1, 2, 4, 12], num_notes)
    fifths = random.choice(SCALE, num_notes).astype(np.int64)
    midi = 12 * random.integers(3, 7, num_notes) + pitch_class(fifths)
    return made_score(onset, duration, midi, fifths)


def chorale(seed: int, num_chords: int = 24) -> tuple[Score, Analysis]:
    """Triads of C major, each for a half note, with their analysis."""
    random = np.random.default_rng(seed)
    half, key = 2 * TICKS_PER_QUARTER, Key(0)
    rows, labels = [], []
    for place, root in enumerate(random.choice([0, 1, -1, 3], num_chords).tolist()):
        quality = ChordType.MINOR if root == 3 else ChordType.MAJOR
        for octave, interval in zip((3, 4, 4), quality.intervals):
            rows.append((place * half, half, midi_of(root + interval, octave), root + interval))
        figure = figure_of(key, key, root, quality, 0)
        bass = min(rows[-3:], key=lambda row: row[2])[3]
        labels.append(
            HarmonyLabel(
                place * half, (place + 1) * half, key, figure, key, root, quality, quality.intervals.index(bass - root)
            )
        )
    onset, duration, midi, fifths = np.array(rows).T
    return made_score(onset, duration, midi, fifths), Analysis(tuple(labels))
