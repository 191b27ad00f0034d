"""The wire: convert in, follow the flow, convert out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from importlib import metadata
from typing import Any, TypeVar

from google.protobuf import duration_pb2
from stretto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from stretto.transcriber.v1 import transcriber_pb2
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.grpc import convert
from stretto_shared.grpc.convert_harmony import labels_to_proto
from stretto_shared.grpc.convert_score import score_to_proto

from stretto_orchestrator.clients import HeardBeats, HeardNotes, NoteEnds, Pacing, Stages, remaining_s
from stretto_orchestrator.flows.analyze_music import (
    AnalysisEvent,
    AnalysisProgress,
    AnalysisReceipt,
    AnalysisRequest,
    AnalyzedHarmony,
    AnalyzedScore,
    Section,
    analyze_music,
)
from stretto_orchestrator.flows.cascades import Cascade
from stretto_orchestrator.flows.continue_music import ContinuationRequest, continue_music
from stretto_orchestrator.flows.events import AudioChunk, CascadeObserver, MusicEvent, Progress, Receipt
from stretto_orchestrator.flows.forking import KeptAudio
from stretto_orchestrator.flows.generate_music import DEFAULT_DURATION_S, MusicRequest, generate_music
from stretto_orchestrator.flows.list_models import list_models
from stretto_orchestrator.flows.rendering import RenderOptions
from stretto_orchestrator.flows.resuming import Resumes
from stretto_orchestrator.flows.story import DEFAULT_BLEND_S, PromptSpan

Context = Any  # grpc.aio.ServicerContext; its stubs are generic in a way that generated code is not
_SECTIONS = {
    orchestrator_pb2.ANALYSIS_SECTION_NOTES: Section.NOTES,
    orchestrator_pb2.ANALYSIS_SECTION_BEATS: Section.BEATS,
    orchestrator_pb2.ANALYSIS_SECTION_SCORE: Section.SCORE,
    orchestrator_pb2.ANALYSIS_SECTION_HARMONY: Section.HARMONY,
}
_NOTE_ENDS: Mapping[int, NoteEnds] = {
    transcriber_pb2.NOTE_ENDS_UNSPECIFIED: "sound",
    transcriber_pb2.NOTE_ENDS_SOUND: "sound",
    transcriber_pb2.NOTE_ENDS_KEY: "key",
}
R = TypeVar("R", orchestrator_pb2.GenerateMusicResponse, orchestrator_pb2.ContinueMusicResponse)


@dataclass(frozen=True)
class FlowSetup:
    """What every flow works with."""

    stages: Stages
    cascades: Mapping[str, Cascade]
    options: RenderOptions
    observer: CascadeObserver
    list_timeout_s: float
    kept_audio: KeptAudio


class OrchestratorServicer(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """`stretto.orchestrator.v1.OrchestratorService`; the proto is its documentation."""

    def __init__(self, setup: FlowSetup) -> None:
        self._setup = setup

    async def GenerateMusic(
        self, request: orchestrator_pb2.GenerateMusicRequest, context: Context
    ) -> AsyncIterator[orchestrator_pb2.GenerateMusicResponse]:
        setup = self._setup
        wanted = await asyncio.to_thread(_music_request, request)  # a melody may be 60 MB
        events = generate_music(setup.stages, setup.cascades, wanted, setup.options, setup.observer)
        async with aclosing(_written(events, orchestrator_pb2.GenerateMusicResponse)) as responses:
            async for response in responses:
                yield response

    async def ContinueMusic(
        self, request: orchestrator_pb2.ContinueMusicRequest, context: Context
    ) -> AsyncIterator[orchestrator_pb2.ContinueMusicResponse]:
        setup = self._setup
        wanted = await asyncio.to_thread(_continuation_request, request)  # a recording may be 60 MB
        events = continue_music(setup.stages, setup.cascades, wanted, setup.options, setup.observer)
        async with aclosing(_written(events, orchestrator_pb2.ContinueMusicResponse)) as responses:
            async for response in responses:
                yield response

    async def AnalyzeMusic(
        self, request_iterator: AsyncIterator[orchestrator_pb2.AnalyzeMusicRequest], context: Context
    ) -> AsyncIterator[orchestrator_pb2.AnalyzeMusicResponse]:
        setup = self._setup
        wanted = await _analysis_request(request_iterator)
        resumes = Resumes(setup.options.resume_policy, setup.observer.observe_resume, remaining_s)
        async with (
            aclosing(_waveforms(request_iterator)) as audio,
            aclosing(analyze_music(setup.stages, wanted, audio, resumes=resumes, kept=setup.kept_audio)) as events,
        ):
            async for event in events:
                yield _analysis_to_proto(event)

    async def ListModels(
        self, request: orchestrator_pb2.ListModelsRequest, context: Context
    ) -> orchestrator_pb2.ListModelsResponse:
        inventory = await list_models(self._setup.stages, timeout_s=self._setup.list_timeout_s)
        return orchestrator_pb2.ListModelsResponse(
            models=[convert.model_info_to_proto(model) for model in inventory.models],
            unreachable_services=inventory.unreachable_services,
        )


def _music_request(request: orchestrator_pb2.GenerateMusicRequest) -> MusicRequest:
    return MusicRequest(
        cascade=request.cascade,
        prompt=request.prompt,
        duration_s=request.duration_s or DEFAULT_DURATION_S,
        seed=request.seed,
        sampling=convert.sampling_from_proto(request.sampling),
        melody=convert.waveform_from_proto(request.melody, "melody") if request.HasField("melody") else None,
        pacing=Pacing(convert.is_realtime_from_proto(request.pace), request.priority),
        story=tuple(
            PromptSpan(span.start_s, span.prompt, span.blend_s if span.HasField("blend_s") else DEFAULT_BLEND_S)
            for span in request.story
        ),
        num_candidates=request.candidate_count or 1,
    )


def _continuation_request(request: orchestrator_pb2.ContinueMusicRequest) -> ContinuationRequest:
    return ContinuationRequest(
        cascade=request.cascade,
        audio=convert.waveform_from_proto(request.audio, "audio"),
        prompt=request.prompt,
        duration_s=request.duration_s or DEFAULT_DURATION_S,
        seed=request.seed,
        sampling=convert.sampling_from_proto(request.sampling),
        include_recording=request.include_recording,
        pacing=Pacing(convert.is_realtime_from_proto(request.pace), request.priority),
    )


async def _analysis_request(requests: AsyncIterator[orchestrator_pb2.AnalyzeMusicRequest]) -> AnalysisRequest:
    """What the first message asks for."""
    async for request in requests:
        if request.WhichOneof("payload") != "config":
            break
        config = request.config
        for index, section in enumerate(config.sections):
            if section not in _SECTIONS:
                raise InvalidInput(
                    f"config.sections[{index}]", f"expected one of {sorted(_SECTIONS)}, got {section}. Leave it out."
                )
        if config.note_ends not in _NOTE_ENDS:
            raise InvalidInput(
                "config.note_ends", f"expected one of {sorted(_NOTE_ENDS)}, got {config.note_ends}. Choose one."
            )
        return AnalysisRequest(
            tuple(_SECTIONS[section] for section in config.sections),
            config.note_model,
            config.beat_model,
            config.title,
            config.harmony_model,
            _NOTE_ENDS[config.note_ends],
        )
    raise InvalidInput("config", "expected the first message of the stream to carry it. Send config, then waveforms.")


async def _waveforms(
    requests: AsyncIterator[orchestrator_pb2.AnalyzeMusicRequest],
) -> AsyncGenerator[Waveform, None]:
    async for request in requests:
        if request.WhichOneof("payload") == "config":
            raise InvalidInput("config", "expected in the first message only, and it came again. Open another stream.")
        yield await asyncio.to_thread(convert.waveform_from_proto, request.waveform)


def _analysis_to_proto(event: AnalysisEvent) -> orchestrator_pb2.AnalyzeMusicResponse:
    response = orchestrator_pb2.AnalyzeMusicResponse
    match event:
        case AnalysisProgress():
            return response(progress=orchestrator_pb2.AnalysisProgress(stage=event.stage, done_s=event.done_s))
        case HeardNotes():
            notes = orchestrator_pb2.AnalyzedNotes(notes=score_to_proto(event.notes), complete_s=event.complete_s)
            return response(notes=notes)
        case HeardBeats():
            return response(beats=_beats_to_proto(event))
        case AnalyzedScore():
            written = orchestrator_pb2.AnalyzedScore(score=score_to_proto(event.score), musicxml=event.musicxml)
            return response(score=written)
        case AnalyzedHarmony():
            labels = labels_to_proto(event.labels)
            return response(harmony=orchestrator_pb2.AnalyzedHarmony(labels=labels, musicxml=event.musicxml))
        case AnalysisReceipt():
            return response(receipt=_analysis_receipt_to_proto(event))


def _beats_to_proto(beats: HeardBeats) -> orchestrator_pb2.AnalyzedBeats:
    return orchestrator_pb2.AnalyzedBeats(
        beat_s=beats.beat_s,
        beat_in_bar=beats.beat_in_bar,
        tempo_bpm=beats.tempo_bpm,
        time_signature_numerator=beats.numerator,
        onset_s=beats.onset_s,
    )


def _analysis_receipt_to_proto(receipt: AnalysisReceipt) -> orchestrator_pb2.AnalysisReceipt:
    numbers = {section: number for number, section in _SECTIONS.items()}
    return orchestrator_pb2.AnalysisReceipt(
        sections=[numbers[section] for section in receipt.sections],
        models=[convert.model_info_to_proto(model) for model in receipt.models],
        duration_s=receipt.duration_s,
        input_sha256=receipt.input_sha256,
        stretto_version=metadata.version("stretto-orchestrator"),
        total_latency=_duration_to_proto(receipt.total_latency_s),
    )


async def _written(events: AsyncGenerator[MusicEvent, None], response: type[R]) -> AsyncGenerator[R, None]:
    """The events as messages of the RPC's own response type."""
    async with aclosing(events):
        async for event in events:
            match event:
                case Progress():
                    yield response(progress=_progress_to_proto(event))
                case AudioChunk():
                    yield response(chunk=_chunk_to_proto(event))
                case Receipt():
                    yield response(receipt=_receipt_to_proto(event))


