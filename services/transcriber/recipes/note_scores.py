"""How well notes match those of a reference, quickly: what training and the choice of thresholds watch.

Of one pitch, onsets are matched in order of time, which on a line is a largest matching, so onset scores are those of
mir_eval. With ends, of a pair that the onsets matched the end counts or not; mir_eval may find other pairs. Frames are
those of `evals/quality/transcription.py`, which takes them from here: which pitches sound on a grid of 10 ms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from stretto_transcriber.models.notes import Notes

FRAME_S = 0.01


@dataclass(frozen=True)
class NoteScore:
    """Of one clip."""

    f1: float
    precision: float
    recall: float
    offset_f1: float
    onset_errors_s: NDArray[np.float64]
    velocity_error: float
    frame_f1: float


def score_notes(heard: Notes, reference: NDArray[np.float64], tolerance_s: float = 0.05) -> NoteScore:
    """Score notes against a reference [N, 4] of onset_s, offset_s, pitch_midi, velocity."""
    pairs = matched(heard, reference, tolerance_s)
    errors = np.array([heard.onset_s[i] - reference[j, 0] for i, j in pairs])
    ended = 0
    for i, j in pairs:
        reach_s = max(0.05, 0.2 * (reference[j, 1] - reference[j, 0]))
        ended += abs(heard.offset_s[i] - reference[j, 1]) <= reach_s
    velocity = float(np.mean([abs(heard.velocity[i] - reference[j, 3]) for i, j in pairs])) if pairs else 0.0
    total = max(1, len(heard) + len(reference))
    precision, recall = len(pairs) / max(1, len(heard)), len(pairs) / max(1, len(reference))
    frames = frame_f1(np.column_stack([heard.onset_s, heard.offset_s, heard.pitch_midi]), reference)
    return NoteScore(2 * len(pairs) / total, precision, recall, 2 * ended / total, errors, velocity, frames)


def frame_f1(heard: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """F1 of the pitches that sound on the grid, of notes [N, onset_s offset_s pitch ...]; 0 where none does."""
    length = int(max(table[:, 1].max(initial=0.0) for table in (heard, reference)) / FRAME_S) + 2
    ours, theirs = (roll(table, length) for table in (heard, reference))
    return float(2 * (ours & theirs).sum() / max(1, ours.sum() + theirs.sum()))


def roll(table: NDArray[np.float64], length: int) -> NDArray[np.bool_]:
    """Which pitches sound at the times of the grid [T, 128]."""
    sounds = np.zeros((length, 128), np.bool_)
    for onset_s, offset_s, pitch in table[:, :3]:
        sounds[int(np.ceil(onset_s / FRAME_S)) : int(np.ceil(offset_s / FRAME_S)), round(pitch)] = True
    return sounds


def matched(heard: Notes, reference: NDArray[np.float64], tolerance_s: float) -> list[tuple[int, int]]:
    """Pairs of a heard note and one of the reference [N, 4], of one pitch and with onsets within `tolerance_s`."""
    pairs = []
    for pitch in np.unique(heard.pitch_midi):
        ours = np.nonzero(heard.pitch_midi == pitch)[0]
        theirs = np.nonzero(np.round(reference[:, 2]) == pitch)[0]
        theirs = theirs[np.argsort(reference[theirs, 0], kind="stable")]
        i = j = 0
        while i < len(ours) and j < len(theirs):
            gap_s = heard.onset_s[ours[i]] - reference[theirs[j], 0]
            if abs(gap_s) <= tolerance_s:
                pairs.append((int(ours[i]), int(theirs[j])))
                i, j = i + 1, j + 1
            elif gap_s < 0:
                i += 1
            else:
                j += 1
    return pairs
