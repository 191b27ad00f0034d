"""`MonoResampler`: audio in pieces of any size as mono at another rate.

Nothing of it depends on where the pieces were cut: the channels are mixed sample by sample, and soxr gives the same
samples for every cut of its input. It needs soxr: the extra `resampling` of stretto-shared.

Legend: C channels, S samples.
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray


class MonoResampler:
    """One stream's audio, piece by piece; at equal rates the samples are passed on as they are.

    Invariant: what `push` and `flush` give, joined, is the same for every cut of the audio into pieces
    (`tests/shared/dsp/test_resampling.py`).

    Args:
        from_hz: Rate of what is pushed.
        to_hz: Rate of what is given.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._stream = None if from_hz == to_hz else soxr.ResampleStream(from_hz, to_hz, 1, "float32", quality="HQ")

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next piece [C, S], or [S] for mono; give what it lets be known, mono [S], which may be nothing."""
        mono = samples if samples.ndim == 1 else samples[0] if len(samples) == 1 else samples.mean(0, dtype=np.float32)
        return mono if self._stream is None else self._stream.resample_chunk(mono)

    def flush(self) -> NDArray[np.float32]:
        """Nothing comes any more: the rest [S]."""
        nothing = np.zeros(0, np.float32)
        return nothing if self._stream is None else self._stream.resample_chunk(nothing, last=True)
