"""RomanText is laid over its score: pickups, compound beats, copies, endings, and what cannot be placed is named."""

from dataclasses import replace

import numpy as np
import pytest
from stretto_harmony.readers.romantext import read_analysis, read_analysis_by_count
from stretto_harmony.scores.labels import Analysis, ChordType, Key
from stretto_harmony.scores.score import TICKS_PER_QUARTER, Score
from stretto_shared.errors import InvalidInput
from written import score_of

Q = TICKS_PER_QUARTER
FOUR = score_of([], num_measures=4)


def starts(analysis: Analysis) -> list[tuple[str, float, float]]:
    return [(label.numeral, label.start / Q, label.end / Q) for label in analysis]


def test_labels_last_to_the_next_and_keys_hold() -> None:
    text = """Composer: someone
Time Signature: 4/4
m1 C: I b2 V65/V b3 V
Note: m2 C: IV is not a label
m3 b2.5 a: i || b4 Cad64
"""
    read = read_analysis(text, FOUR)
    assert starts(read.analysis) == [
        ("I", 0, 1), ("V65/V", 1, 2), ("V", 2, 9.5), ("i", 9.5, 11), ("i64", 11, 16),
    ]  # fmt: skip
    assert [label.key for label in read.analysis] == [Key(0)] * 3 + [Key(3, is_minor=True)] * 2
    assert read.analysis.labels[1].quality is ChordType.DOMINANT_SEVENTH
    assert read.left_out == ()


def test_a_pickup_is_measure_0_and_its_beats_are_those_of_a_whole_bar() -> None:
    score = score_of([], num_measures=2, pickup_quarters=1)
    assert starts(read_analysis("m0 b4 G: V\nm1 I", score).analysis) == [("V", 0, 1), ("I", 1, 9)]


def test_compound_beats_have_three_parts() -> None:
    score = score_of([], num_measures=2, metre=(6, 8))
    read = read_analysis("m1 C: I b1.67 V b2 I b2.33 IV\nm2 b4 V", score)
    assert starts(read.analysis) == [("I", 0, 1), ("V", 1, 1.5), ("I", 1.5, 2), ("IV", 2, 4.5), ("V", 4.5, 6)]


def test_three_eighths_are_one_beat_unless_more_are_named() -> None:
    score = score_of([], num_measures=3, metre=(3, 8))
    read = read_analysis("m1 C: I b1.67 V\nm2 b3 IV\nm3 I", score)
    assert starts(read.analysis) == [("I", 0, 1), ("V", 1, 2.5), ("IV", 2.5, 3), ("I", 3, 4.5)]


def test_decimals_are_the_fractions_that_they_stand_for() -> None:
    text = "m1 C: I b1.33 ii b1.66.5 V b2.17 iii b2.22 IV b2.875 I"
    found = [label.start for label in read_analysis(text, FOUR).analysis]
    assert found == [0, Q // 3, Q * 5 // 6, Q * 7 // 6, Q * 11 // 9, Q * 15 // 8]


def test_copies_repeat_the_measures_that_they_name() -> None:
    read = read_analysis("m1 C: I b3 V\nm2 G: I\nm3-4 = m1-2", FOUR)
    assert starts(read.analysis) == [("I", 0, 2), ("V", 2, 4), ("I", 4, 8), ("I", 8, 10), ("V", 10, 12), ("I", 12, 16)]
    assert [label.key.name for label in read.analysis] == ["C", "C", "G", "C", "C", "G"]


def test_the_key_of_a_copy_holds_after_it() -> None:
    read = read_analysis("m1 G: V\nm2 C: I\nm3 = m1\nm4 I", FOUR)
    assert [label.key.name for label in read.analysis] == ["G", "C", "G", "G"]


def with_numbers(*numbers: str) -> Score:
    return replace(FOUR, measure_number=numbers)


def test_endings_share_a_number() -> None:
    score = with_numbers("1", "2", "2", "3")
    assert starts(read_analysis("m1 C: I\nm2a V\nm2b IV\nm3 I", score).analysis) == [
        ("I", 0, 4), ("V", 4, 8), ("IV", 8, 12), ("I", 12, 16),
    ]  # fmt: skip
    assert starts(read_analysis("m1 C: I\nm2a V\nm2 IV\nm3 I", score).analysis)[2] == ("IV", 8, 12)


def test_bars_can_be_counted_where_numbers_are_not_to_be_trusted() -> None:
    score = with_numbers("8", "9", "10", "11")
    assert starts(read_analysis_by_count("m1 C: I\nm3 V", score).analysis) == [("I", 0, 8), ("V", 8, 16)]
    assert starts(read_analysis("m1 C: I\nm9 V", score).analysis) == [("V", 4, 16)]


def test_what_has_no_place_or_no_meaning_is_left_out_and_named() -> None:
    read = read_analysis("m1 C: I b2 whatever b3 NC b4 V\nm9 I\nm2var1 IV", FOUR)
    assert starts(read.analysis) == [("I", 0, 1), ("V", 3, 16)]
    assert sorted(read.left_out) == ["1: whatever", "9: I"]


def test_without_a_key_or_a_measure_there_is_no_analysis() -> None:
    assert read_analysis("m1 I", FOUR).left_out == ("1: I",)
    with pytest.raises(InvalidInput, match="got no measure"):
        read_analysis("Title: nothing", FOUR)


def test_copies_without_end_are_refused() -> None:
    with pytest.raises(InvalidInput, match="copied measures"):
        read_analysis("m1 C: I\n" + "m0-60000 = m0-60000\n" * 2, FOUR)


def test_damaged_text_never_does_worse_than_invalid_input() -> None:
    random = np.random.default_rng(0)
    source = "m0 b4 C: V\nm1 I b2.33 V65/V b3 bII6\nm2-3 = m0-1\nm4a Ger65 || b2 viio7[no5]\nm4 eb: iv\n"
    alphabet = "mb0123456789.=-:/[]IViv#CGgo ø\n"
    for _ in range(500):
        damaged = list(source)
        for place in random.integers(0, len(damaged), random.integers(1, 8)):
            damaged[place] = alphabet[random.integers(len(alphabet))]
        try:
            assert len(read_analysis("".join(damaged), FOUR).analysis) < 30
        except InvalidInput as error:
            assert error.field == "analysis"
