"""An edited measure costs its neighbourhood, and gives what a whole analysis would, byte for byte."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from harmony_calls import (
    NUM_MEASURES,
    analyze,
    edited,
    failure,
    file_of,
    labels_of,
    make_score,
    musicxml_of,
    typed,
    violation,
)
from stretto.harmony.v1 import harmony_pb2
from stretto_harmony.convert import score_to_proto
from stretto_harmony.engine import MeasureGrid
from tiny_analyzers import CONTEXT, WINDOW

Request = harmony_pb2.ReanalyzeHarmonyRequest
GRID = MeasureGrid(WINDOW, CONTEXT)


def excerpt_request(score: Any, first_edited: int, num_edited: int = 1, **fields: Any) -> Request:
    """The least measures that an edit needs."""
    windows = GRID.touched(first_edited, first_edited + num_edited, score.num_measures)
    first, last = windows[0].context_first, windows[-1].context_last
    return Request(
        score=typed(score_to_proto(score.measures(first, last))),
        first_measure_index=first,
        measure_count=score.num_measures,
        edited_measure_index=first_edited,
        edited_measure_count=num_edited,
        start_ticks=int(score.measure_start[first]),
        **fields,
    )


def amended(labels: list[Any], reply: Any) -> list[bytes]:
    """The old labels with the new ones in their place, as bytes."""
    before = [label for label in labels if label.start_ticks < reply.start_ticks]
    after = [label for label in labels if label.start_ticks >= reply.end_ticks]
    return [label.SerializeToString(deterministic=True) for label in [*before, *reply.labels, *after]]


async def test_an_amended_analysis_is_that_of_the_edited_score_byte_for_byte(serve: Any) -> None:
    score = make_score(pickup=1)
    async with serve() as stub:
        before = labels_of(await analyze(stub, score_to_proto(score)))
        for measure in range(NUM_MEASURES):
            changed = edited(score, measure)
            whole = labels_of(await analyze(stub, score_to_proto(changed)))
            reply = await stub.ReanalyzeHarmony(excerpt_request(changed, measure), timeout=60)
            wanted = [label.SerializeToString(deterministic=True) for label in whole]
            assert amended(before, reply) == wanted, measure
            assert [label.SerializeToString(deterministic=True) for label in before] != wanted, measure


async def test_only_the_windows_that_the_edit_touches_are_computed_however_long_the_piece(
    serve: Any, made: Any
) -> None:
    seen = {}
    async with serve() as stub:
        for num_measures in (24, 240, 2400):
            score = edited(make_score(num_measures), 9)
            made["first"].calls.clear()
            request = excerpt_request(score, 9)
            reply = await stub.ReanalyzeHarmony(request, timeout=60)
            calls = made["first"].calls
            seen[num_measures] = (
                [call.num_measures for call in calls], [call.num_notes for call in calls], reply.window_count,
                len(request.score.SerializeToString()), len(reply.SerializeToString()),
            )  # fmt: skip
    assert seen[24] == seen[240] == seen[2400]
    assert seen[24][2] == 2 and sum(seen[24][0]) <= 2 * (WINDOW + 2 * CONTEXT)


@pytest.mark.parametrize(
    ("first", "count", "windows"), [(0, 1, 1), (5, 1, 2), (6, 1, 2), (3, 6, 3), (0, 21, 6), (20, 1, 2)]
)
async def test_an_edit_touches_the_windows_whose_measures_or_context_hold_it(
    serve: Any, made: Any, first: int, count: int, windows: int
) -> None:
    async with serve() as stub:
        reply = await stub.ReanalyzeHarmony(excerpt_request(make_score(), first, count), timeout=60)
    assert reply.window_count == len(made["first"].calls) == windows
    assert reply.first_measure_index <= first
    assert reply.first_measure_index + reply.measure_count >= first + count


async def test_a_whole_file_may_take_the_place_of_an_excerpt(serve: Any) -> None:
    score = edited(make_score(), 7)
    whole = typed(score_to_proto(score))
    async with serve() as stub:
        by_excerpt = await stub.ReanalyzeHarmony(excerpt_request(score, 7), timeout=60)
        request = Request(score=whole, edited_measure_index=7, edited_measure_count=1)
        by_whole = await stub.ReanalyzeHarmony(request, timeout=60)
        by_file = await stub.ReanalyzeHarmony(
            Request(score=file_of(musicxml_of(score)), edited_measure_index=7, edited_measure_count=1), timeout=60
        )
    assert by_whole == by_excerpt
    assert [label.start_ticks for label in by_file.labels] == [label.start_ticks for label in by_whole.labels]


async def test_inserted_measures_are_amended_from_there_on(serve: Any) -> None:
    before, after = make_score(12), make_score(13, seed=1)
    async with serve() as stub:
        old = labels_of(await analyze(stub, score_to_proto(before)))
        whole = labels_of(await analyze(stub, score_to_proto(after)))
        reply = await stub.ReanalyzeHarmony(excerpt_request(after, 0, 13), timeout=60)
    assert amended([label for label in old if label.start_ticks < reply.start_ticks], reply) == [
        label.SerializeToString(deterministic=True) for label in whole
    ]


async def test_too_few_measures_and_edits_outside_the_piece_are_refused_by_field(serve: Any) -> None:
    score, whole = make_score(), typed(score_to_proto(make_score()))
    wrong = [
        (Request(edited_measure_count=1), "score", "required"),
        (Request(score=whole), "edited_measure_count", "got 0"),
        (Request(score=whole, edited_measure_index=21, edited_measure_count=1), "edited_measure_index", "got 21"),
        (Request(score=whole, edited_measure_index=20, edited_measure_count=2), "edited_measure_count", "got 2"),
        (Request(score=whole, edited_measure_count=1, measure_count=20), "measure_count", "got 20"),
        (Request(score=whole, edited_measure_count=1, first_measure_index=-1), "first_measure_index", "got -1"),
        (Request(score=whole, edited_measure_count=1, start_ticks=-1), "start_ticks", "got -1"),
    ]
    too_few = excerpt_request(score, 9)
    too_few.score.score.CopyFrom(score_to_proto(score.measures(3, 12)))
    too_few.first_measure_index = 3
    wrong.append((too_few, "score", "measures 2 to 13"))
    async with serve() as stub:
        for request, field, said in wrong:
            found, description = violation(await failure(stub.ReanalyzeHarmony(request, timeout=60)))
            assert found == field and said in description
        assert (await stub.ReanalyzeHarmony(excerpt_request(score, 9), timeout=60)).labels


async def test_the_analysis_of_another_model_is_not_amended(serve: Any) -> None:
    async with serve() as stub:
        outline = (await analyze(stub, score_to_proto(make_score())))[0].outline
        own = f"first@{outline.model.digest_sha256[:12]}"
        reply = await stub.ReanalyzeHarmony(excerpt_request(make_score(), 1, model_id=own), timeout=60)
        error = await failure(stub.ReanalyzeHarmony(excerpt_request(make_score(), 1, model_id="first@0"), timeout=60))
    assert reply.model.name == "first"
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION and "first@0" in error.details()
