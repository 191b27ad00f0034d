"""`Waveform`: PCM audio as every room of the house passes it on. Numpy only; no torch, no wire, no files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_shared.errors import InvalidInput

MIN_SAMPLE_RATE_HZ = 8_000
MAX_SAMPLE_RATE_HZ = 192_000
MAX_LEVEL = 1e4  # of full scale: beyond it, powers of samples leave single precision


@dataclass(frozen=True, eq=False)
class Waveform:
    """A clip of audio.

    Invariant: `samples` is float32 [C, S] with 1 or 2 channels, finite, read-only; the rate lies in the range above.

    Args:
        samples: [C, S], or [S] for mono; full scale is [-1, 1], louder is kept.
        sample_rate_hz: Samples per second and channel.

    Raises:
        InvalidInput: On any other shape, rate or value.
    """

    samples: NDArray[np.float32]
    sample_rate_hz: int

    def __post_init__(self) -> None:
        samples = np.array(self.samples, dtype=np.float32, copy=True, order="C")
        if samples.ndim == 1:
            samples = samples[np.newaxis]
        if samples.ndim != 2 or samples.shape[0] not in (1, 2):
            raise InvalidInput(
                "waveform.channel_count",
                f"expected 1 or 2 channels as [C, S], got shape {samples.shape}. Send mono or stereo audio.",
            )
        if not MIN_SAMPLE_RATE_HZ <= self.sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
            raise InvalidInput(
                "waveform.sample_rate_hz",
                f"expected {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} Hz, got {self.sample_rate_hz}. "
                "Resample the audio first.",
            )
        if not np.isfinite(samples).all():
            raise InvalidInput("waveform.samples", "expected finite samples, got NaN or infinity. Clean the audio.")
        samples.setflags(write=False)
        object.__setattr__(self, "samples", samples)

    @property
    def num_channels(self) -> int:
        return int(self.samples.shape[0])

    @property
    def num_samples(self) -> int:
        return int(self.samples.shape[1])

    @property
    def duration_s(self) -> float:
        return self.num_samples / self.sample_rate_hz

    def mono(self) -> Waveform:
        """The mean of the channels, as one channel."""
        return self if self.num_channels == 1 else Waveform(self.samples.mean(axis=0), self.sample_rate_hz)


def check_level(waveform: Waveform, field: str = "waveform") -> None:
    """Refuse a recording too loud for a model to hear; it reads every sample, so it belongs beside the event loop.

    Raises:
        InvalidInput: Naming the samples of `field`.
    """
    peak = max(float(waveform.samples.max(initial=0.0)), -float(waveform.samples.min(initial=0.0)))
    if peak > MAX_LEVEL:
        raise InvalidInput(
            f"{field}.samples",
            f"expected samples of at most {MAX_LEVEL:g} times full scale, got {peak:g}. Scale them to [-1, 1].",
        )
