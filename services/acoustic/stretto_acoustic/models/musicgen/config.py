"""`MusicGenConfig`: the geometry of a MusicGen language model, and the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from stretto_shared.engine.delay import delays_for

MelodyConditioning = Literal["none", "prefix", "prefix_only"]


@dataclass(frozen=True)
class MusicGenConfig:
    """Geometry of one MusicGen language model. Frame rates and ids say what the tokens and the text states are.

    Args:
        num_codebooks: K, streams of tokens; stereo models interleave L0, R0, L1, R1, and so on.
        cardinality: Codes of each codebook; the special token is this number.
        dim: Width of the transformer.
        num_layers: Blocks of the transformer.
        num_heads: Attention heads; divides `dim`.
        ffn_dim: Hidden width of the feed-forward layers.
        text_dim: Width of the text encoder's states.
        max_frames: Longest piece in frames.
        attention_frames: How many steps back self-attention reaches, the present one included; a conditioning prefix
            is always in reach. 0: all of them, as published. A model trained on shorter crops than `max_frames` reaches
            as far as its crops.
        num_channels: 1, or 2 for stereo streams (delays 0, 0, 1, 1, ...).
        melody_conditioning: "none"; "prefix": text by cross-attention and chroma as a prefix; "prefix_only": chroma
            and text both as a prefix and no cross-attention, as in the published melody checkpoints.
        num_chroma: Pitch classes of a melody frame.
        chroma_frames: Longest melody in frames.
        chroma_frame_rate_hz: Melody frames per second.
        dropout: Of the residual branches and of the input, in training only.
        frame_rate_hz: Token frames per second.
        sample_rate_hz: Of the codec whose tokens these are.
        codec_id: `{name}` or `{name}@{digest prefix}` of that codec; names are what is compared.
        text_encoder_id: The same of the text encoder.
        temperature: Default of requests that set none; likewise `top_k`, `top_p` and `guidance_scale`.
    """

    num_codebooks: int = 4
    cardinality: int = 1024
    dim: int = 512
    num_layers: int = 8
    num_heads: int = 8
    ffn_dim: int = 2048
    text_dim: int = 384
    max_frames: int = 1500
    attention_frames: int = 0
    num_channels: int = 1
    melody_conditioning: MelodyConditioning = "none"
    num_chroma: int = 12
    chroma_frames: int = 235
    chroma_frame_rate_hz: float = 7.8125
    dropout: float = 0.0
    frame_rate_hz: float = 50.0
    sample_rate_hz: int = 24_000
    codec_id: str = "framecodec"
    text_encoder_id: str = "minilm"
    temperature: float = 1.0
    top_k: int = 250
    top_p: float = 1.0
    guidance_scale: float = 3.0

    def __post_init__(self) -> None:
        if self.dim % self.num_heads or self.dim % 2 or self.dim < 4:
            raise ValueError(f"dim must be even and a multiple of num_heads, got {self.dim} and {self.num_heads}.")
        if self.melody_conditioning not in ("none", "prefix", "prefix_only"):
            raise ValueError(
                f"melody_conditioning must be none, prefix or prefix_only, got {self.melody_conditioning!r}."
            )
        delays_for(self.num_codebooks, self.num_channels)

    @property
    def special_token(self) -> int:
        return self.cardinality

    @property
    def delays(self) -> tuple[int, ...]:
        return delays_for(self.num_codebooks, self.num_channels)

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def has_cross_attention(self) -> bool:
        return self.melody_conditioning != "prefix_only"

    @property
    def max_steps(self) -> int:
        """Columns of the longest piece."""
        return self.max_frames + max(self.delays)

    @property
    def max_duration_s(self) -> float:
        return self.max_frames / self.frame_rate_hz


def _published(dim: int, num_layers: int, num_heads: int) -> MusicGenConfig:
    return MusicGenConfig(
        num_codebooks=4,
        cardinality=2048,
        dim=dim,
        num_layers=num_layers,
        num_heads=num_heads,
        ffn_dim=4 * dim,
        text_dim=768,
        max_frames=1500,
        frame_rate_hz=50.0,
        sample_rate_hz=32_000,
        codec_id="encodec_32khz",
        text_encoder_id="t5-base",
    )


PRESETS: Mapping[str, MusicGenConfig] = MappingProxyType(
    {
        "tiny": MusicGenConfig(cardinality=64, dim=32, num_layers=2, num_heads=4, ffn_dim=64, text_dim=16),
        "default": MusicGenConfig(melody_conditioning="prefix"),
        "small": _published(1024, 24, 16),
        "medium": _published(1536, 48, 24),
        "large": _published(2048, 48, 32),
    }
)
