"""Tiny analyzers: what they make of a measure follows from the notes of it and of two measures on both sides."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stretto_harmony.loading import BuiltAnalyzer
from stretto_harmony.scores.labels import NUM_CHORDS, NUM_KEYS, VOCABULARY, Analysis, HarmonyLabel, Key
from stretto_harmony.scores.numerals import figure_of
from stretto_harmony.scores.score import Score
from stretto_shared import weights

REACH = 2
WINDOW, CONTEXT = 4, 2


class TinyAnalyzer:
    """One label for each half of a measure that has notes; `calls` are the scores that it saw, `turns` how many of
    them came together."""

    def __init__(self, seed: int, num_together: int = 1) -> None:
        self.seed = seed
        self.num_together = num_together
        self.calls: list[Score] = []
        self.turns: list[int] = []
        self.before: Callable[[], None] = lambda: None

    def analyze(self, score: Score) -> Analysis:
        self.calls.append(score)
        self.before()
        labels = []
        for index in range(score.num_measures):
            around = score.measures(max(0, index - REACH), min(score.num_measures, index + REACH + 1))
            number = zlib.crc32(around.midi.tobytes() + around.fifths.tobytes() + bytes([self.seed]))
            start, length = int(score.measure_start[index]), int(score.measure_length[index])
            if not np.any(score.measure == index):
                continue
            cuts = [start, start + max(1, length // 2), start + length]
            for half, (begin, end) in enumerate(zip(cuts, cuts[1:])):
                if end > begin:
                    labels.append(label_of(begin, end, number >> (8 * half)))
        return Analysis(tuple(labels))

    def analyze_all(self, scores: Sequence[Score]) -> list[Analysis]:
        self.turns.append(len(scores))
        return [self.analyze(score) for score in scores]


def label_of(start: int, end: int, number: int) -> HarmonyLabel:
    """A label that follows from a number."""
    key = Key(number % 7 - 3, bool(number >> 3 & 1))
    quality = VOCABULARY[number // 11 % 12]
    root, inversion = key.tonic + number // 13 % 6, number // 17 % quality.num_inversions
    numeral = figure_of(key, key, root, quality, inversion)
    return HarmonyLabel(start, end, key, numeral, key, root, quality, inversion, (number % 97) / 97)


class TinyModules:
    """Answers that follow from their questions."""

    def chord_changes(self, score: Score) -> Any:
        return (score.midi % 10) / 10

    def classify_chords(self, score: Score, spans: Sequence[tuple[int, int]]) -> Any:
        return np.stack([_peak(NUM_CHORDS, start + end + score.num_notes) for start, end in spans])

    def next_chords(self, score: Score, labels: Sequence[HarmonyLabel]) -> Any:
        return _peak(NUM_CHORDS, labels[-1].root + 100 + score.num_measures)

    def key_changes(self, score: Score, labels: Sequence[HarmonyLabel]) -> Any:
        return np.array([label.inversion / 4 for label in labels])

    def next_keys(self, score: Score, labels: Sequence[HarmonyLabel]) -> Any:
        return _peak(NUM_KEYS, labels[-1].key.index)

    def initial_chords(self, key: Key) -> Any:
        return _peak(NUM_CHORDS, key.index)


def _peak(size: int, place: int) -> Any:
    values = np.full(size, 0.5 / (size - 1))
    values[place % size] = 0.5
    return values


def build(
    resolved: weights.ResolvedWeights, made: dict[str, TinyAnalyzer], *, modules: bool, num_together: int = 0
) -> BuiltAnalyzer:
    """An analyzer that knows its modules or not, and takes so many scores at once, or 0 for one after another."""
    analyzer = TinyAnalyzer(int(weights.load_tensors(resolved)["seed"]), num_together)
    made[resolved.name] = analyzer
    joint = analyzer if num_together else None
    return BuiltAnalyzer(analyzer, TinyModules() if modules else None, WINDOW, CONTEXT, joint)


def write_weights(folder: Path, models: Mapping[str, str]) -> None:
    """Write models by name, each of the architecture given."""
    for name, architecture in models.items():
        weights.write(
            folder / name,
            {"seed": torch.tensor(len(name))},
            name=name,
            architecture=architecture,
            config={},
            licence="CC0-1.0",
            score="made up",
            training={},
        )
