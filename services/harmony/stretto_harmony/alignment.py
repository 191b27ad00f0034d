"""Whether an analysis lies where its score says: the share of chord tones among the notes, as it is and moved.

A human analysis of the right score has most of the sounding time in tones of its chords, and less when it is moved by a
bar or so. A score of another edition, a repeat that one of the two unfolds or a missed pickup shows in either number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_harmony.scores.labels import Analysis
from stretto_harmony.scores.score import Ints, Score

MIN_SHARE = 0.5
"""Below it, the notes are not those of the chords. Scales in octaves over a pedal come down to .53."""
MIN_COVERAGE = 0.5
"""Of the score's time, under some label."""
SHIFT_GAIN = 0.02
"""By how much more of the notes a moved analysis must have as chord tones before the given one counts as misplaced."""
SECTION_GAIN = 0.15
"""The same for a section, where one of the two counts an ending that the other does not."""
SECTION_BARS = 16

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Alignment:
    """How an analysis fits its score.

    Args:
        share: 0 to 1, of the sounding time of notes within labels, that of chord tones.
        coverage: 0 to 1, of the score's time, that under a label.
        best_shift: Ticks by which a moved analysis fits better by `SHIFT_GAIN`; 0 when none does.
        drifts_from: The measure from which a section fits better by `SECTION_GAIN` when moved; None when none does.
        ends_late: Ticks by which the last label outlasts the score.
    """

    share: float
    coverage: float
    best_shift: int
    drifts_from: int | None
    ends_late: int

    @property
    def fault(self) -> str | None:
        """Why the analysis is not of this score, or None when it is."""
        if self.ends_late > 0:
            return f"the analysis ends {self.ends_late} ticks after the score"
        if self.coverage < MIN_COVERAGE:
            return f"labels cover {self.coverage:.2f} of the score, expected {MIN_COVERAGE}"
        if self.share < MIN_SHARE:
            return f"chord tones are {self.share:.2f} of the notes, expected {MIN_SHARE}"
        if self.best_shift:
            return f"moved by {self.best_shift} ticks it fits better"
        if self.drifts_from is not None:
            return f"moved by a beat or a bar it fits better from measure {self.drifts_from} on"
        return None


def align(score: Score, analysis: Analysis) -> Alignment:
    """The fit of `analysis` to `score`."""
    beat, bar = int(score.beat_length(np.array([0]))[0]), _usual(score.measure_length)
    shifts = sorted({shift * step for step in (beat, bar) for shift in (-2, -1, 1, 2)})
    tones, sounding = _by_section(score, analysis, 0)
    share = _share(tones.sum(), sounding.sum())
    moved = {shift: _by_section(score, analysis, shift) for shift in shifts}
    best = max(shifts, key=lambda shift: _share(moved[shift][0].sum(), moved[shift][1].sum()))
    best_share = _share(moved[best][0].sum(), moved[best][1].sum())
    covered = sum(min(label.end, score.num_ticks) - min(label.start, score.num_ticks) for label in analysis)
    return Alignment(
        share=share,
        coverage=covered / score.num_ticks,
        best_shift=best if best_share > share + SHIFT_GAIN else 0,
        drifts_from=_drift(tones, sounding, list(moved.values())),
        ends_late=max(0, analysis.labels[-1].end - score.num_ticks) if analysis.labels else 0,
    )


def chord_tone_share(score: Score, analysis: Analysis) -> float:
    """Of the time that notes sound from their onset within the label there, the share of chord tones.

    Tones are compared as they sound: an enharmonic spelling is no misalignment.
    """
    tones, sounding = _by_section(score, analysis, 0)
    return _share(tones.sum(), sounding.sum())


def _by_section(score: Score, analysis: Analysis, shift: int) -> tuple[Shares, Shares]:
    """Ticks of chord tones and of all notes in each section of bars, with labels that begin `shift` later."""
    num_sections = (score.num_measures - 1) // SECTION_BARS + 1
    index = analysis.at(score.onset - shift)
    held = index >= 0
    if not held.any():
        return np.zeros(num_sections), np.zeros(num_sections)
    index, onset, end = index[held], score.onset[held] - shift, score.offset[held] - shift
    ends = np.array([label.end for label in analysis], np.int64)
    sounding = np.minimum(end, ends[index]) - onset
    is_tone = _tones(analysis)[index, score.midi[held] % 12]
    section = score.measure[held] // SECTION_BARS
    return (
        np.bincount(section, sounding * is_tone, num_sections).astype(np.float64),
        np.bincount(section, sounding, num_sections).astype(np.float64),
    )


def _drift(tones: Shares, sounding: Shares, moved: list[tuple[Shares, Shares]]) -> int | None:
    """The first measure of the first section of some weight that fits better when moved."""
    share = tones / np.maximum(sounding, 1)
    best = np.max([moved_tones / np.maximum(total, 1) for moved_tones, total in moved], axis=0)
    heavy = sounding > sounding.mean() / 4
    gains = np.flatnonzero(heavy & (best > share + SECTION_GAIN))
    return int(gains[0]) * SECTION_BARS if gains.size else None


def _share(tones: float, sounding: float) -> float:
    return float(tones / sounding) if sounding else 0.0


def _usual(lengths: Ints) -> int:
    values, counts = np.unique(lengths, return_counts=True)
    return int(values[counts.argmax()])


def _tones(analysis: Analysis) -> Ints:
    """Which pitch classes are tones of each label: [L, 12] of 0 and 1."""
    tones = np.zeros((len(analysis), 12), np.int64)
    for place, label in enumerate(analysis):
        tones[place, [7 * tone % 12 for tone in label.tones]] = 1
    return tones
