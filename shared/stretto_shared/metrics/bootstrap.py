"""How sure a mean is: the percentile bootstrap (Efron, "Bootstrap methods", 1979) over clips, seeded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stretto_shared.metrics.validation import signal


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that holds the means of `confidence` of the resamples."""

    mean: float
    low: float
    high: float
    confidence: float
    num_values: int


def bootstrap_mean(
    values: ArrayLike, *, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Interval of the mean of independent values [N], N >= 2; pass paired differences to compare two systems.

    Raises:
        ValueError: If there are fewer than two values, or the confidence is not in (0, 1).
    """
    sample = signal("values", values, min_samples=2)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}.")
    random = np.random.default_rng(seed)
    means = np.array([sample[random.integers(sample.size, size=sample.size)].mean() for _ in range(num_resamples)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(sample.mean()), float(low), float(high), confidence, int(sample.size))
