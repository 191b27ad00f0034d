"""What a writer gets: the score, the labels in order, and who made what."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from stretto_harmony.scores.labels import HarmonyLabel
from stretto_harmony.scores.numerals import Notation, figure_of, parse
from stretto_harmony.scores.score import Score


class AnalysisFormat(enum.Enum):
    """A format of analyses; the value is the suffix of its files."""

    ROMANTEXT = "rntxt"
    DCML_TSV = "tsv"
    JSON = "json"
    MUSICXML = "musicxml"


@dataclass(frozen=True, eq=False)
class WrittenAnalysis:
    """What is to be written.

    Args:
        score: The score that was analysed.
        labels: The labels, in order and without overlaps.
        title: What the piece is called; may be empty.
        analyst: Who made the analysis; may be empty.
        source: The file that the score was read from; None where it came otherwise.
        source_suffix: What that file is: `musicxml`, `mid` or `krn`.
    """

    score: Score
    labels: Sequence[HarmonyLabel]
    title: str = ""
    analyst: str = ""
    source: bytes | None = None
    source_suffix: str = ""

    def placed(self) -> Iterator[tuple[int, Fraction, HarmonyLabel]]:
        """The joined labels that begin within the score, with the measure of each and its beat in it, from 1."""
        score = self.score
        labels = [label for label in joined(self.labels) if label.start < score.num_ticks]
        starts = np.array([label.start for label in labels], np.int64)
        measures = score.measure_of(starts)
        positions, lengths = score.beat_position(starts), score.beat_length(measures)
        for label, measure, position, length in zip(labels, measures, positions, lengths):
            yield int(measure), 1 + Fraction(int(position), int(length)), label


def joined(labels: Sequence[HarmonyLabel]) -> Iterator[HarmonyLabel]:
    """The labels, neighbours that say the same as one; its confidence is theirs, each for its time."""
    held: HarmonyLabel | None = None
    for label in labels:
        if held is not None and held.end == label.start and _says(held) == _says(label):
            lengths = held.end - held.start, label.end - label.start
            mean = (held.confidence * lengths[0] + label.confidence * lengths[1]) / sum(lengths)
            held = replace(held, end=label.end, confidence=min(1.0, max(0.0, mean)))
            continue
        if held is not None:
            yield held
        held = label
    if held is not None:
        yield held


def numeral_of(label: HarmonyLabel) -> str:
    """The label's own numeral if it is one, and otherwise the one that its chord has in its key."""
    try:
        parse(label.numeral, label.key)
    except ValueError:
        return figure_of(label.key, label.tonicised, label.root, label.quality, label.inversion, Notation.ROMANTEXT)
    return label.numeral.strip()


def _says(label: HarmonyLabel) -> tuple[object, ...]:
    return (label.key, label.numeral, label.tonicised, label.root, label.quality, label.inversion)
