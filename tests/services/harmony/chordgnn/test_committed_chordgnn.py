"""The committed network: it reads plain chorales, and is as large as its card says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from random_scores import chorale, random_score
from stretto_harmony.models.chordgnn.analyzer import ChordGnnAnalyzer
from stretto_harmony.models.chordgnn.weights import load_chordgnn
from stretto_harmony.scores.score import NOTE_ARRAYS, TICKS_PER_QUARTER

FOLDER = Path(__file__).resolve().parents[4] / "services" / "harmony" / "weights" / "chordgnn"


@pytest.mark.parametrize("fifths", [0, 5, -4])
def test_it_reads_plain_chorales_in_any_key(fifths: int) -> None:
    analyzer = ChordGnnAnalyzer(load_chordgnn(FOLDER))
    right = []
    for seed in range(3):
        score, analysis = chorale(seed)
        wanted, found = analysis.transposed(fifths), analyzer.analyze(score.transposed(fifths))
        times = np.arange(0, score.num_ticks, TICKS_PER_QUARTER)
        pairs = [(wanted.labels[a], found.labels[b]) for a, b in zip(wanted.at(times), found.at(times)) if a >= 0]
        right += [(a.root, a.quality, a.inversion) == (b.root, b.quality, b.inversion) for a, b in pairs]
    assert np.mean(right) > 0.8


def test_scores_analysed_together_get_the_labels_that_each_gets_alone() -> None:
    analyzer = ChordGnnAnalyzer(load_chordgnn(FOLDER))
    scores = [random_score(seed, num_notes=40 + 70 * seed) for seed in range(6)]
    scores.insert(2, dataclasses.replace(scores[0], **{name: [] for name in NOTE_ARRAYS}))
    together = analyzer.analyze_all(scores)
    assert together == [analyzer.analyze(score) for score in scores]
    assert analyzer.analyze_all(scores[::-1]) == together[::-1] and analyzer.analyze_all([]) == []
    assert not len(together[2]) and len({len(each) for each in together}) > 3


def test_it_takes_no_more_room_than_half_precision_needs() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size < 2_500_000
