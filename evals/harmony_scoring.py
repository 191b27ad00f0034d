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
from stretto_harmony.scores.numerals import figure_of
from stretto_harmony.scores.score import TICKS_PER_QUARTER

FRAME_TICKS = TICKS_PER_QUARTER // 8
INVERSIONS = ("root position", "first inversion", "second inversion", "third inversion")
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


def differences(pairs: Sequence[tuple[Analysis, Analysis]]) -> Counter[str]:
    """How many frames are wrong in which way, in musical words, over (reference, found) pairs."""
    counts: Counter[str] = Counter()
    for (wanted, told), frames in label_pairs(pairs).items():
        if part_values(wanted) != part_values(told):
            counts[difference(wanted, told)] += frames
    return counts


def label_pairs(pairs: Sequence[tuple[Analysis, Analysis]]) -> Counter[tuple[HarmonyLabel, HarmonyLabel]]:
    """How many frames have which two labels, where both have one."""
    counts: Counter[tuple[HarmonyLabel, HarmonyLabel]] = Counter()
    for reference, found in pairs:
        both = Counter(zip(*(index.tolist() for index in frame_labels(reference, found))))
        for (ours, theirs), frames in both.items():
            if theirs >= 0:
                counts[reference.labels[ours], found.labels[theirs]] += frames
    return counts


def difference(wanted: HarmonyLabel, told: HarmonyLabel) -> str:
    """What is taken for what."""
    same_key, same_root = wanted.key == told.key, wanted.root == told.root
    same_chord = same_root and wanted.quality == told.quality
    if same_chord and wanted.inversion == told.inversion:
        return "right chord, tonicised or not" if same_key else f"right chord, but {key_relation(wanted, told)}"
    if not same_key:
        return f"another chord, and {key_relation(wanted, told)}"
    if same_chord:
        return f"right chord, {INVERSIONS[told.inversion]} for {INVERSIONS[wanted.inversion]}"
    if same_root:
        return f"right root, {told.quality.value} for {wanted.quality.value}"
    return f"right key, {plain(told)} for {plain(wanted)}"


def plain(label: HarmonyLabel) -> str:
    """The numeral without inversion; but a tonic six-four, which is mostly cadential, keeps it."""
    is_six_four = label.root == label.key.tonic and label.inversion == 2 and label.quality.num_inversions == 3
    return figure_of(label.key, label.tonicised, label.root, label.quality, 2 if is_six_four else 0)


def key_relation(wanted: HarmonyLabel, told: HarmonyLabel) -> str:
    """How the told key lies to the wanted one."""
    interval, flips = told.key.tonic - wanted.key.tonic, told.key.is_minor != wanted.key.is_minor
    if flips and told.key.signature == wanted.key.signature:
        return "the relative key"
    if flips and interval == 0:
        return "the parallel key"
    if not flips and interval in (1, -1):
        return "the key of the dominant" if interval == 1 else "the key of the subdominant"
    return "a near key" if abs(told.key.signature - wanted.key.signature) <= 1 else "a far key"


def confusion_rows(pairs: Sequence[tuple[Analysis, Analysis]], size: int = 10) -> list[list[object]]:
    """A table: for the most frequent numerals without inversion, as what they are told, in shares; keys are right."""
    counts: dict[str, Counter[str]] = {}
    for (wanted, told), frames in label_pairs(pairs).items():
        if wanted.key == told.key:
            counts.setdefault(plain(wanted), Counter())[plain(told)] += frames
    names = sorted(counts, key=lambda name: -counts[name].total())[:size]
    rows: list[list[object]] = [["analyst", *names, "other"]]
    for name in names:
        shares = [counts[name][other] / counts[name].total() for other in names]
        rows.append([name, *(f"{share:.2f}" for share in shares), f"{1 - sum(shares):.2f}"])
    return rows
