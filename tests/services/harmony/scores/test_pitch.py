"""Spelled pitches: places, names and octaves agree with each other and with what they sound like."""

import numpy as np
import pytest
from stretto_harmony.scores import pitch

ALL = range(pitch.MIN_FIFTHS, pitch.MAX_FIFTHS + 1)


@pytest.mark.parametrize(
    ("name", "place"), [("C", 0), ("F", -1), ("B", 5), ("F#", 6), ("Bb", -2), ("Fbb", -15), ("B##", 19), ("Gb", -6)]
)
def test_a_name_is_a_place_on_the_line_of_fifths(name: str, place: int) -> None:
    assert pitch.from_name(name) == place
    assert pitch.spelled_name(place) == name


def test_every_spelling_has_a_name_of_its_own() -> None:
    names = [pitch.spelled_name(place) for place in ALL]
    assert len(set(names)) == pitch.NUM_SPELLINGS == 35
    assert [pitch.from_name(name) for name in names] == list(ALL)
    assert [pitch.from_name(name.replace("b", "-")) for name in names if not name.startswith("b")] == list(ALL)


@pytest.mark.parametrize("name", ["", "H", "C#b", "Cx", "C####", "Cb4"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a letter"):
        pitch.from_name(name)


def test_the_written_octave_sounds_as_the_pitch() -> None:
    for place in ALL:
        for octave in (0, 4, 8):
            midi = pitch.midi_of(place, octave)
            assert midi % 12 == pitch.pitch_class(place)
            assert pitch.octave_of(np.array([midi]), np.array([place])) == [octave]


def test_b_sharp_three_sounds_as_c_four() -> None:
    assert pitch.midi_of(pitch.from_name("B#"), 3) == pitch.midi_of(0, 4) == 60
    assert pitch.midi_of(pitch.from_name("Cb"), 4) == 59


def test_a_transposition_takes_the_shorter_way() -> None:
    assert [pitch.transposition_semitones(fifths) for fifths in (0, 1, -1, 2, 3, 6, 7)] == [0, -5, 5, 2, -3, -6, 1]
