"""Light augmentation of a rendered clip: a synthetic room, a gentle tilt of the spectrum, and the level.

The room is exponentially decaying noise, darker as it decays; a clip says only `hall` of it, and only when it is
plainly to be heard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

RMS_DB = {"soft": -27.0, "medium": -21.0, "loud": -16.0}
MAX_PEAK = 0.89
MIN_ACTIVE_RMS = 1e-4


@dataclass(frozen=True)
class Room:
    """How a clip is coloured. `decay_s` is the time to fall by 60 dB; `wet` is relative to the dry sound's energy."""

    name: str | None
    decay_s: float
    wet: float
    tilt_db: float
    level_db: float
    noise_seed: int


def draw_room(rng: np.random.Generator) -> Room:
    """Half of the clips nearly dry, a third in a room, the rest in a hall."""
    kind = int(rng.choice(3, p=[0.45, 0.37, 0.18]))
    decay = (rng.uniform(0.2, 0.4), rng.uniform(0.4, 1.0), rng.uniform(1.6, 2.6))[kind]
    wet = (rng.uniform(0.0, 0.1), rng.uniform(0.12, 0.3), rng.uniform(0.4, 0.65))[kind]
    tilt, level = float(rng.uniform(-2.5, 2.5)), float(rng.uniform(-1.5, 1.5))
    return Room("hall" if kind == 2 else None, float(decay), float(wet), tilt, level, int(rng.integers(2**31)))


def apply_room(dry: NDArray[np.float32], room: Room, dynamics: str, sample_rate_hz: int) -> NDArray[np.float32] | None:
    """Colour and level a clip [S]; None if it is nearly silent."""
    if float(np.sqrt(np.mean(dry**2))) < MIN_ACTIVE_RMS:
        return None
    response = _impulse_response(room, sample_rate_hz)
    size = scipy.fft.next_fast_len(len(dry) + len(response), real=True)
    spectrum = scipy.fft.rfft(dry, size) * scipy.fft.rfft(response, size)
    frequencies = np.fft.rfftfreq(size, 1.0 / sample_rate_hz)
    octaves = np.log2(np.clip(frequencies, 60.0, 10_000.0) / 800.0)
    spectrum *= (10.0 ** (room.tilt_db * octaves / 3.7 / 20.0)).astype(np.float32)
    wet = scipy.fft.irfft(spectrum, size)[: len(dry)]
    gain = 10.0 ** ((RMS_DB[dynamics] + room.level_db) / 20.0) / float(np.sqrt(np.mean(wet**2)))
    gain = min(gain, MAX_PEAK / float(np.abs(wet).max()))
    levelled: NDArray[np.float32] = (gain * wet).astype(np.float32)
    return levelled


def _impulse_response(room: Room, sample_rate_hz: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(room.noise_seed)
    count = int(room.decay_s * sample_rate_hz)
    time_s = np.arange(count, dtype=np.float32) / sample_rate_hz
    noise = rng.standard_normal(count, dtype=np.float32)
    smooth = np.convolve(noise, np.full(6, 1.0 / 6.0, np.float32), mode="same")
    fade = np.exp(-6.9 * time_s / room.decay_s)
    tail = fade * (fade * noise + (1.0 - fade) * 2.0 * smooth)
    tail[: int(0.012 * sample_rate_hz)] = 0.0
    response = (room.wet / max(float(np.sqrt(np.sum(tail**2))), 1e-9)) * tail
    response[0] = 1.0
    return response.astype(np.float32)
