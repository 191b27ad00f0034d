"""`WindowGrid`: where the windows lie on which a model hears audio of any length."""

from __future__ import annotations

from dataclasses import dataclass

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
