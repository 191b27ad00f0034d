"""Audio in pieces as mono at another rate: the same for every cut."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from stretto_shared.dsp.resampling import MonoResampler


def noise(num_samples: int, num_channels: int = 2) -> Any:
    return np.random.default_rng(0).normal(0, 0.1, (num_channels, num_samples)).astype(np.float32)


def resampled(samples: Any, from_hz: int, to_hz: int, cuts: Sequence[int] = ()) -> Any:
    resampler = MonoResampler(from_hz, to_hz)
    edges = itertools.pairwise([0, *cuts, samples.shape[-1]])
    return np.concatenate([*(resampler.push(samples[..., start:stop]) for start, stop in edges), resampler.flush()])


@settings(max_examples=60, deadline=None)
@given(
    rates_hz=st.permutations([8000, 11_025, 16_000, 24_000, 44_100, 48_000]),
    num_channels=st.sampled_from([1, 2]),
    duration_s=st.floats(0.002, 0.7),
    where=st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), max_size=30),
)
def test_the_samples_are_the_same_for_every_cut(
    rates_hz: list[int], num_channels: int, duration_s: float, where: list[float]
) -> None:
    from_hz, to_hz, *_ = rates_hz
    samples = noise(max(2, round(duration_s * from_hz)), num_channels)
    cuts = sorted({round(each * samples.shape[1]) for each in where})
    assert np.array_equal(resampled(samples, from_hz, to_hz, cuts), resampled(samples, from_hz, to_hz))


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44_100, 24_000), (8000, 16_000)])
def test_they_are_those_of_the_mean_of_the_channels_at_the_other_rate(from_hz: int, to_hz: int) -> None:
    samples = noise(5000)
    found = resampled(samples, from_hz, to_hz, range(100, 5000, 777))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, soxr.resample(samples.mean(0), from_hz, to_hz), atol=1e-6)
    assert np.array_equal(found, resampled(samples.mean(0), from_hz, to_hz)), "[S] is mono"


def test_at_equal_rates_they_are_passed_on() -> None:
    samples = noise(1000, 1)
    assert np.array_equal(resampled(samples, 24_000, 24_000, [1, 500]), samples[0])
    np.testing.assert_allclose(resampled(noise(1000), 24_000, 24_000), noise(1000).mean(0))
