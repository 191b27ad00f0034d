"""The analyzers that are committed, on the grid on which they are served."""

from __future__ import annotations

import pytest
from harmony_calls import edited, make_score
from stretto_harmony.engine import MeasureGrid
from stretto_harmony.engine.analyzing import grid_of
from stretto_harmony.engine.windows import analyze_window
from stretto_harmony.loading import list_names, load_analyzer
from stretto_harmony.scores.score import Score
from stretto_harmony.settings import HarmonySettings

WEIGHTS_DIR = HarmonySettings().weights_dir
NAMES = list_names(WEIGHTS_DIR)


def test_there_is_one() -> None:
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_window_of_a_piece_is_that_of_its_excerpt_and_an_edit_outside_its_context_changes_nothing(name: str) -> None:
    loaded = load_analyzer(name, "default", weights_dir=WEIGHTS_DIR)
    assert grid_of(loaded).window_measures > 0 and loaded.info.parameter_count > 0
    grid, score = MeasureGrid(3, 2), make_score(9)  # as that of the service, and small: measures 1 to 7 are seen
    window = grid.window(1, score.num_measures)
    first, last = window.context_first, window.context_last
    excerpt = score.measures(first, last)

    def analyzed(whole: Score, skipped: int = 0) -> list[object]:
        found = analyze_window(loaded.analyze, whole, window.earlier(skipped))
        shift = int(score.measure_start[skipped])
        return [
            (each.start + shift, each.end + shift, each.numeral, each.key, each.confidence) for each in found.labels
        ]

    of_piece = analyzed(score)
    assert of_piece and analyzed(excerpt, first) == of_piece
    assert analyzed(edited(score, 0)) == of_piece == analyzed(edited(score, last))
    assert [each.start for each in loaded.analyze(score)] == [each.start for each in loaded.analyze(score)]
