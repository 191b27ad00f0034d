"""Count what the engraver knows of scores, over ASAP's training compositions, and print it as `tables.py`.

How often beats have which grid and which places in it, how pieces of each time signature are played, and which pitch
classes the music under a key signature has: two profiles found by expectation and maximisation, of which the one with
the weightier leading note a minor third below is minor.

    python services/transcriber/recipes/fit_engraving.py --data ../shared/data \
        > services/transcriber/stretto_transcriber/models/engraving/tables.py
    ruff format services/transcriber/stretto_transcriber/models/engraving/tables.py

Cost: a minute of one core.

Legend: G grids.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[3] / "evals"))
from asap_pairs import Pair, Reference, place_in_beats, read_pairs
from stretto_transcriber.models.engraving.grids import GRIDS, TICKS_PER_BEAT, smallest_grid
from stretto_transcriber.models.engraving.metre import beat_features

SNAP_TICKS = 16
"""Files place tuplets by whole MIDI ticks."""
MIN_PIECES = 2
USUAL_SPREAD = np.array([0.55, 0.35, 0.2])
SPREAD_WEIGHT = 5.0
"""Of few pieces, the spread is as usual: this many pieces' worth."""
NUM_EM_STEPS = 50
HEAD = '''"""Counts over scores and performances; `recipes/fit_engraving.py` prints this file."""

from __future__ import annotations

from fractions import Fraction
'''

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def grids_of(reference: Reference) -> dict[int, tuple[int, Ints]]:
    """The grid and the taken places of every beat that has one."""
    tick = np.round(reference.onset_beat * TICKS_PER_BEAT).astype(np.int64)
    known = np.unique(np.concatenate([*GRIDS, [TICKS_PER_BEAT]]))
    beat = tick // TICKS_PER_BEAT
    phase = tick - beat * TICKS_PER_BEAT
    found = {}
    for index in np.unique(beat):
        places = np.unique(phase[beat == index])
        nearest = known[np.abs(places[:, None] - known).argmin(axis=1)]
        if np.abs(nearest - places).max() < SNAP_TICKS:
            taken = nearest[nearest < TICKS_PER_BEAT]
            grid = smallest_grid(taken)
            if grid >= 0:
                found[int(index)] = (grid, taken)
    return found


def count_grids(references: list[Reference]) -> tuple[Array, float, list[Array]]:
    """Shares [G], how much a beat keeps to the grid of the last beyond chance, and the places' chances."""
    count = np.zeros(len(GRIDS))
    taken = [np.zeros(len(grid)) for grid in GRIDS]
    pairs = np.zeros((len(GRIDS), len(GRIDS)))
    for reference in references:
        beats = grids_of(reference)
        for beat, (grid, places) in beats.items():
            count[grid] += 1
            taken[grid] += np.isin(GRIDS[grid], places)
            if beat - 1 in beats:
                pairs[beats[beat - 1][0], grid] += 1
    pairs /= pairs.sum()
    chance = float(pairs.sum(axis=0) @ pairs.sum(axis=1))
    stay = (float(np.trace(pairs)) - chance) / (1.0 - chance)
    shares = (count + 1.0) / (count + 1.0).sum()
    return shares, stay, [np.clip((each + 0.5) / (n + 1.0), 0.01, 0.99) for each, n in zip(taken, count)]


def signature_of(reference: Reference) -> tuple[int, Fraction]:
    """The commonest number of beats in a bar, and the quarter notes in a beat."""
    lengths = np.diff(np.flatnonzero(reference.beat_in_bar == 1))
    num_beats = int(np.bincount(lengths).argmax()) if len(lengths) else 1
    beat = float(np.median(np.diff(reference.beat_quarter)))
    return num_beats, Fraction(beat).limit_denominator(8)


