import numpy as np
import pytest
from quality.musicgen_adherence import TEMPOS_BPM, other_scores, own_scores, score_tempos
from stretto_shared.metrics.tempo import tempo_agrees


def test_an_answer_that_ignores_the_tempo_asked_is_at_chance() -> None:
    score = score_tempos([(float(bpm), 120.0) for bpm in TEMPOS_BPM] * 3)
    assert score.exact == pytest.approx(1 / 6) and score.exact_chance == pytest.approx(1 / 6)
    assert score.gap.low <= 0 <= score.gap.high


def test_an_answer_that_follows_the_tempo_asked_is_above_chance() -> None:
    score = score_tempos([(float(bpm), bpm * factor) for bpm in TEMPOS_BPM for factor in (1.01, 2.0)])
    assert (score.exact, score.loose) == (0.5, 1.0)
    assert score.loose_chance < 0.1
    assert score.gap.low > 0


def test_silence_agrees_with_no_tempo_asked() -> None:
    assert score_tempos([(float(bpm), 1.0) for bpm in TEMPOS_BPM]).loose == 0.0


def test_no_tempo_asked_is_a_simple_multiple_of_another() -> None:
    assert not any(tempo_agrees(a, b, octaves=True) for a in TEMPOS_BPM for b in TEMPOS_BPM if a != b)


def test_one_tempo_has_no_chance_to_compare_with() -> None:
    with pytest.raises(ValueError, match="two tempos"):
        score_tempos([(100.0, 100.0), (100.0, 50.0)])


def test_a_melody_is_compared_with_its_own_answer_and_with_those_to_others() -> None:
    asked = [np.array([0, 0, 4, 4], np.int32), np.array([7, 7, 7, -1], np.int32), np.array([0, 4, 4, 4], np.int32)]
    assert own_scores(asked, asked).tolist() == [1.0, 1.0, 1.0]
    assert other_scores(asked, asked) == pytest.approx([(0 + 0.75) / 2, 0.0, (0.75 + 0) / 2])
