"""A score crosses the wire unchanged, and a malformed one names the caller's own field."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stretto.common.v1 import score_pb2
from stretto_shared.errors import InvalidInput
from stretto_shared.grpc.convert_score import score_from_proto, score_to_proto
from stretto_shared.score import MAX_BEATS, MAX_NOTES, Key, Part, Score, Tempo, TimeSignature

notes = st.tuples(st.floats(0, 1000), st.floats(0.01, 100), st.integers(0, 127), st.integers(1, 127), st.integers(0, 1))


@settings(max_examples=25, deadline=None)
@given(st.lists(notes, max_size=20).map(sorted), st.lists(st.floats(0, 1000), unique=True, max_size=9).map(sorted))
def test_a_score_crosses_the_wire_unchanged(rows, beat_s):
    columns = np.array(rows).reshape(-1, 5).T
    spelling = (7 * columns[2].astype(int) + 6) % 12 - 6
    value = Score(
        *columns,
        (Part("flute", 73), Part("drums", 8, True)),
        spelling,
        beat_s,
        [1 + index % 3 for index in range(len(beat_s))],
        (Tempo(0, 60), Tempo(2.5, 61.7)),
        (TimeSignature(0, 3, 4), TimeSignature(6, 7, 8)),
        (Key(0, -15), Key(1, 19, is_minor=True)),
    )
    back = score_from_proto(score_pb2.Score.FromString(score_to_proto(value).SerializeToString()))
    for field in dataclasses.fields(Score):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(value, field.name))


def test_silence_crosses_the_wire_as_an_empty_message():
    silence = Score([], [], [], [], [], ())
    assert not score_to_proto(silence).ListFields()
    assert score_from_proto(score_pb2.Score()).num_notes == 0


def test_the_largest_notes_and_beats_stay_below_four_megabytes():
    whole = np.arange(MAX_NOTES)
    value = Score(whole / 2, whole * 0 + 1 / 3, whole % 128, whole % 127 + 1, whole * 0, (Part(),), (), whole / 3)
    message = score_to_proto(value)
    assert len(message.beat_s) == MAX_BEATS and message.ByteSize() < 4 << 20
    assert score_from_proto(message).num_notes == MAX_NOTES


NOTE = {"onset_s": [0], "duration_s": [1], "pitch_midi": [60], "velocity": [64], "part_index": [0]}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        (NOTE | {"parts": [score_pb2.Part()], "velocity": [0]}, "melody.velocity[0]"),
        (NOTE | {"parts": [score_pb2.Part()], "velocity": []}, "melody.velocity"),
        (NOTE, "melody.parts"),
        ({"parts": [score_pb2.Part(), score_pb2.Part(program=128)]}, "melody.parts[1].program"),
        ({"tempos": [score_pb2.Tempo()]}, "melody.tempos[0].tempo_bpm"),
        ({"time_signatures": [score_pb2.TimeSignature(numerator=4)]}, "melody.time_signatures[0].denominator"),
        ({"keys": [score_pb2.Key(), score_pb2.Key(tonic_fifths=20)]}, "melody.keys[1].tonic_fifths"),
        ({"keys": [score_pb2.Key(), score_pb2.Key()]}, "melody.keys[1].time_s"),
        ({"pitch_midi": [60] * (MAX_NOTES + 1)}, "melody.pitch_midi"),
        ({"beat_in_bar": [1] * (MAX_BEATS + 1)}, "melody.beat_in_bar"),
        ({"parts": [score_pb2.Part()] * 257}, "melody.parts"),
    ],
)
def test_a_malformed_score_is_refused_by_the_callers_field(fields, field):
    with pytest.raises(InvalidInput) as caught:
        score_from_proto(score_pb2.Score(**fields), "melody")
    assert caught.value.field == field
