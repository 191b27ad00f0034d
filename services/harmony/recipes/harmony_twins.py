"""Pieces that share their notes: runs of melodic intervals of one piece found in another, whatever the key.

A fingerprint is the set of runs of `RUN` intervals (in semitones) between the highest notes at successive onsets, and
of the lowest ones. Works of one composer share a few runs of scales; two editions of a movement share most.
"""

from __future__ import annotations

import collections
from collections.abc import Hashable
from typing import TypeVar

import numpy as np
from stretto_harmony.scores.score import Score

RUN = 10
MIN_SHARED = 0.2
"""Of the smaller fingerprint. Editions of one movement share above .6, others below .1."""

Name = TypeVar("Name", bound=Hashable)


def fingerprint(score: Score) -> frozenset[bytes]:
    """The runs of intervals of the outer voices; empty for a piece of fewer onsets than a run has notes."""
    runs: set[bytes] = set()
    last = np.append(np.diff(score.onset) > 0, True)
    first = np.insert(np.diff(score.onset) > 0, 0, True)
    for outer in (score.midi[last], score.midi[first]) if score.num_notes else ():
        intervals = np.diff(outer).astype(np.int8)
        runs |= {intervals[place : place + RUN].tobytes() for place in range(len(intervals) - RUN + 1)}
    return frozenset(run for run in runs if len(set(run)) > 2)


def shared(left: frozenset[bytes], right: frozenset[bytes]) -> float:
    """Of the smaller fingerprint, the share that is in the other; 0 when one is empty."""
    smaller = min(len(left), len(right))
    return len(left & right) / smaller if smaller else 0.0


def held_out_twins(scores: dict[Name, Score], held_out: set[Name]) -> dict[Name, Name]:
    """For each piece that shares its notes with a held-out one, the held-out one that it shares most with."""
    prints = {name: fingerprint(score) for name, score in scores.items()}
    owners: dict[bytes, list[Name]] = collections.defaultdict(list)
    for name in held_out:
        for run in prints[name]:
            owners[run].append(name)
    twins: dict[Name, Name] = {}
    for name in scores.keys() - held_out:
        common = collections.Counter(owner for run in prints[name] for owner in owners.get(run, ()))
        near = {owner: shared(prints[name], prints[owner]) for owner, _ in common.most_common(5)}
        best = max(near, key=lambda owner: near[owner], default=None)
        if best is not None and near[best] >= MIN_SHARED:
            twins[name] = best
    return twins
