"""`Analyzing`: whole scores window by window, and what an edit has changed of one."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from stretto_shared.errors import Conflict, InvalidInput
from stretto_shared.features import ModelInfo

from stretto_harmony.engine.analyzers import Analyzers
from stretto_harmony.engine.windows import MeasureGrid, Window, WindowLabels, analyze_windows
from stretto_harmony.loading import LoadedAnalyzer
from stretto_harmony.scores.labels import HarmonyLabel
from stretto_harmony.scores.score import MAX_MEASURES, Score


@dataclass(frozen=True)
class Outline:
    """What will be analysed, by whom, and on which grid."""

    model: ModelInfo
    score: Score
    grid: MeasureGrid


@dataclass(frozen=True)
class Edit:
    """What was edited of a piece, and which of its measures are at hand.

    Args:
        first_measure: Which measure of the piece is the first at hand.
        num_piece_measures: Of the edited piece; 0 where all of it is at hand.
        first_edited: The first edited measure of the piece.
        num_edited: How many were edited.
        model_id: Who made the analysis that is to be amended; empty is not checked.
    """

    first_measure: int = 0
    num_piece_measures: int = 0
    first_edited: int = 0
    num_edited: int = 0
    model_id: str = ""


@dataclass(frozen=True)
class Amendment:
    """The labels that replace those of the measures named, in ticks from the start of the measures at hand."""

    model: ModelInfo
    first_measure: int
    num_measures: int
    labels: tuple[HarmonyLabel, ...]
    start: int
    end: int
    num_windows: int


class Analyzing:
    """Analyses scores.

    Invariant: the windows of a stream are those of the whole score, and those that an edit touches, analysed again, are
    those of the edited score byte for byte; only they are computed
    (`tests/services/harmony/test_reanalyze_harmony.py`).

    Args:
        analyzers: Who analyses.
    """

    def __init__(self, analyzers: Analyzers) -> None:
        self._analyzers = analyzers

    async def analyze(self, model: str, score: Score) -> AsyncGenerator[Outline | WindowLabels, None]:
        """The outline, then the labels of every window.

        Raises:
            NotFound: If there is no such analyzer.
            Overloaded: If it serves as many requests as it takes.
        """
        loaded = self._analyzers.find(model)
        grid = grid_of(loaded)
        with self._analyzers.admitted(loaded):
            yield Outline(loaded.info, score, grid)
            windows = [grid.window(index, score.num_measures) for index in range(grid.num_windows(score.num_measures))]
            for turn, some in enumerate(_turns(windows, loaded.num_together, is_first_alone=True)):
                for labels in await self._windows(loaded, score, some, is_first=turn == 0):
                    yield labels

    async def reanalyze(self, model: str, score: Score, edit: Edit) -> Amendment:
        """The labels of the windows that an edit touches.

        Raises:
            Conflict: If another model made the analysis.
            InvalidInput: If the edit is not within the piece, or measures that it needs are not at hand.
            NotFound: If there is no such analyzer.
            Overloaded: If it serves as many requests as it takes.
        """
        loaded = self._analyzers.find(model)
        if edit.model_id not in ("", loaded.info.model_id):
            raise Conflict(
                f"The analysis is by {edit.model_id!r}, and this server has {loaded.info.model_id!r}. "
                "Analyse the whole piece.",
                reason="MODEL_CHANGED",
            )
        windows = _touched(grid_of(loaded), score, edit)
        with self._analyzers.admitted(loaded):
            at_hand = [window.earlier(edit.first_measure) for window in windows]
            found = [
                labels
                for turn, some in enumerate(_turns(at_hand, loaded.num_together))
                for labels in await self._windows(loaded, score, some, is_first=turn == 0)
            ]
        first, last = windows[0].first, windows[-1].last
        at_hand_last = last - edit.first_measure
        return Amendment(
            loaded.info,
            first,
            last - first,
            tuple(label for each in found for label in each.labels),
            int(score.measure_start[first - edit.first_measure]),
            int(score.measure_start[at_hand_last]) if at_hand_last < score.num_measures else score.num_ticks,
            len(windows),
        )

    async def _windows(
        self, loaded: LoadedAnalyzer, score: Score, windows: Sequence[Window], *, is_first: bool
    ) -> list[WindowLabels]:
        return await self._analyzers.run(loaded, partial(self._timed, loaded, score, windows), is_first=is_first)

    def _timed(self, loaded: LoadedAnalyzer, score: Score, windows: Sequence[Window]) -> list[WindowLabels]:
        began_s = time.perf_counter()
        found = analyze_windows(loaded.analyze_all, score, windows)
        if self._analyzers.meter is not None:
            taken_s = (time.perf_counter() - began_s) / len(windows)
            for window in windows:
                self._analyzers.meter.observe_window(loaded.info.name, window.num_measures, taken_s)
        return found


def _turns(windows: Sequence[Window], num_together: int, *, is_first_alone: bool = False) -> Iterator[Sequence[Window]]:
    """The windows of each turn on the model thread; the first alone where somebody waits for its labels."""
    alone = 1 if is_first_alone else 0
    yield from (windows[:alone],) if alone else ()
    for first in range(alone, len(windows), num_together):
        yield windows[first : first + num_together]


def grid_of(loaded: LoadedAnalyzer) -> MeasureGrid:
    """The grid on which an analyzer is used."""
    return MeasureGrid(loaded.built.window_measures, loaded.built.context_measures)


def _touched(grid: MeasureGrid, score: Score, edit: Edit) -> list[Window]:
    """The windows that an edit touches, all of which are at hand."""
    _check_range("first_measure_index", edit.first_measure, 0, MAX_MEASURES - 1)
    at_hand_last = edit.first_measure + score.num_measures
    num_measures = edit.num_piece_measures or at_hand_last
    _check_range("measure_count", num_measures, at_hand_last, MAX_MEASURES)
    _check_range("edited_measure_index", edit.first_edited, 0, num_measures - 1)
    _check_range("edited_measure_count", edit.num_edited, 1, num_measures - edit.first_edited)
    windows = grid.touched(edit.first_edited, edit.first_edited + edit.num_edited, num_measures)
    first, last = windows[0].context_first, windows[-1].context_last
    if first < edit.first_measure or last > at_hand_last:
        raise InvalidInput(
            "score",
            f"expected measures {first} to {last - 1} of the piece, counted from 0, which the edit touches with their "
            f"context; got {edit.first_measure} to {at_hand_last - 1}. Send more of them.",
        )
    return windows


def _check_range(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidInput(field, f"expected {low} to {high}, got {value}. Count measures from 0.")
