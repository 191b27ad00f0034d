"""The committed modules on music that leaves no doubt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stretto_harmony.models.modular.analyzer import ModularAnalyzer
from stretto_harmony.models.modular.weights import load_modular
from stretto_harmony.scores.labels import Key
from stretto_harmony.scores.score import TICKS_PER_QUARTER, Score
from tiny_modules import tiny_score

WEIGHTS = Path(__file__).resolve().parents[4] / "services" / "harmony" / "weights" / "modular"
# Spelled pitches of half notes in four voices: (midi, fifths) from the bass up.
C = [(48, 0), (64, 4), (67, 1), (72, 0)]
F = [(53, -1), (65, -1), (69, 3), (72, 0)]
G7 = [(43, 1), (59, 5), (65, -1), (74, 2)]


@pytest.fixture(scope="module")
def analyzer() -> ModularAnalyzer:
    return load_modular(WEIGHTS)


def cadences(fifths: int = 0) -> Score:
    """C F G7 C, twice, in half notes."""
    half = 2 * TICKS_PER_QUARTER
    notes = [(place * half, *note) for place, chord in enumerate([C, F, G7, C] * 2) for note in chord]
    onset, midi, spelled = np.array(sorted(notes)).T
    measures = np.arange(4)
    score = Score(
        onset=onset,
        duration=np.full(len(onset), half),
        midi=midi,
        fifths=spelled,
        staff=np.zeros(len(onset), np.int64),
        voice=np.zeros(len(onset), np.int64),
        measure_start=measures * 2 * half,
        measure_length=np.full(4, 2 * half),
        measure_offset=measures * 0,
        numerator=np.full(4, 4),
        denominator=np.full(4, 4),
        key_signature=measures * 0,
        measure_number=("1", "2", "3", "4"),
    )
    return score.transposed(fifths) if fifths else score


@pytest.mark.parametrize("fifths", [0, 3, -4])
def test_plain_cadences_are_read_in_their_key(analyzer: ModularAnalyzer, fifths: int) -> None:
    labels = analyzer.analyze(cadences(fifths)).labels
    assert {each.key for each in labels} == {Key(fifths)}
    assert [each.numeral for each in labels] == ["I", "IV", "V7", "I", "IV", "V7", "I"]


def test_what_is_committed_fits_its_room(analyzer: ModularAnalyzer) -> None:
    assert (WEIGHTS / "model.safetensors").stat().st_size <= 4_000_000
    assert len(analyzer.analyze(tiny_score(16)))
