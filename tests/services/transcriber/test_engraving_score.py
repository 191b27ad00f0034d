"""What an `EngravedScore` holds to, keys, and spelling."""

from __future__ import annotations

from fractions import Fraction as F

import numpy as np
import pytest
from stretto_shared.errors import InvalidInput
from stretto_transcriber.models.engraving import Bar, EngravedNote, EngravedScore
from stretto_transcriber.models.engraving.grids import GRIDS, TICKS_PER_BEAT, smallest_grid
from stretto_transcriber.models.engraving.hands import HandModel, split_hands
from stretto_transcriber.models.engraving.keys import KeyModel, key_signatures
from stretto_transcriber.models.engraving.metre import signature
from stretto_transcriber.models.engraving.spelling import spell

BAR = Bar(F(0), 4, F(1), 0, 4, 4)
MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11)


def note(onset: int, duration: int, pitch: int = 60, voice: int = 1) -> EngravedNote:
    return EngravedNote(F(onset), F(duration), pitch, 0 if pitch == 60 else 1, 64, 1, voice, 0)


@pytest.mark.parametrize(
    ("bars", "notes", "tempo_bpm", "field"),
    [
        ((), (), 100.0, "engraved.bars"),
        ((BAR,), (), 0.0, "engraved.tempo_bpm"),
        ((BAR, BAR), (), 100.0, "engraved.bars[1]"),
        ((BAR,), (note(3, 2),), 100.0, "engraved.notes[0]"),
        ((BAR,), (note(0, 0),), 100.0, "engraved.notes[0]"),
        ((BAR,), (note(1, 1), note(0, 1)), 100.0, "engraved.notes[1]"),
        ((BAR,), (note(0, 2), note(1, 1)), 100.0, "engraved.notes[1]"),
        ((BAR,), (note(0, 2), note(0, 1, 67)), 100.0, "engraved.notes[1]"),
    ],
)
def test_a_score_that_cannot_be_written_is_refused(
    bars: tuple[Bar, ...], notes: tuple[EngravedNote, ...], tempo_bpm: float, field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        EngravedScore(bars, notes, tempo_bpm)

    assert refused.value.field == field


def test_two_voices_may_overlap() -> None:
    assert len(EngravedScore((BAR,), (note(0, 4, 60, 2), note(1, 1, 67)), 100.0).notes) == 2


@pytest.mark.parametrize(
    ("pitch", "fifths", "name"),
    [(60, 0, ("C", 0, 4)), (59, -7, ("C", -1, 4)), (60, 12, ("B", 1, 3)), (70, -2, ("B", -1, 4)), (66, 6, ("F", 1, 4))],
)
def test_names_of_pitches(pitch: int, fifths: int, name: tuple[str, int, int]) -> None:
    each = EngravedNote(F(0), F(1), pitch, fifths, 64, 1, 1, 0)

    assert (each.step, each.alter, each.octave) == name


@pytest.mark.parametrize("sharps", range(-5, 7))
def test_a_major_scale_is_spelt_in_its_signature(sharps: int) -> None:
    tonic = 60 + 7 * sharps % 12
    pitches = np.array([tonic + step for step in (*MAJOR_SCALE, 12, 7, 4, 0)] * 4)

    spelt = spell(pitches, np.full(len(pitches), sharps))

    assert set(spelt.tolist()) == set(range(sharps - 1, sharps + 6))
    assert ((7 * spelt - pitches) % 12 == 0).all()


def test_the_leading_note_of_a_minor_is_a_sharp() -> None:
    pitches = np.array([57, 60, 64, 68, 69, 68, 69, 71, 72, 64, 68, 69] * 4)

    assert set(spell(pitches, np.zeros(len(pitches), np.int64))[pitches % 12 == 8].tolist()) == {8}


@pytest.mark.parametrize("sharps", range(-5, 7))
def test_scales_and_triads_have_their_signature(sharps: int) -> None:
    classes = np.zeros((8, 12))
    for step, weight in zip(MAJOR_SCALE, (3, 1, 2, 1, 2, 1, 1)):
        classes[:, (7 * sharps + step) % 12] += weight

    found, is_minor = key_signatures(classes, KeyModel())

    assert found.tolist() == [sharps] * 8
    assert not is_minor.any()


def test_a_settled_change_of_key_changes_the_signature_and_a_passing_one_does_not() -> None:
    def bars(tonic: int, count: int) -> np.ndarray:
        row = np.zeros(12)
        row[[(tonic + step) % 12 for step in MAJOR_SCALE]] = (3, 1, 2, 1, 2, 1, 1)
        return np.tile(row, (count, 1))

    settled, _ = key_signatures(np.concatenate([bars(0, 40), bars(4, 60)]), KeyModel())
    passing, _ = key_signatures(np.concatenate([bars(0, 40), bars(2, 2), bars(0, 40)]), KeyModel())

    assert settled[0] == 0 and settled[-1] == 4
    assert set(passing.tolist()) == {0}


def test_grids_hold_whole_ticks_and_the_smallest_is_found() -> None:
    assert all((grid >= 0).all() and (grid < TICKS_PER_BEAT).all() for grid in GRIDS)
    third, half = TICKS_PER_BEAT // 3, TICKS_PER_BEAT // 2
    assert GRIDS[smallest_grid(np.array([0, third, 2 * third]))].tolist() == [0, third, 2 * third]
    assert GRIDS[smallest_grid(np.array([0, third, half]))].tolist() == [0, third, half, 2 * third]
    assert smallest_grid(np.array([1])) == -1


def test_a_line_between_the_hands_follows_the_music() -> None:
    beat = np.repeat(np.arange(32.0), 2)
    rise = np.arange(32) // 2
    pitch = np.stack([48 + rise, 67 + rise], axis=1).ravel()

    assert split_hands(beat, pitch, HandModel()).tolist() == [2, 1] * 32


def test_signatures_of_beats() -> None:
    assert signature(4, F(1)) == (4, 4)
    assert signature(2, F(2)) == (2, 2)
    assert signature(2, F(3, 2)) == (6, 8)
    assert signature(4, F(3, 4)) == (12, 16)
    assert signature(3, F(1, 2)) == (3, 8)
