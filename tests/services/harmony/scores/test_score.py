"""`Score` holds to its invariant, and counts measures, beats and levels right."""

from dataclasses import replace

import numpy as np
import pytest
from stretto_harmony.scores.score import BEAT, BELOW, DOWNBEAT, MAX_NOTES, SUB_BEAT, TICKS_PER_QUARTER, Score
from stretto_shared.errors import InvalidInput
from written import score_of

Q = TICKS_PER_QUARTER
SCALE = score_of([(0, 1, "C", 4), (1, 1, "E", 4), (1, 2, "G", 4), (4, 4, "B#", 3)])


def test_arrays_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        SCALE.onset[0] = 3


def test_octaves_are_the_written_ones() -> None:
    assert SCALE.midi.tolist() == [60, 64, 67, 60]
    assert SCALE.octave.tolist() == [4, 4, 4, 3]


@pytest.mark.parametrize(
    ("field", "values", "place"),
    [
        ("onset", [0, Q, Q, 8 * Q], "onset[3]"),
        ("onset", [-1, Q, Q, 4 * Q], "onset[0]"),
        ("onset", [Q, 0, Q, 4 * Q], "onset[1]"),
        ("duration", [Q, 0, Q, Q], "duration[1]"),
        ("midi", [60, 67, 64, 60], "onset[2]"),
        ("midi", [60, 64, 67, 61], "fifths[3]"),
        ("midi", [60, 64, 67, 128], "midi[3]"),
        ("fifths", [0, 4, 1, 20], "fifths[3]"),
        ("staff", [0, 0, -1, 0], "staff[2]"),
        ("voice", [0, 0, 0, 256], "voice[3]"),
        ("staff", [0, 0, 0], "staff"),
        ("measure_start", [0, 5 * Q], "measure_start[1]"),
        ("measure_length", [4 * Q, 0], "measure_length[1]"),
        ("measure_offset", [0, -1], "measure_offset[1]"),
        ("numerator", [4, 0], "numerator[1]"),
        ("denominator", [4, 3], "denominator[1]"),
        ("key_signature", [15, 0], "key_signature[0]"),
        ("measure_number", ["1"], "measure_number"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_place(field: str, values: list[int], place: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        replace(SCALE, **{field: values})
    assert caught.value.field == f"score.{place}"


def test_a_score_without_measures_or_with_too_many_notes_is_refused() -> None:
    with pytest.raises(InvalidInput, match="1 to 10000 measures, got 0"):
        Score(*[np.zeros(0, np.int64)] * 12, measure_number=())
    many = np.zeros(MAX_NOTES + 1, np.int64)
    notes = dict.fromkeys(("onset", "fifths", "staff", "voice"), many) | {"duration": many + 1, "midi": many + 60}
    with pytest.raises(InvalidInput, match="up to 100000 notes, got 100001"):
        replace(SCALE, **notes)


def test_a_pickup_counts_its_beats_from_where_its_downbeat_would_be() -> None:
    score = score_of([(0, 1, "G", 4), (1, 4, "C", 5)], pickup_quarters=1)
    assert score.measure_number == ("0", "1", "2")
    assert score.measure.tolist() == [0, 1]
    assert score.beat_position(score.onset).tolist() == [3 * Q, 0]
    assert score.metrical_level(score.onset).tolist() == [BEAT, DOWNBEAT]


def test_levels_are_those_of_the_metre() -> None:
    ticks = np.array([0, Q // 2, Q, 3 * Q // 2, Q // 4])
    simple, compound = score_of([], metre=(4, 4)), score_of([], metre=(6, 8))
    assert simple.metrical_level(ticks).tolist() == [DOWNBEAT, SUB_BEAT, BEAT, SUB_BEAT, BELOW]
    assert compound.metrical_level(ticks).tolist() == [DOWNBEAT, SUB_BEAT, SUB_BEAT, BEAT, BELOW]
    assert score_of([], metre=(3, 8)).beat_length(np.array([0])).tolist() == [Q // 2]


def test_a_slice_begins_at_tick_zero_and_keeps_what_begins_in_it() -> None:
    second = SCALE.measures(1, 2)
    assert second.num_ticks == 4 * Q
    assert second.onset.tolist() == [0]
    assert second.measure_number == ("2",)
    first = SCALE.measures(0, 1)
    assert first.num_notes == 3
    assert first.num_measures == 1


def test_the_last_slice_keeps_all_that_is_left() -> None:
    whole = SCALE.measures(0, 2)
    assert whole.onset.tolist() == SCALE.onset.tolist()
    assert whole.measure_start.tolist() == SCALE.measure_start.tolist()


def test_transposing_moves_pitch_spelling_and_signature_together() -> None:
    up = SCALE.transposed(2)
    assert up.midi.tolist() == [62, 66, 69, 62]
    assert up.fifths.tolist() == [2, 6, 3, 14]
    assert up.key_signature.tolist() == [2, 2]
    back = up.transposed(-2)
    assert back.midi.tolist() == SCALE.midi.tolist()
    with pytest.raises(InvalidInput, match=r"score\.fifths\[3\]"):
        SCALE.transposed(8)
