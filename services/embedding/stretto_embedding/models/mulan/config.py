"""The sizes of a MuLan. Knows nothing of tensors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MuLanConfig:
    """The sizes of both towers and of the quantizer; the defaults are this project's own small one.

    Args:
        embedding_dim: D of the space that both share.
        window_s: The longest audio that the audio tower was trained to hear at once.
        stride_s: How far one window of longer audio lies after the one before.
        num_mel_bands: Bands of the log-mel spectrogram, a multiple of 8.
        stem_channels: Channels after the first (1/4) and the second (1/8 of the resolution) convolution.
        audio_dim: Width of the audio tower's transformer.
        audio_layers: Its layers.
        audio_heads: Its attention heads.
        num_rhythm_lags: Lags, of one frame each, of the autocorrelation of onsets; 0 for none.
        text_states_dim: Width of the text encoder's token states.
        text_dim: Width of the head on them.
        text_layers: Its layers.
        text_heads: Its attention heads.
        feed_forward_ratio: Width inside the feed-forward parts, in widths of their tower.
        num_codebooks: Levels of residual quantisation.
        cardinality: Entries of each of its codebooks.
        text_encoder: The encoder whose states the text tower reads.
    """

    embedding_dim: int = 128
    window_s: float = 10.24
    stride_s: float = 1.024
    num_mel_bands: int = 80
    stem_channels: tuple[int, int] = (32, 80)
    audio_dim: int = 160
    audio_layers: int = 4
    audio_heads: int = 5
    num_rhythm_lags: int = 200
    text_states_dim: int = 384
    text_dim: int = 144
    text_layers: int = 2
    text_heads: int = 4
    feed_forward_ratio: int = 2
    num_codebooks: int = 8
    cardinality: int = 256
    text_encoder: str = "minilm"

    def __post_init__(self) -> None:
        # A config read back from JSON has a list here.
        object.__setattr__(self, "stem_channels", tuple(self.stem_channels))
        if self.num_mel_bands % 8:
            raise ValueError(f"num_mel_bands must be a multiple of 8, got {self.num_mel_bands}.")
        for tower in ("audio", "text"):
            dim, heads = getattr(self, f"{tower}_dim"), getattr(self, f"{tower}_heads")
            if dim % heads:
                raise ValueError(f"{tower}_heads must divide {tower}_dim, got {heads} and {dim}.")


AST_BASE = MuLanConfig(
    stem_channels=(128, 256),
    audio_dim=768,
    audio_layers=12,
    audio_heads=12,
    num_rhythm_lags=0,
    text_states_dim=768,
    text_dim=768,
    text_layers=1,
    text_heads=12,
    feed_forward_ratio=4,
    num_codebooks=12,
    cardinality=1024,
    text_encoder="bert-base",
)
"""As large as published: AST's base transformer, a head on BERT-base, MusicLM's 12 x 1024 codes. Not trained here."""
