"""`Score` keeps its invariant, and names what breaks it."""

from __future__ import annotations

import numpy as np
import pytest
from stretto_shared.errors import InvalidInput
from stretto_shared.score import (
    MAX_BEATS,
    MAX_FIFTHS,
    MAX_MARKS,
    MAX_NOTES,
    MAX_PARTS,
    MAX_TIME_S,
    MIN_FIFTHS,
    Key,
    Part,
    Score,
    Tempo,
    TimeSignature,
)


def score(**changes):
    """A chord of two notes, and a drum after it."""
    fields = {
        "onset_s": [0.5, 0.5, 1.0],
        "duration_s": [0.5, 1.0, 0.1],
        "pitch_midi": [60, 66, 38],
        "velocity": [64, 127, 1],
        "part_index": [0, 0, 1],
        "parts": (Part("piano"), Part("drums", is_drum=True)),
    }
    return Score(**(fields | changes))


def failure(**changes):
    with pytest.raises(InvalidInput) as caught:
        score(**changes)
    return caught.value


def test_a_score_knows_its_size_and_its_end():
    value = score()
    assert (value.num_notes, value.end_s) == (3, 1.5)
    assert value.offset_s.tolist() == [1.0, 1.5, 1.1]
    assert value.onset_s.dtype == np.float64 and value.pitch_midi.dtype == np.int32


def test_a_score_without_notes_and_parts_is_one():
    empty = score(onset_s=[], duration_s=[], pitch_midi=[], velocity=[], part_index=[], parts=())
    assert (empty.num_notes, empty.end_s, empty.parts, empty.beat_s.size) == (0, 0.0, (), 0)


def test_a_score_neither_changes_nor_follows_the_arrays_and_lists_it_came_from():
    pitches, parts = np.array([60, 66, 38], np.int32), [Part("piano"), Part("drums", is_drum=True)]
    value = score(pitch_midi=pitches, parts=parts)
    pitches[0] = 0
    parts.clear()
    assert value.pitch_midi[0] == 60 and len(value.parts) == 2
    with pytest.raises(ValueError, match="read-only"):
        value.pitch_midi[0] = 1


@pytest.mark.parametrize(
    ("changes", "field", "word"),
    [
        ({"onset_s": [0.5, 0.4, 1.0]}, "score.onset_s[1]", "0.4"),
        ({"onset_s": [0.5, 0.5, np.nan]}, "score.onset_s[2]", "nan"),
        ({"onset_s": [-0.1, 0.5, 1.0]}, "score.onset_s[0]", "-0.1"),
        ({"onset_s": [[0.5, 0.5, 1.0]]}, "score.onset_s", "(1, 3)"),
        ({"duration_s": [0.5, 0.0, 0.1]}, "score.duration_s[1]", "0.0"),
        ({"duration_s": [0.5, 1e-300, 0.1]}, "score.duration_s[1]", "1e-300"),  # too short for any clock
        ({"duration_s": [0.5, 1.0, MAX_TIME_S]}, "score.duration_s[2]", "86400"),
        ({"duration_s": [0.5, 1.0]}, "score.duration_s", "(2,)"),
        ({"pitch_midi": [60, 128, 38]}, "score.pitch_midi[1]", "128"),
        ({"pitch_midi": [60, 66.5, 38]}, "score.pitch_midi[1]", "66.5"),
        ({"velocity": [64, 0, 1]}, "score.velocity[1]", "0"),
        ({"part_index": [0, 0, 2]}, "score.part_index[2]", "2"),
        ({"part_index": [-1, 0, 1]}, "score.part_index[0]", "-1"),
        ({"parts": (Part(),)}, "score.part_index[2]", "1"),
        ({"parts": ()}, "score.parts", "0"),
        ({"spelling_fifths": [0, 6, 1]}, "score.spelling_fifths[2]", "1"),  # the pitch is a D, the spelling a G
        ({"spelling_fifths": [0, 20, 2]}, "score.spelling_fifths[1]", "20"),
        ({"spelling_fifths": [0, -16, 2]}, "score.spelling_fifths[1]", "-16"),
        ({"spelling_fifths": [0, 6]}, "score.spelling_fifths", "(2,)"),
        ({"beat_s": [0.0, 0.5, 0.5]}, "score.beat_s[2]", "0.5"),
        ({"beat_s": [0.0, np.inf]}, "score.beat_s[1]", "inf"),
        ({"beat_s": [0.0, 0.5], "beat_in_bar": [1, 0]}, "score.beat_in_bar[1]", "0"),
        ({"beat_s": [0.0, 0.5], "beat_in_bar": [1]}, "score.beat_in_bar", "(1,)"),
        ({"beat_in_bar": [1]}, "score.beat_in_bar", "(1,)"),
        ({"tempos": (Tempo(1.0, 60), Tempo(1.0, 90))}, "score.tempos[1].time_s", "1.0"),
        ({"time_signatures": (TimeSignature(1, 3, 4), TimeSignature(0, 4, 4))}, "score.time_signatures[1].time_s", "0"),
        ({"keys": (Key(1, 0), Key(0, 1))}, "score.keys[1].time_s", "0"),
    ],
)
def test_what_is_off_is_named_with_its_place_and_its_value(changes, field, word):
    error = failure(**changes)
    assert error.field == field
    assert f"got {word}" in error.description


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"onset_s": np.zeros(MAX_NOTES + 1)}, "score.onset_s"),
        ({"parts": (Part(),) * (MAX_PARTS + 1)}, "score.parts"),
        ({"beat_s": np.arange(MAX_BEATS + 1) / 2}, "score.beat_s"),
        ({"keys": (Key(0, 0),) * (MAX_MARKS + 1)}, "score.keys"),
    ],
)
def test_more_than_the_most_is_refused(changes, field):
    assert failure(**changes).field == field


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Part("x" * 201), "part.name"),
        (lambda: Part(program=128), "part.program"),
        (lambda: Part(program=-1), "part.program"),
        (lambda: Tempo(0, 0), "tempo.tempo_bpm"),
        (lambda: Tempo(0, float("nan")), "tempo.tempo_bpm"),
        (lambda: Tempo(-1, 60), "tempo.time_s"),
        (lambda: TimeSignature(0, 0, 4), "time_signature.numerator"),
        (lambda: TimeSignature(0, 3, 3), "time_signature.denominator"),
        (lambda: TimeSignature(float("nan"), 3, 4), "time_signature.time_s"),
        (lambda: Key(0, MAX_FIFTHS + 1), "key.tonic_fifths"),
        (lambda: Key(MAX_TIME_S + 1, 0), "key.time_s"),
    ],
)
def test_a_part_or_mark_out_of_range_is_refused_by_field(make, field):
    with pytest.raises(InvalidInput) as caught:
        make()
    assert caught.value.field == field


def test_the_line_of_fifths_holds_seven_letters_with_five_accidentals_each():
    places = range(MIN_FIFTHS, MAX_FIFTHS + 1)
    letters = ["FCGDAEB"[(place + 1) % 7] for place in places]
    assert len(places) == 35 and {letters.count(letter) for letter in "ABCDEFG"} == {5}


@pytest.mark.parametrize(
    ("fifths", "is_minor", "signature"), [(0, False, 0), (3, True, 0), (2, False, 2), (0, True, -3)]
)
def test_a_key_knows_its_signature(fifths, is_minor, signature):
    assert Key(0.0, fifths, is_minor).signature_fifths == signature
