"""Audio as the beat tracker hears it: a log-mel spectrogram, and semitones in which harmony can be heard to change.

Both are `ln(1 + 1000 magnitude)`, as Beat This! has it. Mel bands of a short window cannot tell a bass note from its
neighbours, and in much music nothing but the harmony says which beat begins a bar.

Frame t is centred on sample `t * hop_length`; what lies outside the audio is silence, so S samples give exactly
S / hop_length frames, and a beat at frame t is at t / frame_rate_hz seconds. A sine of amplitude 1 has magnitude .5.

A column of semitones is centred on the frames that it stands for.

Legend: B batch, S samples, T frames, M mel bands, C columns of T / pitch_frames, rounded up, P semitones.
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
    _check(audio, hop)
    padded = F.pad(audio.float(), (length // 2, length - length // 2 - hop))
    magnitude = _magnitudes(padded, length, hop)
    return torch.log1p(LOG_SCALE * (magnitude @ _filters(config)))


def log_pitches(audio: Tensor, config: BeatTrackerConfig) -> Tensor:
    """Mono audio [B, S] to its semitones, float32 [B, C, P].

    Raises:
        ValueError: As `log_mel`.
    """
    hop, length, group = config.hop_length, config.pitch_fft_length, config.pitch_frames
    _check(audio, hop)
    step = group * hop
    num_columns = -(-audio.shape[1] // step)
    before = length // 2 - (step - hop) // 2
    padded = F.pad(audio.float(), (before, (num_columns - 1) * step + length - before - audio.shape[1]))
    magnitude = _magnitudes(padded, length, step)
    return torch.log1p(LOG_SCALE * (magnitude @ _pitch_filters(config)))


def _check(audio: Tensor, hop: int) -> None:
    if audio.ndim != 2 or audio.shape[1] == 0 or audio.shape[1] % hop:
        raise ValueError(f"expected audio [B, S] with S a positive multiple of {hop}, got {tuple(audio.shape)}.")


def _magnitudes(padded: Tensor, length: int, step: int) -> Tensor:
    frames = padded.unfold(1, length, step)
    magnitudes: Tensor = torch.fft.rfft(frames * _window(length)).abs()
    return magnitudes


@lru_cache(maxsize=4)
def _window(length: int) -> Tensor:
    return torch.hann_window(length) * (2.0 / length)


@lru_cache(maxsize=4)
def _filters(config: BeatTrackerConfig) -> Tensor:
    return mel_filter_bank(config.sample_rate_hz, config.fft_length, config.num_bands, min_hz=LOWEST_HZ)


@lru_cache(maxsize=4)
def _pitch_filters(config: BeatTrackerConfig) -> Tensor:
    """Triangles a semitone to each side [F, P], of unit peak."""
    bins_hz = torch.linspace(0, config.sample_rate_hz / 2, config.pitch_fft_length // 2 + 1, dtype=torch.float64)
    bins_midi = 69 + 12 * torch.log2(bins_hz.clamp(min=1.0) / 440)
    pitches = config.lowest_pitch_midi + torch.arange(config.num_pitches)
    return (1 - (bins_midi[:, None] - pitches).abs()).clamp(min=0).float()
