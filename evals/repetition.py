"""How a piece hangs together over many seconds: whether it comes back to what it played, and keeps its key.

A piece is heard in segments of half a second: a chroma vector (12) and the shape of its spectrum (12 cepstral numbers
of mel bands), each centred over the piece and of unit length; what a pair of segments has in common is the mean of both
cosines, as in self-similarity matrices (Foote 1999, https://doi.org/10.1145/319463.319472).

- `recurrence`: the best lag's mean similarity, of lags from 2 s to half of the piece, less the mean over all of them.
  Music with bars that come again has a lag at which it resembles itself; a texture without order has none.
- `hold`: cosine of the mean chroma of the first and the last third, less what the last third has with the first third
  of other pieces.

Legend: S samples, N segments, L lags, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from stretto_shared.metrics.spectral import mel_filter_bank

Array = NDArray[np.float64]

SEGMENT_S = 0.5
MIN_LAG_S = 2.0
_FFT = 4096
_HOP_S = 0.1
_NUM_BANDS, _NUM_CEPSTRA = 40, 12
_LOWEST_HZ, _HIGHEST_HZ = 110.0, 3520.0


def segments(samples: Array, sample_rate_hz: int) -> tuple[Array, Array]:
    """Chroma [N, 12] and cepstra [N, 12] of a mono piece [S] of one segment or more."""
    hop = round(_HOP_S * sample_rate_hz)
    per_segment = round(SEGMENT_S / _HOP_S)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, (_FFT // 2, _FFT // 2)), _FFT)[::hop]
    num_segments = int(len(samples) / sample_rate_hz / SEGMENT_S)
    power = np.abs(np.fft.rfft(frames[: num_segments * per_segment] * np.hanning(_FFT), axis=1)) ** 2
    chroma = np.sqrt(power) @ _chroma_bank(sample_rate_hz)
    bands = np.log(power @ mel_filter_bank(sample_rate_hz, _FFT, _NUM_BANDS, min_hz=60.0, max_hz=8000.0) + 1e-6)
    cepstra = bands @ _cosines()
    return tuple(part.reshape(num_segments, per_segment, -1).mean(1) for part in (chroma, cepstra))  # type: ignore[return-value]


def similarity(chroma: Array, cepstra: Array) -> Array:
    """What segments have in common [N, N], -1 to 1."""
    return (_cosine_matrix(chroma) + _cosine_matrix(cepstra)) / 2


def recurrence(similarities: Array) -> float:
    """The best lag's mean similarity less that of all lags, of a self-similarity matrix [N, N].

    Raises:
        ValueError: If the piece is too short to hold two lags.
    """
    count = len(similarities)
    lags = range(round(MIN_LAG_S / SEGMENT_S), count // 2 + 1)
    if len(lags) < 2:
        least_s = 2 * MIN_LAG_S + 2 * SEGMENT_S
        raise ValueError(f"expected a piece of at least {least_s:g} s, got {count * SEGMENT_S:g}.")
    means = np.array([np.diagonal(similarities, lag).mean() for lag in lags])
    return float(means.max() - means.mean())


def hold(chromas: Sequence[Array]) -> Array:
    """For each of several pieces' chroma [N, 12], how much its end keeps of its own beginning alone.

    Raises:
        ValueError: If there is only one piece.
    """
    if len(chromas) < 2:
        raise ValueError("expected at least two pieces: others are the comparison.")
    starts, ends = (
        np.stack([_unit(part(chroma).mean(0)) for chroma in chromas])
        for part in (lambda c: c[: len(c) // 3], lambda c: c[-(len(c) // 3) :])
    )
    cosines = ends @ starts.T
    others = (cosines.sum(1) - np.diagonal(cosines)) / (len(chromas) - 1)
    kept: Array = np.diagonal(cosines) - others
    return kept


def _cosine_matrix(rows: Array) -> Array:
    centred = rows - rows.mean(0)
    lengths = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    matrix: Array = (centred / lengths) @ (centred / lengths).T
    return matrix


def _unit(vector: Array) -> Array:
    scaled: Array = vector / max(float(np.linalg.norm(vector)), 1e-9)
    return scaled


def _chroma_bank(sample_rate_hz: int) -> Array:
    """The nearest pitch class of each bin of the transform [F, 12]; none outside A2 to A7."""
    hertz = np.fft.rfftfreq(_FFT, 1 / sample_rate_hz)
    bank = np.zeros((len(hertz), 12))
    heard = (hertz >= _LOWEST_HZ) & (hertz <= _HIGHEST_HZ)
    bank[heard, np.round(69 + 12 * np.log2(hertz[heard] / 440)).astype(int) % 12] = 1.0
    return bank


def _cosines() -> Array:
    """The discrete cosine transform [bands, cepstra] without its constant."""
    bands = np.arange(_NUM_BANDS) + 0.5
    made: Array = np.cos(np.pi / _NUM_BANDS * bands[:, None] * np.arange(1, _NUM_CEPSTRA + 1))
    return made
