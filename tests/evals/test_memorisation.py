import numpy as np
import pytest
from memorisation import Recital, gap, longest_run, not_surely_more, recital, shares


def tokens(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def test_a_recital_is_equal_throughout() -> None:
    assert recital(tokens(3, 1, 2, 3), tokens(3, 1, 2, 3)) == Recital(1.0, 1.0, 1.0)


def test_order_counts_for_equality_and_not_for_overlap() -> None:
    assert recital(tokens(1, 2, 3, 4), tokens(2, 3, 4, 1)) == Recital(0.0, 0.0, 1.0)
    assert recital(tokens(1, 1, 1, 1), tokens(1, 2, 3, 1)) == Recital(0.5, 0.25, 0.5)
    assert recital(tokens(9, 9), tokens(0, 1)) == Recital(0.0, 0.0, 0.0)


def test_the_longest_run_is_counted() -> None:
    assert longest_run(np.array([True, False, True, True, True, False])) == 3
    assert longest_run(np.array([False, False])) == 0
    assert longest_run(np.array([True, True])) == 2


@pytest.mark.parametrize(("said", "own"), [(tokens(1), tokens(1, 2)), (tokens(), tokens())])
def test_nothing_to_compare_is_refused(said: np.ndarray, own: np.ndarray) -> None:
    with pytest.raises(ValueError, match="equally long"):
        recital(said, own)


def test_shares_count_who_reached_a_bound() -> None:
    found = shares([Recital(1.0, 1.0, 1.0), Recital(0.5, 0.2, 0.7), Recital(0.0, 0.0, 0.1)])
    assert found["equal >= 1"] == pytest.approx(1 / 3) and found["equal >= 0.5"] == pytest.approx(2 / 3)
    assert found["overlap >= 0.7"] == pytest.approx(2 / 3) and found["overlap >= 0.85"] == pytest.approx(1 / 3)
    assert (found["equal"], found["longest run"]) == (pytest.approx(0.5), pytest.approx(0.4))


def test_training_clips_that_come_out_more_than_held_out_ones_break_the_claim() -> None:
    even = [Recital(share, share, share) for share in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)]
    more = [Recital(each.equal + 0.5, 0.0, each.overlap) for each in even]
    found = gap(more, even, "equal")
    assert found.mean == pytest.approx(0.5) and 0 < found.low < 0.5 < found.high
    assert not not_surely_more(found)
    assert not_surely_more(gap(more, even, "overlap")) and not_surely_more(gap(even, more, "equal"))


def test_few_clips_cannot_say_that_nothing_is_recited() -> None:
    assert not not_surely_more(gap([Recital(0.0, 0.0, 0.0)] * 5, [Recital(0.0, 0.0, 0.0)] * 40, "equal"))
