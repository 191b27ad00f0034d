"""What the engine asks of an analyzer, and of one whose modules can be called by themselves.

Legend: N notes, L labels, S spans; 1,540 chords by `labels.chord_index`, 70 keys by `Key.index`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stretto_harmony.scores.labels import Analysis, HarmonyLabel, Key
from stretto_harmony.scores.score import Score

Floats = NDArray[np.float64]
Span = tuple[int, int]
"""From one tick to before another."""


class Analyzer(Protocol):
    """Labels a whole score; the same score always gets the same labels."""

    def analyze(self, score: Score) -> Analysis:
        """The labels, in the score's own ticks; the score may be a few measures of a piece, and have no notes."""


class JointAnalyzer(Analyzer, Protocol):
    """Labels some scores in little more time than one, each as if it were alone, byte for byte."""

    @property
    def num_together(self) -> int:
        """The most scores that are worth giving it at once."""

    def analyze_all(self, scores: Sequence[Score]) -> Sequence[Analysis]:
        """The labels of each score, as `analyze` gives them."""


class HarmonyModules(Protocol):
    """The six modules of McLeod and Rohrmeier (2021): probabilities, each of one question.

    A question about labels raises ValueError where one of them is out of a module's reach.
    """

    def chord_changes(self, score: Score) -> Floats:
        """That a chord begins with each note [N]."""

    def classify_chords(self, score: Score, spans: Sequence[Span]) -> Floats:
        """Of each chord in each span [S, 1540]."""

    def next_chords(self, score: Score, labels: Sequence[HarmonyLabel]) -> Floats:
        """Of each chord after these [1540]; the score has the metre."""

    def key_changes(self, score: Score, labels: Sequence[HarmonyLabel]) -> Floats:
        """That the key changes with each label [L]."""

    def next_keys(self, score: Score, labels: Sequence[HarmonyLabel]) -> Floats:
        """Of each key with the last of these labels, two at least, if the key changes there [70]."""

    def initial_chords(self, key: Key) -> Floats:
        """Of each chord at the beginning of a piece in a key [1540]."""
