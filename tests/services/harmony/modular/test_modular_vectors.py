"""Vectors of notes and chords: layouts as published, and what each part of them says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stretto_harmony.models.modular import vectors
from stretto_harmony.models.modular.vectors import ChordColumns, NoteTable
from stretto_harmony.scores.labels import VOCABULARY, ChordType, chord_index
from stretto_harmony.scores.score import TICKS_PER_QUARTER
from tiny_modules import tiny_score


def table() -> NoteTable:
    """C4 held for a whole note under E5, G4 and F sharp 5, quarter by quarter; then B3."""
    return NoteTable(
        spelling=np.array([15, 19, 16, 21, 20]),
        height=np.array([48, 64, 55, 66, 47]),
        octave=np.array([4, 5, 4, 5, 3]),
        onset=np.array([0.0, 0.0, 0.25, 0.5, 1.0]),
        duration=np.array([1.0, 0.25, 0.25, 0.25, 0.5]),
        onset_level=np.array([3, 3, 2, 2, 3]),
        offset_level=np.array([3, 2, 2, 2, 2]),
    )


def columns(**changes: object) -> ChordColumns:
    """G7 in first inversion in C major, from a downbeat for half a note."""
    one = {
        "root": 1,
        "inverted": vectors.inverted_of(ChordType.DOMINANT_SEVENTH, 1),
        "tonic": 0,
        "is_minor": 0,
        "onset_level": 3,
        "offset_level": 2,
        "duration": 0.5,
        "old_tonic": 0,
        "is_change": False,
    }
    return ChordColumns(**{name: np.array([value]) for name, value in {**one, **changes}.items()})


def test_the_dimensions_are_the_published_ones() -> None:
    assert (vectors.NOTE_DIM, vectors.CHORD_DIM, vectors.WIDE_CHORD_DIM) == (71, 116, 136)
    assert (vectors.NUM_INVERTED, vectors.NUM_KEY_CHANGES) == (44, 58)
    counts = {name: 29 * vectors.num_reduced(name) for name in vectors.REDUCED_OF}
    assert counts == {"none": 1276, "roots": 348, "triads": 116}


def test_a_note_says_its_spelling_octave_levels_and_gaps() -> None:
    note = vectors.note_vectors(table())[2]
    assert np.flatnonzero(note).tolist() == [16, 39, 47, 51, 56, 57, 69]
    assert note[56:58].tolist() == [0.25, 0.25]
    assert note[69] == pytest.approx(55 / 127)


def test_a_span_sees_the_note_held_into_it_and_two_on_either_side() -> None:
    notes = table()
    window = vectors.span_vectors(notes, vectors.note_vectors(notes), 2, 3, 0.5)
    assert len(window) == 5  # C4 is held into the span; E5 begins with it, and two notes follow
    late = replace(notes, duration=np.array([0.25, 0.25, 0.25, 0.25, 0.5]))
    assert len(vectors.span_vectors(late, vectors.note_vectors(late), 3, 4, 1.0)) == 4
    held = window[:, vectors.IN_SPAN : vectors.IN_SPAN + 3]
    assert held[0].tolist() == [-1.0, 3.0, 4.0]
    assert held[2].tolist() == [0.0, 1.0, 1.0]


def test_a_span_says_which_note_is_lowest_and_how_far_the_others_are_above() -> None:
    notes = table()
    window = vectors.span_vectors(notes, vectors.note_vectors(notes), 2, 5, 1.5)
    assert window[:, vectors.IS_LOWEST].tolist() == [0, 0, 0, 0, 1]
    octaves = window[:, vectors.RELATIVE_OCTAVE : vectors.HEIGHT].argmax(1)
    assert octaves.tolist() == [1, 2, 1, 2, 0]
    assert window[3, vectors.RELATIVE_HEIGHT] == 1.0


def test_a_span_of_one_pitch_has_no_height() -> None:
    notes = NoteTable(*[np.zeros(1, np.int64)] * 3, np.zeros(1), np.ones(1), *[np.zeros(1, np.int64)] * 2)
    window = vectors.span_vectors(notes, vectors.note_vectors(notes), 0, 1, 1.0)
    assert window[0, vectors.IS_LOWEST] == 1 and window[0, vectors.RELATIVE_HEIGHT] == 0


def test_a_chord_says_root_type_bass_inversion_levels_duration_and_mode() -> None:
    ones = np.flatnonzero(vectors.chord_vectors(columns())[0]).tolist()
    # root a fifth up, Mm7, bass B five fifths up, first inversion, downbeat, beat, duration, major
    assert ones == [15, 34, 60, 71, 77, 80, 82, 83]
    minor = vectors.chord_vectors(columns(is_minor=1))[0]
    assert minor[83] == 0 and minor[82] == 0.5


def test_a_wider_vector_has_the_same_parts_five_places_on() -> None:
    wide = vectors.chord_vectors(columns(), reach=vectors.WIDE_REACH)[0]
    assert np.flatnonzero(wide).tolist() == [20, 44, 75, 91, 97, 100, 102, 103]


def test_a_change_of_key_is_told_by_interval_and_mode() -> None:
    changed = vectors.chord_vectors(columns(old_tonic=-3, is_change=True))[0]
    assert np.flatnonzero(changed[84:]).tolist() == [17, 29, 31]
    far = vectors.chord_vectors(columns(old_tonic=-15, is_change=True, is_minor=1))[0]
    assert np.flatnonzero(far[84:]).tolist() == [30, 31]


def test_relative_chords_and_keys_have_places_of_their_own() -> None:
    roots, inverted = np.divmod(np.arange(29 * 44), 44)
    places = vectors.relative_chord(roots - 14 + 2, inverted, np.full(len(roots), 2))
    assert places.tolist() == list(range(1276))
    assert vectors.key_change(np.array([0, 0, 5]), np.array([1, -14, -12]), np.array([0, 1, 0])).tolist() == [
        15,
        29,
        -1,
    ]


def test_sevenths_are_their_triads_in_the_reduction() -> None:
    place = {kind: vectors.TRIAD_OF[vectors.inverted_of(kind, 0)] for kind in VOCABULARY}
    assert place[ChordType.DOMINANT_SEVENTH] == place[ChordType.MAJOR]
    assert place[ChordType.HALF_DIMINISHED_SEVENTH] == place[ChordType.DIMINISHED]
    assert len({place[kind] for kind in list(ChordType)[:4]}) == 4


def test_places_among_the_chords_are_those_of_the_labels() -> None:
    for root in (-15, 0, 19):
        for kind in VOCABULARY:
            for inversion in range(kind.num_inversions):
                own = (root + 15) * vectors.NUM_INVERTED + vectors.inverted_of(kind, inversion)
                assert own == chord_index(root, kind, inversion)
    assert vectors.inverted_of(ChordType.GERMAN_SIXTH, 1) == vectors.inverted_of(ChordType.DIMINISHED_SEVENTH, 1)


@pytest.mark.parametrize(("root", "kind", "near"), [(14, "MAJOR", False), (10, "MAJOR", True), (-14, "MINOR", True)])
def test_root_and_bass_are_both_within_reach(root: int, kind: str, near: bool) -> None:
    inverted = np.array([vectors.inverted_of(ChordType[kind], 1 if root == 14 else 0)])
    assert bool(vectors.within_reach(np.array([root]), inverted, np.array([0]))[0]) is near


def test_a_score_becomes_notes_in_whole_notes() -> None:
    score = tiny_score(5)
    notes = vectors.note_table(score)
    assert notes.onset.max() == 1.0 and set(notes.duration) == {0.25}
    assert notes.onset_level[score.onset == 0].tolist() == [3, 3, 3]
    assert notes.height.tolist() == (score.midi - 12).tolist()
    assert len(notes.first) == 5 and notes.end == 1.25
    assert (score.onset[notes.first] == np.arange(5) * TICKS_PER_QUARTER).all()
