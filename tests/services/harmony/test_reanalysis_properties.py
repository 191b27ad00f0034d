"""Whatever the piece, the grid and the edit, and however many windows at once: amended is as if analysed anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from harmony_calls import edited, make_score
from hypothesis import given, settings
from hypothesis import strategies as st
from stretto_harmony.engine import Edit, MeasureGrid
from stretto_harmony.engine.analyzing import Analyzing
from stretto_harmony.engine.windows import WindowLabels
from stretto_harmony.loading import BuiltAnalyzer, LoadedAnalyzer
from stretto_harmony.scores.labels import HarmonyLabel
from tiny_analyzers import TinyAnalyzer

MAX_MEASURES = 30


class Inline:
    """The part of `Analyzers` that analyses need, with one analyzer and no threads."""

    meter = None

    def __init__(self, analyzer: TinyAnalyzer, grid: MeasureGrid) -> None:
        joint = analyzer if analyzer.num_together else None
        built = BuiltAnalyzer(analyzer, None, grid.window_measures, grid.context_measures, joint)
        self._loaded = LoadedAnalyzer(SimpleNamespace(name="tiny", model_id="tiny"), built)  # type: ignore[arg-type]

    def find(self, model: str) -> LoadedAnalyzer:
        return self._loaded

    @contextmanager
    def admitted(self, loaded: LoadedAnalyzer) -> Iterator[None]:
        yield

    async def run(self, loaded: LoadedAnalyzer, work: Callable[[], Any], *, is_first: bool) -> Any:
        return work()


async def whole(analyzing: Analyzing, score: Any) -> list[HarmonyLabel]:
    windows = [each async for each in analyzing.analyze("", score) if isinstance(each, WindowLabels)]
    assert [window.first_measure for window in windows] == sorted(window.first_measure for window in windows)
    assert sum(window.num_measures for window in windows) == score.num_measures
    return [label for window in windows for label in window.labels]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_amended_analysis_is_that_of_the_edited_piece(data: st.DataObject) -> None:
    num_measures = data.draw(st.integers(1, MAX_MEASURES), "measures")
    grid = MeasureGrid(data.draw(st.integers(1, 7), "window"), data.draw(st.integers(0, 5), "context"))
    first = data.draw(st.integers(0, num_measures - 1), "first edited")
    count = data.draw(st.integers(1, num_measures - first), "edited")
    pickup, seed = data.draw(st.integers(0, 1), "pickup"), data.draw(st.integers(0, 3), "seed")
    analyzer = TinyAnalyzer(seed, data.draw(st.integers(0, 4), "together"))
    analyzing = Analyzing(Inline(analyzer, grid))  # type: ignore[arg-type]
    score = make_score(num_measures, pickup=pickup, seed=seed)
    after = score
    for measure in range(first, first + count):
        after = edited(after, measure)
    windows = grid.touched(first, first + count, num_measures)
    hand_first = data.draw(st.integers(0, windows[0].context_first), "first at hand")
    hand_last = data.draw(st.integers(windows[-1].context_last, num_measures), "last at hand")

    async def amended() -> tuple[list[HarmonyLabel], list[HarmonyLabel], list[HarmonyLabel]]:
        before, wanted = await whole(analyzing, score), await whole(analyzing, after)
        analyzer.calls.clear()
        edit = Edit(hand_first, num_measures, first, count)
        found = await analyzing.reanalyze("", after.measures(hand_first, hand_last), edit)
        assert found.num_windows == len(windows) == len(analyzer.calls), "only what the edit touches is analysed"
        shift = int(after.measure_start[hand_first])
        own = [replace(label, start=label.start + shift, end=label.end + shift) for label in found.labels]
        start, end = found.start + shift, found.end + shift
        kept = [label for label in before if label.start < start], [label for label in before if label.start >= end]
        return [*kept[0], *own, *kept[1]], wanted, before

    made, wanted, before = asyncio.run(amended())
    assert made == wanted
    assert before != wanted, "an edit that changes nothing would try nothing"
