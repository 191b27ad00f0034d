"""Keys, chords and analyses: the vocabularies have their published sizes, and labels hold to their ranges."""

from itertools import product

import numpy as np
import pytest
from stretto_harmony.scores.labels import (
    NUM_CHORDS,
    NUM_KEYS,
    VOCABULARY,
    Analysis,
    ChordType,
    HarmonyLabel,
    Key,
    Mode,
    chord_index,
    chord_of_index,
    key_of_index,
    key_of_name,
)
from stretto_shared.errors import InvalidInput

C, A_MINOR = Key(0), Key(3, is_minor=True)


def label(
    start: int, end: int, root: int = 0, quality: ChordType = ChordType.MAJOR, inversion: int = 0
) -> HarmonyLabel:
    return HarmonyLabel(start, end, C, "I", C, root, quality, inversion)


def test_the_vocabularies_have_the_published_sizes() -> None:
    assert (NUM_CHORDS, NUM_KEYS, len(VOCABULARY)) == (1540, 70, 12)


def test_every_chord_and_key_has_a_place_of_its_own() -> None:
    chords = [chord_of_index(index) for index in range(NUM_CHORDS)]
    assert [chord_index(*chord) for chord in chords] == list(range(NUM_CHORDS))
    assert [key_of_index(index).index for index in range(NUM_KEYS)] == list(range(NUM_KEYS))


def test_keys_are_named_by_case_and_accidental() -> None:
    assert [key_of_name(name) for name in ("Eb", "E-", "f#", "b", "bb")] == [
        Key(-3), Key(-3), Key(6, True), Key(5, True), Key(-2, True),
    ]  # fmt: skip
    assert all(key_of_name(key_of_index(index).name) == key_of_index(index) for index in range(NUM_KEYS))
    assert (A_MINOR.signature, Key(-3).signature, A_MINOR.mode) == (0, -3, Mode.MINOR)
    assert [A_MINOR.degree(number) for number in range(1, 8)] == [3, 5, 0, 2, 4, -1, 1]


def test_tones_are_thirds_above_the_root_and_the_bass_is_one_of_them() -> None:
    dominant = label(0, 1, root=1, quality=ChordType.DOMINANT_SEVENTH, inversion=3)
    assert dominant.tones == (1, 5, 2, -1)
    assert dominant.bass == -1
    for type_ in ChordType:
        letters = [(4 * interval) % 7 for interval in type_.intervals]
        assert letters == [0, 2, 4, 6][: type_.num_inversions]


def test_augmented_sixths_have_their_sixth_and_reduce_to_a_type_of_the_vocabulary() -> None:
    german = label(0, 1, root=6, quality=ChordType.GERMAN_SIXTH, inversion=1)
    assert sorted(german.tones) == [-4, -3, 0, 6]
    assert german.bass == -4
    for type_ in ChordType:
        assert type_.reduced in VOCABULARY
        assert type_.reduced.num_inversions == type_.num_inversions
        assert type_.triad.num_inversions == 3
    assert ChordType.HALF_DIMINISHED_SEVENTH.triad is ChordType.DIMINISHED


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("label.end", {"end": 0}),
        ("label.end", {"start": -1}),
        ("label.root", {"root": 20}),
        ("label.inversion", {"inversion": 3}),
    ],
)
def test_a_label_out_of_range_is_refused(field: str, given: dict[str, int]) -> None:
    with pytest.raises(InvalidInput) as caught:
        label(**({"start": 0, "end": 1} | given))
    assert caught.value.field == field


def test_a_confidence_is_a_probability_and_a_tonic_has_two_accidentals_at_most() -> None:
    with pytest.raises(InvalidInput, match=r"label\.confidence"):
        HarmonyLabel(0, 1, C, "I", C, 0, ChordType.MAJOR, 0, 1.5)
    with pytest.raises(InvalidInput, match=r"key\.tonic"):
        Key(-16)


def test_labels_may_leave_gaps_but_not_overlap() -> None:
    analysis = Analysis((label(0, 4), label(6, 8)))
    assert analysis.at(np.array([0, 3, 4, 5, 6, 7, 8])).tolist() == [0, 0, -1, -1, 1, 1, -1]
    assert Analysis(()).at(np.array([1])).tolist() == [-1]
    with pytest.raises(InvalidInput) as caught:
        Analysis((label(0, 4), label(3, 8)))
    assert caught.value.field == "analysis.labels[1].start"


def test_transposing_keeps_the_numeral() -> None:
    for fifths, inversion in product((-3, 5), (0, 1)):
        moved = Analysis((label(0, 4, inversion=inversion),)).transposed(fifths).labels[0]
        assert (moved.root, moved.key, moved.tonicised) == (fifths, Key(fifths), Key(fifths))
        assert (moved.numeral, moved.inversion) == ("I", inversion)
