import numpy as np
import pytest
from quality.beats import is_tuned_on, metre_of, of_madmom


def test_the_metre_is_that_of_most_bars_in_time() -> None:
    assert metre_of(np.array([3, 4, 1, 2, 3, 4, 1, 2, 1, 2, 1])) == 2  # two bars of 2 against one of 4: in time a tie
    assert metre_of(np.array([1, 2, 3, 1, 2, 3, 1, 2, 1])) == 3
    assert metre_of(np.array([2, 3, 1, 2])) == 0


def test_what_madmom_wrote_is_read_as_beats() -> None:
    heard = of_madmom({"beats": [[0.5, 2], [1.0, 3], [1.5, 1]], "onsets": [0.1, 0.7]})
    assert heard.beats.beat_s.tolist() == [0.5, 1.0, 1.5] and heard.beats.downbeat_s.tolist() == [1.5]
    assert heard.beats.numerator == 3 and heard.onset_s.tolist() == [0.1, 0.7]
    nothing = of_madmom({"beats": [], "onsets": []})
    assert len(nothing.beats.beat_s) == 0 and nothing.beats.numerator == 0


@pytest.mark.parametrize("count", [2000])
def test_half_of_the_tracks_are_not_tuned_on(count: int) -> None:
    share = np.mean([is_tuned_on(f"set/track{number}") for number in range(count)])
    assert share == pytest.approx(0.5, abs=0.05)
