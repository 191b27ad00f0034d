"""Sizes of a beat tracker, and the grid on which it hears a recording. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BeatTrackerConfig:
    """Sizes; the defaults are those of the committed weights.

    Args:
        sample_rate_hz: Of the audio, mono.
        hop_length: Samples between frames.
        fft_length: Samples of a frame's window.
        num_bands: Mel bands from 30 Hz to half the sample rate.
        pitch_fft_length: Samples of the window in which semitones are told apart.
        num_pitches: Semitones from `lowest_pitch_midi`.
        lowest_pitch_midi: The lowest semitone that the longer window tells from its neighbours.
        pitch_frames: Frames that one column of semitones stands for.
        pitch_channels: Of the convolution over semitones, half for each of two balances of high and low.
        lag_columns: How many columns back and ahead a column is compared with.
        num_channels: Of the convolutions over time and frequency.
        dim: Width of the layers over time.
        num_layers: Dilated layers, of dilation 1, 2, 4, and so on.
        kernel_frames: Frames that each dilated layer sees.
        window_frames: New frames of one window of the grid.
        context_frames: Frames heard before and after them.
    """

    sample_rate_hz: int = 16_000
    hop_length: int = 320
    fft_length: int = 1_024
    num_bands: int = 64
    pitch_fft_length: int = 4_096
    num_pitches: int = 60
    lowest_pitch_midi: int = 36
    pitch_frames: int = 4
    pitch_channels: int = 8
    lag_columns: int = 32
    num_channels: int = 16
    dim: int = 48
    num_layers: int = 10
    kernel_frames: int = 5
    window_frames: int = 1_000
    context_frames: int = 250

    def __post_init__(self) -> None:
        if self.num_bands % 16:
            raise ValueError(
                f"num_bands: expected a multiple of 16, got {self.num_bands}. The stem divides them by 16."
            )
        if self.kernel_frames % 2 == 0:
            raise ValueError(f"kernel_frames: expected an odd number, got {self.kernel_frames}.")
        if self.pitch_channels % 2:
            raise ValueError(f"pitch_channels: expected an even number, got {self.pitch_channels}.")
        column = self.pitch_frames * self.hop_length
        if self.pitch_fft_length < column:
            raise ValueError(
                f"pitch_fft_length: expected at least pitch_frames x hop_length, {column}, "
                f"got {self.pitch_fft_length}. Columns must not leave samples out."
            )
        if self.fft_length < self.hop_length:
            raise ValueError(
                f"fft_length: expected at least hop_length, {self.hop_length}, got {self.fft_length}. "
                "Frames must not leave samples out."
            )

    @property
    def frame_rate_hz(self) -> float:
        """Frames a second."""
        return self.sample_rate_hz / self.hop_length

    @property
    def window_samples(self) -> int:
        """Samples that `BeatTracker.window_activations` takes: the new frames and their context on both sides."""
        return (self.window_frames + 2 * self.context_frames) * self.hop_length
