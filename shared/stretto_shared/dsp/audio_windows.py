"""`AudioWindows`: audio at any rate, in messages of any size, as the windows of a model's grid.

Nothing of it may depend on where the messages were cut, as nothing of `MonoResampler` does. What waits is one message
and one window with its contexts.

Legend: C channels, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_shared.audio import Waveform, check_level
from stretto_shared.dsp.resampling import MonoResampler
from stretto_shared.dsp.window_grid import Silence, WindowGrid
from stretto_shared.errors import InvalidInput

_BLOCK_S = 1.0  # of a message that is resampled at once: a long message must not be held twice


@dataclass(frozen=True, eq=False)
class Window:
    """What is heard for some consecutive frames.

    Args:
        samples: [S] at the model's rate, contexts and margins included.
        first_frame: Index in the audio of the first frame wanted.
        num_before: Frames in `samples` before it.
        num_frames: Frames wanted.
        silence: Frames at either end of `samples` that lie wholly outside the audio.
    """

    samples: NDArray[np.float32]
    first_frame: int
    num_before: int
    num_frames: int
    silence: Silence = (0, 0)


class AudioWindows:
    """One stream's audio, from message to window.

    Invariant: the windows are those of the whole audio, however it was cut, and what is kept does not grow with it;
    `tests/shared/dsp/test_audio_windows.py` holds it to that.

    Args:
        grid: Where windows lie.
        sample_rate_hz: The model's rate.
    """

    def __init__(self, grid: WindowGrid, sample_rate_hz: int) -> None:
        self._grid = grid
        self._rate_hz = sample_rate_hz
        self._source: tuple[int, int] | None = None  # rate and channels of the first message
        self._resampler: MonoResampler | None = None
        self._message = np.zeros((1, 0), np.float32)  # [C, S], not resampled yet
        self._kept: list[NDArray[np.float32]] = []  # at the model's rate; joined when a window is whole
        self._kept_from, self._num_samples = 0, 0  # the part of the audio, in samples, that is in `_kept`
        self._next_frame = 0
        self._is_ended = False

    @property
    def num_kept_samples(self) -> int:
        """How many samples are kept, at either rate."""
        return int(self._message.shape[1]) + self._num_samples - self._kept_from

    def add(self, waveform: Waveform) -> None:
        """Take the next message; the windows of the one before must have been taken. Reads every sample.

        Raises:
            InvalidInput: If its rate or channels are not those of the first one, or it is too loud.
            ValueError: If a window of the message before is still to be taken.
        """
        self._check(waveform)
        if self._message.shape[1]:
            raise ValueError(f"expected every window to be taken first, got {self._message.shape[1]} samples left.")
        self._message = waveform.samples
        if self._source is None:
            self._source = (waveform.sample_rate_hz, waveform.num_channels)
            self._resampler = MonoResampler(waveform.sample_rate_hz, self._rate_hz)

    def end(self) -> None:
        """No message comes any more.

        Raises:
            InvalidInput: If none came, or they hold less than one sample at the model's rate.
        """
        if self._resampler is None:
            raise InvalidInput("waveform", "expected at least one message with audio after config, got none.")
        while self._message.shape[1]:
            self._resample_block()
        self._keep(self._resampler.flush())
        self._is_ended = True
        if self._num_samples == 0:
            raise InvalidInput("waveform", f"expected at least one sample at {self._rate_hz} Hz. Send more audio.")

    def take(self) -> Window | None:
        """The next window, or None while it is not whole; after `end`, None when all were taken."""
        grid = self._grid
        reach = (self._next_frame + grid.window_frames + grid.right_frames) * grid.hop_length + grid.margin
        while self._num_samples < reach and self._message.shape[1]:
            self._resample_block()
        if not self._is_ended:
            return self._cut(grid.window_frames) if self._num_samples >= reach else None
        num_frames = -(-self._num_samples // grid.hop_length) - self._next_frame
        return self._cut(min(num_frames, grid.window_frames)) if num_frames > 0 else None

    def _cut(self, num_frames: int) -> Window:
        grid, first = self._grid, self._next_frame
        start = first - grid.left_frames
        stop = first + grid.window_frames + grid.right_frames
        silence = max(-start, 0), max(stop - -(-self._num_samples // grid.hop_length), 0)
        if not grid.is_padded:
            start, stop, silence = start + silence[0], stop - silence[1], (0, 0)
        begin, end = start * grid.hop_length - grid.margin, stop * grid.hop_length + grid.margin
        kept = np.concatenate([*self._kept, np.zeros(0, np.float32)])
        heard = kept[max(begin - self._kept_from, 0) : end - self._kept_from]
        num_missing = max(-begin, 0)
        samples = np.pad(heard, (num_missing, end - begin - num_missing - heard.size))
        self._next_frame = first + num_frames
        needed = (self._next_frame - grid.left_frames) * grid.hop_length - grid.margin
        old = min(max(needed, self._kept_from), self._num_samples)
        self._kept, self._kept_from = [kept[old - self._kept_from :].copy()], old
        return Window(samples, first, first - start, num_frames, silence)

    def _resample_block(self) -> None:
        assert self._source is not None and self._resampler is not None
        size = max(1, round(self._source[0] * _BLOCK_S))
        block, self._message = self._message[:, :size], self._message[:, size:]
        self._keep(self._resampler.push(block))

    def _keep(self, samples: NDArray[np.float32]) -> None:
        self._kept.append(samples)
        self._num_samples += int(samples.size)

    def _check(self, waveform: Waveform) -> None:
        if self._source is not None:
            rate_hz, num_channels = self._source
            if waveform.sample_rate_hz != rate_hz:
                raise InvalidInput(
                    "waveform.sample_rate_hz",
                    f"expected {rate_hz} as in the first message, got {waveform.sample_rate_hz}. "
                    "Send one rate in a stream.",
                )
            if waveform.num_channels != num_channels:
                raise InvalidInput(
                    "waveform.channel_count",
                    f"expected {num_channels} as in the first message, got {waveform.num_channels}. "
                    "Send one number of channels in a stream.",
                )
        check_level(waveform)
