"""How busy music is: onsets in a second.

An onset is a peak of `tempo.onset_strength` that is the highest within 30 ms to both sides, exceeds the mean of the
100 ms around it, and reaches `RELATIVE_THRESHOLD` of the clip's strongest: peak picking as in Böck et al., "Evaluating
the online capabilities of onset detection methods" (2012), with a threshold relative to the clip, since levels differ.

Departure: one threshold for every kind of music, so that soft onsets are missed: compare densities, do not read them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from stretto_shared.metrics.tempo import onset_strength
from stretto_shared.metrics.validation import FloatArray, signal

RELATIVE_THRESHOLD = 0.15
MIN_STRENGTH = 0.5  # of 40 bands together, in nepers: what rounding and dither do is less
_FRAME_RATE_HZ = 100
_REACH, _MEAN_REACH = 3, 10


def onset_times_s(samples: ArrayLike, sample_rate_hz: int) -> FloatArray:
    """When onsets happen in a clip [S] of at least 0.2 s, in seconds, ascending; none in silence."""
    strength = onset_strength(signal("samples", samples, min_samples=sample_rate_hz // 5), sample_rate_hz)
    padded = np.pad(strength, _REACH, constant_values=-np.inf)
    highest = np.lib.stride_tricks.sliding_window_view(padded, 2 * _REACH + 1).max(axis=1)
    width = 2 * _MEAN_REACH + 1
    around = np.convolve(np.pad(strength, _MEAN_REACH, mode="edge"), np.full(width, 1 / width), mode="valid")
    floor = max(MIN_STRENGTH, RELATIVE_THRESHOLD * float(strength.max()))
    peaks = np.flatnonzero((strength == highest) & (strength > around) & (strength >= floor))
    times_s: FloatArray = (peaks + 1) / _FRAME_RATE_HZ  # the rise from frame n to n + 1 is stored at n
    return times_s


def onset_density_hz(samples: ArrayLike, sample_rate_hz: int) -> float:
    """Onsets in a second of a clip [S]."""
    clip = signal("samples", samples)
    return float(onset_times_s(clip, sample_rate_hz).shape[0] * sample_rate_hz / clip.shape[0])
