"""An analyzer that takes some windows at once: who waits gets the first alone, and nobody gets other labels."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_analyzers
from harmony_calls import analyze, edited, labels_of, make_score, typed
from stretto.harmony.v1 import harmony_pb2
from stretto_harmony import loading
from stretto_harmony.convert import score_to_proto
from stretto_harmony.engine import MeasureGrid
from stretto_harmony.engine.windows import analyze_windows
from stretto_harmony.scores.labels import Analysis
from stretto_harmony.scores.score import Score

TOGETHER = 3


@pytest.fixture
def joint_weights_dir(weights_dir: Path, monkeypatch: pytest.MonkeyPatch, made: Any) -> Path:
    """The folder with `joint` beside, which follows the same seed as `first` and takes three windows at once."""
    builder = partial(tiny_analyzers.build, made=made, modules=False, num_together=TOGETHER)
    monkeypatch.setitem(loading.ARCHITECTURES, "TinyJoint", builder)  # type: ignore[arg-type]
    assert len("joint") == len("first")
    tiny_analyzers.write_weights(weights_dir, {"joint": "TinyJoint"})
    return weights_dir


@pytest.mark.parametrize(("num_measures", "turns"), [(1, [1]), (8, [1, 1]), (16, [1, 3]), (21, [1, 3, 2])])
async def test_the_first_window_is_analysed_alone_and_the_others_together(
    serve: Any, made: Any, joint_weights_dir: Path, num_measures: int, turns: list[int]
) -> None:
    score = score_to_proto(make_score(num_measures))
    async with serve(models="first,joint") as stub:
        one_by_one = await analyze(stub, score)
        together = await analyze(stub, score, model="joint")
    assert made["joint"].turns == turns and made["first"].turns == []
    assert [each.window for each in together[1:-1]] == [each.window for each in one_by_one[1:-1]]
    assert len(labels_of(together)) > 0


async def test_the_first_labels_come_before_the_others_are_analysed(
    serve: Any, made: Any, joint_weights_dir: Path
) -> None:
    gate = threading.Event()
    async with serve(models="joint") as stub:
        made["joint"].before = lambda: len(made["joint"].calls) < 2 or gate.wait(60)
        request = harmony_pb2.AnalyzeHarmonyRequest(score=typed(score_to_proto(make_score())))
        call = stub.AnalyzeHarmony(request, timeout=60)
        kinds = [(await call.read()).WhichOneof("payload") for _ in range(2)]
        assert kinds == ["outline", "window"] and len(made["joint"].calls) <= 2
        gate.set()
        call.cancel()


async def test_the_windows_of_an_edit_are_analysed_together(serve: Any, made: Any, joint_weights_dir: Path) -> None:
    score = edited(make_score(), 8)
    async with serve(models="joint") as stub:
        whole = labels_of(await analyze(stub, score_to_proto(score)))
        made["joint"].turns.clear()
        request = harmony_pb2.ReanalyzeHarmonyRequest(
            score=typed(score_to_proto(score)), edited_measure_index=8, edited_measure_count=1
        )
        reply = await stub.ReanalyzeHarmony(request, timeout=60)
    assert made["joint"].turns == [2] and reply.window_count == 2
    wanted = [label for label in whole if reply.start_ticks <= label.start_ticks < reply.end_ticks]
    assert list(reply.labels) == wanted and wanted


def test_a_label_that_lasts_beyond_its_window_is_cut_to_it() -> None:
    score, grid = make_score(10, pickup=1), MeasureGrid(4, 2)
    windows = [grid.window(index, score.num_measures) for index in range(grid.num_windows(score.num_measures))]

    def one_label(scores: Sequence[Score]) -> list[Analysis]:
        return [Analysis((tiny_analyzers.label_of(0, each.num_ticks, 1),)) for each in scores]

    found = [label for each in analyze_windows(one_label, score, windows) for label in each.labels]
    bounds = [0, int(score.measure_start[4]), int(score.measure_start[8]), score.num_ticks]
    assert [(label.start, label.end) for label in found] == list(zip(bounds, bounds[1:]))
