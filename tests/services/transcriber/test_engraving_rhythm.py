"""A score that is played exactly gives itself back: places, lengths, bars, hands."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stretto_shared.errors import InvalidInput
from stretto_shared.score import Part, Score
from stretto_transcriber.models.engraving import EngravedScore, engrave, to_score

Written = tuple[F, F, int]  # onset and length in beats, pitch

PATTERNS: dict[str, Sequence[F]] = {
    "quarter": [F(0)],
    "eighths": [F(0), F(1, 2)],
    "dotted": [F(0), F(3, 4)],
    "sixteenths": [F(0), F(1, 4), F(1, 2), F(3, 4)],
    "eighth and sixteenths": [F(0), F(1, 2), F(3, 4)],
    "triplet": [F(0), F(1, 3), F(2, 3)],
}


def played(
    notes: Sequence[Written],
    num_beats: int,
    bar: int = 4,
    *,
    places: Sequence[int] | None = None,
    beat_s: float = 0.5,
    late_s: Sequence[float] | None = None,
) -> Score:
    """These notes at a steady beat, exactly, or each as much later as `late_s` says."""
    ordered = sorted(notes)
    start_s = 2.0  # room for notes before the first beat
    late = np.zeros(len(ordered)) if late_s is None else np.array(late_s)
    onset = np.array([float(onset) for onset, _, _ in ordered]) * beat_s + start_s + late
    order = np.argsort(onset, kind="stable")
    return Score(
        onset_s=onset[order],
        duration_s=np.array([float(length) * beat_s for _, length, _ in ordered])[order],
        pitch_midi=np.array([pitch for _, _, pitch in ordered], np.int32)[order],
        velocity=np.full(len(ordered), 70, np.int32),
        part_index=np.zeros(len(ordered), np.int32),
        parts=(Part("Piano"),),
        beat_s=start_s + np.arange(num_beats) * beat_s,
        beat_in_bar=np.arange(num_beats) % bar + 1 if places is None else np.array(places),
    )


def melody(rhythm: Sequence[Sequence[F]], pitches: Sequence[int] = (72, 74, 76, 77, 79)) -> list[Written]:
    """One voice without gaps: where notes begin in every beat."""
    onsets = [beat + place for beat, places in enumerate(rhythm) for place in places]
    ends = [*onsets[1:], F(len(rhythm))]
    return [(on, end - on, pitches[i % len(pitches)]) for i, (on, end) in enumerate(zip(onsets, ends))]


def beats_of(engraved: EngravedScore) -> list[Written]:
    """What was written, on the beats of the performance."""
    bar = engraved.bars[0]
    return [(bar.first_beat + n.onset / bar.beat, n.duration / bar.beat, n.pitch_midi) for n in engraved.notes]


@settings(max_examples=12, deadline=None)
@given(st.lists(st.sampled_from(sorted(PATTERNS)), min_size=4, max_size=12))
def test_a_melody_that_is_played_exactly_gives_itself_back(names: list[str]) -> None:
    written = melody([PATTERNS[name] for name in names])

    assert beats_of(engrave(played(written, len(names) + 1))) == written


@pytest.mark.parametrize("name", sorted(set(PATTERNS) - {"dotted"}))  # played loosely, it may as well be a triplet
def test_rhythms_survive_a_pianist_who_is_ten_milliseconds_off(name: str) -> None:
    written = melody([PATTERNS[name]] * 12)
    late_s = np.random.default_rng(5).normal(0.0, 0.01, len(written))

    engraved = engrave(played(written, 13, late_s=late_s.tolist()))

    assert [onset for onset, _, _ in beats_of(engraved)] == [onset for onset, _, _ in written]


def test_triplets_against_eighths_stay_what_they_are() -> None:
    upper = melody([PATTERNS["triplet"]] * 8)
    lower = melody([PATTERNS["eighths"]] * 8, (48, 50, 52))

    engraved = engrave(played([*upper, *lower], 9))

    assert sorted(beats_of(engraved)) == sorted([*upper, *lower])
    assert {note.staff for note in engraved.notes if note.pitch_midi >= 72} == {1}
    assert {note.staff for note in engraved.notes if note.pitch_midi < 60} == {2}


def test_a_beat_that_slows_down_is_still_even() -> None:
    written = melody([PATTERNS["sixteenths"]] * 8)
    exact = played(written, 9)

    def warp(beat: np.ndarray) -> np.ndarray:
        return 1.0 + 0.4 * beat + 0.02 * beat**2

    slowing = Score(
        onset_s=warp((exact.onset_s - 2.0) / 0.5),
        duration_s=np.full(exact.num_notes, 0.1),
        pitch_midi=exact.pitch_midi,
        velocity=exact.velocity,
        part_index=exact.part_index,
        parts=exact.parts,
        beat_s=warp(np.arange(9.0)),
        beat_in_bar=exact.beat_in_bar,
    )

    assert [onset for onset, _, _ in beats_of(engrave(slowing))] == [onset for onset, _, _ in written]


def test_a_pickup_is_a_shorter_first_bar_of_the_same_signature() -> None:
    written = melody([PATTERNS["quarter"]] * 9)
    engraved = engrave(played(written, 9, places=[4, *(i % 4 + 1 for i in range(8))]))

    assert [bar.num_beats for bar in engraved.bars] == [1, 4, 4]
    assert {(bar.numerator, bar.denominator) for bar in engraved.bars} == {(4, 4)}
    assert not engraved.bars[0].is_whole
    assert to_score(engraved).beat_in_bar.tolist() == [4, 1, 2, 3, 4, 1, 2, 3, 4]


def test_notes_before_the_first_beat_get_a_bar_of_their_own() -> None:
    written: list[Written] = [(F(-1, 2), F(1, 2), 71), *melody([PATTERNS["quarter"]] * 8)]

    engraved = engrave(played(written, 9))

    assert engraved.bars[0].first_beat == -1
    assert beats_of(engraved) == written


def test_a_change_of_metre_changes_the_signature() -> None:
    written = melody([PATTERNS["quarter"]] * 14)
    places = [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 1, 2, 3]

    engraved = engrave(played(written, 14, places=places))

    assert [(bar.num_beats, bar.numerator) for bar in engraved.bars] == [(4, 4), (4, 4), (3, 3), (3, 3)]
    assert [mark.numerator for mark in to_score(engraved).time_signatures] == [4, 3]


def bars_of(*num_beats: int) -> list[int]:
    """Places in bars; the highest is 64, as on the wire."""
    return [min(place, 64) for count in num_beats for place in range(1, count + 1)]


@pytest.mark.parametrize(("pattern", "most", "numerator"), [("eighths", 64, 64), ("triplet", 21, 63)])
def test_a_bar_has_as_many_beats_as_a_time_signature_counts(pattern: str, most: int, numerator: int) -> None:
    def engraved(places: Sequence[int]) -> EngravedScore:
        return engrave(played(melody([PATTERNS[pattern]] * (len(places) - 1)), len(places), places=places))

    longest = to_score(engraved(bars_of(most, most, 1)))
    with pytest.raises(InvalidInput, match=f"at most {most} beats.*got {most + 1}") as too_long:
        engraved(bars_of(3, most + 1, most + 1, 1))

    assert {mark.numerator for mark in longest.time_signatures} == {numerator}
    assert too_long.value.field == "score.beat_in_bar[3]"


def test_a_bar_that_is_not_whole_is_as_long_as_its_highest_place() -> None:
    with pytest.raises(InvalidInput, match="beats in 3 parts each, got 22") as too_long:
        engrave(played(melody([PATTERNS["triplet"]] * 21), 22, places=bars_of(22)))

    assert too_long.value.field == "score.beat_in_bar[21]"


def test_beats_in_three_parts_are_compound() -> None:
    engraved = engrave(played(melody([PATTERNS["triplet"]] * 16), 17, 2))

    assert {(bar.numerator, bar.denominator) for bar in engraved.bars} == {(6, 8)}
    assert {note.duration for note in engraved.notes} == {F(1, 2)}


@pytest.mark.parametrize("num_beats", [2, 3, 4])
def test_accents_give_the_bars_where_the_beats_have_none(num_beats: int) -> None:
    chords: list[Written] = [(F(beat), F(1), pitch) for beat in range(0, 24, num_beats) for pitch in (48, 55, 64)]
    rest: list[Written] = [(F(beat), F(1), 67) for beat in range(24) if beat % num_beats]
    score = played([*chords, *rest], 24)

    engraved = engrave(
        Score(score.onset_s, score.duration_s, score.pitch_midi, score.velocity, score.part_index, score.parts,
              beat_s=score.beat_s)
    )  # fmt: skip

    assert {bar.num_beats for bar in engraved.bars} == {num_beats}
    assert {bar.first_beat % num_beats for bar in engraved.bars} == {0}


def test_short_notes_before_long_silence_do_not_fill_it() -> None:
    written: list[Written] = [(F(beat), F(1, 2), 72 + beat % 5) for beat in (0, 4, 9, 15, 19)]

    assert max(length for _, length, _ in beats_of(engrave(played(written, 21)))) <= 1


def test_notes_that_are_let_go_early_are_written_up_to_the_next() -> None:
    whole = melody([PATTERNS["eighths"]] * 8)
    detached = [(onset, length * F(7, 10), pitch) for onset, length, pitch in whole]

    assert [length for _, length, _ in beats_of(engrave(played(detached, 9)))][:-1] == [n[1] for n in whole][:-1]


def test_a_held_note_over_moving_ones_is_a_voice_of_its_own() -> None:
    held: list[Written] = [(F(bar * 4), F(4), 69 + bar) for bar in range(4)]
    bass: list[Written] = [(F(beat), F(1), 43) for beat in range(16)]
    moving: list[Written] = [(F(beat), F(1), 76 + beat % 3) for beat in range(16)]

    engraved = engrave(played([*held, *moving, *bass], 17))

    upper = [note for note in engraved.notes if note.staff == 1]
    assert {note.voice for note in upper if note.pitch_midi >= 76} == {1}
    assert {note.voice for note in upper if note.pitch_midi < 76} == {2}
    assert {note.duration for note in upper if note.voice == 2} == {F(4)}


def test_a_dense_chord_is_one_place_and_two_hands() -> None:
    chord: list[Written] = [(F(beat), F(1), pitch) for beat in range(4) for pitch in (36, 43, 48, 64, 67, 72, 76)]
    late_s = [0.004 * (i % 7) for i in range(len(chord))]

    engraved = engrave(played(chord, 5, late_s=late_s))

    assert sorted(beats_of(engraved)) == sorted(chord)
    assert {note.pitch_midi for note in engraved.notes if note.staff == 2} == {36, 43, 48}


def test_no_notes_make_bars_of_rest_and_one_note_makes_one() -> None:
    assert engrave(played([], 8)).notes == ()
    assert [bar.num_beats for bar in engrave(played([], 8)).bars] == [4, 4]
    assert beats_of(engrave(played([(F(0), F(1), 60)], 2, 1))) == [(F(0), F(1), 60)]


def test_the_same_pitch_twice_on_one_place_is_written_once() -> None:
    twice: list[Written] = [(F(0), F(1), 72), (F(0), F(2), 72), (F(2), F(2), 74)]

    engraved = engrave(played(twice, 5, late_s=[0.0, 0.02, 0.0]))

    assert beats_of(engraved) == [(F(0), F(2), 72), (F(2), F(2), 74)]
    assert [note.source for note in engraved.notes] == [1, 2]


def test_what_is_written_plays_back_as_it_was() -> None:
    score = played(melody([PATTERNS["eighths"], PATTERNS["triplet"]] * 4), 9)

    again = to_score(engrave(score), 120.0)

    np.testing.assert_allclose(again.onset_s, score.onset_s - 2.0, atol=1e-9)
    assert again.pitch_midi.tolist() == score.pitch_midi.tolist()
    assert engrave(again).notes == engrave(score).notes


def test_errors_name_the_field() -> None:
    fine = played(melody([PATTERNS["quarter"]] * 4), 5)

    def with_changes(**changes: object) -> Score:
        names = ("onset_s", "duration_s", "pitch_midi", "velocity", "part_index", "parts", "beat_s")
        return Score(**{name: changes.get(name, getattr(fine, name)) for name in names})  # type: ignore[arg-type]

    with pytest.raises(InvalidInput) as too_few:
        engrave(with_changes(beat_s=np.array([1.0])))
    with pytest.raises(InvalidInput) as too_far:
        engrave(with_changes(beat_s=np.array([0.0, 0.01])))
    with pytest.raises(InvalidInput) as drums:
        engrave(with_changes(parts=(Part("Kit", is_drum=True),)))
    with pytest.raises(InvalidInput) as tempo:
        to_score(engrave(fine), 0.0)

    assert too_few.value.field == too_far.value.field == "score.beat_s"
    assert drums.value.field == "score.parts[0]"
    assert tempo.value.field == "tempo_bpm"
