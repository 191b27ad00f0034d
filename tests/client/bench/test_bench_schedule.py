"""Poisson arrivals, checked by what makes them Poisson; and the words that name levels."""

import numpy as np
import pytest
from stretto_client.bench.load import ClosedLoad, OpenLoad, Plan, parse_loads
from stretto_client.bench.schedule import poisson_arrivals_s
from stretto_shared.errors import InvalidInput


def arrivals(rate_hz: float, seed: int = 0, num: int = 5_000) -> np.ndarray:
    return np.array(poisson_arrivals_s(rate_hz, seed=seed, max_count=num, max_s=1e9))


@pytest.mark.parametrize(("rate_hz", "seed"), [(0.5, 0), (20.0, 1), (1000.0, 2)])
def test_gaps_are_exponential_with_the_mean_of_the_rate(rate_hz: float, seed: int) -> None:
    gaps = np.diff(arrivals(rate_hz, seed), prepend=0.0)
    num = len(gaps)
    assert (gaps > 0).all()
    assert gaps.mean() * rate_hz == pytest.approx(1.0, abs=4 / np.sqrt(num))
    assert gaps.std() * rate_hz == pytest.approx(1.0, abs=6 / np.sqrt(num))
    expected = 1.0 - np.exp(-rate_hz * np.sort(gaps))  # Kolmogorov and Smirnov's distance, 1 % level
    assert np.abs(expected - (np.arange(num) + 0.5) / num).max() < 1.63 / np.sqrt(num)


def test_arrivals_in_disjoint_windows_are_independent_and_as_spread_as_their_mean() -> None:
    counts = np.histogram(arrivals(10.0, seed=3), bins=np.arange(0.0, 490.0))[0]
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.25)
    assert abs(np.corrcoef(counts[:-1], counts[1:])[0, 1]) < 0.15


def test_a_seed_gives_one_schedule_and_another_seed_another() -> None:
    assert (arrivals(2.0, seed=5) == arrivals(2.0, seed=5)).all()
    assert not (arrivals(2.0, seed=5) == arrivals(2.0, seed=6)).any()
    np.testing.assert_allclose(arrivals(4.0, seed=5) * 2, arrivals(2.0, seed=5))


def test_a_schedule_ends_at_its_time_or_its_number() -> None:
    in_time = poisson_arrivals_s(100.0, seed=0, max_count=10_000, max_s=2.0)
    assert 0 < len(in_time) < 400
    assert in_time[-1] < 2.0
    assert len(poisson_arrivals_s(100.0, seed=0, max_count=7, max_s=2.0)) == 7
    assert poisson_arrivals_s(0.001, seed=0, max_count=10, max_s=0.001) == ()


def test_levels_are_read_from_numbers_with_commas() -> None:
    assert parse_loads("1, 2,8", "0.5,2") == (
        ClosedLoad(1),
        ClosedLoad(2),
        ClosedLoad(8),
        OpenLoad(0.5),
        OpenLoad(2.0),
    )
    for concurrency, rate in [("", ""), ("1,,2", ""), ("1.5", ""), ("0", ""), ("251", ""), ("", "x"), ("", "0")]:
        with pytest.raises(InvalidInput, match=r"--concurrency|--rate"):
            parse_loads(concurrency, rate)


def test_every_level_asks_for_the_same_pieces() -> None:
    plan = Plan(("a", "b"), first_seed=7)
    assert [(plan.prompt_of(n), plan.seed_of(n)) for n in range(3)] == [("a", 7), ("b", 8), ("a", 9)]
