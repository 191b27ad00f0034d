"""The grid of chunks: a function of the frame rate alone, short at first, and never faster than a player."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from stretto_codec.models.streaming import DecodeGrid, grid_of


def grid_at(frame_rate_hz: float) -> DecodeGrid:
    config: Any = SimpleNamespace(frame_rate_hz=frame_rate_hz)
    return grid_of(config)


@pytest.mark.parametrize("frame_rate_hz", [1.0, 5.0, 12.5, 25.0, 50.0, 75.0, 93.75])
@pytest.mark.parametrize("num_frames", [1, 2, 9, 100])
def test_chunks_follow_each_other_and_only_the_last_is_cut_short(frame_rate_hz: float, num_frames: int) -> None:
    grid = grid_at(frame_rate_hz)
    cuts = list(grid.cuts(num_frames))
    assert [frame for start, stop in cuts for frame in range(start, stop)] == list(range(num_frames))
    assert all(stop - start == grid.size(index) for index, (start, stop) in enumerate(cuts[:-1]))
    assert {grid.size(index) for index in range(1, 50)} | {grid.size(0)} == set(grid.kinds)
    assert grid.size(0) == grid.kinds[0]


def test_the_first_chunk_is_a_fifth_of_a_second_and_later_ones_two_fifths() -> None:
    grid = grid_at(50.0)
    assert (grid.size(0), grid.size(10_000)) == (10, 20)
    assert DecodeGrid(7).size(0) == 7


def test_a_player_that_begins_with_the_first_audio_never_runs_dry_at_four_fifths_of_the_time() -> None:
    frame_s, made_in_s, lag_s = 0.02, 0.8 * 0.02, 2402 / 32_000
    cuts = list(grid_at(50.0).cuts(2000))
    begins_s = cuts[0][1] * made_in_s
    for (_, played), (_, wanted) in itertools.pairwise(cuts):
        runs_dry_s = begins_s + played * frame_s - lag_s
        assert wanted * made_in_s <= runs_dry_s, (played, wanted)
