"""Melody of a clip as its loudest pitch class over time, as MusicGen's melody conditioning hears it.

Follows `ChromaExtractor` of audiocraft ("Simple and Controllable Music Generation", Copet et al. 2023,
https://arxiv.org/abs/2306.05284): a power spectrogram with a Hann window of 2^14 and a hop of 4096 samples at 32 kHz
(0.512 s and 0.128 s, so 7.8125 frames a second), librosa's chroma filter bank (Gaussian around each pitch class,
weighted around octave 5), and the loudest class of each frame. Dividing by the loudest (audiocraft's inf-norm) cannot
move an argmax, so it is not computed.

Departures from the paper:
    - No stem separation: drums and bass are heard too.
    - Any sample rate: window and hop keep their length in seconds, frame centres are rounded to the nearest sample.
    - A frame quieter than -60 dBFS is silence (-1); audiocraft calls it C.

Legend: S samples, T frames, F frequency bins, N length of the window.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stretto_shared.audio import Waveform
from stretto_shared.features import CHROMA_FRAME_RATE_HZ, NUM_PITCH_CLASSES, Chromagram

WINDOW_S = 2**14 / 32_000
SILENCE_RMS = 1e-3

_CENTRE_OCTAVE = 5.0
_OCTAVE_WIDTH = 2.0
_A0_HZ = 27.5
_C_ABOVE_A_SEMITONES = 3
_FRAMES_PER_BLOCK = 256


def num_chroma_frames(num_samples: int, sample_rate_hz: int) -> int:
    """Frames that `extract_chroma` makes of a clip: one at its start and one every 0.128 s after it."""
    return 1 + int(num_samples * CHROMA_FRAME_RATE_HZ / sample_rate_hz)


def extract_chroma(waveform: Waveform) -> Chromagram:
    """The loudest pitch class at 7.8125 frames a second; frame t is centred at t * 0.128 s.

    Args:
        waveform: At least one sample at any rate; stereo is mixed to mono.
    """
    rate_hz = waveform.sample_rate_hz
    window, fft_length, bank = _analysis(rate_hz)
    samples = waveform.mono().samples[0]  # [S]
    num_frames = num_chroma_frames(samples.shape[0], rate_hz)
    starts = np.rint(np.arange(num_frames) * (rate_hz / CHROMA_FRAME_RATE_HZ)).astype(np.int64)
    padded = _centre_pad(samples, window.shape[0], int(starts[-1]))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window.shape[0])
    classes = np.empty(num_frames, dtype=np.int32)
    silence_power = SILENCE_RMS**2 * float(np.sum(np.square(window)))
    for first in range(0, num_frames, _FRAMES_PER_BLOCK):
        block = frames[starts[first : first + _FRAMES_PER_BLOCK]] * window  # [T, N]
        spectrum = np.fft.rfft(block, n=fft_length, axis=1)
        power = np.square(spectrum.real) + np.square(spectrum.imag)  # [T, F]
        loudest = np.argmax(power @ bank, axis=1).astype(np.int32)  # [T, 12] -> [T]
        loudest[np.einsum("tn,tn->t", block, block) < silence_power] = -1
        classes[first : first + _FRAMES_PER_BLOCK] = loudest
    return Chromagram(classes)


def chroma_filter_bank(sample_rate_hz: int, fft_length: int) -> NDArray[np.float32]:
    """Weights [12, F] from power spectrum to pitch class, as `librosa.filters.chroma` defines them; row 0 is C."""
    frequencies_hz = np.arange(1, fft_length) * (sample_rate_hz / fft_length)
    semitones = NUM_PITCH_CLASSES * np.log2(frequencies_hz / _A0_HZ)
    # The 0 Hz bin has no pitch: librosa puts it one and a half octaves below the first.
    semitones = np.concatenate(([semitones[0] - 1.5 * NUM_PITCH_CLASSES], semitones))
    bin_widths = np.concatenate((np.maximum(np.diff(semitones), 1.0), [1.0]))
    half = NUM_PITCH_CLASSES / 2
    distances = semitones - np.arange(NUM_PITCH_CLASSES)[:, np.newaxis]
    distances = np.remainder(distances + half + 10 * NUM_PITCH_CLASSES, NUM_PITCH_CLASSES) - half
    weights = np.exp(-0.5 * np.square(2 * distances / bin_widths))
    weights /= np.linalg.norm(weights, axis=0, keepdims=True)
    weights *= np.exp(-0.5 * np.square((semitones / NUM_PITCH_CLASSES - _CENTRE_OCTAVE) / _OCTAVE_WIDTH))
    weights = np.roll(weights, -_C_ABOVE_A_SEMITONES, axis=0)
    return np.ascontiguousarray(weights[:, : 1 + fft_length // 2], dtype=np.float32)


@lru_cache(maxsize=8)
def _analysis(sample_rate_hz: int) -> tuple[NDArray[np.float32], int, NDArray[np.float32]]:
    """Window [N], length of the transform, and filter bank [F, 12] of one sample rate."""
    window_length = round(WINDOW_S * sample_rate_hz)
    fft_length = _next_fast_length(window_length)
    phase = np.arange(window_length) * (2 * np.pi / window_length)
    window = (0.5 - 0.5 * np.cos(phase)).astype(np.float32)
    bank = np.ascontiguousarray(chroma_filter_bank(sample_rate_hz, fft_length).T)
    window.setflags(write=False)
    bank.setflags(write=False)
    return window, fft_length, bank


def _centre_pad(samples: NDArray[np.float32], window_length: int, last_start: int) -> NDArray[np.float32]:
    """Mirror half a window at both ends; zeros first where the clip is too short to mirror, as audiocraft does."""
    missing = max(0, window_length - samples.shape[0])
    samples = np.pad(samples, (missing // 2, missing - missing // 2))
    half = window_length // 2
    padded = np.pad(samples, (half, half), mode="reflect")
    return np.pad(padded, (0, max(0, last_start + window_length - padded.shape[0])))


def _next_fast_length(length: int) -> int:
    """The next even number whose only prime factors are 2, 3 and 5: an odd large prime would make the FFT slow."""
    candidate = length + length % 2
    while True:
        rest = candidate
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return candidate
        candidate += 2
