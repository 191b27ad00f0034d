"""Distances between spectra, and what a spectrum says of a signal.

- `log_mel_distance`: mean over bands and frames of |log10 a - log10 b|, where a and b are mel bands of the magnitude
  spectrum (not the power), floored at 1e-5. Window: periodic Hann of 1024 samples, hop 256, centred frames with
  reflected ends; 80 triangular filters of unit peak, equally spaced on the HTK mel scale from 0 Hz to half the rate.
  A value of 0.3 means that bands are off by a factor of two (6 dB) on average. The evals compute it at 16 kHz.
- `multi_resolution_stft_distance`: Yamamoto et al., "Parallel WaveGAN" (2020), https://arxiv.org/abs/1910.11480:
  spectral convergence and mean |ln a - ln b| of magnitudes floored at 1e-5, each the mean over windows of 512, 1024 and
  2048 samples with a hop of a quarter. Departure: the window fills the transform.
- `spectral_flatness`: geometric over arithmetic mean of the power of each frame's bins, the median over the frames
  above -60 dB of the loudest one; white noise measures about 0.56, a tone near 0.
- `peak_concentration`: the share of a frame's power in its strongest 5 % of bins, the median over the same frames;
  white noise measures about 0.2, music with pitches above 0.8.

Legend: S samples, N window, T frames, F frequency bins, M mel bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stretto_shared.metrics.validation import FloatArray, signal, signal_pair

MAGNITUDE_FLOOR = 1e-5
MEL_WINDOW, MEL_HOP, NUM_MEL_BANDS = 1024, 256, 80
RESOLUTIONS = (512, 1024, 2048)
_QUIET = 1e-6  # -60 dB in power


@dataclass(frozen=True)
class StftDistance:
    """Multi-resolution STFT distance; `total` is the sum that vocoder papers report."""

    spectral_convergence: float
    log_magnitude: float

    @property
    def total(self) -> float:
        return self.spectral_convergence + self.log_magnitude


def magnitudes(samples: ArrayLike, window: int, hop: int) -> FloatArray:
    """Magnitude spectrogram [T, F] with a periodic Hann window and centred frames, ends reflected."""
    padded = np.pad(signal("samples", samples, min_samples=window // 2 + 1), window // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return np.abs(np.fft.rfft(frames * taper, axis=1))


def mel_filter_bank(
    sample_rate_hz: int, window: int, num_bands: int, *, min_hz: float = 0.0, max_hz: float | None = None
) -> FloatArray:
    """Triangular filters [F, M] of unit peak, linear in HTK mel between their corners as in TensorFlow."""
    top_hz = sample_rate_hz / 2 if max_hz is None else max_hz
    if not 0 <= min_hz < top_hz <= sample_rate_hz / 2:
        raise ValueError(f"expected 0 <= min_hz < max_hz <= {sample_rate_hz / 2:g}, got {min_hz:g} and {top_hz:g}.")
    edges = np.linspace(_mel(min_hz), _mel(top_hz), num_bands + 2)
    bins = _mel(np.linspace(0, sample_rate_hz / 2, window // 2 + 1))[:, np.newaxis]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bank: FloatArray = np.maximum(0.0, np.minimum(rising, falling))
    return bank


def log_mel(samples: ArrayLike, sample_rate_hz: int) -> FloatArray:
    """Log10 mel magnitudes [T, 80], as the module's docstring says."""
    bank = mel_filter_bank(sample_rate_hz, MEL_WINDOW, NUM_MEL_BANDS)
    return np.log10(np.maximum(magnitudes(samples, MEL_WINDOW, MEL_HOP) @ bank, MAGNITUDE_FLOOR))


def log_mel_distance(reference: ArrayLike, estimate: ArrayLike, sample_rate_hz: int = 16_000) -> float:
    """Mean absolute difference of `log_mel` (L1, log10); 0 for equal signals, lower is better."""
    target, heard = signal_pair(reference, estimate)
    return float(np.abs(log_mel(target, sample_rate_hz) - log_mel(heard, sample_rate_hz)).mean())


def multi_resolution_stft_distance(reference: ArrayLike, estimate: ArrayLike) -> StftDistance:
    """Spectral convergence and log-magnitude distance over three resolutions; lower is better.

    Raises:
        ValueError: If the shapes differ or the reference is silent.
    """
    target, heard = signal_pair(reference, estimate)
    if not target.any():
        raise ValueError("reference must not be silent: spectral convergence divides by its norm.")
    convergences, logs = [], []
    for window in RESOLUTIONS:
        first, second = magnitudes(target, window, window // 4), magnitudes(heard, window, window // 4)
        convergences.append(float(np.linalg.norm(first - second) / np.linalg.norm(first)))
        ratio = np.log(np.maximum(first, MAGNITUDE_FLOOR)) - np.log(np.maximum(second, MAGNITUDE_FLOOR))
        logs.append(float(np.abs(ratio).mean()))
    return StftDistance(float(np.mean(convergences)), float(np.mean(logs)))


def spectral_flatness(samples: ArrayLike) -> float:
    """Median flatness of the frames that sound, 0 (one tone) to 1 (flat); 1 for silence."""
    power = _sounding_power(samples)
    if power.shape[0] == 0:
        return 1.0
    power = np.maximum(power, power.max(axis=1, keepdims=True) * 1e-12)
    return float(np.median(np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)))


def peak_concentration(samples: ArrayLike) -> float:
    """Median share of a sounding frame's power in its strongest 5 % of bins, 0.05 to 1; 0 for silence."""
    power = _sounding_power(samples)
    if power.shape[0] == 0:
        return 0.0
    count = max(1, round(0.05 * power.shape[1]))
    strongest = np.sort(power, axis=1)[:, -count:].sum(axis=1)
    return float(np.median(strongest / power.sum(axis=1)))


def _sounding_power(samples: ArrayLike) -> FloatArray:
    power: FloatArray = np.square(magnitudes(samples, 2048, 512))  # [T, F]
    loudness = power.sum(axis=1)
    loudest = float(loudness.max())
    return power[loudness > loudest * _QUIET] if loudest > 0 else power[:0]


def _mel(frequency_hz: ArrayLike) -> FloatArray:
    return 1127.0 * np.log1p(np.asarray(frequency_hz, dtype=np.float64) / 700.0)
