"""Two spaces in which clips are compared: YAMNet's, and that of the cascade's own joint encoder.

YAMNet knows neither the corpus nor the models, and gives a row for every 0.48 s. MuLan is the one that told the
language models what to play, so its word on them needs another's beside it; it gives one row for a clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
from choice import Distance, Distances
from harness import mono
from numpy.typing import NDArray
from peers.yamnet import SAMPLE_RATE_HZ, Yamnet
from stages import Stages
from stretto_shared.audio import Waveform

Array = NDArray[np.float64]

YAMNET, JOINT = "YAMNet", "own MuLan"
NUM_DIMS: Mapping[str, int] = {YAMNET: 24, JOINT: 8}


@dataclass(frozen=True, eq=False)
class Embedded:
    """Clips in each space, a list of rows [N, D] for each."""

    rows: Mapping[str, Sequence[Array]]

    def joint(self) -> Array:
        """The joint encoder's points [N, D] of unit length."""
        return np.concatenate(self.rows[JOINT])


async def embed(clips: Sequence[Waveform], yamnet: Yamnet, stages: Stages) -> Embedded:
    """What both encoders make of clips."""
    heard = [yamnet.hear(soxr.resample(mono(clip), clip.sample_rate_hz, SAMPLE_RATE_HZ)).embeddings for clip in clips]
    points = [(await stages.style_of_audio(clip)).values.astype(np.float64)[None] for clip in clips]
    return Embedded({YAMNET: heard, JOINT: points})


def distances(reference: Embedded, sets: Mapping[str, Embedded]) -> dict[str, dict[str, Distance]]:
    """Frechet distance of each set of clips to the reference, by space and set."""
    found: dict[str, dict[str, Distance]] = {}
    for space, num_dims in NUM_DIMS.items():
        rows = np.concatenate(reference.rows[space])
        measure = Distances(reference.rows[space], min(num_dims, len(rows) - 1, rows.shape[1]))
        found[space] = {label: measure.of(clips.rows[space]) for label, clips in sets.items()}
    return found


def own_and_others(texts: Array, clips: Array) -> tuple[Array, Array]:
    """Cosine [N] of each clip [N, D] and its own text [N, D], and its mean cosine with the other texts; unit rows.

    Raises:
        ValueError: If there are not two texts at least.
    """
    if len(texts) < 2 or texts.shape != clips.shape:
        raise ValueError(f"expected two texts or more and a clip for each, got {texts.shape} and {clips.shape}.")
    cosines = clips @ texts.T
    own = np.diagonal(cosines)
    return own, (cosines.sum(1) - own) / (len(texts) - 1)


def noise(colour: str, duration_s: float, seed: int, sample_rate_hz: int = 24_000) -> Waveform:
    """`white` or `pink` noise at -20 dBFS.

    Raises:
        ValueError: On another colour.
    """
    if colour not in ("white", "pink"):
        raise ValueError(f"colour must be 'white' or 'pink', got {colour!r}.")
    samples = np.random.default_rng(seed).standard_normal(round(duration_s * sample_rate_hz))
    if colour == "pink":
        spectrum = np.fft.rfft(samples)
        samples = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), len(samples))
    samples *= 0.1 / np.sqrt(np.mean(samples**2))
    return Waveform(np.clip(samples, -1, 1).astype(np.float32)[None], sample_rate_hz)