def features_of(pair: Pair) -> Array:
    """What `metre.beat_features` says of a performance whose places are the written ones."""
    place = place_in_beats(pair.performance.onset_s, pair.performance.beat_s)
    written = place.copy()
    written[pair.matches[:, 0]] = pair.reference.onset_beat[pair.matches[:, 1]]
    tick = np.round(written * TICKS_PER_BEAT).astype(np.int64)
    known = np.unique(np.concatenate([*GRIDS, [TICKS_PER_BEAT]]))
    phase = tick % TICKS_PER_BEAT
    nearest = known[np.abs(phase[:, None] - known).argmin(axis=1)]
    kept = np.abs(nearest - phase) < SNAP_TICKS
    return beat_features((tick - phase + nearest)[kept], pair.performance.beat_s)


def profile_units(pairs: list[Pair]) -> list[tuple[int, Fraction, float, Array, Array]]:
    """Per bar and beat: the log of its share, and means and deviations of the features."""
    rows = defaultdict(list)
    for pair in pairs:
        rows[signature_of(pair.reference)].append(features_of(pair))
    total = sum(map(len, rows.values()))
    profiles = []
    for (num_beats, beat), found in sorted(rows.items()):
        if len(found) >= MIN_PIECES and beat.numerator in (1, 2, 3):
            variance = len(found) * np.var(found, axis=0) + SPREAD_WEIGHT * USUAL_SPREAD**2
            spread = np.sqrt(variance / (len(found) + SPREAD_WEIGHT))
            share = float(np.log(len(found) / total))
            profiles.append((num_beats, beat, share, np.mean(found, axis=0), spread))
    return profiles


def profile_keys(references: list[Reference]) -> tuple[Array, Array]:
    """Chances of the pitch classes [12] from the tonic, in pieces in major and in minor."""
    rows = []
    for reference in references:
        beat = np.clip(reference.onset_beat.astype(int), 0, len(reference.sharps) - 1)
        sharps = reference.sharps[beat]
        weight = np.clip(reference.duration_beat, 0.0, 4.0)
        for value in np.unique(sharps):
            here = sharps == value
            classes = (reference.pitch_midi[here] - 7 * int(value)) % 12
            rows.append(np.bincount(classes, weights=weight[here], minlength=12))
    counts = np.array(rows) / np.sum(rows, axis=1, keepdims=True) * 100.0
    profiles = np.array([np.ones(12), np.ones(12)])
    profiles[0, [0, 4, 7]] += 2.0  # major, and its relative minor: where the two begin
    profiles[1, [9, 0, 4, 8]] += 2.0
    for _ in range(NUM_EM_STEPS):
        profiles /= profiles.sum(axis=1, keepdims=True)
        level = counts @ np.log(profiles.T)
        share = np.exp(level - level.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        profiles = share.T @ counts + 0.1
    profiles /= profiles.sum(axis=1, keepdims=True)
    return profiles[0], np.roll(profiles[1], 3)


def numbers(values: Array) -> str:
    """A tuple as Python writes it."""
    return "(" + " ".join(f"{value:.4f}," for value in values) + ")"


def main() -> None:
    """Command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="the folder of data")
    args = options.parse_args()
    pairs = list(read_pairs(args.data / "symbolic" / "asap.tar.xz", "train", most_per_composition=1))
    references = [pair.reference for pair in pairs]
    shares, stay, places = count_grids(references)
    major, minor = profile_keys(references)
    print(HEAD)
    print(f"GRID_SHARES = {numbers(shares)}\nGRID_STAY = {stay:.4f}\nPLACES = (")
    print(*(f"    {numbers(each)}," for each in places), sep="\n")
    print(")\nUNIT_PROFILES = (")
    for num_beats, beat, share, mean, spread in profile_units(pairs):
        print(f"    ({num_beats}, Fraction({beat.numerator}, {beat.denominator}), {share:.4f},")
        print(f"     {numbers(mean)}, {numbers(spread)}),")
    print(f")\nMAJOR = {numbers(major)}\nMINOR = {numbers(minor)}")


if __name__ == "__main__":
    main()
