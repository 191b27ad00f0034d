import numpy as np
import pytest
from quality.melody import hard_chroma, ranks, soft_chroma, unit_rows


def tone(hz: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(24_000) / 24_000)).astype(np.float32)


def test_a_rank_counts_the_items_that_are_as_near() -> None:
    items = [np.eye(3)[[i, i]] for i in range(3)]
    assert ranks(items, items).tolist() == [0, 0, 0]
    assert ranks([items[1], items[1], items[2]], items).tolist() == [2, 0, 0]  # both wrong ones: a tie is no find
    assert ranks([np.zeros((2, 3))] * 3, items).tolist() == [2, 2, 2]


@pytest.mark.parametrize("hear", [soft_chroma, hard_chroma])
def test_chroma_hears_a_tone_s_class_in_any_octave_and_no_other(hear: object) -> None:
    low, high, other = (hear(tone(hz))[4] for hz in (220.0, 880.0, 246.94))  # type: ignore[operator]
    assert int(low.argmax()) == int(high.argmax()) == 9
    assert low @ high > 0.9 > low @ other + 0.5
    assert low @ low == pytest.approx(1.0)
    assert not hear(np.zeros(24_000, np.float32)).any()  # type: ignore[operator]


def test_rows_of_nothing_stay_so() -> None:
    assert unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[0.6, 0.8], [0.0, 0.0]]
