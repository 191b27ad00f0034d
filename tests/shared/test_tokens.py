"""`TokenMatrix` keeps its invariant, and runs of frames join to the whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stretto_shared.errors import InvalidInput
from stretto_shared.tokens import MAX_CODEBOOKS, TokenMatrix, concatenate


def matrix(codes, rate_hz=50.0, codec_id="c@1"):
    return TokenMatrix(np.asarray(codes), rate_hz, codec_id)


def test_a_matrix_knows_its_size():
    tokens = matrix(np.zeros((4, 25)))
    assert (tokens.num_codebooks, tokens.num_frames, tokens.duration_s) == (4, 25, 0.5)
    assert tokens.codes.dtype == np.int32


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=5).map(sorted))
def test_cutting_and_joining_gives_the_same_matrix(cuts):
    whole = matrix(np.arange(80).reshape(2, 40))
    edges = [0, *cuts, 40]
    joined = concatenate([whole.frames(start, stop) for start, stop in pairwise(edges)])
    np.testing.assert_array_equal(joined.codes, whole.codes)


@pytest.mark.parametrize("other", [matrix([[1], [2]], codec_id="d@1"), matrix([[1], [2]], rate_hz=75.0), matrix([[1]])])
def test_parts_of_different_codecs_do_not_join(other):
    with pytest.raises(InvalidInput):
        concatenate([matrix([[1], [2]]), other])


def test_joining_nothing_is_refused():
    with pytest.raises(InvalidInput):
        concatenate([])


def test_codes_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        matrix([[1]]).codes[0, 0] = 2


@pytest.mark.parametrize(
    ("codes", "rate_hz", "field"),
    [
        (np.zeros(4), 50.0, "tokens.codebook_count"),
        (np.zeros((0, 4)), 50.0, "tokens.codebook_count"),
        (np.zeros((MAX_CODEBOOKS + 1, 4)), 50.0, "tokens.codebook_count"),
        ([[-1]], 50.0, "tokens.codes"),
        ([[1]], 0.0, "tokens.frame_rate_hz"),
        ([[1]], 1000.5, "tokens.frame_rate_hz"),
        ([[1]], float("nan"), "tokens.frame_rate_hz"),
    ],
)
def test_a_matrix_out_of_range_is_refused_by_field(codes, rate_hz, field):
    with pytest.raises(InvalidInput) as caught:
        matrix(codes, rate_hz)
    assert caught.value.field == field
