"""Which pieces share a tune: how a piece that goes by two names is kept out of one of two splits.

A tune is a run of `RUN_LENGTH` melodic intervals of one part, repeated notes apart, in any key and any rhythm. Runs of
few different intervals or few turns (scales, broken chords, trills) are anybody's and do not count.
"""

from __future__ import annotations

import numpy as np

from stretto_shared.training.corpus.scores import ONSET, PITCH, Piece

RUN_LENGTH = 12
MIN_INTERVALS = 6
MIN_TURNS = 5
# Pieces of one style share a run or two by chance; a tune of twenty notes has eight.
MIN_SHARED_RUNS = 4


def runs_of(piece: Piece) -> set[bytes]:
    """The characteristic runs of intervals in the outer line of each part."""
    runs: set[bytes] = set()
    for role, notes in piece.parts.items():
        if role == "drums":
            continue
        highest = np.append(np.diff(np.round(8.0 * notes[:, ONSET])) > 0, True)  # rows are sorted by onset, then pitch
        steps = np.diff(notes[highest, PITCH])
        steps = steps[steps != 0].astype(np.int8)
        if len(steps) < RUN_LENGTH:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(steps, RUN_LENGTH)
        different = 1 + (np.diff(np.sort(windows, axis=1), axis=1) != 0).sum(axis=1)
        turns = (np.diff(np.sign(windows), axis=1) != 0).sum(axis=1)
        runs |= {row.tobytes() for row in windows[(different >= MIN_INTERVALS) & (turns >= MIN_TURNS)]}
    return runs


class Quotations:
    """The runs heard so far, and in which splits."""

    def __init__(self) -> None:
        self._splits: dict[bytes, set[str]] = {}

    def add(self, split: str, piece: Piece) -> None:
        """Remember the runs of a piece."""
        for run in runs_of(piece):
            self._splits.setdefault(run, set()).add(split)

    def in_other_split(self, split: str, piece: Piece) -> bool:
        """Whether a piece shares a tune with remembered pieces of other splits."""
        return sum(bool(self._splits.get(run, set()) - {split}) for run in runs_of(piece)) >= MIN_SHARED_RUNS
