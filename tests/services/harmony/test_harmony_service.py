"""AnalyzeHarmony and the service around it, over a real channel."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from harmony_calls import NUM_MEASURES, analyze, consume, detail, failure, labels_of, make_score, typed, violation
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from stretto.harmony.v1 import harmony_pb2
from stretto_harmony.convert import score_to_proto
from stretto_harmony.engine import MeasureGrid
from stretto_harmony.engine.windows import analyze_window
from stretto_harmony.loading import load_analyzer
from stretto_harmony.main import build
from stretto_harmony.settings import HarmonySettings
from stretto_shared.errors import NotFound, NotReady
from stretto_shared.grpc.hosting import HostContext
from tiny_analyzers import CONTEXT, WINDOW, TinyAnalyzer

Request = harmony_pb2.AnalyzeHarmonyRequest


async def test_a_score_comes_back_as_outline_windows_and_receipt(serve: Any) -> None:
    score = make_score(pickup=1)
    async with serve() as stub:
        outline, *windows, receipt = await analyze(stub, score_to_proto(score))
    outline, receipt = outline.outline, receipt.receipt
    assert (outline.measure_count, outline.note_count) == (NUM_MEASURES, score.num_notes)
    assert (outline.window_measure_count, outline.context_measure_count) == (WINDOW, CONTEXT)
    assert outline.length_ticks == score.num_ticks and outline.model.name == receipt.model.name == "first"
    spans = [(each.window.first_measure_index, each.window.measure_count) for each in windows]
    assert spans == [(0, 4), (4, 4), (8, 4), (12, 4), (16, 4), (20, 1)] and receipt.window_count == 6
    assert len(receipt.input_sha256) == 64 and receipt.stretto_version
    assert receipt.total_latency.ToTimedelta().total_seconds() > 0
    labels = [label for each in windows for label in each.window.labels]
    assert all(label.end_ticks > label.start_ticks for label in labels)
    assert all(before.end_ticks <= label.start_ticks for before, label in zip(labels, labels[1:]))
    first, second = labels[0], labels[2]  # a pickup of two quarters, then a bar
    assert (first.measure_index, first.measure_number, first.beat) == (0, "0", 2.0)
    assert (second.measure_index, second.measure_number, second.beat) == (1, "1", 1.0) and labels[3].beat == 2.5


async def test_labels_are_those_of_each_window_with_its_context_and_nothing_else(serve: Any) -> None:
    score, grid = make_score(empty=(5, 6)), MeasureGrid(WINDOW, CONTEXT)
    async with serve() as stub:
        served = labels_of(await analyze(stub, score_to_proto(score)))
    alone = [
        label
        for index in range(grid.num_windows(score.num_measures))
        for label in analyze_window(
            TinyAnalyzer(len("first")).analyze, score, grid.window(index, score.num_measures)
        ).labels
    ]
    assert [(each.start_ticks, each.end_ticks, each.numeral, each.confidence) for each in served] == [
        (label.start, label.end, label.numeral, label.confidence) for label in alone
    ]
    measures = {label.measure_index for label in served}
    assert measures == set(range(NUM_MEASURES)) - {5, 6}, "where nothing sounds there is no label"


async def test_the_digest_of_the_receipt_follows_the_score_and_the_analyzer_is_chosen_by_name(serve: Any) -> None:
    async with serve() as stub:
        first = await analyze(stub, score_to_proto(make_score()))
        again = await analyze(stub, score_to_proto(make_score()))
        other = await analyze(stub, score_to_proto(make_score(seed=1)))
        second = await analyze(stub, score_to_proto(make_score()), model="second")
    digests = [each[-1].receipt.input_sha256 for each in (first, again, other, second)]
    assert digests[0] == digests[1] == digests[3] != digests[2]
    assert first[:-1] == again[:-1] and labels_of(second) != labels_of(first)
    assert second[0].outline.model.name == "second"


async def test_models_are_listed_with_the_default_one(serve: Any) -> None:
    async with serve(models="second,first") as stub:
        models = (await stub.ListModels(harmony_pb2.ListModelsRequest(), timeout=60)).models
        outline = (await analyze(stub, score_to_proto(make_score(1))))[0].outline
    assert [(model.name, model.is_default) for model in models] == [("first", False), ("second", True)]
    assert {model.service for model in models} == {"harmony"} and models[0].parameter_count == 1
    assert outline.model.name == "second"


async def test_unknown_analyzers_are_not_found_before_anything_is_read(serve: Any, tmp_path: Path) -> None:
    broken = harmony_pb2.ScoreInput(file=harmony_pb2.ScoreFile(data=b"no score", format=1))
    async with serve() as stub:
        for call in (
            consume(stub.AnalyzeHarmony(Request(score=broken, model="nobody"), timeout=60)),
            stub.ReanalyzeHarmony(harmony_pb2.ReanalyzeHarmonyRequest(score=broken, model="nobody"), timeout=60),
            stub.FindChordChanges(harmony_pb2.FindChordChangesRequest(score=broken, model="first"), timeout=60),
        ):
            error = await failure(call)
            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert detail(error, error_details_pb2.ErrorInfo()).metadata["field"] == "model"
    async with serve(weights_dir=tmp_path / "none") as stub:  # a server may have none
        error = await failure(consume(stub.AnalyzeHarmony(Request(score=broken), timeout=60)))
        assert error.code() is grpc.StatusCode.NOT_FOUND and "STRETTO_HARMONY_MODELS" in error.details()


async def test_a_model_that_is_missing_or_damaged_is_named_at_the_start(weights_dir: Path) -> None:
    host = build(HostContext(), HarmonySettings(models="first,chordgnn", weights_dir=weights_dir))
    with pytest.raises(NotReady, match="'chordgnn'"):
        await host.start()
    await host.stop()
    with pytest.raises(NotFound, match="'Unheard'"):
        config = weights_dir / "first" / "config.json"
        config.write_text(config.read_text().replace("TinyAnalyzer", "Unheard"))
        load_analyzer("first", "default", weights_dir=weights_dir)
    (weights_dir / "second" / "model.safetensors").write_bytes(b"\x08" + bytes(7) + b"{}      ")
    with pytest.raises(NotReady, match="second"):
        load_analyzer("second", "default", weights_dir=weights_dir)


async def test_windows_come_while_later_ones_are_still_to_be_analysed(serve: Any, made: Any) -> None:
    gate, score = threading.Event(), score_to_proto(make_score())
    async with serve() as stub:
        made["first"].before = lambda: len(made["first"].calls) < 3 or gate.wait(60)
        call = stub.AnalyzeHarmony(Request(score=typed(score)), timeout=60)
        kinds = [(await call.read()).WhichOneof("payload") for _ in range(3)]
        assert kinds == ["outline", "window", "window"] and len(made["first"].calls) <= 3
        gate.set()
        later = 0
        while await call.read() is not grpc.aio.EOF:
            later += 1
    assert later == 5


@pytest.mark.parametrize("ending", ["cancelled", "late"])
async def test_a_call_that_ends_early_stops_the_work_within_one_window(serve: Any, made: Any, ending: str) -> None:
    gate, score = threading.Event(), score_to_proto(make_score())
    async with serve(max_requests=1) as stub, asyncio.timeout(120):
        made["first"].before = lambda: len(made["first"].calls) < 2 or gate.wait(60)
        call = stub.AnalyzeHarmony(Request(score=typed(score)), timeout=60 if ending == "cancelled" else 1)
        if ending == "cancelled":
            while len(made["first"].calls) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            call.cancel()
        else:
            assert (await failure(consume(call))).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        begun = len(made["first"].calls)  # at a deadline perhaps none, on a machine that is busy
        again = await admitted(stub, score)  # while the abandoned window still runs, so nothing is left to be timed
        gate.set()
        labels: list[Any] = []
        while (message := await again.read()) is not grpc.aio.EOF:
            labels += message.window.labels
        assert begun + 6 == len(made["first"].calls) if ending == "cancelled" else len(made["first"].calls) <= 2 + 6
        assert labels == labels_of(await analyze(stub, score))


async def admitted(stub: Any, score: Any) -> Any:
    """A call that has its outline, as soon as the server takes another."""
    while True:
        call = stub.AnalyzeHarmony(Request(score=typed(score)), timeout=60)
        try:
            assert (await call.read()).WhichOneof("payload") == "outline"
            return call
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
            await asyncio.sleep(0.05)


async def test_more_requests_than_are_served_are_told_when_to_come_back(serve: Any, made: Any) -> None:
    gate, score = threading.Event(), score_to_proto(make_score())
    async with serve(max_requests=2) as stub:
        made["first"].before = lambda: gate.wait(60) and None
        served = [asyncio.create_task(analyze(stub, score)) for _ in range(2)]
        async with asyncio.timeout(60):
            while not made["first"].calls:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        error = await failure(consume(stub.AnalyzeHarmony(Request(score=typed(score)), timeout=60)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert detail(error, error_details_pb2.RetryInfo()).retry_delay.ToTimedelta().total_seconds() > 0
        gate.set()
        first, second = await asyncio.gather(*served)
        assert labels_of(first) == labels_of(second)


async def test_what_is_held_of_a_long_score_is_one_window(serve: Any, made: Any) -> None:
    async with serve() as stub:
        await analyze(stub, score_to_proto(make_score(1200)))
    assert max(call.num_measures for call in made["first"].calls) == WINDOW + 2 * CONTEXT
    assert len(made["first"].calls) == 300


async def test_metrics_and_spans_tell_of_the_work(serve: Any, unused_tcp_port: int) -> None:
    exporter = InMemorySpanExporter()
    async with serve(grpc={"metrics_port": unused_tcp_port}, span_exporter=exporter) as stub:
        await analyze(stub, score_to_proto(make_score()))
        with await asyncio.to_thread(
            urllib.request.urlopen, f"http://127.0.0.1:{unused_tcp_port}/metrics", timeout=60
        ) as page:
            lines = page.read().decode().splitlines()
    values = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}
    assert values['stretto_harmony_measures_total{model="first"}'] == NUM_MEASURES
    assert values['stretto_harmony_window_s_count{model="first"}'] == 6
    assert values['stretto_request_queue_wait_s_count{stage="harmony"}'] == 1
    assert values['stretto_stage_waiting_requests{stage="harmony"}'] == 0
    method = "/stretto.harmony.v1.HarmonyService/AnalyzeHarmony"
    assert values[f'stretto_rpc_handled_total{{code="OK",method="{method}"}}'] == 1
    assert any("AnalyzeHarmony" in span.name for span in exporter.get_finished_spans())


async def test_what_is_wrong_with_a_typed_score_is_named_by_its_field_and_the_next_works(serve: Any) -> None:
    def changed(**columns: Any) -> harmony_pb2.NotatedScore:
        message = score_to_proto(make_score(2))
        for name, value in columns.items():
            column = getattr(message, name)
            del column[:]
            column.extend(value)
        return message

    good = score_to_proto(make_score(2))
    many = len(good.onset_ticks)
    wrong = [
        (harmony_pb2.ScoreInput(), "score"),
        (typed(harmony_pb2.NotatedScore()), "score.score.measure_length_ticks"),
        (typed(changed(pitch_midi=[*good.pitch_midi[:-1], 128])), f"score.score.pitch_midi[{many - 1}]"),
        (typed(changed(spelling_fifths=[1, *good.spelling_fifths[1:]])), "score.score.spelling_fifths[0]"),
        (typed(changed(onset_ticks=good.onset_ticks[::-1])), "score.score.onset_ticks"),
        (typed(changed(duration_ticks=good.duration_ticks[:-1])), "score.score.duration_ticks"),
        (typed(changed(duration_ticks=[0] * many)), "score.score.duration_ticks[0]"),
        (typed(changed(measure_length_ticks=[2**62, 2**62])), "score.score.measure_length_ticks[0]"),
        (typed(changed(measure_length_ticks=[5, -1])), "score.score.measure_length_ticks[1]"),
        (typed(changed(time_signature_denominator=[4, 3])), "score.score.time_signature_denominator[1]"),
        (typed(changed(key_signature_fifths=[15, 0])), "score.score.key_signature_fifths[0]"),
        (typed(changed(measure_numbers=["1"])), "score.score.measure_numbers"),
        (typed(changed(measure_numbers=["1", "x" * 17])), "score.score.measure_numbers[1]"),
        (typed(changed(staff_index=[0] * 100_001)), "score.score.staff_index"),
    ]
    async with serve() as stub:
        for score, field in wrong:
            found, description = violation(
                await failure(consume(stub.AnalyzeHarmony(Request(score=score), timeout=60)))
            )
            assert found.startswith(field) and description, (found, field)
        reply = await analyze(stub, changed(measure_numbers=[], voice_index=[], measure_offset_ticks=[]))
    assert [label.measure_number for label in labels_of(reply)] == ["1", "1", "2", "2"]


def test_the_digest_of_a_file_is_its_own() -> None:
    from stretto_harmony.engine import ScoreFile, ScoreFormat
    from stretto_harmony.servicer import _sha256_of

    data = b"<score-partwise/>"
    assert _sha256_of(ScoreFile(data, ScoreFormat.MUSICXML)) == hashlib.sha256(data).hexdigest()
