"""Audio as CLAP hears it: a log-mel spectrogram as `transformers.ClapFeatureExtractor` makes it.

A power spectrogram with a periodic Hann window, mirrored at the ends; triangular filters on Slaney's mel scale (Slaney,
"Auditory Toolbox", 1998), each of unit area; decibels, floored at -100. Shorter audio is repeated as often as it fits
as a whole, and silence fills up.

Departures: none in what is computed. Audio longer than the window is the caller's to cut, where that class cuts out a
random piece.

Legend: S samples, T frames, M mel bands, F frequency bins.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from stretto_embedding.models.clap.config import FrontEndConfig

_FLOOR = 1e-10
_LINEAR_HZ = 200.0 / 3.0  # one mel below the knee
_KNEE_HZ = 1_000.0
_KNEE_MEL = _KNEE_HZ / _LINEAR_HZ
_OCTAVE = math.log(6.4) / 27.0  # natural logarithm of the frequency, a mel above the knee


class FrontEnd:
    """Windows of audio to spectrograms."""

    def __init__(self, config: FrontEndConfig) -> None:
        self.config = config

    def __call__(self, samples: Tensor) -> Tensor:
        """Mono audio [S] of at most a window, S > 0, to float32 [T, M] in decibels.

        Raises:
            ValueError: On another shape.
        """
        config = self.config
        if samples.ndim != 1 or not 0 < len(samples) <= config.num_samples:
            raise ValueError(f"expected [S] with S from 1 to {config.num_samples}, got {tuple(samples.shape)}.")
        whole = samples.double().repeat(config.num_samples // len(samples))
        whole = F.pad(whole, (0, config.num_samples - len(whole)))
        reach = config.fft_length // 2
        mirrored = F.pad(whole[None, None], (reach, reach), mode="reflect")[0, 0]
        frames = mirrored.unfold(0, config.fft_length, config.hop_length)  # [T, N]
        window = torch.hann_window(config.fft_length, dtype=torch.float64)
        power = torch.fft.rfft(frames * window).abs().square()  # [T, F]
        return 10 * torch.log10((power @ mel_filters(config)).clamp(min=_FLOOR)).float()


@lru_cache(maxsize=4)
def mel_filters(config: FrontEndConfig) -> Tensor:
    """Triangles [F, M] of unit area."""
    bins_hz = torch.linspace(0, config.sample_rate_hz // 2, config.fft_length // 2 + 1, dtype=torch.float64)
    low, high = hz_to_mel(config.low_hz), hz_to_mel(config.high_hz)
    edges = torch.linspace(low, high, config.num_mel_bands + 2, dtype=torch.float64)
    edges_hz = torch.where(edges < _KNEE_MEL, edges * _LINEAR_HZ, _KNEE_HZ * torch.exp(_OCTAVE * (edges - _KNEE_MEL)))
    widths = edges_hz.diff()
    rising = (bins_hz[:, None] - edges_hz[:-2]) / widths[:-1]
    falling = (edges_hz[2:] - bins_hz[:, None]) / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0) * 2 / (edges_hz[2:] - edges_hz[:-2])


def hz_to_mel(hz: float) -> float:
    """Slaney's mel scale: linear up to 1 kHz, logarithmic above."""
    return hz / _LINEAR_HZ if hz < _KNEE_HZ else _KNEE_MEL + math.log(hz / _KNEE_HZ) / _OCTAVE
