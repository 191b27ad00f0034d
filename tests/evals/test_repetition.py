import numpy as np
import pytest
from repetition import hold, recurrence, segments, similarity

RATE = 24_000


def tones(pitches: list[int], duration_s: float = 0.5) -> np.ndarray:
    seconds = np.arange(round(duration_s * RATE)) / RATE
    return np.concatenate([0.3 * np.sin(2 * np.pi * 440 * 2 ** ((p - 69) / 12) * seconds) for p in pitches])


def of(pitches: list[int]) -> np.ndarray:
    return similarity(*segments(tones(pitches), RATE))


def test_a_segment_s_chroma_is_its_tone_s() -> None:
    chroma, cepstra = segments(tones([69, 60, 67, 81]), RATE)
    assert chroma.shape == cepstra.shape == (4, 12)
    assert chroma.argmax(1).tolist() == [9, 0, 7, 9]


def test_bars_that_come_again_recur_and_a_shuffle_of_them_does_not() -> None:
    bar = [60, 64, 67, 72, 71, 65, 62, 69]
    mixed = np.random.default_rng(0).permutation(bar * 5).tolist()
    assert recurrence(of(bar * 5)) > recurrence(of(mixed)) + 0.3


def test_only_lags_of_two_seconds_and_more_count() -> None:
    """A note that is repeated at once is no bar that comes again."""
    similarities = np.zeros((20, 20))
    for lag in (0, 1, 2, 3):
        similarities += np.diag(np.ones(20 - lag), lag)
    assert recurrence(similarities) == 0.0
    assert recurrence(similarities + np.diag(np.ones(16), 4)) == pytest.approx(1 - 1 / 7)
    with pytest.raises(ValueError, match="at least 5 s"):
        recurrence(np.eye(8))


def test_what_keeps_its_key_holds_and_what_moves_does_not() -> None:
    c, f_sharp = segments(tones([60, 64, 67] * 8), RATE)[0], segments(tones([66, 70, 73] * 8), RATE)[0]
    kept = hold([c, f_sharp])
    assert (kept > 0.5).all()
    moving = np.concatenate([c[:12], f_sharp[:12]])
    assert hold([moving, f_sharp])[0] < 0
    with pytest.raises(ValueError, match="two pieces"):
        hold([c])
