"""What w2v-BERT 2.0 hears: 80 mel bands as Kaldi computes them, two frames side by side, normalised by band.

As the published `SeamlessM4TFeatureExtractor`: frames of 25 ms every 10 ms at 16 kHz, whole ones only; samples scaled
to 16 bits, the mean of each frame taken out, pre-emphasis of 0.97 within the frame, Povey's window, the power spectrum
of 512 points, triangles in mel space from 20 Hz to 8 kHz, the natural logarithm floored at float32's epsilon. Each band
then has mean 0 and variance 1 over all that is heard at once. Computed in float64 up to the logarithm, as published.

Legend: N windows, S samples, F mel frames (100 a second), T = F / 2 frames, M mel bands.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

SAMPLE_RATE_HZ = 16_000
NUM_MEL_BANDS = 80
STRIDE = 2
MEL_HOP = 160
FRAME_LENGTH = 400
_FFT_LENGTH = 512
_LOW_HZ = 20.0
_FULL_SCALE = 2.0**15
_PREEMPHASIS = 0.97
_FLOOR = 1.192092955078125e-07
_VARIANCE_FLOOR = 1e-7


def stacked_features(samples: Tensor) -> Tensor:
    """Mono audio [N, S] at 16 kHz to float32 [N, T, 160], T = (1 + (S - 400) // 160) // 2.

    Raises:
        ValueError: If the audio has no two whole frames.
    """
    least = FRAME_LENGTH + (STRIDE - 1) * MEL_HOP
    if samples.ndim != 2 or samples.shape[1] < least:
        raise ValueError(f"expected [N, S] with S at least {least}, got {tuple(samples.shape)}.")
    mel = log_mel_bank(samples)  # [N, F, M]
    mean, variance = mel.mean(1, keepdim=True), mel.var(1, keepdim=True)
    mel = (mel - mean) / (variance + _VARIANCE_FLOOR).sqrt()
    num_frames = mel.shape[1] // STRIDE
    stacked: Tensor = mel[:, : num_frames * STRIDE].reshape(len(mel), num_frames, STRIDE * NUM_MEL_BANDS)
    return stacked


def log_mel_bank(samples: Tensor) -> Tensor:
    """Mono audio [N, S] to log-mel energies float32 [N, F, M] before they are normalised."""
    frames = (samples.double() * _FULL_SCALE).unfold(1, FRAME_LENGTH, MEL_HOP)  # [N, F, 400]
    frames = frames - frames.mean(-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    frames = (frames - _PREEMPHASIS * before) * _window()
    power = torch.fft.rfft(frames, _FFT_LENGTH).abs().square()
    mel: Tensor = power @ _filters()
    return mel.clamp(min=_FLOOR).log().float()


@lru_cache(maxsize=1)
def _window() -> Tensor:
    """Povey's: a Hann window to the power of 0.85."""
    return torch.hann_window(FRAME_LENGTH, periodic=False, dtype=torch.float64) ** 0.85


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """Triangles [bins, M] of unit peak, straight in mel space."""
    bins_hz = torch.arange(_FFT_LENGTH // 2 + 1, dtype=torch.float64) * (SAMPLE_RATE_HZ / _FFT_LENGTH)
    bins = 1127.0 * torch.log1p(bins_hz / 700.0)
    low, high = (1127.0 * math.log1p(hz / 700.0) for hz in (_LOW_HZ, SAMPLE_RATE_HZ / 2))
    edges = torch.linspace(low, high, NUM_MEL_BANDS + 2, dtype=torch.float64)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)
