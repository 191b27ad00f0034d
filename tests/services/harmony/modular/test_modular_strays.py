"""What the key modules learn on: chords as readers hear them who keep to the analysis, and who err."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stretto_harmony.models.modular import vectors
from stretto_harmony.scores.labels import Analysis, ChordType, HarmonyLabel, Key
from stretto_harmony.scores.score import TICKS_PER_QUARTER
from tiny_modules import tiny_modules, tiny_score

sys.path.append(str(Path(__file__).resolve().parents[4] / "services" / "harmony" / "recipes"))
import train_modular
from modular_pieces import Piece, label_fit, piece_of, published_mode
from modular_strays import Reader, drawn_reader, key_rows, read_keys

CPU = torch.device("cpu")
HALF = 2 * TICKS_PER_QUARTER
KEYS = [Key(0), Key(0), Key(1), Key(1), Key(0, True), Key(0, True), Key(0), Key(0)]


def piece() -> Piece:
    """Half-bar chords, two in each of C major, G major, C minor and C major."""
    labels = [
        HarmonyLabel(n * HALF, (n + 1) * HALF, key, "I", key, key.tonic + n % 2, ChordType.MAJOR, 0)
        for n, key in enumerate(KEYS)
    ]
    return piece_of("a", tiny_score(16), Analysis(tuple(labels)))


def rows(share: float, seed: int = 0, longest: int = 100):
    return key_rows([piece()], share, np.random.default_rng(seed), CPU, longest)


def test_who_keeps_to_the_analysis_is_asked_for_its_changes() -> None:
    told = rows(0.0)
    assert torch.where(told.is_wrong[0])[0].tolist() == [2, 4, 6]
    assert told.here[0].tolist() == [False] + [True] * 7
    assert told.to[0].tolist() == [-1, -1, 15, -1, 29 + 13, -1, 14, -1]
    in_own, before = told.wide[0, :, :39].argmax(-1) - 19, told.before[0, :, :39].argmax(-1) - 19
    assert in_own.tolist() == [0, 1] * 4
    assert before.tolist() == [0, 1, 1, 1, -1, 1, 0, 1]
    assert told.wide[0, 2, -1] == 1 and told.before[0, 2, -1] == 0
    assert torch.equal(told.wide[0, 3], told.before[0, 3])


def test_the_key_before_has_its_own_mode() -> None:
    told = rows(0.0)
    mode = 2 * 39 + 25
    assert told.wide[0, 4:7, mode].tolist() == [0, 0, 1]
    assert told.before[0, 4:7, mode].tolist() == [1, 0, 0]


def test_a_reader_who_never_finds_back_stays_and_is_told_so_at_every_chord() -> None:
    chords = piece().chords
    tonic, minor = read_keys(chords, Reader(finds=0.0), np.random.default_rng(0))
    assert tonic.tolist() == [0] * 8 and minor.tolist() == [0] * 8
    tonic, minor = read_keys(chords, Reader(), np.random.default_rng(0))
    assert tonic.tolist() == chords.tonic.tolist() and minor.tolist() == chords.is_minor.tolist()


def test_a_reader_who_always_strays_leaves_every_right_key_and_finds_back_at_once() -> None:
    chords = piece().chords
    tonic, minor = read_keys(chords, Reader(starts=1.0, strays=1.0), np.random.default_rng(0))
    is_right = (tonic == chords.tonic) & (minor == chords.is_minor)
    assert not is_right[0] and is_right[1] and not is_right[3]


def test_no_chord_is_out_of_reach_of_the_key_in_which_it_is_heard() -> None:
    far = dataclasses.replace(piece().chords, root=np.full(8, 14))
    tonic, _ = read_keys(far, Reader(starts=1.0, finds=0.3, strays=0.5), np.random.default_rng(2))
    assert vectors.within_reach(far.root, far.inverted, tonic).all()


def test_where_the_reader_errs_is_asked_and_the_right_key_is_the_answer() -> None:
    own = piece().chords
    for seed in range(20):
        told = rows(1.0, seed)
        keys = 39 * 2 + 26
        for place in range(1, 8):
            if told.to[0, place] >= 0:
                assert told.is_wrong[0, place] and told.here[0, place]
                minor, interval = divmod(int(told.to[0, place]), 29)
                before = int(told.before[0, place, :39].argmax()) - 19
                heard_in = int(own.root[place]) - before
                assert heard_in + interval - 14 == own.tonic[place] and minor == own.is_minor[place]
                assert not told.before[0, place, keys:].any()


def test_readers_err_in_the_share_that_is_asked_for() -> None:
    random = np.random.default_rng(0)
    drawn = [drawn_reader(random, 0.25) for _ in range(400)]
    assert 60 < sum(reader != Reader() for reader in drawn) < 140


def test_an_excerpt_is_no_longer_than_asked() -> None:
    assert rows(1.0, longest=3).to.shape == (1, 3)


def test_key_modules_are_asked_in_the_old_key_after_chords_in_their_own() -> None:
    module, told = tiny_modules().ktm, rows(0.0)
    states = train_modular.asked(module, told)
    sequence = torch.cat([told.wide[0, :4], told.before[0, 4:5]])[None]
    torch.testing.assert_close(module.logit(states)[0, 4], module(sequence)[0, -1, 0])


@pytest.mark.parametrize(
    ("key", "applied", "minor"),
    [
        (Key(0, True), Key(1, False), 1),
        (Key(0, True), Key(-1, False), 1),
        (Key(0, False), Key(-1, True), 0),
        (Key(0, False), Key(2, False), 1),
        (Key(0, True), Key(-3, False), 0),
        (Key(0, False), Key(6, True), 1),
        (Key(0, False), Key(6, False), 0),
        (Key(0, True), Key(0, False), 0),
    ],
)
def test_applied_chords_stand_in_the_mode_of_the_degrees_triad(key: Key, applied: Key, minor: int) -> None:
    label = HarmonyLabel(0, HALF, key, "V/x", applied, applied.tonic + 1, ChordType.MAJOR, 0)
    assert published_mode(label) == minor
    twice = Analysis((label, dataclasses.replace(label, start=HALF, end=2 * HALF)))
    assert piece_of("a", tiny_score(4), twice).chords.is_minor.tolist() == [minor, minor]


def test_a_piece_may_keep_the_modes_of_its_own_analysis() -> None:
    label = HarmonyLabel(0, HALF, Key(0, True), "V/V", Key(1), 2, ChordType.MAJOR, 0)
    analysis = Analysis((label, dataclasses.replace(label, start=HALF, end=2 * HALF)))
    assert piece_of("a", tiny_score(4), analysis, as_published=False).chords.is_minor.tolist() == [0, 0]
    assert piece_of("a", tiny_score(4), analysis).chords.is_minor.tolist() == [1, 1]


def test_labels_of_other_notes_do_not_fit() -> None:
    own = piece()
    tones = {place: set() for place in range(8)}
    for place in range(8):
        tones[place] = {int(own.chords.root[place]) + step for step in (0, 1, 4)}
    chord = np.searchsorted(own.begin, np.arange(len(own.notes.onset)), side="right") - 1
    inside = [int(own.notes.spelling[n]) - 15 in tones[int(chord[n])] for n in range(len(chord))]
    assert label_fit(own) == pytest.approx(np.mean(inside))
    moved = dataclasses.replace(own, chords=dataclasses.replace(own.chords, root=own.chords.root + 12))
    assert label_fit(moved) == 0.0
