"""The geometries of EnCodec. Knows no tensors.

`GEOMETRIES` holds the three published ones under the names of their checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class EncodecConfig:
    """One geometry of EnCodec.

    Invariant: time group normalisation, which looks at a whole clip, comes only with segments of a fixed length.

    Args:
        sample_rate_hz: Samples per second and channel.
        num_channels: 1 or 2.
        num_codebooks: Levels of the residual quantizer.
        cardinality: Entries of each codebook.
        ratios: Strides of the decoder, coarse to fine; their product is `hop_length`.
        num_filters: Channels of the finest layer; each stride doubles them.
        hidden_size: Width of the latent that is quantized.
        num_residual_layers: Residual units before each stride.
        kernel_size: Taps of the first convolution of encoder and decoder.
        last_kernel_size: Taps of their last convolution.
        residual_kernel_size: Taps of the first convolution of a residual unit.
        dilation_base: The dilation of residual unit j is `dilation_base ** j`.
        compress: A residual unit is this many times narrower inside.
        num_lstm_layers: Layers of the LSTM beside the latent.
        norm: `weight_norm` (folded into the weights on load) or `time_group_norm`.
        causal: Whether a convolution sees only the past.
        conv_shortcut: Whether a residual unit has a convolution in its skip.
        pad_mode: How a clip's ends are padded.
        normalize: Whether each segment is divided by its loudness.
        segment_s: Length of a segment; None runs the whole clip as one.
        overlap: Fraction of a segment that it shares with the next.
    """

    sample_rate_hz: int = 24_000
    num_channels: int = 1
    num_codebooks: int = 32
    cardinality: int = 1024
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    num_filters: int = 32
    hidden_size: int = 128
    num_residual_layers: int = 1
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_base: int = 2
    compress: int = 2
    num_lstm_layers: int = 2
    norm: str = "weight_norm"
    causal: bool = True
    conv_shortcut: bool = True
    pad_mode: str = "reflect"
    normalize: bool = False
    segment_s: float | None = None
    overlap: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratios", tuple(self.ratios))
        if self.norm not in ("weight_norm", "time_group_norm"):
            raise ValueError(f"norm: expected 'weight_norm' or 'time_group_norm', got {self.norm!r}.")
        if self.norm == "time_group_norm" and (self.causal or self.segment_s is None):
            raise ValueError("norm: 'time_group_norm' needs causal=False and a segment_s.")
        if self.normalize and self.segment_s is None:
            raise ValueError("normalize: a loudness per segment needs a segment_s.")

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.ratios)

    @property
    def frame_rate_hz(self) -> float:
        """Frames per second; frames of overlapping segments count once each."""
        return float(math.ceil(self.sample_rate_hz / self.hop_length))

    @property
    def segment_length(self) -> int | None:
        """Samples of a segment, or None."""
        return None if self.segment_s is None else int(self.segment_s * self.sample_rate_hz)

    @property
    def segment_stride(self) -> int | None:
        """Samples from the start of a segment to the start of the next, or None."""
        return None if self.segment_length is None else max(1, int((1 - self.overlap) * self.segment_length))

    @property
    def segment_frames(self) -> int | None:
        """Frames of a whole segment, or None."""
        return None if self.segment_length is None else math.ceil(self.segment_length / self.hop_length)


def from_hugging_face(config: Mapping[str, Any]) -> EncodecConfig:
    """Read the `config.json` of a Hugging Face EnCodec checkpoint.

    Raises:
        ValueError: If it describes something that this implementation does not have.
    """
    if config.get("model_type") != "encodec":
        raise ValueError(f"model_type: expected 'encodec', got {config.get('model_type')!r}.")
    hidden_size = config.get("hidden_size", 128)
    if config.get("codebook_dim") not in (None, hidden_size):
        raise ValueError(f"codebook_dim: expected the hidden size {hidden_size}, got {config['codebook_dim']}.")
    if config.get("trim_right_ratio", 1.0) != 1.0:
        raise ValueError(f"trim_right_ratio: expected 1.0, got {config['trim_right_ratio']}.")
    sample_rate_hz = config.get("sampling_rate", 24_000)
    ratios = tuple(config.get("upsampling_ratios", (8, 5, 4, 2)))
    cardinality = config.get("codebook_size", 1024)
    bandwidth_kbps = config.get("target_bandwidths", (24.0,))[-1]
    frame_rate_hz = math.ceil(sample_rate_hz / math.prod(ratios))
    return EncodecConfig(
        sample_rate_hz=sample_rate_hz,
        num_channels=config.get("audio_channels", 1),
        num_codebooks=int(1000 * bandwidth_kbps // (frame_rate_hz * math.ceil(math.log2(cardinality)))),
        cardinality=cardinality,
        ratios=ratios,
        num_filters=config.get("num_filters", 32),
        hidden_size=hidden_size,
        num_residual_layers=config.get("num_residual_layers", 1),
        kernel_size=config.get("kernel_size", 7),
        last_kernel_size=config.get("last_kernel_size", 7),
        residual_kernel_size=config.get("residual_kernel_size", 3),
        dilation_base=config.get("dilation_growth_rate", 2),
        compress=config.get("compress", 2),
        num_lstm_layers=config.get("num_lstm_layers", 2),
        norm=config.get("norm_type", "weight_norm"),
        causal=config.get("use_causal_conv", True),
        conv_shortcut=config.get("use_conv_shortcut", True),
        pad_mode=config.get("pad_mode", "reflect"),
        normalize=config.get("normalize", False),
        segment_s=config.get("chunk_length_s"),
        overlap=config.get("overlap") or 0.01,
    )


GEOMETRIES: Mapping[str, EncodecConfig] = MappingProxyType(
    {
        "encodec_24khz": EncodecConfig(),
        "encodec_32khz": EncodecConfig(
            sample_rate_hz=32_000,
            num_codebooks=4,
            cardinality=2048,
            ratios=(8, 5, 4, 4),
            num_filters=64,
            causal=False,
            conv_shortcut=False,
        ),
        "encodec_48khz": EncodecConfig(
            sample_rate_hz=48_000,
            num_channels=2,
            num_codebooks=16,
            norm="time_group_norm",
            causal=False,
            normalize=True,
            segment_s=1.0,
        ),
    }
)
