"""Log spectra on a grid of frames: the papers' mel bands, and narrow bands at thirds of semitones, by two windows.

The long window separates the partials of low notes, the short one says when a note begins. What lies outside the audio
is silence, so S samples give exactly S / hop frames.

Legend: B batch, S samples, T frames, F numbers of a frame, W window lengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from stretto_shared.dsp.mel_filters import mel_filter_bank
from torch import Tensor, nn
from torch.nn import functional as F

BINS_PER_SEMITONE = 3
NUM_SEMITONES = 99
"""From A0 to 7.9 kHz: the 88 keys, and room for harmonics of the upper ones."""
HARMONIC_WINDOWS = (4096, 1024)
MEL_WINDOW = 2048
_LOWEST_HZ = 27.5
_FLOOR = 1e-8
_GROUP = 27  # bands that are summed in one product
_SHIFT, _SCALE = 11.0, 4.0  # ln power of piano music: about -11, give or take 4


def power_frames(audio: Tensor, window: Tensor, hop_length: int, centre: float) -> Tensor:
    """Power spectra [B, T, window / 2 + 1] of audio [B, S]; frame t is centred on sample (t + centre) * hop."""
    length = window.shape[0]
    before = length // 2 - round(centre * hop_length)
    frames = F.pad(audio.float(), (before, length - hop_length - before)).unfold(1, length, hop_length)
    spectra = torch.fft.rfft(frames * window)
    power: Tensor = spectra.real.square() + spectra.imag.square()  # summed over pairs, CPUs take several times as long
    return power


class MelSpectrum(nn.Module):
    """229 mel bands from 30 Hz on (HTK), the natural logarithm of magnitudes floored at 1e-5: [B, S] to [B, T, F]."""

    def __init__(self, sample_rate_hz: int, hop_length: int, num_bands: int, centre: float) -> None:
        super().__init__()
        self.hop_length, self.centre, self.num_features = hop_length, centre, num_bands
        filters = mel_filter_bank(sample_rate_hz, MEL_WINDOW, num_bands, min_hz=30.0, max_hz=sample_rate_hz / 2)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(MEL_WINDOW), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        magnitude = power_frames(audio, self.window, self.hop_length, self.centre).sqrt()  # type: ignore[arg-type]
        return (magnitude @ self.filters).clamp(min=1e-5).log()  # type: ignore[operator]


class HarmonicSpectrum(nn.Module):
    """Bands a third of a semitone apart, of each window in turn: [B, S] to [B, T, W * 297]."""

    def __init__(self, sample_rate_hz: int, hop_length: int, centre: float) -> None:
        super().__init__()
        self.hop_length, self.centre = hop_length, centre
        self.num_features = len(HARMONIC_WINDOWS) * NUM_SEMITONES * BINS_PER_SEMITONE
        self._lines: dict[int, list[tuple[int, int]]] = {}
        for length in HARMONIC_WINDOWS:
            window = torch.hann_window(length)
            self.register_buffer(f"window_{length}", window * (2.0 / window.sum()), persistent=False)
            bands = third_tone_bands(sample_rate_hz, length)
            self.register_buffer(f"bands_{length}", bands, persistent=False)
            self._lines[length] = _lines_of(bands)

    def forward(self, audio: Tensor) -> Tensor:
        spectra = []
        for length in HARMONIC_WINDOWS:
            power = power_frames(audio, getattr(self, f"window_{length}"), self.hop_length, self.centre)
            bands = getattr(self, f"bands_{length}")
            for number, (first, last) in enumerate(self._lines[length]):  # the other lines' weights are zero
                some = slice(number * _GROUP, (number + 1) * _GROUP)
                spectra.append(power[..., first:last] @ bands[first:last, some])
        return (torch.log(torch.cat(spectra, -1) + _FLOOR) + _SHIFT) / _SCALE


def third_tone_bands(sample_rate_hz: int, window_length: int) -> Tensor:
    """Weights [window / 2 + 1, 297] of triangular bands; the middle of each three is a semitone of equal temperament.

    A band is as wide as its distance to the next, or as the spectrum's own grain where that is wider.
    """
    grain = sample_rate_hz / window_length
    ratio = 2.0 ** (1.0 / (12 * BINS_PER_SEMITONE))
    places = torch.arange(NUM_SEMITONES * BINS_PER_SEMITONE, dtype=torch.float64) - 1
    centres = _LOWEST_HZ * ratio**places  # [F]
    widths = torch.clamp(centres * math.log(ratio), min=grain)
    lines = torch.arange(window_length // 2 + 1, dtype=torch.float64) * grain
    bands: Tensor = (1.0 - (lines[:, None] - centres).abs() / widths).clamp(min=0.0).float()
    return bands


def _lines_of(bands: Tensor) -> list[tuple[int, int]]:
    """The first line, and the one after the last, that has weight in each group of neighbouring bands."""
    found = []
    for first in range(0, bands.shape[1], _GROUP):
        lines = torch.nonzero(bands[:, first : first + _GROUP].any(1))[:, 0].tolist()
        found.append((lines[0], lines[-1] + 1) if lines else (0, 0))
    return found


def harmonic_shifts(harmonics: Sequence[float]) -> list[int]:
    """How many semitones above a pitch each multiple of its frequency lies, to the nearest one."""
    return [round(12 * math.log2(harmonic)) for harmonic in harmonics]
