"""Sizes of a w2v-BERT and the fixed grid of windows on which it tokenises. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FRAME_RATE_HZ = 25.0
MEL_FRAMES_PER_TOKEN = 4  # log-mel has 100 frames a second


@dataclass(frozen=True)
class FrameGrid:
    """Where the windows of a stream begin and what each of them hears, in frames of 25 a second from the audio's start.

    Window i gives the frames from `i * window` on, and hears `left` frames before and `right` after them; what lies
    outside the audio is silence. Every window is computed alone and has one length, so that a stream gives what a whole
    file gives (`tests/services/semantic/test_w2vbert.py`).

    Args:
        window: Frames that a window gives.
        left: Frames that it hears before them.
        right: Frames that it hears after them.
    """

    window: int = 64
    left: int = 32
    right: int = 32

    def __post_init__(self) -> None:
        if self.window < 1 or self.left < 0 or self.right < 0:
            raise ValueError(f"window must be at least 1, left and right at least 0, got {self}. Correct the grid.")

    @property
    def reach(self) -> int:
        """Frames that a window hears in all."""
        return self.left + self.window + self.right

    def starts(self, num_frames: int) -> Iterator[int]:
        """First frame that each window gives, for audio of so many frames; the last may reach past the end."""
        return iter(range(0, num_frames, self.window))


@dataclass(frozen=True)
class W2vBertConfig:
    """Sizes of a w2v-BERT; the defaults are the published XL version of 600 M parameters.

    Args:
        num_mel_bands: Bands of the log-mel input.
        dim: Width of the conformer layers.
        num_heads: Attention heads; they divide `dim`.
        feed_forward_dim: Inner width of the half-step feed-forwards.
        kernel_size: Frames that the depthwise convolution of a layer spans; odd.
        subsampling_channels: Channels of the two strided convolutions.
        num_contrastive_layers: Layers of the contrastive module.
        num_masked_layers: Layers of the masked-prediction module after it.
        dropout: In training only.
        grid: Windows for tokenising; training crops have its reach.
    """

    num_mel_bands: int = 80
    dim: int = 1024
    num_heads: int = 8
    feed_forward_dim: int = 4096
    kernel_size: int = 5
    subsampling_channels: int = 128
    num_contrastive_layers: int = 12
    num_masked_layers: int = 12
    dropout: float = 0.1
    grid: FrameGrid = FrameGrid()

    def __post_init__(self) -> None:
        if isinstance(self.grid, dict):  # as it comes from JSON and TOML
            object.__setattr__(self, "grid", FrameGrid(**self.grid))
        if self.dim % self.num_heads or self.dim % 2:
            raise ValueError(f"num_heads must divide an even dim, got {self.num_heads} and {self.dim}. Change one.")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}. Add one.")
        if self.num_mel_bands % MEL_FRAMES_PER_TOKEN:
            raise ValueError(f"num_mel_bands must be a multiple of 4, got {self.num_mel_bands}. Change it.")

    @property
    def num_layers(self) -> int:
        """Layers of both modules."""
        return self.num_contrastive_layers + self.num_masked_layers


@dataclass(frozen=True)
class TokenizerConfig(W2vBertConfig):
    """A w2v-BERT cut off after the layer whose output is turned into tokens.

    Args:
        feature_layer: How many layers are run.
        num_centroids: Tokens lie below this number.
    """

    feature_layer: int = 13
    num_centroids: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.feature_layer <= self.num_layers:
            raise ValueError(
                f"feature_layer must lie within the {self.num_layers} layers, got {self.feature_layer}. Lower it."
            )
