"""AugmentedNet's port: its vocabulary, its inputs, and how its outputs become one chord."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stretto_harmony.scores.labels import ChordType
from stretto_harmony.scores.score import TICKS_PER_QUARTER, Score

sys.path.append(str(Path(__file__).resolve().parents[2] / "evals" / "peers"))
import augmentednet

OUTPUTS = {
    "Alto35": 35,
    "Bass35": 35,
    "HarmonicRhythm7": 7,
    "LocalKey38": 38,
    "PitchClassSet121": 121,
    "RomanNumeral31": 31,
    "Soprano35": 35,
    "Tenor35": 35,
    "TonicizedKey38": 38,
}


def two_bars() -> Score:
    """A C for a bar under an E for half of it, nothing for a beat, then a G sharp."""
    quarter = TICKS_PER_QUARTER
    return Score(
        onset=np.array([0, 0, 5 * quarter]),
        duration=np.array([4 * quarter, 2 * quarter, quarter]),
        midi=np.array([48, 64, 56]),
        fifths=np.array([0, 4, 8]),
        staff=np.zeros(3),
        voice=np.zeros(3),
        measure_start=4 * quarter * np.arange(2),
        measure_length=np.full(2, 4 * quarter),
        measure_offset=np.zeros(2),
        numerator=np.full(2, 4),
        denominator=np.full(2, 4),
        key_signature=np.zeros(2),
        measure_number=("1", "2"),
    )


def test_the_vocabulary_has_the_published_sizes() -> None:
    assert (len(augmentednet.KEYS), len(augmentednet.NUMERALS), len(augmentednet.vocabulary())) == (38, 31, 121)
    assert (
        augmentednet.vocabulary()[0, 3, 6, 8] | {"C": "Ger7", "c": "Ger7", "C#": "V7"}
        == (augmentednet.vocabulary()[0, 3, 6, 8])
    )


def test_the_network_has_the_published_number_of_parameters() -> None:
    network = augmentednet.AugmentedNet(OUTPUTS)
    moving = sum(value.numel() for name, value in network.named_buffers() if "running" in name)
    assert sum(value.numel() for value in network.parameters()) + moving == 105_084


def test_frames_tell_bass_notes_and_the_time_since_measure_and_onset() -> None:
    bass, chroma, since = augmentednet.inputs_of(two_bars())
    assert bass.shape == chroma.shape == (64, 19) and since.shape == (64, 14)
    assert np.flatnonzero(bass[3]).tolist() == [0, 7]  # the letter C, the pitch class 0
    assert np.flatnonzero(chroma[3]).tolist() == [0, 2, 7, 11]
    assert np.flatnonzero(chroma[20]).tolist() == [0, 7]
    assert np.flatnonzero(chroma[36]).tolist() == [0, 7], "a rest tells the notes before it"
    assert np.flatnonzero(bass[40]).tolist() == [4, 15]
    assert since[0].tolist() == [1, 0, 0, 0, 0, 0, 0] * 2
    assert since[5, :7].tolist() == [0, 1, 0, 1, 0, 0, 0]
    assert since[32, :7].tolist() == [1, 0, 0, 0, 0, 0, 0] and since[32, 7:].tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert since[41, 7:].tolist() == [0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("numeral", "key", "expected"),
    [
        ("V7", "G", (2, ChordType.DOMINANT_SEVENTH)),
        ("viio7", "c", (5, ChordType.DIMINISHED_SEVENTH)),
        ("Ger7", "C", (6, ChordType.GERMAN_SIXTH)),
        ("III+7", "a", (0, ChordType.AUGMENTED_MAJOR_SEVENTH)),
        ("N", "E", (-1, ChordType.MAJOR)),
        ("Cad", "f", (-1, ChordType.MINOR)),
    ],
)
def test_numerals_of_the_vocabulary_are_chords(numeral: str, key: str, expected: tuple[int, ChordType]) -> None:
    assert augmentednet.chord_of(numeral, key) == expected


def classes(voices: str, numeral: str, key: str, tonicised: str) -> tuple[tuple[int, ...], int, int, int, int]:
    places = tuple(augmentednet.SPELLINGS.index(voice) for voice in voices.split())
    sets = list(augmentednet.vocabulary())
    pcset = augmentednet.pitch_classes(*augmentednet.chord_of(numeral, tonicised))
    keys = augmentednet.KEYS.index(key), augmentednet.KEYS.index(tonicised)
    return places, sets.index(pcset), augmentednet.NUMERALS.index(numeral), *keys


def test_outputs_that_agree_are_their_chord_in_its_inversion() -> None:
    assert augmentednet.resolve(*classes("F# A C D", "V7", "C", "G")) == ("C", "G", "V7", 1)


def test_a_chord_that_the_tonicised_key_lacks_is_heard_in_the_nearest_that_has_it() -> None:
    voices, _, _, key, tonicised = classes("F A- C F", "I", "C", "C")
    pcset = list(augmentednet.vocabulary()).index((0, 5, 8))
    found = augmentednet.resolve(voices, pcset, augmentednet.NUMERALS.index("I"), key, tonicised)
    assert found == ("C", "c", "iv", 0)


@pytest.mark.parametrize(("near", "far"), [("a", "c"), ("c", "f"), ("G", "D"), ("F", "g")])
def test_near_keys_are_near_on_webers_chart(near: str, far: str) -> None:
    assert augmentednet.key_distance("C", near) <= augmentednet.key_distance("C", far)
    assert augmentednet.key_distance(near, "C") == augmentednet.key_distance("C", near) > 0


def test_an_analysis_covers_the_score() -> None:
    torch.manual_seed(0)
    network = augmentednet.AugmentedNet(OUTPUTS).eval()
    labels = augmentednet.analyze(network, two_bars()).labels
    assert labels[0].start == 0 and labels[-1].end == 8 * TICKS_PER_QUARTER
    assert all(before.end == after.start for before, after in zip(labels, labels[1:]))
