"""The delay pattern."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stretto_shared.engine.delay import apply_delay, delays_for, num_columns, revert_delay, target_mask


def test_mono_and_stereo_delays_are_those_of_the_paper() -> None:
    assert delays_for(4) == (0, 1, 2, 3)
    assert delays_for(8, num_channels=2) == (0, 0, 1, 1, 2, 2, 3, 3)
    with pytest.raises(ValueError, match="channels"):
        delays_for(3, num_channels=2)


def test_the_pattern_is_the_one_in_the_docstring() -> None:
    codes = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert apply_delay(codes, (0, 1, 2), 0).tolist() == [[0, 1, 2, 3, 0, 0], [0, 0, 4, 5, 6, 0], [0, 0, 0, 7, 8, 9]]


@settings(max_examples=60, deadline=None)
@given(
    num_codebooks=st.integers(1, 8),
    num_frames=st.integers(0, 20),
    num_rows=st.integers(1, 3),
    is_stereo=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_reverting_gives_the_frames_back(
    num_codebooks: int, num_frames: int, num_rows: int, is_stereo: bool, seed: int
) -> None:
    num_channels = 2 if is_stereo and num_codebooks % 2 == 0 else 1
    delays = delays_for(num_codebooks, num_channels)
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 50, (num_rows, num_codebooks, num_frames), generator=generator)
    delayed = apply_delay(codes, delays, 50)
    assert delayed.shape == (num_rows, num_codebooks, num_columns(num_frames, delays))
    assert torch.equal(revert_delay(delayed, delays), codes)
    assert (delayed[..., 0] == 50).all()
    assert torch.equal(target_mask(num_frames, delays).expand(num_rows, -1, -1), delayed[..., 1:] != 50)
