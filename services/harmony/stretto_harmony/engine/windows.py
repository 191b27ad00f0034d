"""The fixed grid of windows of measures on which an analysis is defined, and the analysis of some windows.

Every window is analysed with its context and nothing else, in ticks from the start of its context. So what a window
gives follows from its own measures and those around it, wherever they lie in whatever was sent: a stream, a whole piece
and an excerpt around an edit are the same arithmetic. Knows no models, threads or wire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from stretto_harmony.scores.labels import Analysis, HarmonyLabel
from stretto_harmony.scores.score import Score


@dataclass(frozen=True)
class Window:
    """Measures `first` to before `last`, seen with those from `context_first` to before `context_last`."""

    first: int
    last: int
    context_first: int
    context_last: int

    @property
    def num_measures(self) -> int:
        return self.last - self.first

    def earlier(self, num_measures: int) -> Window:
        """The same window where counting begins so many measures later."""
        return Window(
            *(place - num_measures for place in (self.first, self.last, self.context_first, self.context_last))
        )


@dataclass(frozen=True)
class MeasureGrid:
    """Windows of `window_measures` measures from the first one on, each with `context_measures` on both sides."""

    window_measures: int
    context_measures: int

    def num_windows(self, num_measures: int) -> int:
        """How many windows a piece has."""
        return -(-num_measures // self.window_measures)

    def window(self, index: int, num_measures: int) -> Window:
        """One window of a piece of so many measures."""
        first = index * self.window_measures
        last = min(first + self.window_measures, num_measures)
        return Window(
            first, last, max(0, first - self.context_measures), min(num_measures, last + self.context_measures)
        )

    def touched(self, first: int, last: int, num_measures: int) -> list[Window]:
        """The windows whose measures or context hold one of the measures `first` to before `last`."""
        reach_first = max(0, first - self.context_measures) // self.window_measures
        reach_last = self.num_windows(min(num_measures, last + self.context_measures))
        windows = [self.window(index, num_measures) for index in range(reach_first, reach_last)]
        return [each for each in windows if each.context_first < last and first < each.context_last]


@dataclass(frozen=True)
class WindowLabels:
    """What one window gave: labels in ticks of the score that it is of, and the measures that they are of."""

    first_measure: int
    num_measures: int
    labels: tuple[HarmonyLabel, ...]


def analyze_window(analyze: Callable[[Score], Analysis], score: Score, window: Window) -> WindowLabels:
    """The labels of one window of a score, cut to its measures."""
    return analyze_windows(lambda scores: [analyze(each) for each in scores], score, [window])[0]


def analyze_windows(
    analyze_all: Callable[[Sequence[Score]], Sequence[Analysis]], score: Score, windows: Sequence[Window]
) -> list[WindowLabels]:
    """The labels of some windows of a score, each cut to its measures."""
    seen = [score.measures(window.context_first, window.context_last) for window in windows]
    return [
        _own_labels(score, window, each, analysis)
        for window, each, analysis in zip(windows, seen, analyze_all(seen), strict=True)
    ]


def _own_labels(score: Score, window: Window, seen: Score, analysis: Analysis) -> WindowLabels:
    own_first, own_last = window.first - window.context_first, window.last - window.context_first
    start = int(seen.measure_start[own_first])
    end = int(seen.measure_start[own_last]) if own_last < seen.num_measures else seen.num_ticks
    shift = int(score.measure_start[window.context_first])
    labels = tuple(
        replace(label, start=max(label.start, start) + shift, end=min(label.end, end) + shift)
        for label in analysis
        if label.start < end and label.end > start
    )
    return WindowLabels(window.first, window.num_measures, labels)
