"""A melody encoder: recordings of one tune, whatever plays it, lie near one another, second by second.

What MusicLM's melody conditioning asks for (Agostinelli et al. 2023, https://arxiv.org/abs/2301.11325):
an embedding of a melody that forgets timbre and accompaniment, quantised to tokens that stages of language models read
as a prefix. A log-frequency spectrum; a harmonic stack of it (as in "A Lightweight Instrument-Agnostic Model", Bittner
et al. 2022, https://arxiv.org/abs/2203.09893), in which one small kernel sees a fundamental and its partials; the
likeliest pitch of the melody; its octaves folded; a window of two seconds to a unit vector; its residual codes.

Departures from the paper:
    - A convolutional network of some 200,000 parameters in place of a vision transformer.
    - A contrastive loss over all pairs of a batch in place of semi-hard triplets, and the known notes as a second task
      (`recipes/train_melody.py`).
    - Windows of 2 s every second in place of 4 s every second.
    - A melody and its octave are one tune; any other transposition is another, since the stages play it in its key.

Column u stands for second u of the recording and is heard from u - 0.5 s to u + 1.5 s; what lies outside is silence.

Legend: B batch, S samples, T frames at 16 a second, P pitches, two a semitone, C channels, U columns at one a second, D
width of the embedding, N codebooks, G bins of the FFT. Knows nothing of files, threads and services.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_shared.nn.rvq import ResidualVectorQuantizer
from torch import Tensor, nn
from torch.nn import functional as F

SAMPLE_RATE_HZ = 24_000
HOP_LENGTH = 1_500
FRAME_RATE_HZ = SAMPLE_RATE_HZ // HOP_LENGTH
WINDOW_LENGTH = 8_192
LOWEST_HZ = 440.0 * 2 ** ((36 - 69) / 12)  # C2; the bin of pitch MIDI 36
NUM_OCTAVES = 6
BINS_PER_OCTAVE = 24
NUM_BINS = NUM_OCTAVES * BINS_PER_OCTAVE
NUM_PITCH_CLASSES = 12
NO_MELODY = NUM_PITCH_CLASSES
COLUMN_RATE_HZ = 1
RANGE_DB = 60.0

_HARMONICS = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
_SILENCE_DB = -60.0
_LEVEL_FRAMES = 2 * FRAME_RATE_HZ + 1
_TIME_STRIDE = 4
_STEPS_PER_COLUMN = FRAME_RATE_HZ // _TIME_STRIDE
_STEPS_PER_WINDOW = 2 * _STEPS_PER_COLUMN


@dataclass(frozen=True)
class MelodyEncoderConfig:
    """Sizes.

    Args:
        num_channels: C, of the layers that hear pitches.
        dim: Width of the layers that hear a tune.
        embedding_dim: D.
        num_codebooks: N.
        cardinality: Entries of each codebook.
    """

    num_channels: int = 16
    dim: int = 128
    embedding_dim: int = 64
    num_codebooks: int = 2
    cardinality: int = 256


@dataclass(frozen=True, eq=False)
class Heard:
    """What the network makes of spectra: the melody's pitch class in each frame, and the tune in each second."""

    pitch_logits: Tensor  # [B, T, 13]; the last is no melody
    embeddings: Tensor  # [B, U, D], of unit length


