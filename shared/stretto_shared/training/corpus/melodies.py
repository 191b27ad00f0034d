"""The melody of a clip, and recordings of it alone: hummed, whistled, or played by another instrument.

What a melody encoder learns from and is measured on: the clip, and the same tune in another mouth.

Legend: notes are float64 [N, 4] of onset_s, duration_s, pitch_midi, velocity; S samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stretto_shared.training.corpus.orchestration import Arrangement
from stretto_shared.training.corpus.render import RenderPart, Synthesizer
from stretto_shared.training.corpus.scores import DURATION, ONSET, PITCH, Notes, skyline

MELODIC_ROLES = ("melody", "soprano", "voice 1")
# General MIDI: one of each family that can carry a tune, organs, guitars, strings, voices, winds and leads.
MELODIC_PROGRAMS = (0, 4, 6, 11, 16, 19, 22, 24, 26, 40, 42, 48, 52, 53, 56, 60, 64, 65, 68, 71, 73, 74, 79, 80, 81)
LOWEST_PITCH, HIGHEST_PITCH = 24, 96  # of an instrument's performance
_LOWEST_HUM, _HIGHEST_HUM = 45, 76
_LOWEST_WHISTLE, _HIGHEST_WHISTLE = 69, 96


def melody_of(arrangement: Arrangement) -> Notes:
    """The melody of what is played, one note at a time: the part that has it, or else the highest of all that sounds.

    Empty where there are only drums.
    """
    for use, part in zip(arrangement.instruments, arrangement.parts, strict=True):
        if use.role in MELODIC_ROLES and not part.is_drum:
            return skyline(part.notes)
    pitched = [part.notes for part in arrangement.parts if not part.is_drum]
    return skyline(np.concatenate(pitched)) if pitched else np.zeros((0, 4))


def pitch_classes(melody: Notes, num_frames: int, frame_rate_hz: float) -> NDArray[np.int8]:
    """The pitch class that sounds at the middle of each frame; -1 where none does."""
    classes = np.full(num_frames, -1, np.int8)
    middles = (np.arange(num_frames) + 0.5) / frame_rate_hz
    for note in melody:
        sounding = (middles >= note[ONSET]) & (middles < note[ONSET] + note[DURATION])
        classes[sounding] = int(note[PITCH]) % 12
    return classes


def perform(melody: Notes, synthesizer: Synthesizer, num_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The melody by a drawn instrument, a hum or a whistle [S], in its own octave or one beside it; silence of none."""
    if len(melody) == 0:
        return np.zeros(num_samples, np.float32)
    kind = rng.choice(("instrument", "hum", "whistle"), p=(0.5, 0.35, 0.15))
    if kind == "instrument":
        program = int(rng.choice(MELODIC_PROGRAMS))
        moved = melody.copy()
        moved[:, PITCH] = np.clip(moved[:, PITCH] + 12 * rng.choice((-1, 0, 0, 0, 1)), LOWEST_PITCH, HIGHEST_PITCH)
        return synthesizer.render([RenderPart(program, False, moved)], num_samples)
    return hum(melody, num_samples, rng, whistled=kind == "whistle")


def hum(
    melody: Notes,
    num_samples: int,
    rng: np.random.Generator,
    *,
    whistled: bool = False,
    sample_rate_hz: int = 24_000,
) -> NDArray[np.float32]:
    """Someone humming or whistling a melody [S]: octaves a mouth can reach, glides, vibrato, breath, a little flat."""
    low, high = (_LOWEST_WHISTLE, _HIGHEST_WHISTLE) if whistled else (_LOWEST_HUM, _HIGHEST_HUM)
    pitch, loudness = _gesture(_into_range(melody, low, high), num_samples, sample_rate_hz)
    seconds = np.arange(num_samples) / sample_rate_hz
    vibrato = rng.uniform(0.05, 0.4) * np.sin(2 * np.pi * rng.uniform(4.5, 6.5) * seconds + rng.uniform(0, 6))
    hertz = 440.0 * 2 ** ((pitch + vibrato + rng.uniform(-0.3, 0.3) - 69) / 12)
    phase = np.cumsum(2 * np.pi * hertz / sample_rate_hz)
    num_partials, slope = (1, 1.0) if whistled else (int(rng.integers(3, 10)), rng.uniform(0.8, 2.2))
    tone = _partials(phase, num_partials, slope)
    noise = rng.standard_normal(num_samples, np.float32)
    sound = (tone + noise * 10 ** rng.uniform(-2.5, -1.3)) * loudness + noise * 10 ** rng.uniform(-4, -2.5)
    return (0.3 * sound / max(1e-6, float(np.abs(sound).max()))).astype(np.float32)


def _partials(phase: NDArray[np.float64], num_partials: int, slope: float) -> NDArray[np.float64]:
    """sin(k x) / k ** slope, summed over k, by the recurrence of Chebyshev."""
    twice_cosine, before, partial = 2 * np.cos(phase), np.zeros_like(phase), np.sin(phase)
    total = partial.copy()
    for k in range(2, num_partials + 1):
        before, partial = partial, twice_cosine * partial - before
        total += partial / k**slope
    return total


def _into_range(melody: Notes, low: int, high: int) -> Notes:
    """The melody moved by whole octaves, all of it as one, until its middle lies in a range."""
    if len(melody) == 0:
        return melody
    middle = float(np.median(melody[:, PITCH]))
    moved = melody.copy()
    moved[:, PITCH] += 12 * np.round(((low + high) / 2 - middle) / 12)
    return moved


def _gesture(
    melody: Notes, num_samples: int, sample_rate_hz: int, smoothing_s: float = 0.03
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pitch and loudness of each sample, both as smooth as a mouth moves; between notes the pitch waits."""
    rate_hz = 500
    steps = np.arange(-(-num_samples * rate_hz // sample_rate_hz) + 1) / rate_hz
    pitch, loudness = np.full(len(steps), 60.0), np.zeros(len(steps))
    for note in melody:
        onset = float(note[ONSET])
        pitch[steps >= onset] = note[PITCH]
        loudness[(steps >= onset + 0.01) & (steps < onset + max(0.05, note[DURATION] - 0.02))] = 1.0
    kernel = np.hanning(2 * int(smoothing_s * rate_hz) + 1)
    kernel /= kernel.sum()
    reach = len(kernel) // 2
    smooth = [np.convolve(np.pad(curve, reach, mode="edge"), kernel, mode="valid") for curve in (pitch, loudness)]
    at = np.arange(num_samples) / sample_rate_hz
    return np.interp(at, steps, smooth[0]), np.interp(at, steps, smooth[1])
