"""The same music in two places, told by its notes: what must not train, and where missing durations are to be had.

A piece is known by the runs of 12 intervals between its notes in order, which a transposition leaves as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from modular_pieces import Piece
from numpy.typing import NDArray
from stretto_harmony.models.modular.vectors import NoteTable

GRAM = 12
TWIN_SHARE = 0.15  # of the shorter piece's runs; other pieces share a few hundredths
MIN_COVERED = 0.8


def run_hashes(notes: NoteTable) -> NDArray[np.uint64]:
    """A number for the run of 12 intervals that begins at each note; fewer than notes."""
    steps = np.diff(notes.height) + 128
    if len(steps) < GRAM:
        return np.zeros(0, np.uint64)
    weights = np.array([pow(1_000_003, place, 1 << 64) for place in range(GRAM)], np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(steps.astype(np.uint64), GRAM)
    return np.asarray((windows * weights).sum(1, dtype=np.uint64))


def twins(pieces: Sequence[Piece], others: Sequence[Piece]) -> dict[str, str]:
    """Of each of `pieces` that is also among `others`: its name, and the other's."""
    runs = {other.name: set(run_hashes(other.notes).tolist()) for other in others}
    found = {}
    for piece in pieces:
        own = set(run_hashes(piece.notes).tolist())
        shares = {name: len(own & run) / max(1, min(len(own), len(run))) for name, run in runs.items()}
        nearest = max(shares, key=lambda name: shares[name], default="")
        if nearest and shares[nearest] > TWIN_SHARE:
            found[piece.name] = nearest
    return found


def with_durations(piece: Piece, twin: Piece) -> Piece:
    """The piece with the durations of its twin's notes, or as it is where too few are found.

    Where a run occurs more than once its notes last as long each time. A note of no run lasts until the next onset.
    """
    places = {run: place for place, run in enumerate(run_hashes(twin.notes).tolist())}
    durations = np.zeros(len(piece.notes.onset))
    for place, run in enumerate(run_hashes(piece.notes).tolist()):
        if run in places:
            other = places[run]
            durations[place : place + GRAM + 1] = twin.notes.duration[other : other + GRAM + 1]
    missing = durations == 0
    if missing.mean() > 1 - MIN_COVERED:
        return piece
    first = piece.notes.first
    gaps = np.diff(np.append(piece.notes.onset[first], piece.notes.end + 0.25))
    until_next = np.repeat(gaps, np.diff(np.append(first, len(durations))))
    return replace(piece, notes=replace(piece.notes, duration=np.where(missing, until_next, durations)))