class MelodyEncoder(nn.Module):
    """Spectra to unit vectors and their codes.

    Invariant: the codes of a recording do not depend on its loudness nor on what else is in the batch
    (`tests/services/embedding/test_melody.py`).
    """

    def __init__(self, config: MelodyEncoderConfig) -> None:
        super().__init__()
        self.config = config
        channels, dim = config.num_channels, config.dim
        self.hear = nn.Sequential(
            nn.Conv2d(len(_HARMONICS), channels, (3, 5), stride=(1, 2), padding=(1, 2)),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, (3, 5), padding=(1, 2)),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, (5, 3), padding=(2, 1)),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.salience = nn.Conv2d(channels, 1, (3, 1), padding=(1, 0))
        self.colour = nn.Conv2d(channels, channels // 4, 1)
        folded = NUM_PITCH_CLASSES * (channels // 4 + 1)
        self.rest = nn.Linear(folded, 1)
        self.follow = nn.Sequential(
            nn.Conv1d(folded, dim, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv1d(dim, dim, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.summarise = nn.Linear(dim * _STEPS_PER_WINDOW, config.embedding_dim)
        self.quantizer = ResidualVectorQuantizer(config.embedding_dim, config.num_codebooks, config.cardinality)

    def forward(self, spectrum: Tensor) -> Heard:
        """Hear spectra [B, T, P] of `pitch_spectrum`, T a multiple of 16."""
        octaves = (NUM_OCTAVES, NUM_PITCH_CLASSES)
        heard = self.hear(harmonic_stack(spectrum))  # [B, C, T, 72]
        salience = self.salience(heard).unflatten(3, octaves)  # [B, 1, T, 6, 12]
        pitch_class = torch.logsumexp(salience[:, 0], dim=2)  # [B, T, 12]
        share = pitch_class.softmax(-1)
        colour = self.colour(heard).unflatten(3, octaves).amax(3)  # [B, C / 4, T, 12]
        folded = torch.cat([share, colour.movedim(1, 2).flatten(2)], 2)  # [B, T, 12 * (1 + C / 4)]
        logits = torch.cat([pitch_class.log_softmax(-1), self.rest(folded)], 2)
        steps = self.follow(folded.transpose(1, 2))  # [B, dim, T / 4]
        margin = (_STEPS_PER_WINDOW - _STEPS_PER_COLUMN) // 2
        windows = F.pad(steps, (margin, margin)).unfold(2, _STEPS_PER_WINDOW, _STEPS_PER_COLUMN)  # [B, dim, U, 8]
        return Heard(logits, F.normalize(self.summarise(windows.transpose(1, 2).flatten(2)), dim=-1))

    @torch.inference_mode()
    def embed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit vectors [U, D] of mono samples [S] at 24 kHz, S > 0."""
        audio = pad_to_columns(torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None])
        vectors: NDArray[np.float32] = self(pitch_spectrum(audio)).embeddings[0].numpy()
        return vectors

    @torch.inference_mode()
    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.int64]:
        """Codes [N, U] of mono samples [S] at 24 kHz, S > 0; U is the duration in seconds, rounded up.

        Raises:
            RuntimeError: If the network gives NaN or infinity, whose nearest code would mean nothing.
        """
        vectors = torch.from_numpy(self.embed(samples))
        if not bool(vectors.isfinite().all()):
            raise RuntimeError("the melody encoder gave vectors that are not finite")
        codes: NDArray[np.int64] = self.quantizer.encode(vectors[None])[0].numpy()
        return codes


def num_columns(num_samples: int) -> int:
    """Columns of a recording: its duration in seconds, rounded up."""
    return math.ceil(num_samples / SAMPLE_RATE_HZ * COLUMN_RATE_HZ)


def pad_to_columns(audio: Tensor) -> Tensor:
    """Audio [B, S] with silence after it, so that it ends with a column."""
    return F.pad(audio, (0, num_columns(audio.shape[1]) * SAMPLE_RATE_HZ // COLUMN_RATE_HZ - audio.shape[1]))


def pitch_spectrum(audio: Tensor) -> Tensor:
    """Mono audio [B, S] at 24 kHz, S a multiple of 1500, to its loudness by pitch [B, T, P], 0 to 1.

    1 is the loudest bin within a second before and after a frame, 0 all that lies 60 dB below it, and silence. Frame t
    is centred on sample (t + 0.5) * 1500.

    Raises:
        ValueError: On another shape.
    """
    if audio.ndim != 2 or audio.shape[1] % HOP_LENGTH or audio.shape[1] == 0:
        raise ValueError(f"expected [B, S] with S a positive multiple of {HOP_LENGTH}, got {tuple(audio.shape)}.")
    reach = (WINDOW_LENGTH - HOP_LENGTH) // 2
    frames = F.pad(audio.float(), (reach, reach)).unfold(1, WINDOW_LENGTH, HOP_LENGTH)  # [B, T, 8192]
    filters = _filters()
    spectrum = torch.fft.rfft(frames * _window())[..., : filters.shape[0]]
    power = (spectrum.real.square() + spectrum.imag.square()) @ filters  # [B, T, P]
    loudness_db = 10 * torch.log10(power + 1e-12)
    loudest = loudness_db.amax(2)[:, None]  # [B, 1, T]
    level = F.max_pool1d(loudest, _LEVEL_FRAMES, stride=1, padding=_LEVEL_FRAMES // 2).clamp(min=_SILENCE_DB)
    return (1 + (loudness_db - level.transpose(1, 2)) / RANGE_DB).clamp(0, 1)


def harmonic_stack(spectrum: Tensor) -> Tensor:
    """Spectra [B, T, P], moved so that bin p of channel h holds the h-th partial of pitch p: [B, H, T, P]."""
    return torch.stack([shift_pitch(spectrum, -round(BINS_PER_OCTAVE * math.log2(h))) for h in _HARMONICS], 1)


def shift_pitch(spectrum: Tensor, num_bins: int) -> Tensor:
    """The spectrum [..., P] transposed by so many quarter tones; what moves in from outside is silence."""
    padded = F.pad(spectrum, (max(0, num_bins), max(0, -num_bins)))
    return padded[..., max(0, -num_bins) :][..., : spectrum.shape[-1]]


@lru_cache(maxsize=1)
def _window() -> Tensor:
    return torch.hann_window(WINDOW_LENGTH) * (2.0 / WINDOW_LENGTH)


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """Triangles [G, P] of unit peak, a quarter tone to either side, and at least one and a half bins of the FFT.

    G ends with the highest pitch: two thirds of the spectrum are above it.
    """
    num_bins = math.ceil(LOWEST_HZ * 2**NUM_OCTAVES / SAMPLE_RATE_HZ * WINDOW_LENGTH) + 1
    bins_hz = torch.arange(num_bins, dtype=torch.float64) * (SAMPLE_RATE_HZ / WINDOW_LENGTH)
    centres_hz = LOWEST_HZ * 2 ** (torch.arange(NUM_BINS, dtype=torch.float64) / BINS_PER_OCTAVE)
    widths_hz = (centres_hz * (2 ** (1 / BINS_PER_OCTAVE) - 1)).clamp(min=1.5 * SAMPLE_RATE_HZ / WINDOW_LENGTH)
    return (1 - (bins_hz[:, None] - centres_hz).abs() / widths_hz).clamp(min=0).float()
