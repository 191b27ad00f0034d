"""How far a decoded signal is from the original, sample by sample.

- SI-SDR: Le Roux et al., "SDR - half-baked or well done?" (2019), https://arxiv.org/abs/1811.02508, with the means
  removed first, as in that paper.
- Alignment: codecs delay their output; `align` finds the lag of the highest cross-correlation within a bound, so that
  no codec is punished for latency.

Legend: S samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from stretto_shared.metrics.validation import FloatArray, signal, signal_pair

_TINY = 1e-12


def si_sdr_db(reference: ArrayLike, estimate: ArrayLike) -> float:
    """Scale-invariant signal-to-distortion ratio in dB; higher is better, any constant gain of the estimate is free.

    Args:
        reference: [S], not silent.
        estimate: [S]. A silent estimate gives -infinity, a scaled copy about +120 dB.

    Raises:
        ValueError: If the shapes differ or the reference is silent.
    """
    target, heard = signal_pair(reference, estimate)
    target, heard = target - target.mean(), heard - heard.mean()
    energy = float(target @ target)
    if energy <= _TINY:
        raise ValueError("reference must not be silent: no ratio to silence is defined.")
    projected = (float(heard @ target) / energy) * target
    signal_energy, error_energy = float(projected @ projected), float(np.square(heard - projected).sum())
    if signal_energy <= 0.0:
        return -np.inf
    return 10.0 * float(np.log10(signal_energy / max(error_energy, signal_energy * _TINY)))


def best_lag(reference: ArrayLike, estimate: ArrayLike, max_lag: int) -> int:
    """Lag in samples, in [-max_lag, max_lag], by which the estimate is late: the highest cross-correlation."""
    target, heard = signal("reference", reference), signal("estimate", estimate)
    if max_lag < 0:
        raise ValueError(f"max_lag must be at least 0, got {max_lag}.")
    length = 1 << int(target.shape[0] + heard.shape[0] + 2 * max_lag).bit_length()
    product = np.fft.rfft(heard, length) * np.conj(np.fft.rfft(target, length))
    correlation = np.fft.irfft(product, length)
    lags = np.arange(-max_lag, max_lag + 1)
    return int(lags[np.argmax(correlation[lags])])


def align(reference: ArrayLike, estimate: ArrayLike, max_lag: int) -> tuple[FloatArray, FloatArray]:
    """Shift the estimate by its best lag and cut both to the samples that they share."""
    target, heard = signal("reference", reference), signal("estimate", estimate)
    lag = best_lag(target, heard, max_lag)
    heard = heard[max(lag, 0) :]
    target = target[max(-lag, 0) :]
    length = min(target.shape[0], heard.shape[0])
    if length == 0:
        raise ValueError("reference and estimate share no sample after alignment; lower max_lag.")
    return target[:length], heard[:length]
