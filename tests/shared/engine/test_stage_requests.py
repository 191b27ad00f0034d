"""What a piece needs of the stage before it, where the two count in frames of different lengths."""

from __future__ import annotations

import dataclasses
import math

import pytest
from stretto_shared.engine.stage_requests import StagePiece, StageRequest, layout_of
from stretto_shared.features import SamplingOptions
from stretto_shared.nn.stage_lm.config import StageConfig

COARSE = StageConfig(
    num_codebooks=4,
    cardinality=16,
    frame_rate_hz=12.5,
    window_s=5.12,
    stride_s=2.56,
    num_source_codebooks=1,
    source_cardinality=9,
    source_frame_rate_hz=25.0,
    dim=16,
    num_layers=1,
    num_heads=2,
    feed_forward_dim=16,
    tokens="codec",
    source_tokens="tokenizer",
)
FINE = dataclasses.replace(COARSE, source_frame_rate_hz=12.5, num_source_codebooks=4, window_s=2.56, stride_s=1.28)


def piece(duration_s: float, config: StageConfig) -> StagePiece:
    return StagePiece(StageRequest("stage", duration_s, 1, SamplingOptions()), config)


@pytest.mark.parametrize("duration_s", [0.1, 0.3, 0.5, 1.0, 2.6, 3.0, 5.12, 7.77, 10.0, 33.0])
@pytest.mark.parametrize("config", [COARSE, FINE])
def test_a_piece_asks_for_no_more_than_the_stage_before_makes_of_the_same_length(
    duration_s: float, config: StageConfig
) -> None:
    wanted = piece(duration_s, config)
    num_made = math.ceil(duration_s * config.source_frame_rate_hz - 1e-6)
    assert wanted.num_source_frames == num_made
    ranges = [wanted.source_range(window) for window in layout_of(config).windows(wanted.num_frames)]
    assert max(stop for _, stop in ranges) == num_made
    assert all(start < stop for start, stop in ranges)
    assert ranges[0][0] == 0
