import numpy as np
from harness import surely_above
from stretto_shared.metrics.bootstrap import bootstrap_mean


def test_two_lucky_clips_support_no_claim() -> None:
    assert not surely_above(bootstrap_mean([0.1, 0.1]))
    assert surely_above(bootstrap_mean([0.1] * 6))


def test_a_claim_needs_its_interval_above_the_floor() -> None:
    interval = bootstrap_mean(np.linspace(0.1, 0.5, 20))
    assert surely_above(interval) and not surely_above(interval, 0.3)
