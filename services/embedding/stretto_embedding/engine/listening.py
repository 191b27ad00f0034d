"""A recording as an encoder hears it: mono, at the encoder's rate, in windows.

Each window is made when it is taken, so that memory beyond the recording itself is bounded by the window. Windows start
every stride; the last one ends with the recording, so that nothing of it is left out. A recording no longer than a
window is one window of its own length.

Legend: C channels, S samples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from stretto_shared.audio import Waveform
from stretto_shared.dsp.resampling import MonoResampler

BLOCK_S = 1.0


def cut_windows(
    waveform: Waveform, sample_rate_hz: int, window_samples: int, stride_samples: int
) -> Iterator[NDArray[np.float32]]:
    """Windows [S] of a recording, in order of time.

    Args:
        waveform: At least one sample at any rate; stereo is mixed.
        sample_rate_hz: Of the windows.
        window_samples: Samples of a window.
        stride_samples: Samples from the start of a window to that of the next, at most `window_samples`.
    """
    held = np.zeros(0, np.float32)  # from the start of the next window on, at first
    last = held  # the end of the recording: at least a window of it, once there is one
    for block in resample(waveform, sample_rate_hz):
        held = np.concatenate([held, block])
        while held.shape[0] >= window_samples:
            yield held[:window_samples]
            last, held = held[:window_samples], held[stride_samples:]
    num_new = held.shape[0] - (window_samples - stride_samples) if last.shape[0] else held.shape[0]
    if num_new > 0:
        yield held if not last.shape[0] else np.concatenate([last[num_new:], held[-num_new:]])


def resample(waveform: Waveform, sample_rate_hz: int) -> Iterator[NDArray[np.float32]]:
    """Blocks [S] of about a second, mixed to mono, at another rate. Equal recordings give equal blocks."""
    resampler = MonoResampler(waveform.sample_rate_hz, sample_rate_hz)
    step = round(BLOCK_S * waveform.sample_rate_hz)
    for start in range(0, waveform.num_samples, step):
        yield resampler.push(waveform.samples[:, start : start + step])
    yield resampler.flush()
