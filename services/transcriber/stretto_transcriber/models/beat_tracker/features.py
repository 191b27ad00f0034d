"""Audio as the beat tracker hears it: a log-mel spectrogram, `ln(1 + 1000 magnitude)` as Beat This! has it.

Frame t is centred on sample `t * hop_length`; what lies outside the audio is silence, so S samples give exactly
S / hop_length frames, and a beat at frame t is at t / frame_rate_hz seconds. A sine of amplitude 1 has magnitude .5.

Legend: B batch, S samples, T frames, M mel bands.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from stretto_shared.dsp.mel_filters import mel_filter_bank
from torch import Tensor
from torch.nn import functional as F

from stretto_transcriber.models.beat_tracker.config import BeatTrackerConfig

LOWEST_HZ = 30.0
LOG_SCALE = 1_000.0


def log_mel(audio: Tensor, config: BeatTrackerConfig) -> Tensor:
    """Mono audio [B, S] to its log-mel spectrogram, float32 [B, T, M].

    Raises:
        ValueError: If the audio has another shape, or S is no positive multiple of the hop.
    """
    hop, length = config.hop_length, config.fft_length
    if audio.ndim != 2 or audio.shape[1] == 0 or audio.shape[1] % hop:
        raise ValueError(f"expected audio [B, S] with S a positive multiple of {hop}, got {tuple(audio.shape)}.")
    padded = F.pad(audio.float(), (length // 2, length - length // 2 - hop))
    frames = padded.unfold(1, length, hop)  # [B, T, fft_length]
    magnitude = torch.fft.rfft(frames * _window(length)).abs()
    return torch.log1p(LOG_SCALE * (magnitude @ _filters(config)))


@lru_cache(maxsize=4)
def _window(length: int) -> Tensor:
    return torch.hann_window(length) * (2.0 / length)


@lru_cache(maxsize=4)
def _filters(config: BeatTrackerConfig) -> Tensor:
    return mel_filter_bank(config.sample_rate_hz, config.fft_length, config.num_bands, min_hz=LOWEST_HZ)
