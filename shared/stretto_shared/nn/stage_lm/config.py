"""What one stage of a cascade of token language models is, and what it is told.

A stage reads a prefix, which is what it is told, and then goes on with a flattened stream of tokens: codebook 0 to
K - 1 of frame 0, then of frame 1, and so on, as in AudioLM (Borsos et al. 2022, https://arxiv.org/abs/2209.03143) and
MusicLM (Agostinelli et al. 2023, https://arxiv.org/abs/2301.11325). The prefix of a window is, in this order: the codes
of a style, those of a melody, and the tokens of the stage before for the same stretch of time.

Legend: K codebooks of the stage's own tokens, T frames, Q codes of a style, N codebooks and U columns of a melody, J
codebooks and W frames of the source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StageConfig:
    """The sizes of one stage.

    Args:
        num_codebooks: K; a fine stage makes the codebooks after those of its source.
        cardinality: Entries of each of the stage's own codebooks.
        frame_rate_hz: Frames a second of the stage's own tokens.
        window_s: The longest stretch of time that one prefix and its stream span.
        stride_s: How far one window lies after the one before; what they share is the prompt of the later one.
        num_style_codes: Q; 0 for a stage that hears no style.
        style_cardinality: Entries of each codebook of a style.
        num_melody_codebooks: N; 0 for a stage that hears no melody.
        melody_cardinality: Entries of each codebook of a melody.
        melody_frame_rate_hz: Columns a second of a melody.
        num_source_codebooks: J; 0 for a stage that has no stage before it.
        source_cardinality: Entries of each codebook of the source.
        source_frame_rate_hz: Frames a second of the source.
        dim: Width.
        num_layers: Layers.
        num_heads: Attention heads; a divisor of `dim`.
        feed_forward_dim: Width inside the feed-forward part.
        num_buckets: Buckets of relative distance, as in T5.
        max_distance: Distance from which on all share the last bucket.
        table_dim: Width of the tables of tokens, which a matrix brings to `dim`.
        tokens: What speaks the stage's own tokens, as `{name}@{12 hex digits of its weights' sha256}`.
        source_tokens: The same of the source; empty without one.
        style_encoder: The same of the encoder whose codes are styles; empty without them.
        melody_encoder: The same of melodies.
        sample_rate_hz: Of the audio that the tokens stand for.
        temperature: Default of drawing, as the three below.
        top_k: 0 for all.
        top_p: 1 for all.
        guidance_scale: 1 for none.
    """

    num_codebooks: int
    cardinality: int
    frame_rate_hz: float
    window_s: float
    stride_s: float
    num_style_codes: int = 0
    style_cardinality: int = 0
    num_melody_codebooks: int = 0
    melody_cardinality: int = 0
    melody_frame_rate_hz: float = 0.0
    num_source_codebooks: int = 0
    source_cardinality: int = 0
    source_frame_rate_hz: float = 0.0
    dim: int = 256
    num_layers: int = 6
    num_heads: int = 4
    feed_forward_dim: int = 1024
    num_buckets: int = 32
    max_distance: int = 512
    table_dim: int = 64
    tokens: str = ""
    source_tokens: str = ""
    style_encoder: str = ""
    melody_encoder: str = ""
    sample_rate_hz: int = 24000
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance_scale: float = 1.0

    @property
    def window_frames(self) -> int:
        """Frames of a whole window."""
        return round(self.window_s * self.frame_rate_hz)

    @property
    def stride_frames(self) -> int:
        """Frames from the start of one window to that of the next."""
        return round(self.stride_s * self.frame_rate_hz)

    @property
    def hears_style(self) -> bool:
        return self.num_style_codes > 0

    @property
    def hears_melody(self) -> bool:
        return self.num_melody_codebooks > 0

    @property
    def hears_source(self) -> bool:
        return self.num_source_codebooks > 0

    def melody_frames(self, num_frames: int) -> int:
        """Columns U of a melody that a stretch of so many own frames spans: those that begin before its end."""
        return int(np.ceil(num_frames * self.melody_frame_rate_hz / self.frame_rate_hz - 1e-9))

    def source_frames(self, num_frames: int) -> int:
        """Source frames W that a stretch of so many own frames needs: those that begin before its end."""
        return int(np.ceil(num_frames * self.source_frame_rate_hz / self.frame_rate_hz - 1e-9))


@dataclass(frozen=True, eq=False)
class StageCondition:
    """What a stage is told of one window; None is what it is not told, and what guidance is measured against.

    Args:
        style: Codes int64 [Q].
        melody: Codes int64 [N, U].
        source: Tokens int64 [J, W] of the stage before.
    """

    style: NDArray[np.int64] | None = None
    melody: NDArray[np.int64] | None = None
    source: NDArray[np.int64] | None = None
