"""The sizes of a CLAP, and how `transformers` writes them. Knows nothing of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stretto_embedding.models.minilm import MiniLmConfig

NUM_SKIPPED_POSITIONS = 2  # RoBERTa's first two rows of positions belong to padding


@dataclass(frozen=True)
class SwinConfig:
    """The audio tower; the defaults are larger_clap_music's (HTSAT-base).

    Args:
        num_mel_bands: Of the spectrogram.
        image_size: Side of the square that the spectrogram is folded into, `image_size // num_mel_bands` stripes high.
        patch_size: Side of a patch.
        patch_stride: From one patch to the next.
        window_size: Side, in patches, of the windows that attention stays in.
        dim: Width of the first stage; each stage doubles it.
        depths: Layers of each stage.
        num_heads: Heads of each stage.
        feed_forward_ratio: Width inside the feed-forward parts, in widths of their stage.
        has_query_key_value_bias: Whether these projections have one.
        norm_epsilon: Of the layers' norms.
    """

    num_mel_bands: int = 64
    image_size: int = 256
    patch_size: int = 4
    patch_stride: int = 4
    window_size: int = 8
    dim: int = 128
    depths: tuple[int, ...] = (2, 2, 12, 2)
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    feed_forward_ratio: float = 4.0
    has_query_key_value_bias: bool = True
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.num_heads):
            raise ValueError(f"depths and num_heads must be as many, got {self.depths} and {self.num_heads}.")
        if self.image_size % self.num_mel_bands or self.num_frames % self.num_stripes:
            raise ValueError(
                f"image_size must be a multiple of num_mel_bands, got {self.image_size} and {self.num_mel_bands}."
            )
        for stage in range(len(self.depths)):
            side = self.side_of(stage)
            if side < 1 or side % min(side, self.window_size):
                raise ValueError(
                    f"stage {stage} has {side} patches a side, which windows of {self.window_size} do not cut."
                )

    @property
    def num_stripes(self) -> int:
        """Pieces of time that lie on top of each other in the square."""
        return self.image_size // self.num_mel_bands

    @property
    def num_frames(self) -> int:
        """Frames that the spectrogram is stretched to."""
        return self.image_size * self.num_stripes

    @property
    def output_dim(self) -> int:
        """Width of the last stage."""
        return self.dim << (len(self.depths) - 1)

    def side_of(self, stage: int) -> int:
        """Patches on a side of a stage's square."""
        return (self.image_size // self.patch_stride) >> stage


@dataclass(frozen=True)
class ClapConfig:
    """Both towers and the width of the space that they share."""

    audio: SwinConfig = field(default_factory=SwinConfig)
    text: MiniLmConfig = field(
        default_factory=lambda: MiniLmConfig(50_265, 768, 12, 12, 3_072, 514 - NUM_SKIPPED_POSITIONS, 1e-12)
    )
    embedding_dim: int = 512


@dataclass(frozen=True)
class FrontEndConfig:
    """How audio becomes a spectrogram; the defaults are larger_clap_music's."""

    sample_rate_hz: int = 48_000
    window_s: float = 10.0
    fft_length: int = 1_024
    hop_length: int = 480
    num_mel_bands: int = 64
    low_hz: float = 50.0
    high_hz: float = 14_000.0

    @property
    def num_samples(self) -> int:
        """Samples of a window."""
        return round(self.window_s * self.sample_rate_hz)


def config_from_hf(config: Mapping[str, Any]) -> ClapConfig:
    """The sizes in a `config.json` of `transformers.ClapModel`; what it leaves out has that class's default.

    Raises:
        ValueError: If it is a CLAP of another kind: with feature fusion, or with other activations.
    """
    audio, text = config.get("audio_config") or {}, config.get("text_config") or {}
    if audio.get("enable_fusion", False):
        raise ValueError("expected a CLAP without feature fusion: it hears three random crops of long audio at once.")
    _expect(audio, "hidden_act", "gelu")
    _expect(text, "hidden_act", "gelu")
    _expect(config, "projection_hidden_act", "relu")
    _expect(audio, "enable_patch_layer_norm", True)
    _expect(audio, "flatten_patch_embeds", True)
    _expect(audio, "patch_embed_input_channels", 1)
    return ClapConfig(
        audio=SwinConfig(
            num_mel_bands=int(audio.get("num_mel_bins", 64)),
            image_size=int(audio.get("spec_size", 256)),
            patch_size=_side(audio.get("patch_size", 4)),
            patch_stride=_side(audio.get("patch_stride", 4)),
            window_size=int(audio.get("window_size", 8)),
            dim=int(audio.get("patch_embeds_hidden_size", 96)),
            depths=tuple(audio.get("depths", (2, 2, 6, 2))),
            num_heads=tuple(audio.get("num_attention_heads", (4, 8, 16, 32))),
            feed_forward_ratio=float(audio.get("mlp_ratio", 4.0)),
            has_query_key_value_bias=bool(audio.get("qkv_bias", True)),
            norm_epsilon=float(audio.get("layer_norm_eps", 1e-5)),
        ),
        text=MiniLmConfig(
            vocabulary_size=int(text.get("vocab_size", 50_265)),
            dimension=int(text.get("hidden_size", 768)),
            num_layers=int(text.get("num_hidden_layers", 12)),
            num_heads=int(text.get("num_attention_heads", 12)),
            feed_forward_dimension=int(text.get("intermediate_size", 3_072)),
            max_tokens=int(text.get("max_position_embeddings", 514)) - NUM_SKIPPED_POSITIONS,
            norm_epsilon=float(text.get("layer_norm_eps", 1e-12)),
        ),
        embedding_dim=int(config.get("projection_dim", 512)),
    )


def front_end_from_hf(config: Mapping[str, Any]) -> FrontEndConfig:
    """The sizes in a `preprocessor_config.json` of `transformers.ClapFeatureExtractor`.

    Raises:
        ValueError: If it hears long or short audio in another way than `FrontEnd` does.
    """
    if config.get("truncation", "fusion") != "rand_trunc" or config.get("padding", "repeatpad") != "repeatpad":
        raise ValueError("expected truncation 'rand_trunc' and padding 'repeatpad' in preprocessor_config.json.")
    if config.get("top_db") is not None:
        raise ValueError(f"expected no top_db in preprocessor_config.json, got {config['top_db']}.")
    return FrontEndConfig(
        sample_rate_hz=int(config.get("sampling_rate", 48_000)),
        window_s=float(config.get("max_length_s", 10)),
        fft_length=int(config.get("fft_window_size", 1_024)),
        hop_length=int(config.get("hop_length", 480)),
        num_mel_bands=int(config.get("feature_size", 64)),
        low_hz=float(config.get("frequency_min", 0)),
        high_hz=float(config.get("frequency_max", 14_000)),
    )


def _expect(config: Mapping[str, Any], key: str, wanted: object) -> None:
    if config.get(key, wanted) != wanted:
        raise ValueError(f"expected {key} {wanted!r} in config.json, got {config[key]!r}.")


def _side(value: int | list[int]) -> int:
    """The side of a square that may be written as both of its sides."""
    sides = [value] if isinstance(value, int) else value
    if len(set(sides)) != 1:
        raise ValueError(f"expected a square, got {value}.")
    return int(sides[0])
