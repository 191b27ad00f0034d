"""The wire: convert in, await the engine, convert out."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from importlib import metadata
from typing import Any

from google.protobuf import duration_pb2
from stretto.harmony.v1 import harmony_pb2, harmony_pb2_grpc
from stretto_shared.grpc import convert as common

from stretto_harmony import convert
from stretto_harmony.engine import (
    Amendment,
    Edit,
    HarmonyEngine,
    Outline,
    ScoreFile,
    ScoreSource,
    WindowLabels,
    WrittenAnalysis,
)
from stretto_harmony.scores.score import Score, array_names

Context = Any  # grpc.aio.ServicerContext; its stubs are generic in a way that generated code is not


class HarmonyServicer(harmony_pb2_grpc.HarmonyServiceServicer):
    """`stretto.harmony.v1.HarmonyService`; the proto is its documentation."""

    def __init__(self, engine: HarmonyEngine) -> None:
        self._engine = engine

    async def ReadScore(self, request: harmony_pb2.ReadScoreRequest, context: Context) -> harmony_pb2.ReadScoreResponse:
        score = await self._engine.score_of(convert.file_from_proto(request.file, "file"))
        return harmony_pb2.ReadScoreResponse(score=await asyncio.to_thread(convert.score_to_proto, score))

    async def AnalyzeHarmony(
        self, request: harmony_pb2.AnalyzeHarmonyRequest, context: Context
    ) -> AsyncIterator[harmony_pb2.AnalyzeHarmonyResponse]:
        began_s, num_windows, outline = time.monotonic(), 0, None
        source = await asyncio.to_thread(convert.source_from_proto, request.score)
        self._engine.check_model(request.model)
        score = await self._engine.score_of(source)
        async with aclosing(self._engine.analyzing.analyze(request.model, score)) as events:
            async for event in events:
                match event:
                    case Outline():
                        outline = event
                        yield harmony_pb2.AnalyzeHarmonyResponse(outline=_outline_to_proto(event))
                    case WindowLabels():
                        num_windows += 1
                        yield harmony_pb2.AnalyzeHarmonyResponse(window=_window_to_proto(event, score))
        assert outline is not None
        yield harmony_pb2.AnalyzeHarmonyResponse(
            receipt=harmony_pb2.HarmonyReceipt(
                model=common.model_info_to_proto(outline.model),
                input_sha256=await asyncio.to_thread(_sha256_of, source),
                window_count=num_windows,
                stretto_version=metadata.version("stretto-shared"),
                total_latency=_duration_to_proto(time.monotonic() - began_s),
            )
        )

    async def ReanalyzeHarmony(
        self, request: harmony_pb2.ReanalyzeHarmonyRequest, context: Context
    ) -> harmony_pb2.ReanalyzeHarmonyResponse:
        source = await asyncio.to_thread(convert.source_from_proto, request.score)
        start = convert.start_from_proto(request.start_ticks)
        self._engine.check_model(request.model)
        score = await self._engine.score_of(source)
        edit = Edit(
            request.first_measure_index,
            request.measure_count,
            request.edited_measure_index,
            request.edited_measure_count,
            request.model_id,
        )
        amendment = await self._engine.analyzing.reanalyze(request.model, score, edit)
        return _amendment_to_proto(amendment, score, request.first_measure_index, start)

    async def WriteHarmony(
        self, request: harmony_pb2.WriteHarmonyRequest, context: Context
    ) -> harmony_pb2.WriteHarmonyResponse:
        format = convert.analysis_format_from_proto(request.format)
        source = await asyncio.to_thread(convert.source_from_proto, request.score)
        labels = await asyncio.to_thread(convert.labels_from_proto, request.labels)
        score = await self._engine.score_of(source)
        file = source if isinstance(source, ScoreFile) else None
        analysis = WrittenAnalysis(
            score,
            labels,
            request.title,
            request.analyst,
            file.data if file is not None else None,
            file.format.value if file is not None else "",
        )
        return harmony_pb2.WriteHarmonyResponse(data=await self._engine.files.write(analysis, format))

    async def FindChordChanges(
        self, request: harmony_pb2.FindChordChangesRequest, context: Context
    ) -> harmony_pb2.FindChordChangesResponse:
        score = await self._score_of(request)
        found = await self._engine.questions.chord_changes(request.model, score)
        return harmony_pb2.FindChordChangesResponse(
            probabilities=found.value.tolist(),
            onset_ticks=score.onset.tolist(),
            model=common.model_info_to_proto(found.model),
        )

    async def ClassifyChords(
        self, request: harmony_pb2.ClassifyChordsRequest, context: Context
    ) -> harmony_pb2.ClassifyChordsResponse:
        score = await self._score_of(request)
        spans = [(span.start_ticks, span.end_ticks) for span in request.spans]
        found = await self._engine.questions.classify_chords(request.model, score, spans, request.candidate_count)
        return harmony_pb2.ClassifyChordsResponse(
            spans=[convert.chords_to_proto(chords) for chords in found.value],
            model=common.model_info_to_proto(found.model),
        )

    async def PredictChord(
        self, request: harmony_pb2.PredictChordRequest, context: Context
    ) -> harmony_pb2.PredictChordResponse:
        score, labels = await self._score_of(request), convert.labels_from_proto(request.labels)
        found = await self._engine.questions.next_chords(request.model, score, labels, request.candidate_count)
        return harmony_pb2.PredictChordResponse(
            next=convert.chords_to_proto(found.value), model=common.model_info_to_proto(found.model)
        )

    async def FindKeyChanges(
        self, request: harmony_pb2.FindKeyChangesRequest, context: Context
    ) -> harmony_pb2.FindKeyChangesResponse:
        score, labels = await self._score_of(request), convert.labels_from_proto(request.labels)
        found = await self._engine.questions.key_changes(request.model, score, labels)
        return harmony_pb2.FindKeyChangesResponse(
            probabilities=found.value.tolist(), model=common.model_info_to_proto(found.model)
        )

    async def PredictKey(
        self, request: harmony_pb2.PredictKeyRequest, context: Context
    ) -> harmony_pb2.PredictKeyResponse:
        score, labels = await self._score_of(request), convert.labels_from_proto(request.labels)
        found = await self._engine.questions.next_keys(request.model, score, labels, request.candidate_count)
        return harmony_pb2.PredictKeyResponse(
            keys=convert.keys_to_proto(found.value), model=common.model_info_to_proto(found.model)
        )

    async def PredictFirstChord(
        self, request: harmony_pb2.PredictFirstChordRequest, context: Context
    ) -> harmony_pb2.PredictFirstChordResponse:
        key = convert.key_from_proto(request.key, "key")
        found = await self._engine.questions.initial_chords(request.model, key, request.candidate_count)
        return harmony_pb2.PredictFirstChordResponse(
            first=convert.chords_to_proto(found.value), model=common.model_info_to_proto(found.model)
        )

    async def ListModels(
        self, request: harmony_pb2.ListModelsRequest, context: Context
    ) -> harmony_pb2.ListModelsResponse:
        models = self._engine.list_models()
        return harmony_pb2.ListModelsResponse(models=[common.model_info_to_proto(info) for info in models])

    async def _score_of(self, request: Any) -> Score:
        """The score of a question to a module."""
        source = await asyncio.to_thread(convert.source_from_proto, request.score)
        self._engine.check_modules(request.model)
        return await self._engine.score_of(source)


def _outline_to_proto(outline: Outline) -> harmony_pb2.AnalysisOutline:
    return harmony_pb2.AnalysisOutline(
        model=common.model_info_to_proto(outline.model),
        measure_count=outline.score.num_measures,
        note_count=outline.score.num_notes,
        length_ticks=outline.score.num_ticks,
        window_measure_count=outline.grid.window_measures,
        context_measure_count=outline.grid.context_measures,
    )


def _window_to_proto(window: WindowLabels, score: Score) -> harmony_pb2.AnalyzedWindow:
    return harmony_pb2.AnalyzedWindow(
        first_measure_index=window.first_measure,
        measure_count=window.num_measures,
        labels=convert.labels_to_proto(window.labels, score),
    )


def _amendment_to_proto(
    amendment: Amendment, score: Score, first_measure: int, start: int
) -> harmony_pb2.ReanalyzeHarmonyResponse:
    return harmony_pb2.ReanalyzeHarmonyResponse(
        first_measure_index=amendment.first_measure,
        measure_count=amendment.num_measures,
        labels=convert.labels_to_proto(amendment.labels, score, first_measure=first_measure, start=start),
        start_ticks=amendment.start + start,
        end_ticks=amendment.end + start,
        window_count=amendment.num_windows,
        model=common.model_info_to_proto(amendment.model),
    )


def _sha256_of(source: ScoreSource) -> str:
    if isinstance(source, ScoreFile):
        return hashlib.sha256(source.data).hexdigest()
    digest = hashlib.sha256()
    for name in array_names():
        digest.update(getattr(source, name).astype("<i8").tobytes())
    return digest.hexdigest()


def _duration_to_proto(duration_s: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(int(duration_s * 1e9))
    return duration
