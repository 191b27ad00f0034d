"""What the engine asks of models that hear audio window by window.

A model hears audio on a fixed grid: window i gives the frames [i * window_frames, (i + 1) * window_frames), and hears
`context_frames` more on either side, where silence (samples of 0) stands for what lies outside the audio. So every
window has the same shape, and a model that is not causal gives a stream what it gives a whole clip.

Legend: N windows, S samples of a window with its contexts, T frames, P numbers that a model gives of each frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from stretto_shared.nn.lowbit import NativeKernel
from torch import Tensor, nn

from stretto_transcriber.models.beats import TrackedBeats
from stretto_transcriber.models.notes import Notes


class WindowedConfig(Protocol):
    """A model's grid in its own words."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the mono audio that it hears."""

    @property
    def hop_length(self) -> int:
        """Samples of a frame."""

    @property
    def window_frames(self) -> int:
        """Frames that a window gives."""

    @property
    def context_frames(self) -> int:
        """Frames heard before and after them."""


class NoteDecoder(Protocol):
    """Makes notes of consecutive frames of one stream.

    Where the frames were cut changes nothing, and what is kept does not grow with their number.
    """

    @property
    def complete_s(self) -> float:
        """Every note that begins before this second has been returned. Never falls."""

    def push(self, frames: NDArray[np.float32]) -> Notes:
        """Take the next frames [T, P]; give the notes that have become final."""

    def flush(self) -> Notes:
        """No frame comes any more: the notes that still sounded."""


@dataclass(frozen=True, eq=False)
class NoteListener:
    """A model that hears notes.

    Args:
        config: Its grid.
        module: What hears, in eval mode.
        hear: Windows [N, S] to what is heard in their own frames [N, T, P]; belongs on the model thread.
        new_decoder: What makes notes of that, for one stream: they end with their sounds.
        new_key_decoder: The same with notes that end with their keys; None of a model that does not hear keys.
        use_kernel: Have it hear in bfloat16 by the native kernel from now on, and tell whether it does; None of a model
            that cannot.
    """

    config: WindowedConfig
    module: nn.Module
    hear: Callable[[Tensor], Tensor]
    new_decoder: Callable[[], NoteDecoder]
    new_key_decoder: Callable[[], NoteDecoder] | None = None
    use_kernel: Callable[[NativeKernel], bool] | None = None


@dataclass(frozen=True, eq=False)
class BeatListener:
    """A model that hears beats.

    Args:
        config: Its grid.
        module: What hears, in eval mode.
        hear: Windows [N, S] to what is heard in their own frames [N, T, P]; belongs on the model thread.
        track: What is heard in all frames [T, P] of a recording, to its beats.
    """

    config: WindowedConfig
    module: nn.Module
    hear: Callable[[Tensor], Tensor]
    track: Callable[[NDArray[np.float32]], TrackedBeats]
