"""How exactly the notes of chords are struck together: the asynchrony of onsets that follow one another at once.

Fingers strike the notes of a chord some hundredths of a second apart, and the melody first (Goebl 2001,
https://doi.org/10.1121/1.1376133); a sequence that a machine plays has them in one tick. So it tells which kind of
playing is heard, and those end their notes by different rules: a hand lets go of a key early where the pedal holds the
note, a notated length lasts.

Whole numbers throughout: sums over the same onsets are the same, wherever the frames begin.

Legend: T frames, P pitches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PARTS = 1024
"""Of a frame: in these is an asynchrony counted."""
MOST = 2 * PARTS
"""Onsets this far apart or farther, 40 ms at 50 frames a second, are not struck together."""
_REACH = 2  # frames on either side that decide whether one is an onset, as in the decoder


EDGE = 5
"""Frames at the end of a part of a stream whose pairs are not known yet, and at its begin, not any more."""


def asynchronies(onsets: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.int64]:
    """Of the onset head [T, P], of each frame [T, 2]: pairs that are struck together, and their parts.

    A pair is counted in the frame of its first onset. Peaks and their places between frames are those that
    `NoteDecoder` finds; in the first and last two frames there are none.
    """
    found = np.zeros((len(onsets), 2), np.int64)
    if len(onsets) <= 2 * _REACH:
        return found
    middle = onsets[_REACH:-_REACH]
    is_onset = middle >= threshold
    for step in range(1, _REACH + 1):
        is_onset &= middle > onsets[_REACH - step : -_REACH - step]
        is_onset &= middle >= onsets[_REACH + step : len(onsets) - _REACH + step]
    frames, pitches = np.nonzero(is_onset)
    frames += _REACH
    left, peak, right = (onsets[frames + step, pitches].astype(np.float64) for step in (-1, 0, 1))
    height = peak - np.minimum(left, right)
    shift = np.where(height > 0, (right - left) / (2 * np.where(height > 0, height, 1.0)), 0.0)
    place = frames * PARTS + np.round(shift * PARTS).astype(np.int64)
    order = np.argsort(place, kind="stable")
    apart = np.diff(place[order])
    is_together = apart < MOST
    at = frames[order][:-1][is_together]
    np.add.at(found, at, np.stack([np.ones(len(at), np.int64), apart[is_together]], 1))
    return found


class PastAsynchronies:
    """Those of the frames of a stream that are forgotten, as far back as `reach`.

    Invariant: with what is kept of a stream's frames, `joined` gives what all of them would, however it was cut;
    `tests/services/transcriber/test_asynchrony.py` holds it to that.
    """

    def __init__(self, reach: int) -> None:
        self._reach = reach
        self._found = np.zeros((EDGE, 2), np.int64)  # before the stream nothing is struck

    def joined(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """With those of the kept frames [T, 2], and before them those of `num_before` frames."""
        return np.concatenate([self._found, kept[EDGE:]])

    @property
    def num_before(self) -> int:
        """How many frames before the first kept one are in `joined`."""
        return len(self._found) - EDGE

    def forget(self, kept: NDArray[np.int64], count: int) -> None:
        """The first `count` of the kept frames [T, 2], which are at least 2 * EDGE fewer, are kept no more."""
        self._found = np.concatenate([self._found, kept[EDGE : EDGE + count]])[-(self._reach + EDGE) :]
