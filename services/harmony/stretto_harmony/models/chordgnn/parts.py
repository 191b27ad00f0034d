"""Harmony labels as the parts that the network tells, at each onset, and what is left of a numeral without its key.

Roots, basses and tonics are spelled; degrees are intervals on the line of fifths, so that the leading tone is one
degree in major and in minor. Together, key, both degrees, quality, root and inversion say the numeral.

Legend: O onsets, L labels, V numerals. Knows no torch and no notes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_harmony.models.chordgnn.config import NUM_DEGREES, NUM_RHYTHMS
from stretto_harmony.scores.labels import Analysis, ChordType, HarmonyLabel
from stretto_harmony.scores.pitch import MIN_FIFTHS, NUM_SPELLINGS, pitch_class
from stretto_harmony.scores.score import TICKS_PER_WHOLE

Ints = NDArray[np.int64]

NO_LABEL = -100
"""The class of an onset at which the analysis says nothing; cross-entropy passes over it."""
NO_DEGREE = NUM_DEGREES - 1
LOWEST_DEGREE = -8
"""The lowest interval that is a degree: the flat fourth. The highest is the sharp seventh, at 12."""
QUALITIES = tuple(ChordType)
TRANSPOSED = ("root", "bass")
"""Parts whose classes move one by one when the piece is transposed by a fifth."""
TRANSPOSED_KEYS = ("key", "tonicised")


@dataclass(frozen=True, order=True)
class RelativeNumeral:
    """A numeral without its key and its inversion.

    Args:
        in_minor: Whether it stands in a minor key.
        of: The interval from the key's tonic to the tonicised one, in fifths; 0 where nothing is tonicised.
        of_minor: Whether the tonicised key is minor.
        interval: From the tonicised tonic to the root, in fifths.
        quality: The place of the chord type in `QUALITIES`.
    """

    in_minor: int
    of: int
    of_minor: int
    interval: int
    quality: int


def relative_numeral(label: HarmonyLabel) -> RelativeNumeral:
    """What is left of the label when its key and inversion are taken away."""
    key, tonicised = label.key, label.tonicised
    return RelativeNumeral(
        int(key.is_minor),
        tonicised.tonic - key.tonic,
        int(tonicised.is_minor),
        label.root - tonicised.tonic,
        QUALITIES.index(label.quality),
    )


def count_numerals(analyses: Iterable[Analysis], size: int) -> list[RelativeNumeral]:
    """The `size` numerals that most labels have, the most frequent first."""
    counts = Counter(relative_numeral(label) for analysis in analyses for label in analysis)
    return [numeral for numeral, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:size]]


def degree_class(interval: int) -> int:
    """The class of an interval above a tonic; that of no degree where it has two accidentals or more."""
    place = interval - LOWEST_DEGREE
    return place if 0 <= place < NO_DEGREE else NO_DEGREE


def chord_class(root: int, quality: int) -> int:
    """The class of the pitch classes that a root and a chord type have: by the root's, then by type."""
    return pitch_class(root) * len(QUALITIES) + quality


def label_parts(label: HarmonyLabel, numerals: dict[RelativeNumeral, int]) -> dict[str, int]:
    """The class of each part but the rhythm; `numerals` has the classes of those that the network knows."""
    quality = QUALITIES.index(label.quality)
    applied = label.tonicised.tonic != label.key.tonic
    return {
        "key": label.key.index,
        "tonicised": label.tonicised.index,
        "degree": degree_class(label.root - label.tonicised.tonic),
        "of_degree": degree_class(label.tonicised.tonic - label.key.tonic) if applied else NO_DEGREE,
        "quality": quality,
        "inversion": label.inversion,
        "root": label.root - MIN_FIFTHS,
        "bass": min(max(label.bass - MIN_FIFTHS, 0), NUM_SPELLINGS - 1),
        "numeral": numerals.get(relative_numeral(label), len(numerals)),
        "chord": chord_class(label.root, quality),
    }


def onset_parts(analysis: Analysis, times: Ints, numerals: dict[RelativeNumeral, int]) -> dict[str, Ints]:
    """The class of each part at each onset [O], `NO_LABEL` in gaps."""
    at = analysis.at(times)
    rows = [label_parts(label, numerals) for label in analysis]
    starts = np.array([label.start for label in analysis], np.int64)
    parts = {}
    for name in rows[0] if rows else ():
        values = np.array([row[name] for row in rows], np.int64)
        parts[name] = np.where(at < 0, NO_LABEL, values[at])
    parts["rhythm"] = np.where(at < 0, NO_LABEL, rhythm_class(times - starts[at]))
    return parts


def rhythm_class(elapsed: Ints) -> Ints:
    """0 where a chord begins; 1 until a 32nd after it, 2 until a 16th, ... 6 from a half on."""
    thirty_seconds = np.maximum(elapsed, 1) / (TICKS_PER_WHOLE / 32)
    classes = 1 + np.ceil(np.log2(np.maximum(thirty_seconds, 1))).astype(np.int64)
    return np.where(elapsed <= 0, 0, np.minimum(classes, NUM_RHYTHMS - 1))
