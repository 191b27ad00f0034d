"""Where the tokens of a window stand to each other, and which relative bias each pair gets.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (T5, 2020),
https://arxiv.org/abs/1910.10683: a learned number for each head and bucket of distance, one table for all layers;
buckets are single distances up to half of their number, then grow as logarithms do.

Departure: only within a segment is distance counted in tokens. From one segment to another it is counted in time, in
frames of the segment that is looked at, to both sides and in a table of its own: so a token finds the moment that it
stands for in the melody or the source however long the window is, where a distance in tokens would change with every
frame. To the codes of a style, which belong to no moment, it is always 0.

Legend: L positions of a window, prefix first, S of them in the stream; K, U, J, W as in `config`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stretto_shared.nn.stage_lm.config import StageConfig


@dataclass(frozen=True)
class Layout:
    """The lengths of one window.

    Args:
        num_melody_frames: U; the segment is there in every window of a model that hears melodies.
        num_source_frames: W.
        num_steps: S, columns of the stream, its start included.
    """

    num_melody_frames: int
    num_source_frames: int
    num_steps: int

    def num_prefix(self, config: StageConfig) -> int:
        """Positions before the stream: for each segment a start and its codes."""
        return sum(1 + segment.num_tokens for segment in self.prefix(config))

    def prefix(self, config: StageConfig) -> list[Segment]:
        """The segments that this model reads before its stream, in order."""
        segments = [
            Segment(0.0, config.num_style_codes, config.num_style_codes),
            Segment(
                config.melody_frame_rate_hz,
                config.num_melody_codebooks,
                config.num_melody_codebooks * self.num_melody_frames,
            ),
            Segment(
                config.source_frame_rate_hz,
                config.num_source_codebooks,
                config.num_source_codebooks * self.num_source_frames,
            ),
        ]
        return [segment for segment in segments if segment.num_codebooks]


@dataclass(frozen=True)
class Segment:
    """A stretch of tokens of one kind: its frame rate (0: of no moment), codebooks and tokens."""

    frame_rate_hz: float
    num_codebooks: int
    num_tokens: int


def relative_bucket(distance: Tensor, *, num_buckets: int, max_distance: int, is_causal: bool) -> Tensor:
    """T5's bucket of each distance (position of the key minus that of the query).

    Args:
        distance: Whole numbers of any shape.
        num_buckets: Of both sides together; half for each where not causal.
        max_distance: From which on all share the last bucket.
        is_causal: Whether keys after the query are never looked at; they share bucket 0.
    """
    if is_causal:
        side, far = torch.zeros_like(distance), (-distance).clamp(min=0)
    else:
        num_buckets //= 2
        side, far = (distance > 0).long() * num_buckets, distance.abs()
    num_exact = num_buckets // 2
    grown = torch.log(far.clamp(min=1).float() / num_exact) / math.log(max_distance / num_exact)
    grown = (num_exact + (grown * (num_buckets - num_exact)).long()).clamp(max=num_buckets - 1)
    return side + torch.where(far < num_exact, far, grown)


def bias_rows(config: StageConfig, layout: Layout) -> Tensor:
    """The row of the bias table for each pair of query and key, int64 [L, L]; what lies ahead of a query is 0.

    Rows 0 to `num_buckets` - 1 are of pairs within a segment, then come as many for each segment of the prefix.
    """
    where = list(_positions(config, layout))
    index = torch.arange(len(where))
    segment = torch.tensor([at.segment for at in where])
    token = torch.tensor([at.token for at in where])
    frame = torch.tensor([at.frame for at in where])
    time_s = torch.tensor([at.time_s for at in where], dtype=torch.float64)
    rate_hz = torch.tensor([at.frame_rate_hz for at in where], dtype=torch.float64)
    sizes = {"num_buckets": config.num_buckets, "max_distance": config.max_distance}
    within = relative_bucket(token[None, :] - token[:, None], is_causal=True, **sizes)
    now = torch.floor(time_s[:, None] * rate_hz[None, :] + 1e-6).long()
    across = relative_bucket((frame[None, :] - now) * (rate_hz > 0)[None, :], is_causal=False, **sizes)
    rows = torch.where(
        segment[:, None] == segment[None, :], within, across + (1 + segment[None, :]) * config.num_buckets
    )
    return torch.where(index[None, :] > index[:, None], 0, rows)


@dataclass(frozen=True)
class _Position:
    segment: int
    token: int  # 0 for the start of the segment
    frame: int  # that the token lies in; before the first one for the start
    time_s: float  # of the moment that the position is about: of the stream, what it predicts
    frame_rate_hz: float


def _positions(config: StageConfig, layout: Layout) -> Iterator[_Position]:
    segments = layout.prefix(config)
    for number, segment in enumerate(segments):
        for token in range(1 + segment.num_tokens):
            frame = (token - 1) // segment.num_codebooks
            time_s = max(0, frame) / segment.frame_rate_hz if segment.frame_rate_hz else 0.0
            yield _Position(number, token, frame, time_s, segment.frame_rate_hz)
    for token in range(layout.num_steps):
        frame = token // config.num_codebooks
        yield _Position(len(segments), token, frame, frame / config.frame_rate_hz, config.frame_rate_hz)
