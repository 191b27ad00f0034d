"""When the requests of an open load come: known before the first is sent, so that no slow answer can move them."""

from __future__ import annotations

import numpy as np


def poisson_arrivals_s(rate_hz: float, *, seed: int, max_count: int, max_s: float) -> tuple[float, ...]:
    """Seconds, rising, at which requests come: a Poisson process of `rate_hz` that ends at `max_s` or `max_count`.

    The gaps are exponential with mean 1 / `rate_hz`. One seed gives one sequence, in other units for another rate, so
    that levels differ in nothing but their rate.
    """
    gaps = np.random.default_rng(seed).exponential(size=max_count) / rate_hz
    arrivals_s = np.cumsum(gaps)
    return tuple(arrivals_s[arrivals_s < max_s].tolist())
