import numpy as np
import pytest
from memorisation import Recital, longest_run, recital, shares


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
