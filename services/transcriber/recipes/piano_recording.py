"""Windows of audio as other microphones in other rooms would have them, a batch at once, on its device.

A room is a few early reflections and noise that decays, sooner at high frequencies; then an equaliser, compression,
noise and another level. Onsets stay where they are.

Legend: B windows, S samples, F frequencies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SAMPLE_RATE_HZ = 16_000
MIN_RMS = 1e-5
LONGEST_ROOM_S = 1.2
NUM_REFLECTIONS = 6
_BLOCK = 800
_SILENT = math.log(1000.0)  # of a room's decay time: 60 dB


@dataclass(frozen=True)
class Dice:
    """Random numbers for a batch of B windows."""

    size: int
    generator: torch.Generator

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform [B, *shape]."""
        device = self.generator.device
        return low + (high - low) * torch.rand(self.size, *shape, generator=self.generator, device=device)

    def happens(self, chance: float) -> Tensor:
        """Whether something happens in each window [B, 1]."""
        return self.between(0.0, 1.0, 1) < chance

    def normal(self, *shape: int) -> Tensor:
        """Standard normal [B, *shape]."""
        return torch.randn(self.size, *shape, generator=self.generator, device=self.generator.device)


def recorded(audio: Tensor, generator: torch.Generator) -> Tensor:
    """Audio [B, S] as other microphones in other rooms would have it."""
    dice, length = Dice(len(audio), generator), audio.shape[1]
    size = _fast_length(length + round(LONGEST_ROOM_S * SAMPLE_RATE_HZ))
    frequencies = torch.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ, device=audio.device)
    curve_db = _equaliser_db(torch.log2(frequencies.clamp(min=20.0) / 500.0), dice)
    spectrum = torch.fft.rfft(audio, size) * _room(size, frequencies, dice) * 10.0 ** (curve_db / 20)
    heard = torch.fft.irfft(spectrum, size)[:, :length]
    heard = torch.where(dice.happens(0.25), _compressed(heard, dice), heard)
    rms = heard.square().mean(1, keepdim=True).sqrt().clamp(min=MIN_RMS)
    noise = _noise(length, dice) * rms * 10.0 ** (-dice.between(20.0, 55.0, 1) / 20)
    heard = torch.where(dice.happens(0.6), heard + noise, heard)
    return heard * (10.0 ** (dice.between(-42.0, -14.0, 1) / 20) / rms).clamp(max=30.0)


def _fast_length(length: int) -> int:
    """The least number of at least `length` that is 2**n, 3 * 2**n or 5 * 2**n."""
    return min(factor * 2 ** max(0, math.ceil(math.log2(length / factor))) for factor in (1, 3, 5))


def _room(size: int, frequencies: Tensor, dice: Dice) -> Tensor:
    """Spectra [B, F] of what rooms add to the sound itself; in three of ten, nothing."""
    count = round(LONGEST_ROOM_S * SAMPLE_RATE_HZ)
    times = torch.arange(count, device=frequencies.device) / SAMPLE_RATE_HZ
    decay_s = dice.between(0.1, LONGEST_ROOM_S, 1)
    begins = times >= dice.between(0.001, 0.02, 1)
    noise = dice.normal(count)
    low = noise * begins * torch.exp(-_SILENT * times / decay_s)
    high = noise * begins * torch.exp(-_SILENT * times / (decay_s * dice.between(0.25, 1.0, 1)))
    corner_hz = 500.0 * 2.0 ** dice.between(0.0, 3.0, 1)
    is_low = 1.0 / (1.0 + (frequencies / corner_hz).square())
    tail = torch.fft.rfft(low, size) * is_low + torch.fft.rfft(high, size) * (1 - is_low)
    energy = tail.abs().square().mean(1, keepdim=True).clamp(min=1e-12)  # of the response, by Parseval
    tail = tail * (dice.between(0.0, 1.0, 1) / energy.sqrt())
    early = torch.zeros(dice.size, count, device=frequencies.device)
    places = (dice.between(0.001, 0.03, NUM_REFLECTIONS) * SAMPLE_RATE_HZ).long()
    early.scatter_add_(1, places, dice.between(-0.35, 0.35, NUM_REFLECTIONS) * dice.between(0.0, 1.0, 1))
    return torch.where(dice.happens(0.7), 1.0 + tail + torch.fft.rfft(early, size), torch.ones_like(tail))


def _equaliser_db(octaves: Tensor, dice: Dice) -> Tensor:
    """Curves [B, F] over octaves [F] from 500 Hz: a tilt, three bells, and often a steep end at either side."""
    curve = dice.between(-2.0, 2.0, 1) * octaves
    for _ in range(3):
        centre, width = dice.between(-3.5, 4.0, 1), dice.between(0.4, 1.5, 1)
        curve = curve + dice.between(-7.0, 7.0, 1) * torch.exp(-0.5 * ((octaves - centre) / width).square())
    below = 12.0 * (dice.between(-4.5, -2.5, 1) - octaves).clamp(min=0.0)
    above = 12.0 * (octaves - dice.between(2.0, 4.0, 1)).clamp(min=0.0)
    curve = curve - dice.happens(0.3) * below - dice.happens(0.3) * above
    return curve.clamp(-50.0, 20.0)


def _compressed(audio: Tensor, dice: Dice) -> Tensor:
    peaks = F.pad(audio, (0, -audio.shape[1] % _BLOCK)).abs().unflatten(1, (-1, _BLOCK)).amax(2)  # [B, blocks]
    smooth = F.avg_pool1d(F.pad(peaks[:, None], (4, 4), mode="replicate"), 9, 1)[:, 0]
    loudest = smooth.amax(1, keepdim=True).clamp(min=1e-4)
    gains = ((smooth.clamp(min=1e-4) / loudest) ** -dice.between(0.1, 0.5, 1)).clamp(max=8.0)
    gain = F.interpolate(gains[:, None], scale_factor=_BLOCK, mode="linear")[:, 0, : audio.shape[1]]
    return audio * gain


def _noise(length: int, dice: Dice) -> Tensor:
    """Noise [B, S] of energy 1 a sample, white to pink."""
    size = _fast_length(length)
    count = size // 2 + 1
    slope = torch.arange(count, device=dice.generator.device).clamp(min=20).float() ** (-dice.between(0.0, 1.2, 1) / 2)
    noise = torch.fft.irfft(torch.complex(dice.normal(count), dice.normal(count)) * slope, size)[:, :length]
    return noise / noise.square().mean(1, keepdim=True).sqrt().clamp(min=1e-12)
