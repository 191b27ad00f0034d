"""What the modular analyzer tells of a piece as it is served: window by window of measures, each with its context.

A piece of the published tensors has no measures, only metrical levels. A measure begins at each onset on a downbeat;
where two downbeats are as far apart as several measures are, none of which begins with a note, those between are put
in. So the grid is that of `engine/windows.py`, but where a piece begins with measures in which nothing begins.

Legend: N notes, O onsets, M measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
from modular_pieces import Piece
from modular_scores import Told, onset_weights, recall, told_by_analysis, told_by_reading
from numpy.typing import NDArray
from stretto_harmony.engine.windows import MeasureGrid
from stretto_harmony.models.modular.analyzer import ModularAnalyzer
from stretto_harmony.models.modular.vectors import NoteTable
from stretto_harmony.scores.score import DOWNBEAT

Floats = NDArray[np.float64]
_NEIGHBOURS = 8  # measures on either side by which the length of a measure is told


def measure_starts(notes: NoteTable) -> Floats:
    """Whole notes [M] at which measures begin, the pickup's among them; the first is that of the first onset."""
    onset = notes.onset[notes.first]
    begun = onset[notes.onset_level[notes.first] == DOWNBEAT]
    starts = [float(onset[0])] if not len(begun) or begun[0] > onset[0] else []
    gaps = np.diff(begun)
    for place, start in enumerate(begun):
        starts.append(float(start))
        if place < len(gaps):
            usual = float(np.median(gaps[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS + 1]))
            count = max(1, round(float(gaps[place]) / usual))
            starts += [float(start + gaps[place] * n / count) for n in range(1, count)]
    return np.array(starts)


def told_in_windows(analyzer: ModularAnalyzer, notes: NoteTable, grid: MeasureGrid) -> Told:
    """What is told at all onsets, where each window is read with its context and nothing else."""
    starts = np.append(measure_starts(notes), np.inf)
    onset = notes.onset[notes.first]
    num_measures = len(starts) - 1
    chords, keys = [], []
    for index in range(grid.num_windows(num_measures)):
        window = grid.window(index, num_measures)
        own = _within(onset, starts[window.first], starts[window.last])
        if not own.any():
            continue
        around = _within(onset, starts[window.context_first], starts[window.context_last])
        seen = _between(notes, starts[window.context_first], starts[window.context_last])
        told = told_by_reading(analyzer.read(seen)[0], int(around.sum()))
        chords.append(told.chord[own[around]])
        keys.append(told.key[own[around]])
    return Told(np.concatenate(chords), np.concatenate(keys))


def score_in_windows(analyzer: ModularAnalyzer, piece: Piece, grid: MeasureGrid) -> Mapping[str, float]:
    """The recall of a piece as it is served."""
    return recall(told_in_windows(analyzer, piece.notes, grid), told_by_analysis(piece), onset_weights(piece))


def _within(onset: Floats, start: float, end: float) -> NDArray[np.bool_]:
    return np.asarray((onset >= start - 1e-9) & (onset < end - 1e-9))


def _between(notes: NoteTable, start: float, end: float) -> NoteTable:
    """The notes that begin there, in whole notes from there, as `Score.measures` has them."""
    kept = _within(notes.onset, start, end)
    cut = {field.name: getattr(notes, field.name)[kept] for field in fields(NoteTable)}
    return NoteTable(**{**cut, "onset": cut["onset"] - start})
