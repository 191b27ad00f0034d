"""Scores as the arranger takes them: parts of notes in beats, with what is known of tempo, key and origin.

A note row is [onset_beat, duration_beat, pitch_midi, velocity], float64 [N, 4], sorted by onset. A beat is a quarter
note, unless the reader of the source says otherwise. Knows nothing of files and nothing of sound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Notes = NDArray[np.float64]
ONSET, DURATION, PITCH, VELOCITY = 0, 1, 2, 3

PITCH_CLASSES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
# Krumhansl and Kessler's probe-tone ratings, 1982.
MAJOR_PROFILE = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR_PROFILE = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
MIN_KEY_CORRELATION = 0.72
MIN_KEY_MARGIN = 0.045


@dataclass(frozen=True)
class Key:
    """A major or minor key; `tonic` is a pitch class, 0 = C."""

    tonic: int
    mode: str

    @property
    def tonic_name(self) -> str:
        return PITCH_CLASSES[self.tonic % 12]

    def transposed(self, semitones: int) -> Key:
        return Key((self.tonic + semitones) % 12, self.mode)


@dataclass(frozen=True)
class Chord:
    """A chord that sounds from one beat to another; pitch classes with the root first."""

    start_beat: float
    end_beat: float
    pitch_classes: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """One score. `parts` maps a role to its notes; roles depend on the source (see the readers).

    Args:
        bar_starts: Beats on which a clip may begin; a piece without any is never played.
        key_regions: (start_beat, end_beat, key) where the source states keys; empty if it does not.
    """

    source: str
    name: str
    parts: Mapping[str, Notes]
    tempo_bpm: float
    bar_starts: NDArray[np.float64]
    genre: str | None = None
    chords: tuple[Chord, ...] = ()
    key_regions: tuple[tuple[float, float, Key], ...] = ()
    tempo_is_free: bool = field(default=False)


def sorted_notes(rows: Sequence[Sequence[float]] | Notes) -> Notes:
    """Notes as an array [N, 4] in the order of onset, then pitch."""
    notes = np.asarray(rows, dtype=np.float64).reshape(-1, 4)
    return notes[np.lexsort((notes[:, PITCH], notes[:, ONSET]))]


def window(notes: Notes, start_beat: float, end_beat: float) -> Notes:
    """The notes with onset in [start, end), shifted so that `start_beat` is 0."""
    inside = notes[(notes[:, ONSET] >= start_beat - 1e-3) & (notes[:, ONSET] < end_beat)].copy()
    inside[:, ONSET] = np.maximum(inside[:, ONSET] - start_beat, 0.0)
    return inside


def skyline(notes: Notes) -> Notes:
    """One voice: the highest note of each onset, each ending where the next begins."""
    return monophonic(notes, highest=True)


def bass_line(notes: Notes, below: float = 60.0) -> Notes:
    """One voice: the lowest note of each onset, of those below a pitch."""
    return monophonic(notes[notes[:, PITCH] < below], highest=False)


def monophonic(notes: Notes, *, highest: bool) -> Notes:
    """Reduce to one voice: an outer note per onset (within 1/8 beat), cut where the next begins."""
    if len(notes) == 0:
        return notes
    kept: list[NDArray[np.float64]] = []
    for row in notes[np.argsort(notes[:, ONSET], kind="stable")]:
        if kept and row[ONSET] - kept[-1][ONSET] < 0.12:
            if (row[PITCH] > kept[-1][PITCH]) == highest:
                onset = kept[-1][ONSET]
                kept[-1] = row.copy()
                kept[-1][ONSET] = onset
        else:
            kept.append(row.copy())
    line = np.stack(kept)
    gaps = np.diff(line[:, ONSET], append=np.inf)
    line[:, DURATION] = np.minimum(line[:, DURATION], gaps)
    return line


def estimate_key(parts: Sequence[Notes]) -> Key | None:
    """Krumhansl and Schmuckler's key of the notes, weighted by duration; None when it is not clear."""
    weights = np.zeros(12)
    for notes in parts:
        np.add.at(weights, notes[:, PITCH].astype(int) % 12, np.minimum(notes[:, DURATION], 4.0))
    if np.count_nonzero(weights) < 5 or np.ptp(weights) == 0.0:
        return None
    scores = []
    for mode, profile in (("major", MAJOR_PROFILE), ("minor", MINOR_PROFILE)):
        for tonic in range(12):
            scores.append((float(np.corrcoef(weights, np.roll(profile, tonic))[0, 1]), Key(tonic, mode)))
    scores.sort(key=lambda pair: -pair[0])
    clear = scores[0][0] >= MIN_KEY_CORRELATION and scores[0][0] - scores[1][0] >= MIN_KEY_MARGIN
    return scores[0][1] if clear else None


def key_of(piece: Piece, start_beat: float, end_beat: float, pitched: Sequence[Notes]) -> Key | None:
    """The key of a cut: the estimate, and only where it agrees with what the source states, if it states any."""
    estimate = estimate_key(pitched)
    if not piece.key_regions:
        return estimate
    for region_start, region_end, key in piece.key_regions:
        if region_start <= start_beat + 1.0 and end_beat - 1.0 <= region_end:
            return key if key == estimate else None
    return None
