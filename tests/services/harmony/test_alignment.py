"""An analysis is told from one of another score, one that lies a bar off, and one that loses a bar on the way."""

from dataclasses import replace

import pytest
from stretto_harmony.alignment import align, chord_tone_share
from stretto_harmony.scores.labels import Analysis, ChordType, HarmonyLabel, Key
from stretto_harmony.scores.score import TICKS_PER_QUARTER, Score
from written import score_of

BAR = 4 * TICKS_PER_QUARTER
TRIADS = (("C", "E", "G"), ("G", "B", "D"), ("A", "C", "E"), ("F", "A", "C"), ("D", "F", "A"))
ROOTS = ((0, ChordType.MAJOR), (1, ChordType.MAJOR), (3, ChordType.MINOR), (-1, ChordType.MAJOR), (2, ChordType.MINOR))
NUM_BARS = 40


def progression(order: list[int]) -> Score:
    notes = [(4.0 * bar, 4.0, name, 4) for bar, which in enumerate(order) for name in TRIADS[which]]
    return score_of(notes, num_measures=len(order))


def labels(order: list[int], first_bar: int = 0) -> Analysis:
    key = Key(0)
    return Analysis(
        tuple(
            HarmonyLabel((first_bar + bar) * BAR, (first_bar + bar + 1) * BAR, key, "?", key, *ROOTS[which], 0)
            for bar, which in enumerate(order)
        )
    )


ORDER = [(bar * bar + bar // 3) % 5 for bar in range(NUM_BARS)]
SCORE = progression(ORDER)


def test_the_right_analysis_has_all_notes_as_chord_tones() -> None:
    alignment = align(SCORE, labels(ORDER))
    assert (alignment.share, alignment.coverage) == (1.0, 1.0)
    assert alignment.fault is None


def test_a_note_counts_as_long_as_the_label_that_it_begins_under() -> None:
    held = score_of([(0, 8, "C", 4), (4, 4, "F", 4)])
    assert chord_tone_share(held, labels([0, 1])) == 0.5


def test_enharmonic_spellings_are_no_misalignment() -> None:
    respelled = replace(SCORE, fifths=SCORE.fifths + 12)
    assert chord_tone_share(respelled, labels(ORDER)) == 1.0


def test_an_analysis_a_bar_late_is_told_where_it_belongs() -> None:
    late = labels(ORDER[:-1], first_bar=1)
    alignment = align(SCORE, late)
    assert alignment.best_shift == -BAR
    assert alignment.fault is not None


def test_an_analysis_that_skips_a_bar_half_way_drifts() -> None:
    skipping = labels(ORDER[:17] + ORDER[18:])
    alignment = align(SCORE, skipping)
    assert alignment.drifts_from == 16
    assert alignment.fault is not None


def test_an_analysis_of_another_score_has_few_chord_tones() -> None:
    other = labels([(which + 1) % 5 for which in ORDER])
    alignment = align(SCORE, other)
    assert alignment.share < 0.5
    assert "chord tones are" in str(alignment.fault)


@pytest.mark.parametrize(
    ("order", "fault"), [(ORDER[:10], "labels cover 0.25"), ([*ORDER, 0], "ticks after the score")]
)
def test_an_analysis_of_another_length_is_told(order: list[int], fault: str) -> None:
    assert fault in str(align(SCORE, labels(order)).fault)


def test_no_notes_and_no_labels_fit_nothing() -> None:
    assert chord_tone_share(score_of([]), labels(ORDER)) == 0.0
    assert align(SCORE, Analysis(())).fault is not None
