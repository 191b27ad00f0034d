"""What every semantic tokenizer offers, and the grid of windows on which it hears audio of any length.

Legend: N windows, S samples, T frames, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Silence = tuple[int, int]
"""Of a padded window, how many frames at its beginning and its end lie wholly outside the audio."""


@dataclass(frozen=True)
class WindowGrid:
    """Where windows lie in audio, in frames counted from its start, whatever the messages it came in.

    Args:
        hop_length: Samples of a frame.
        window_frames: Frames that a window gives.
        left_frames: Frames heard before them.
        right_frames: Frames heard after them.
        is_padded: Whether a window that reaches past the audio's ends is filled up with silence, and so always as long;
            else it ends with the audio's first or last frame.
        margin: Samples heard on both sides beyond the outermost frames, which reach into them; past the audio's ends
            always silence.
    """

    hop_length: int
    window_frames: int
    left_frames: int = 0
    right_frames: int = 0
    is_padded: bool = True
    margin: int = 0

    def __post_init__(self) -> None:
        least = min(self.left_frames, self.right_frames, self.margin)
        if min(self.hop_length, self.window_frames) < 1 or least < 0:
            raise ValueError(f"expected a hop and a window of at least 1 and contexts of at least 0, got {self}.")

    @property
    def num_samples(self) -> int:
        """Samples of a window that the audio's ends do not cut."""
        return (self.left_frames + self.window_frames + self.right_frames) * self.hop_length + 2 * self.margin


class Listener(Protocol):
    """A model in eval mode that hears windows; `features` belongs on its model thread."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the mono audio that it hears."""

    @property
    def frame_rate_hz(self) -> float:
        """Frames a second: the rate of the audio by the grid's hop."""

    @property
    def width(self) -> int:
        """Of its features."""

    @property
    def grid(self) -> WindowGrid:
        """On what windows it hears."""

    def features(self, samples: Tensor, silences: Sequence[Silence]) -> Tensor:
        """What it makes of each frame heard, contexts included: [N, T * hop + 2 * margin] to [N, T, D].

        `silences` has an entry for each window.
        """


class Tokenizer(Protocol):
    """A tokenizer in eval mode; `scores` belongs on its model thread."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the mono audio that it hears."""

    @property
    def frame_rate_hz(self) -> float:
        """Tokens a second: the rate of the audio by the grid's hop."""

    @property
    def cardinality(self) -> int:
        """Ids are in [0, cardinality)."""

    @property
    def grid(self) -> WindowGrid:
        """On what windows it hears."""

    def scores(self, samples: Tensor, silences: Sequence[Silence]) -> Tensor:
        """How well each id fits each frame heard, contexts included: [N, T * hop + 2 * margin] to [N, T, V].

        The highest score is the token. `silences` has an entry for each window.
        """
