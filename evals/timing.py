"""Timing that a noisy machine disturbs least: what is compared takes turns, and every number has its interval."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

NUM_RESAMPLES = 2000
MIN_CLAIM_RUNS = 3
BANDWIDTH_BYTES = 1 << 30


@dataclass(frozen=True)
class Spread:
    """The median of some runs and its 95 % bootstrap interval; with few runs that is about the least and the most."""

    median: float
    low: float
    high: float
    num_runs: int

    def times(self, factor: float) -> Spread:
        """The same in other units."""
        return Spread(self.median * factor, self.low * factor, self.high * factor, self.num_runs)

    def surely_above(self, floor: float) -> bool:
        """Whether a claim may say so: the interval lies above, and it is of three runs or more."""
        return self.num_runs >= MIN_CLAIM_RUNS and self.low > floor

    def numbers(self) -> list[float]:
        """Median, low, high, for programs."""
        return [self.median, self.low, self.high]

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def spread(values: ArrayLike) -> Spread:
    """Median of runs [N], N >= 1, with its interval."""
    runs = np.asarray(values, dtype=np.float64)
    if runs.ndim != 1 or runs.size == 0 or not np.isfinite(runs).all():
        raise ValueError(f"expected at least one finite run, got {runs!r}.")
    picks = np.random.default_rng(0).integers(runs.size, size=(NUM_RESAMPLES, runs.size))
    low, high = np.quantile(np.median(runs[picks], axis=1), [0.025, 0.975])
    return Spread(float(np.median(runs)), float(low), float(high), int(runs.size))


def take_turns(works: Mapping[str, Callable[[], object]], num_rounds: int) -> dict[str, NDArray[np.float64]]:
    """Seconds [num_rounds] of each work; after one warm-up each, every round runs each of them once."""
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(num_rounds):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in taken.items()}


def bandwidth_gb_s(rounds: int) -> float:
    """Gigabytes read in a second by summing a large tensor, with the threads that torch has; the best of the rounds."""
    bandwidth = Bandwidth()
    return max(bandwidth.gb_s() for _ in range(max(rounds, 3)))


class Bandwidth:
    """The memory's bandwidth at a moment, for measuring it in turn with what it bounds. Holds 1 GiB."""

    def __init__(self) -> None:
        self._large = torch.ones(BANDWIDTH_BYTES // 4)
        self.gb_s()

    def gb_s(self) -> float:
        """Gigabytes read in a second by one sum, with the threads that torch has."""
        start = time.perf_counter()
        self._large.sum()
        return BANDWIDTH_BYTES / (time.perf_counter() - start) / 1e9
