"""Pieces of the published tensors as they are served: their measures told from downbeats, and windows of these."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from stretto_harmony.engine.windows import MeasureGrid, analyze_window
from stretto_harmony.models.modular.analyzer import ModularAnalyzer
from stretto_harmony.models.modular.config import search_of
from stretto_harmony.models.modular.vectors import NoteTable, note_table
from stretto_harmony.scores.score import TICKS_PER_QUARTER, TICKS_PER_WHOLE
from tiny_modules import tiny_modules, tiny_score

sys.path.append(str(Path(__file__).resolve().parents[4] / "services" / "harmony" / "recipes"))
from modular_windows import measure_starts, told_in_windows


def kept(notes: NoteTable, which: np.ndarray) -> NoteTable:
    return NoteTable(**{name: value[which] for name, value in vars(notes).items()})


def test_measures_begin_on_downbeats_and_where_a_pickup_does() -> None:
    score = tiny_score(24)
    notes = note_table(score)
    assert measure_starts(notes).tolist() == (score.measure_start / TICKS_PER_WHOLE).tolist()
    pickup = kept(notes, notes.onset >= 0.75)
    assert measure_starts(pickup).tolist() == [0.75, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_measures_in_which_nothing_begins_on_the_downbeat_are_put_in() -> None:
    notes = note_table(tiny_score(40))
    tied = kept(notes, ~np.isin(notes.onset, [3.0, 4.0]))
    assert measure_starts(tied).tolist() == list(range(10))


def test_music_without_a_downbeat_is_one_measure() -> None:
    notes = note_table(tiny_score(8))
    assert measure_starts(kept(notes, notes.onset_level < 3)).tolist() == [0.25]


@pytest.mark.parametrize("grid", [MeasureGrid(2, 1), MeasureGrid(3, 2), MeasureGrid(32, 8)])
def test_what_is_told_in_windows_is_what_is_served(grid: MeasureGrid) -> None:
    score = tiny_score(40)
    analyzer = ModularAnalyzer(tiny_modules(), search_of("published", beam_size=5))
    windows = [grid.window(index, score.num_measures) for index in range(grid.num_windows(score.num_measures))]
    served = [label for each in windows for label in analyze_window(analyzer.analyze, score, each).labels]
    told = told_in_windows(analyzer, note_table(score), grid)
    assert len(told.chord) == len(told.key) == 40
    for place, tick in enumerate(range(0, score.num_ticks, TICKS_PER_QUARTER)):
        label = next(each for each in served if each.start <= tick < each.end)
        assert label.tonicised.index == told.key[place]
        assert label.root == told.chord[place] // 44 - 15


def test_windows_see_their_context_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    analyzer = ModularAnalyzer(tiny_modules(), search_of("published", beam_size=5))
    read, seen = analyzer.read, []
    monkeypatch.setattr(analyzer, "read", lambda notes: seen.append(notes) or read(notes))
    notes = note_table(tiny_score(40))
    told_in_windows(analyzer, notes, MeasureGrid(4, 2))
    for part, (first, last) in zip(seen, [(0, 6), (2, 10), (6, 10)], strict=True):
        expected = kept(notes, (notes.onset >= first) & (notes.onset < last))
        assert part.onset.tolist() == (expected.onset - first).tolist()
        assert part.spelling.tolist() == expected.spelling.tolist()
