"""How much of a piece's time two analyses agree on, as ChordGNN's and AugmentedNet's papers count it.

Both are read at every 32nd note. Key, root (spelled), quality and inversion are right where they are equal; the degree
where the chord's and the tonicised degree are, each as the interval above its tonic; the numeral where all five are.
Frames that the reference says nothing of do not count; those that the other leaves empty are wrong.

Departure from the papers: they first reduce the reference to AugmentedNet's vocabulary; here it is taken as its analyst
wrote it, whoever is compared with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from stretto_harmony.scores.labels import Analysis, HarmonyLabel
from stretto_harmony.scores.score import TICKS_PER_QUARTER

FRAME_TICKS = TICKS_PER_QUARTER // 8
PARTS = ("key", "degree", "quality", "inversion", "root", "numeral")


def part_values(label: HarmonyLabel) -> tuple[object, ...]:
    """What must be equal for each of the first five parts."""
    key, tonicised = label.key, label.tonicised
    degree = (label.root - tonicised.tonic, tonicised.tonic - key.tonic)
    return (key.tonic, key.is_minor), degree, label.quality, label.inversion, label.root


def hits(reference: Analysis, found: Analysis) -> NDArray[np.bool_]:
    """Whether each part is right at each frame that the reference tells [T, PARTS]."""
    ours, theirs = frame_labels(reference, found)
    table: dict[tuple[int, int], tuple[bool, ...]] = {}
    rows = []
    wanted = [part_values(label) for label in reference]
    told = [part_values(label) for label in found]
    for pair in zip(ours.tolist(), theirs.tolist()):
        if pair not in table:
            right = [pair[1] >= 0 and a == b for a, b in zip(wanted[pair[0]], told[pair[1]])]
            table[pair] = (*right, all(right))
        rows.append(table[pair])
    return np.array(rows, bool).reshape(-1, len(PARTS))


def frame_labels(reference: Analysis, found: Analysis) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The labels of both at each frame that the reference tells [T]; -1 where the other has none."""
    end = max((label.end for label in reference), default=0)
    times = np.arange(0, end, FRAME_TICKS)
    ours = reference.at(times)
    times = times[ours >= 0]
    return ours[ours >= 0], found.at(times)


def confusions(pairs: Sequence[tuple[Analysis, Analysis]]) -> Counter[tuple[str, str]]:
    """How many frames each wrong numeral stands for another, in words, over (reference, found) pairs."""
    counts: Counter[tuple[str, str]] = Counter()
    for reference, found in pairs:
        for ours, theirs in zip(*frame_labels(reference, found)):
            if theirs < 0:
                continue
            wanted, told = reference.labels[ours], found.labels[theirs]
            if part_values(wanted) != part_values(told):
                counts[difference(wanted, told)] += 1
    return counts


def difference(wanted: HarmonyLabel, told: HarmonyLabel) -> tuple[str, str]:
    """What is taken for what, in musical terms."""
    same_chord = part_values(wanted)[2:] == part_values(told)[2:]
    if same_chord and wanted.key != told.key:
        return (f"{wanted.numeral} in its key", f"the same chord as {told.numeral} in {key_relation(wanted, told)}")
    if same_chord:
        return wanted.numeral, told.numeral
    if wanted.key != told.key:
        return "another chord", f"in {key_relation(wanted, told)}"
    return wanted.numeral, told.numeral


def key_relation(wanted: HarmonyLabel, told: HarmonyLabel) -> str:
    """How the second label's key lies to the first's."""
    steps = told.key.signature - wanted.key.signature
    if steps == 0:
        return "the relative key"
    if told.key.tonic == wanted.key.tonic:
        return "the parallel key"
    names = {1: "dominant", -1: "subdominant"}
    interval = told.key.tonic - wanted.key.tonic
    if interval in names and told.key.is_minor == wanted.key.is_minor:
        return f"the key of the {names[interval]}"
    return "a near key" if abs(steps) <= 1 else "a far key"
