"""`Waveform` keeps its invariant."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from stretto_shared.audio import MAX_LEVEL, MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ, Waveform, check_level
from stretto_shared.errors import InvalidInput


def test_a_flat_array_is_mono():
    waveform = Waveform(np.zeros(12_000, np.float64), 24_000)
    assert (waveform.num_channels, waveform.num_samples, waveform.duration_s) == (1, 12_000, 0.5)
    assert waveform.samples.dtype == np.float32


def test_a_waveform_neither_changes_nor_follows_the_array_it_came_from():
    source = np.zeros((2, 4), np.float32)
    waveform = Waveform(source, 24_000)
    source[:] = 1
    assert waveform.samples.max() == 0
    with pytest.raises(ValueError, match="read-only"):
        waveform.samples[0, 0] = 1
    source[0, 0] = 2


def test_mono_is_the_mean_of_the_channels():
    mono = Waveform(np.array([[1.0, 0.0], [0.0, -1.0]]), 24_000).mono()
    np.testing.assert_array_equal(mono.samples, [[0.5, -0.5]])
    assert mono.mono() is mono


def test_samples_above_full_scale_are_kept():
    assert Waveform(np.array([3.0]), 24_000).samples[0, 0] == 3.0


@pytest.mark.parametrize("shape", [(), (3, 10), (0, 10), (1, 2, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InvalidInput) as caught:
        Waveform(np.zeros(shape), 24_000)
    assert caught.value.field == "waveform.channel_count"


@pytest.mark.parametrize("rate_hz", [0, -1, MIN_SAMPLE_RATE_HZ - 1, MAX_SAMPLE_RATE_HZ + 1])
def test_a_rate_out_of_range_is_refused_and_named(rate_hz):
    with pytest.raises(InvalidInput, match=str(rate_hz)):
        Waveform(np.zeros(4), rate_hz)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(value):
    with pytest.raises(InvalidInput, match="NaN or infinity"):
        Waveform(np.array([0.0, value]), 24_000)


@pytest.mark.parametrize("level", [MAX_LEVEL, -MAX_LEVEL, 0.0])
def test_what_a_model_can_hear_is_let_pass(level):
    check_level(Waveform(np.array([0.1, level]), 24_000))


@pytest.mark.parametrize("level", [1.001 * MAX_LEVEL, -1.001 * MAX_LEVEL, 1e25])
def test_samples_too_loud_for_a_model_are_refused_by_field(level):
    with pytest.raises(InvalidInput, match="Scale them") as caught:
        check_level(Waveform(np.array([[0.1, 0.0], [0.0, level]]), 24_000), "candidates[3]")
    assert caught.value.field == "candidates[3].samples"


def test_the_level_of_a_long_recording_is_found_without_a_copy_of_it():
    waveform = Waveform(np.full(2**20, -0.5), 24_000)
    tracemalloc.start()
    try:
        check_level(waveform)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < waveform.samples.nbytes / 8
