"""Windows of clips with notes, as another room and microphone would have them; and what the heads should say.

A clip is `NAME.wav` at 16 kHz beside `NAME.npy`, as `render_piano.py` writes them.

Legend: S samples, T frames, N notes; 88 pitches, the first one A0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.fft
import soundfile
import torch
from numpy.typing import NDArray
from stretto_transcriber.models.onsets_frames.config import LOWEST_PITCH, NUM_PITCHES, OnsetsFramesConfig
from torch import Tensor

SAMPLE_RATE_HZ = 16_000
MIN_RMS = 1e-5

Samples = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Clip:
    """Where a clip lies. `notes` float32 [N, 4]: onset_s, offset_s, pitch_midi, velocity."""

    path: Path
    num_samples: int
    notes: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Targets:
    """Each [T, 88], or [B, T, 88] of a batch; velocity counts where `is_struck`."""

    onset: Tensor
    offset: Tensor
    frame: Tensor
    velocity: Tensor
    is_struck: Tensor


def list_clips(folder: Path) -> list[Clip]:
    """All clips that are whole by now, in order of their names."""
    clips = []
    for labels in sorted(folder.glob("*.npy")):
        path = labels.with_suffix(".wav")
        clips.append(Clip(path, soundfile.info(path).frames, np.load(labels)))
    return clips


def read_window(clip: Clip, start: int, length: int) -> Samples:
    """Samples [S] from `start` on; silence lies outside the clip."""
    first, stop = max(0, start), min(clip.num_samples, start + length)
    audio = np.zeros(length, np.float32)
    if stop > first:
        audio[first - start : stop - start] = soundfile.read(clip.path, stop - first, first, dtype="float32")[0]
    return audio


def notes_within(clip: Clip, start_s: float, length_s: float) -> NDArray[np.float64]:
    """The notes that sound in a window, in its own time; their ends may lie outside."""
    notes = clip.notes.astype(np.float64)
    notes = notes[(notes[:, 1] > start_s - 0.2) & (notes[:, 0] < start_s + length_s + 0.2)]
    notes[:, :2] -= start_s
    return notes


def targets_of(notes: NDArray[np.float64], num_frames: int, config: OnsetsFramesConfig) -> Targets:
    """What the heads should say of notes [N, 4] in the time of the window."""
    rate = config.frame_rate_hz
    shape = (num_frames, NUM_PITCHES)
    onset, offset, frame, velocity = (np.zeros(shape, np.float32) for _ in range(4))
    pitches = np.round(notes[:, 2]).astype(int) - LOWEST_PITCH
    for (begin, end, _, strength), pitch in zip(notes, pitches, strict=True):
        if not 0 <= pitch < NUM_PITCHES:
            continue
        first, last = (int(np.ceil(time * rate - config.frame_centre)) for time in (begin, end))
        frame[max(0, first) : max(0, last), pitch] = 1.0
        for time, target in ((begin, onset), (end, offset)):
            _raise_peak(target[:, pitch], time * rate - config.frame_centre, config.regression_s * rate)
        near = slice(max(0, first - 3), max(0, first + 3))
        velocity[near, pitch] = strength / 127.0
    return Targets(*(torch.from_numpy(x) for x in (onset, offset, frame, velocity)), torch.from_numpy(onset > 0.2))


def _raise_peak(column: NDArray[np.float32], place: float, reach: float) -> None:
    # A triangle around `place`, in frames; with no reach, the frame that holds it alone.
    if reach <= 0:
        if 0 <= round(place) < len(column):
            column[round(place)] = 1.0
        return
    frames = np.arange(max(0, int(place - reach)), min(len(column), int(place + reach) + 2))
    if len(frames):
        column[frames] = np.maximum(column[frames], 1.0 - np.abs(frames - place) / reach)


def retuned(audio: Samples, notes: NDArray[np.float64], random: np.random.Generator, semitones: float) -> Samples:
    """The samples played a little faster or slower, which also moves the notes, in place."""
    factor = 2.0 ** (random.uniform(-semitones, semitones) / 12)
    places = np.arange(len(audio)) * factor
    notes[:, :2] /= factor
    return np.interp(places, np.arange(len(audio)), audio, right=0.0).astype(np.float32)


def recorded(audio: Samples, random: np.random.Generator) -> Samples:
    """As another microphone in another room would have it."""
    response = _room(random)
    size = scipy.fft.next_fast_len(len(audio) + len(response), real=True)
    spectrum = scipy.fft.rfft(audio, size) * scipy.fft.rfft(response, size)
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ).astype(np.float32)
    curve_db = _equaliser_db(np.log2(np.maximum(frequencies, 20.0) / 500.0), random)
    heard = scipy.fft.irfft(spectrum * (10.0 ** (curve_db / 20)), size)[: len(audio)].astype(np.float32)
    if random.random() < 0.25:
        heard = _compressed(heard, random)
    rms = max(float(np.sqrt(np.mean(heard**2))), MIN_RMS)
    if random.random() < 0.6:
        heard = heard + _noise(len(audio), random) * np.float32(rms * 10.0 ** (-random.uniform(20.0, 55.0) / 20))
    level = 10.0 ** (random.uniform(-42.0, -14.0) / 20) / rms
    levelled: Samples = (heard * np.float32(min(level, 30.0))).astype(np.float32)
    return levelled


def _room(random: np.random.Generator) -> Samples:
    if random.random() < 0.3:
        return np.ones(1, np.float32)
    decay_s = random.uniform(0.1, 1.0)
    count = int(decay_s * SAMPLE_RATE_HZ)
    times = np.arange(count, dtype=np.float32) / SAMPLE_RATE_HZ
    tail = random.standard_normal(count, dtype=np.float32) * np.exp(-6.9 * times / decay_s)
    tail[: int(random.uniform(0.001, 0.02) * SAMPLE_RATE_HZ)] = 0.0
    smooth = random.uniform(0.0, 0.7)
    tail[1:] = (1 - smooth) * tail[1:] + smooth * tail[:-1]
    tail *= random.uniform(0.0, 0.7) / max(1e-6, float(np.sqrt(np.sum(tail**2))))
    tail[0] = 1.0
    return tail.astype(np.float32)


def _equaliser_db(octaves: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    curve = random.uniform(-2.0, 2.0) * octaves
    for _ in range(3):
        centre, width = random.uniform(-3.5, 4.0), random.uniform(0.4, 1.5)
        curve = curve + random.uniform(-7.0, 7.0) * np.exp(-0.5 * ((octaves - centre) / width) ** 2)
    if random.random() < 0.3:
        curve = curve - 12.0 * np.maximum(0.0, random.uniform(-4.5, -2.5) - octaves)
    if random.random() < 0.3:
        curve = curve - 12.0 * np.maximum(0.0, octaves - random.uniform(2.0, 4.0))
    clipped: NDArray[np.float32] = np.clip(curve, -50.0, 20.0).astype(np.float32)
    return clipped


def _compressed(audio: Samples, random: np.random.Generator) -> Samples:
    block = 800
    peaks = np.abs(np.pad(audio, (0, -len(audio) % block))).reshape(-1, block).max(1)
    smooth = np.convolve(np.pad(peaks, 4, mode="edge"), np.ones(9) / 9, "valid")
    gains = (np.maximum(smooth, 1e-4) / max(1e-4, float(smooth.max()))) ** -random.uniform(0.1, 0.5)
    places = (np.arange(len(gains)) + 0.5) * block
    gain = np.interp(np.arange(len(audio)), places, np.minimum(gains, 8.0))
    return (audio * gain).astype(np.float32)


def _noise(length: int, random: np.random.Generator) -> Samples:
    size = scipy.fft.next_fast_len(length, real=True)
    count = size // 2 + 1
    slope = random.uniform(0.0, 1.2)
    lines = random.standard_normal(count) + 1j * random.standard_normal(count)
    noise = scipy.fft.irfft(lines / np.maximum(np.arange(count), 20.0) ** (slope / 2), size)[:length]
    return (noise / max(1e-12, float(np.sqrt(np.mean(noise**2))))).astype(np.float32)
