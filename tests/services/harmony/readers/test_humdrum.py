"""Humdrum is read spine by spine: durations, splits, ties, split bars, and no crash on bad bytes."""

from pathlib import Path

import music21
import numpy as np
import pytest
from stretto_harmony.readers.humdrum import read_score
from stretto_harmony.scores.pitch import from_name, spelled_name
from stretto_harmony.scores.score import TICKS_PER_QUARTER, Score
from stretto_shared.errors import InvalidInput

Q = TICKS_PER_QUARTER


def names(score: Score) -> list[str]:
    pairs = zip(score.fifths.tolist(), score.octave.tolist(), strict=True)
    return [f"{spelled_name(fifths)}{octave}" for fifths, octave in pairs]


CHORALE = """!!!COM: someone
**kern\t**text\t**kern
*k[b-e-]\t*\t*k[b-e-]
*M3/4\t*\t*M3/4
4G\t.\t4b-
=1\t=1\t=1
2.GG;\tone\t[4.dd 4.b-
.\t.\t8cc#]
.\ttwo\t4ee-
=2\t=2\t=2
*\t*\t*^
4D\t.\t8f#\t4A
.\t.\t8aqL\t.
.\t.\t8gJ\t.
2G\t.\t2g\t[2B-
*\t*\t*v\t*v
=3\t=3\t=3
4Gr\t.\t4B-]
2GGG\t.\t3%2g
==\t==\t==
*-\t*-\t*-
"""


def test_spines_are_staves_from_the_right_and_splits_are_voices() -> None:
    score = read_score(CHORALE.encode())
    assert score.measure_number == ("0", "1", "2", "3")
    assert score.measure_offset.tolist() == [2 * Q, 0, 0, 0]
    assert score.key_signature.tolist() == [-2] * 4
    last_bar = score.measures(2, 3)
    assert names(last_bar) == ["D3", "A3", "F#4", "G4", "G3", "Bb3", "G4"]
    assert last_bar.staff.tolist() == [1, 0, 0, 0, 1, 0, 0]
    assert last_bar.voice.tolist() == [0, 1, 0, 0, 0, 1, 0]


def test_durations_are_reciprocal_with_dots_and_parts() -> None:
    score = read_score(CHORALE.encode())
    first = score.measures(1, 2)
    assert names(first) == ["G2", "Bb4", "D5", "C#5", "Eb5"]
    assert first.duration.tolist() == [3 * Q, 3 * Q // 2, 3 * Q // 2, Q // 2, Q]
    assert score.duration[-1] == 8 * Q // 3
    assert score.duration[names(score).index("Bb3")] == 3 * Q


def test_a_bar_line_without_a_number_splits_the_bar() -> None:
    text = "**kern\n*M4/4\n=1\n1c\n=2\n2.d\n=:|!\n4e\n=3\n1f\n*-\n"
    score = read_score(text.encode())
    assert score.measure_number == ("1", "2", "", "3")
    assert score.measure_offset.tolist() == [0, 0, 3 * Q, 0]


def test_breves_are_twos_of_whole_notes() -> None:
    text = "**kern\n=1\n0c\n=2\n00d\n=3\n4..e\n*-\n"
    assert read_score(text.encode()).duration.tolist() == [8 * Q, 16 * Q, 7 * Q // 4]


def test_octaves_follow_the_letters() -> None:
    text = "**kern\n=1\n4C\n4CC\n4CCC\n4c\n4cc\n4ccc\n4B-\n4f##\n*-\n"
    assert names(read_score(text.encode())) == ["C3", "C2", "C1", "C4", "C5", "C6", "Bb3", "F##4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got none"),
        ("4c\n", "expected 0 spines"),
        ("**text\none\n", "got none"),
        ("**kern\t**kern\n4c\n", "expected 2 spines, got 1"),
        ("**kern\n" + "=1\n4c\n" * 10_001, "up to 10000 measures"),
        ("**kern\n=1\n0%3c\n", "expected a duration"),
        ("**kern\n=1\n4cccccccccc\n", "MIDI pitch 0 to 127"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_score(text.encode())
    assert caught.value.field.startswith("score")
    assert message in str(caught.value)


def test_a_whole_mazurka_is_read_as_music21_reads_it() -> None:
    """Two staves with spines that split and join, triplets, ties, graces and repeats."""
    path = Path(music21.__file__).parent / "corpus" / "chopin" / "mazurka06-2.krn"
    ours = read_score(path.read_bytes())
    theirs = music21.converter.parse(path).stripTies()
    expected = sorted(
        (round(float(sounding.getOffsetInHierarchy(theirs)) * Q), pitch.midi, from_name(pitch.name))
        for sounding in theirs.recurse().notes
        if not sounding.duration.isGrace
        for pitch in sounding.pitches
    )
    assert sorted(zip(ours.onset.tolist(), ours.midi.tolist(), ours.fifths.tolist(), strict=True)) == expected


def test_damaged_text_never_does_worse_than_invalid_input() -> None:
    random = np.random.default_rng(0)
    alphabet = b"0123456789%.abcgCGB#-nr[]_=*^v+x:|!M/k\t\n q;"
    for _ in range(400):
        damaged = bytearray(CHORALE.encode())
        for place in random.integers(0, len(damaged), random.integers(1, 8)):
            damaged[place] = alphabet[random.integers(len(alphabet))]
        try:
            assert read_score(bytes(damaged)).num_measures >= 1
        except InvalidInput as error:
            assert error.field.startswith("score")
