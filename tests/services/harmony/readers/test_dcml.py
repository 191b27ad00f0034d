"""DCML's tables become scores and analyses: places, ties, split bars, local and applied keys, and named faults."""

import numpy as np
import pytest
from stretto_harmony.readers.dcml import read_analysis, read_score
from stretto_harmony.scores.labels import ChordType, Key
from stretto_harmony.scores.score import TICKS_PER_QUARTER
from stretto_shared.errors import InvalidInput

Q = TICKS_PER_QUARTER


def table(text: str) -> str:
    """Columns by any blanks; `_` is an empty cell."""
    rows = (line.split() for line in text.strip().splitlines())
    return "\n".join("\t".join("" if cell == "_" else cell for cell in row) for row in rows)


MEASURES = table(
    """mc mn keysig timesig act_dur mc_offset
    1 0 -3 3/4 1/4 0
    2 1 -3 3/4 3/4 0
    3 2 -3 3/4 1/2 0
    4 2 -3 3/4 1/4 1/2"""
)
NOTES = table(
    """mc mc_onset staff voice duration gracenote tied tpc midi
    1 0 1 1 1/4 _ _ 1 67
    2 0 1 1 3/4 _ 1 0 72
    2 0 2 1 3/4 _ _ 0 48
    2 1/2 1 2 1/8 grace8 _ 2 74
    3 0 1 1 1/4 _ -1 0 72
    3 1/4 1 1 1/6 _ _ -3 75
    4 0 2 2 1/4 _ _ 1 43"""
)
HARMONIES = table(
    """mc mn mc_onset label chord numeral globalkey localkey
    1 0 0 c.V V V c i
    2 1 0 i{ i i c i
    2 1 1/4 } _ _ c i
    3 2 0 V65/III V65/III V c i
    3 2 1/4 III.#viio #viio #vii c vi/III
    4 2 0 @none _ @none c III"""
)


def test_notes_stand_in_their_bars_with_ties_joined_and_graces_left_out() -> None:
    score = read_score(NOTES, MEASURES)
    assert score.onset.tolist() == [0, Q, Q, 5 * Q, 6 * Q]
    assert score.duration.tolist() == [Q, 3 * Q, 4 * Q, 2 * Q // 3, Q]
    assert score.midi.tolist() == [67, 48, 72, 75, 43]
    assert score.fifths.tolist() == [1, 0, 0, -3, 1]
    assert score.staff.tolist() == [0, 1, 0, 0, 1]
    assert score.voice.tolist() == [0, 0, 0, 0, 1]


def test_pickups_and_split_bars_keep_their_beats() -> None:
    score = read_score(NOTES, MEASURES)
    assert score.measure_offset.tolist() == [2 * Q, 0, 0, 2 * Q]
    assert score.measure_number == ("0", "1", "2", "2")
    assert score.key_signature.tolist() == [-3] * 4


def test_labels_last_to_the_next_one_and_stand_in_their_local_key() -> None:
    read = read_analysis(HARMONIES, read_score(NOTES, MEASURES))
    c_minor = Key(0, is_minor=True)
    found = [(label.numeral, label.start // Q, label.end // Q, label.key, label.tonicised) for label in read.analysis]
    assert found == [
        ("V", 0, 1, c_minor, c_minor),
        ("i", 1, 4, c_minor, c_minor),
        ("V65/III", 4, 5, c_minor, Key(-3)),
        ("viio", 5, 6, Key(0, is_minor=True), Key(0, is_minor=True)),
    ]
    assert read.analysis.labels[3].root == 5
    assert read.analysis.labels[2].quality is ChordType.DOMINANT_SEVENTH
    assert read.left_out == ()


def test_a_label_that_cannot_be_read_is_left_out_and_named() -> None:
    broken = HARMONIES.replace("V65/III\tV65/III", "V65/III\twhat").replace("vi/III", "nowhere")
    read = read_analysis(broken, read_score(NOTES, MEASURES))
    assert len(read.analysis) == 2
    assert read.left_out == ("2: what", "2: #viio")


@pytest.mark.parametrize(
    ("notes", "measures", "field"),
    [
        (NOTES, MEASURES.replace("act_dur", "duration"), "measures"),
        (NOTES.replace("tpc", "name"), MEASURES, "notes"),
        (NOTES, MEASURES.replace("1/4", "1/0", 1), "measures line 2: act_dur"),
        (NOTES, MEASURES.replace("3/4", "3:4", 1), "measures line 2: timesig"),
        (NOTES.replace("67", "G4"), MEASURES, "notes line 2: midi"),
        (NOTES.replace("4\t0\t2", "9\t0\t2"), MEASURES, "notes line 8: mc"),
        (NOTES.replace("67", "68"), MEASURES, "score.fifths[0]"),
    ],
)
def test_faults_are_named_by_table_and_line(notes: str, measures: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_score(notes, measures)
    assert caught.value.field == field


def test_an_analysis_of_another_score_is_refused() -> None:
    with pytest.raises(InvalidInput, match="a bar from 1 to 4, got 7"):
        read_analysis(HARMONIES.replace("4\t2", "7\t2"), read_score(NOTES, MEASURES))


def test_damaged_tables_never_do_worse_than_invalid_input() -> None:
    random = np.random.default_rng(0)
    alphabet = '0123456789/.-\t\nVIi#e"x'
    for _ in range(400):
        texts = [list(text) for text in (NOTES, MEASURES, HARMONIES)]
        for text in texts:
            for place in random.integers(0, len(text), random.integers(0, 4)):
                text[place] = alphabet[random.integers(len(alphabet))]
        notes, measures, harmonies = map("".join, texts)
        try:
            assert len(read_analysis(harmonies, read_score(notes, measures)).analysis) <= 6
        except InvalidInput as error:
            assert error.field
