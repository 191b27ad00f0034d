"""Audio as a log-mel spectrogram: what the audio towers of the joint encoders and the semantic tokenizer hear.

A power spectrogram with a periodic Hann window of 1024 samples and a hop of 240 at 24 kHz (42.7 ms, 100 frames a
second); 80 triangular filters of unit peak, equally spaced on the HTK mel scale from 30 Hz to 12 kHz; the natural
logarithm of the power floored at 1e-9, moved and scaled by fixed numbers so that music lies about between -2 and 2.
Frame t is centred on sample (t + 0.5) * 240. What lies outside the audio is silence, so S samples give exactly S / 240
frames.

Legend: B batch, S samples, T frames, M mel bands.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from stretto_shared.dsp.mel_filters import mel_filter_bank

SAMPLE_RATE_HZ = 24_000
HOP_LENGTH = 240
FRAME_RATE_HZ = SAMPLE_RATE_HZ / HOP_LENGTH
WINDOW_LENGTH = 1024
NUM_MEL_BANDS = 80
_LOW_HZ, _HIGH_HZ = 30.0, 12_000.0
_FLOOR = 1e-9
_SHIFT, _SCALE = 14.5, 4.0  # ln power of the corpus: mean -14.5, standard deviation 4


def log_mel(audio: Tensor) -> Tensor:
    """Mono audio [B, S] at 24 kHz, S a multiple of 240, to float32 [B, T, M] with T = S / 240.

    Raises:
        ValueError: On another shape.
    """
    if audio.ndim != 2 or audio.shape[1] % HOP_LENGTH or audio.shape[1] == 0:
        raise ValueError(f"expected [B, S] with S a positive multiple of {HOP_LENGTH}, got {tuple(audio.shape)}.")
    reach = (WINDOW_LENGTH - HOP_LENGTH) // 2
    frames = F.pad(audio.float(), (reach, reach)).unfold(1, WINDOW_LENGTH, HOP_LENGTH)  # [B, T, 1024]
    window, filters = _window(), _filters()
    power = torch.fft.rfft(frames * window).abs().square()  # [B, T, F]
    return (torch.log(power @ filters + _FLOOR) + _SHIFT) / _SCALE


@lru_cache(maxsize=1)
def _window() -> Tensor:
    return torch.hann_window(WINDOW_LENGTH) * (2.0 / WINDOW_LENGTH)  # a sine of amplitude 1 peaks at power 1 / 4


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    return mel_filter_bank(SAMPLE_RATE_HZ, WINDOW_LENGTH, NUM_MEL_BANDS, min_hz=_LOW_HZ, max_hz=_HIGH_HZ)