def _progress_to_proto(progress: Progress) -> orchestrator_pb2.Progress:
    return orchestrator_pb2.Progress(
        stage=progress.stage,
        done_frame_count=progress.num_done_frames,
        total_frame_count=progress.num_total_frames,
    )


def _chunk_to_proto(chunk: AudioChunk) -> orchestrator_pb2.AudioChunk:
    return orchestrator_pb2.AudioChunk(
        waveform=convert.waveform_to_proto(chunk.waveform), first_sample_index=chunk.first_sample_index
    )


def _receipt_to_proto(receipt: Receipt) -> orchestrator_pb2.Receipt:
    return orchestrator_pb2.Receipt(
        cascade=receipt.cascade,
        prompt=receipt.prompt,
        seed=receipt.seed,
        duration_s=receipt.duration_s,
        sampling=convert.sampling_to_proto(receipt.sampling),
        models=[convert.model_info_to_proto(model) for model in receipt.models],
        stretto_version=metadata.version("stretto-orchestrator"),
        input_sha256=receipt.input_sha256,
        output_sha256=receipt.output_sha256,
        first_audio_latency=_duration_to_proto(receipt.first_audio_latency_s),
        total_latency=_duration_to_proto(receipt.total_latency_s),
        resume_count=receipt.num_resumes,
        story=[
            orchestrator_pb2.PromptSpan(start_s=span.start_s, prompt=span.prompt, blend_s=span.blend_s)
            for span in receipt.story
        ],
        candidate_count=receipt.num_candidates,
        similarity=receipt.similarity,
    )


def _duration_to_proto(duration_s: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(int(duration_s * 1e9))
    return duration
