import time

import numpy as np
import pytest
from timing import spread, take_turns


def test_the_median_lies_in_its_interval_and_more_runs_narrow_it() -> None:
    runs = np.random.default_rng(0).lognormal(size=200)
    few, many = spread(runs[:8]), spread(runs)
    assert few.low <= few.median <= few.high
    assert many.high - many.low < few.high - few.low
    assert spread([2.0]).numbers() == [2.0, 2.0, 2.0]
    assert few.times(0.5).median == pytest.approx(few.median / 2)


def test_one_fast_run_supports_no_claim() -> None:
    assert not spread([9.0, 9.0]).surely_above(1.0)
    assert spread([9.0, 8.0, 9.0]).surely_above(1.0) and not spread([9.0, 0.5, 9.0]).surely_above(1.0)


def test_no_run_has_no_median() -> None:
    with pytest.raises(ValueError, match="at least one"):
        spread([])


def test_works_take_turns_after_a_warm_up() -> None:
    order: list[str] = []

    def slow() -> None:
        order.append("slow")
        time.sleep(0.02)

    taken = take_turns({"slow": slow, "quick": lambda: order.append("quick")}, 3)
    assert order == ["slow", "quick"] * 4
    assert taken["slow"].shape == (3,) and (taken["slow"] >= 0.02).all()
