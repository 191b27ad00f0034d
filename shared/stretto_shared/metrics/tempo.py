"""A plain tempo tracker and its score.

Onset strength is the rise of log-mel energy, summed over 40 bands from 30 Hz, at 100 frames a second, less its local
mean. A tempo's salience is the mean autocorrelation of that curve at the first four multiples of its beat period,
weighted by a log-normal prior around 110 bpm with a deviation of 0.9 octaves (Ellis, "Beat Tracking by Dynamic
Programming", 2007, uses 120 and 0.9 to 1.4). The best of a grid of 0.5 % steps from 45 to 220 bpm wins.

`tempo_agrees` is the accuracy of the tempo literature (Gouyon et al., "An experimental comparison of audio tempo
induction algorithms", 2006): within 4 % (accuracy 1), or, with octaves, of 1/3, 1/2, 1, 2 or 3 times it (accuracy 2).

Departure: none of the paper's machinery; the evals validate it on clips of known tempo before they rely on it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from stretto_shared.metrics.spectral import magnitudes, mel_filter_bank
from stretto_shared.metrics.validation import FloatArray, signal

MIN_TEMPO_BPM, MAX_TEMPO_BPM = 45.0, 220.0
PRIOR_BPM, PRIOR_OCTAVES = 110.0, 0.9
TOLERANCE = 0.04
_FRAME_RATE_HZ = 100
_NUM_MULTIPLES = 4


def onset_strength(samples: ArrayLike, sample_rate_hz: int) -> FloatArray:
    """How much begins at each moment, [T] at 100 frames a second, mean 0."""
    hop = sample_rate_hz // _FRAME_RATE_HZ
    window = 1 << int(0.046 * sample_rate_hz).bit_length()
    bank = mel_filter_bank(sample_rate_hz, window, 40, min_hz=30.0, max_hz=min(8000.0, sample_rate_hz / 2))
    energy = np.log1p(1000.0 * magnitudes(samples, window, hop) @ bank / window)  # [T, 40]
    rise = np.maximum(0.0, np.diff(energy, axis=0)).sum(axis=1)
    around = np.convolve(np.pad(rise, 50, mode="edge"), np.full(101, 1 / 101), mode="valid")
    strength: FloatArray = rise - around
    return strength


def estimate_tempo_bpm(samples: ArrayLike, sample_rate_hz: int) -> float:
    """Tempo of a clip [S] of at least 4 s, 45 to 220 bpm.

    Raises:
        ValueError: If the clip is too short or nothing ever begins in it.
    """
    clip = signal("samples", samples, min_samples=4 * sample_rate_hz)
    strength = onset_strength(clip, sample_rate_hz)
    if not np.any(strength):
        raise ValueError("no onset in the clip: it has no tempo.")
    length = strength.shape[0]
    spectrum = np.fft.rfft(strength, 2 * length)
    raw = np.fft.irfft(np.abs(spectrum) ** 2)[:length]
    correlation = raw / (raw[0] * np.linspace(1, 1 / length, length))  # unbiased
    tempos = MIN_TEMPO_BPM * 1.005 ** np.arange(np.log(MAX_TEMPO_BPM / MIN_TEMPO_BPM) / np.log(1.005))
    lags = 60.0 * _FRAME_RATE_HZ / tempos[:, np.newaxis] * np.arange(1, _NUM_MULTIPLES + 1)  # [grid, multiples]
    known = lags < 0.75 * length
    salience = np.where(known, np.interp(lags, np.arange(length), correlation), 0.0).sum(axis=1)
    salience /= np.maximum(1, known.sum(axis=1))
    prior = np.exp(-0.5 * np.square(np.log2(tempos / PRIOR_BPM) / PRIOR_OCTAVES))
    return float(tempos[np.argmax(np.maximum(salience, 0.0) * prior)])


def tempo_agrees(asked_bpm: float, heard_bpm: float, *, octaves: bool = False) -> bool:
    """Whether a tempo is within 4 % of the asked one, or of a simple multiple of it."""
    if asked_bpm <= 0 or heard_bpm <= 0:
        raise ValueError(f"tempos must be above 0, got {asked_bpm} and {heard_bpm}.")
    factors = (1.0, 2.0, 0.5, 3.0, 1 / 3) if octaves else (1.0,)
    return any(abs(heard_bpm / (asked_bpm * factor) - 1.0) <= TOLERANCE for factor in factors)
