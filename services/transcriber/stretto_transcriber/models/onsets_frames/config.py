"""What an `OnsetsFrames` is: grid, front end, sizes, and the thresholds with which its notes are picked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LOWEST_PITCH = 21
NUM_PITCHES = 88
RELEASE_RATE_HZ = 50.0
"""Frames a second of what the network of `releases.py` reads."""

Front = Literal["mel", "harmonic"]


@dataclass(frozen=True)
class OnsetsFramesConfig:
    """The sizes of an `OnsetsFrames`.

    Args:
        front: "mel" is the papers' network, "harmonic" the house's, which shares its weights over pitch.
        sample_rate_hz: Rate of the mono audio.
        hop_length: Samples of a frame.
        frame_centre: Where in its hop a frame is centred: 0 at its first sample, as in the papers, 0.5 in the middle.
        window_frames: Frames that a window gives.
        context_frames: Frames that it hears before and after them.
        num_mel_bands: Of the mel front end.
        conv_channels: Channels of the first two convolutions of a mel stack; the third has twice as many.
        fc_size: Of a mel stack's last layer.
        lstm_size: Hidden numbers of an LSTM, each direction.
        has_offset_head: Whether note ends are heard by themselves (2019) or are where frames end (2018).
        has_key_head: Whether it hears, besides how long notes sound, how long their keys are down.
        stem_channels: Of the harmonic front end, on the fine frequency axis.
        fold_channels: Of the same, on the axis of semitones.
        branch_channels: Of its convolutions over pitches.
        combined_lstm_size: Hidden numbers of the last recurrent layer, each direction.
        regression_s: How far from an onset or offset its target reaches as it falls linearly from 1 (Kong et al.); 0
            for hard labels.
        onset_threshold: An onset's least height.
        offset_threshold: An offset's least height.
        frame_threshold: Below it a note has ended.
        key_threshold: Below it a key has been released that was struck just now.
        held_key_threshold: Below it one has been released that was held for a second; between, in proportion. None is
            as `key_threshold`.
        release_channels: Of the network that tells when notes end from their surroundings (`releases.py`); 0 for none.
            It reads what the key head says.
        key_level: A key is released where the chance that it is still down falls to this; with that network only.
        sound_level: The same of sounds; 0 leaves their ends to the frame head.

    Raises:
        ValueError: On a size below one, a front end that is not known, a level that is no chance, or a network of
            releases at another frame rate than its own or without a key head.
    """

    front: Front = "harmonic"
    sample_rate_hz: int = 16_000
    hop_length: int = 320
    frame_centre: float = 0.5
    window_frames: int = 400
    context_frames: int = 50
    num_mel_bands: int = 229
    conv_channels: int = 48
    fc_size: int = 768
    lstm_size: int = 40
    has_offset_head: bool = True
    has_key_head: bool = False
    stem_channels: int = 16
    fold_channels: int = 32
    branch_channels: int = 48
    combined_lstm_size: int = 24
    regression_s: float = 0.05
    onset_threshold: float = 0.3
    offset_threshold: float = 0.3
    frame_threshold: float = 0.3
    key_threshold: float = 0.3
    held_key_threshold: float | None = None
    release_channels: int = 0
    key_level: float = 0.5
    sound_level: float = 0.0

    def __post_init__(self) -> None:
        if self.front not in ("mel", "harmonic"):
            raise ValueError(f"front: expected 'mel' or 'harmonic', got {self.front!r}.")
        for name in (
            "sample_rate_hz", "hop_length", "window_frames", "num_mel_bands", "conv_channels", "fc_size", "lstm_size",
            "stem_channels", "fold_channels", "branch_channels", "combined_lstm_size",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        if self.context_frames < 0:
            raise ValueError(f"context_frames: expected at least 0, got {self.context_frames}.")
        if self.release_channels < 0 or (self.release_channels and not self.has_key_head):
            raise ValueError(f"release_channels: expected 0, or more with has_key_head, got {self.release_channels}.")
        if self.release_channels and self.frame_rate_hz != RELEASE_RATE_HZ:
            raise ValueError(
                f"release_channels: expected 0 at {self.frame_rate_hz:g} frames a second, got {self.release_channels}; "
                f"the network reads {RELEASE_RATE_HZ:g}."
            )
        for name in ("key_level", "sound_level"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: expected a chance from 0 to below 1, got {getattr(self, name)}.")

    @property
    def num_heads(self) -> int:
        """Numbers of a pitch in a frame: onset, offset, frame, velocity, and key if it is heard."""
        return 5 if self.has_key_head else 4

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop_length


def maestro_config() -> OnsetsFramesConfig:
    """The published network of Hawthorne et al. 2019: 26.5 M parameters."""
    return OnsetsFramesConfig(
        front="mel", hop_length=512, frame_centre=0.0, lstm_size=384, combined_lstm_size=384, regression_s=0.0,
        onset_threshold=0.5, offset_threshold=0.5, frame_threshold=0.5,
    )  # fmt: skip


def maps_config() -> OnsetsFramesConfig:
    """The published network of Hawthorne et al. 2018, without a head for offsets."""
    return OnsetsFramesConfig(
        front="mel", hop_length=512, frame_centre=0.0, conv_channels=32, fc_size=512, lstm_size=128,
        combined_lstm_size=128, has_offset_head=False, regression_s=0.0,
        onset_threshold=0.5, offset_threshold=0.5, frame_threshold=0.5,
    )  # fmt: skip
