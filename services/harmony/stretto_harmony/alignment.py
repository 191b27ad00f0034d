"""Whether an analysis lies where its score says: the share of chord tones among the notes, as it is and moved.

A human analysis of the right score has most of the sounding time in tones of its chords, and less when it is moved by a
bar or so. A score of another edition, a repeat that one of the two unfolds or a missed pickup shows in either number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stretto_harmony.scores.labels import Analysis
from stretto_harmony.scores.score import Ints, Score

MIN_SHARE = 0.6
"""Below it, the notes are not those of the chords. Thin textures of passing notes stay above .65."""
MIN_COVERAGE = 0.5
"""Of the score's time, under some label."""
SHIFT_GAIN = 1.0 + 1 / 32
"""How much better a moved analysis must fit before the given one counts as misplaced."""


@dataclass(frozen=True)
class Alignment:
    """How an analysis fits its score.

    Args:
        share: 0 to 1, of the sounding time of notes within labels, that of chord tones.
        coverage: 0 to 1, of the score's time, that under a label.
        best_shift: Ticks by which a moved analysis fits better by `SHIFT_GAIN`; 0 when none does.
        ends_late: Ticks by which the last label outlasts the score.
    """

    share: float
    coverage: float
    best_shift: int
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
        return None


def align(score: Score, analysis: Analysis) -> Alignment:
    """The fit of `analysis` to `score`."""
    share = chord_tone_share(score, analysis, 0)
    beat = int(score.beat_length(np.array([0]))[0])
    bar = int(np.bincount(score.measure_length).argmax()) if score.measure_length.max() < 10**7 else beat
    shifts = sorted({shift * step for step in (beat, bar) for shift in (-2, -1, 1, 2)})
    moved = {shift: chord_tone_share(score, analysis, shift) for shift in shifts}
    best = max(moved, key=lambda shift: moved[shift])
    covered = sum(min(label.end, score.num_ticks) - min(label.start, score.num_ticks) for label in analysis)
    return Alignment(
        share=share,
        coverage=covered / score.num_ticks,
        best_shift=best if moved[best] > SHIFT_GAIN * share else 0,
        ends_late=max(0, analysis.labels[-1].end - score.num_ticks) if analysis.labels else 0,
    )


def chord_tone_share(score: Score, analysis: Analysis, shift: int) -> float:
    """Of the time that notes sound from their onset within the label there, the share of chord tones.

    Args:
        score: The notes; their spelling must be the label's, up to enharmonic equality.
        analysis: The labels.
        shift: Ticks by which the labels are moved later.
    """
    index = analysis.at(score.onset - shift)
    held = index >= 0
    if not held.any():
        return 0.0
    index, onset, end = index[held], score.onset[held] - shift, score.offset[held] - shift
    ends = np.array([label.end for label in analysis], np.int64)
    sounding = np.minimum(end, ends[index]) - onset
    is_tone = _tones(analysis)[index, score.midi[held] % 12]
    return float((sounding * is_tone).sum() / sounding.sum())


def _tones(analysis: Analysis) -> Ints:
    """Which pitch classes are tones of each label: [L, 12] of 0 and 1."""
    tones = np.zeros((len(analysis), 12), np.int64)
    for place, label in enumerate(analysis):
        tones[place, [7 * tone % 12 for tone in label.tones]] = 1
    return tones
