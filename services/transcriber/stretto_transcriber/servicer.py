"""The wire: convert in, await the engine, convert out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar

import numpy as np
from stretto.transcriber.v1 import transcriber_pb2, transcriber_pb2_grpc
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.features import ModelInfo
from stretto_shared.grpc import convert
from stretto_shared.grpc.convert_score import score_from_proto, score_to_proto
from stretto_shared.score import Part, Score

from stretto_transcriber.engine import NewNotes, TranscriberEngine
from stretto_transcriber.models.beats import TrackedBeats
from stretto_transcriber.models.notes import NoteEnds, Notes

Context = Any  # grpc.aio.ServicerContext; its stubs are generic in a way that generated code is not
R = TypeVar("R", transcriber_pb2.TranscribeAudioRequest, transcriber_pb2.TrackBeatsRequest)
PIANO = Part("piano", program=0)


class TranscriberServicer(transcriber_pb2_grpc.TranscriberServiceServicer):
    """`stretto.transcriber.v1.TranscriberService`; the proto is its documentation."""

    def __init__(self, engine: TranscriberEngine) -> None:
        self._engine = engine

    async def TranscribeAudio(
        self, request_iterator: AsyncIterator[transcriber_pb2.TranscribeAudioRequest], context: Context
    ) -> AsyncIterator[transcriber_pb2.TranscribeAudioResponse]:
        config = await _first_config(request_iterator)
        ends, is_first = _ends_from_proto(config.ends), True
        async with (
            aclosing(_waveforms(request_iterator)) as audio,
            aclosing(self._engine.transcribe(config.model, audio, ends)) as stream,
        ):
            async for new in stream:
                yield _notes_to_proto(new, names_model=is_first)
                is_first = False

    async def TrackBeats(
        self, request_iterator: AsyncIterator[transcriber_pb2.TrackBeatsRequest], context: Context
    ) -> transcriber_pb2.TrackBeatsResponse:
        config = await _first_config(request_iterator)
        async with aclosing(_waveforms(request_iterator)) as audio:
            return _beats_to_proto(*await self._engine.track(config.model, audio))

    async def EngraveScore(
        self, request: transcriber_pb2.EngraveScoreRequest, context: Context
    ) -> transcriber_pb2.EngraveScoreResponse:
        score = await asyncio.to_thread(score_from_proto, request.score)
        engraved = await self._engine.engrave(score, request.title)
        written = await asyncio.to_thread(score_to_proto, engraved.score)
        return transcriber_pb2.EngraveScoreResponse(score=written, musicxml=engraved.musicxml)

    async def ListModels(
        self, request: transcriber_pb2.ListModelsRequest, context: Context
    ) -> transcriber_pb2.ListModelsResponse:
        models = self._engine.list_models()
        return transcriber_pb2.ListModelsResponse(models=[convert.model_info_to_proto(info) for info in models])


async def _first_config(requests: AsyncIterator[R]) -> Any:
    """What the first message asks for: the config of its own method."""
    async for request in requests:
        if request.WhichOneof("payload") == "config":
            return request.config
        break
    raise InvalidInput("config", "expected the first message of the stream to carry it. Send config, then waveforms.")


async def _waveforms(requests: AsyncIterator[R]) -> AsyncGenerator[Waveform, None]:
    async for request in requests:
        if request.WhichOneof("payload") == "config":
            raise InvalidInput("config", "expected in the first message only, and it came again. Open another stream.")
        yield await asyncio.to_thread(convert.waveform_from_proto, request.waveform)


def _ends_from_proto(ends: int) -> NoteEnds:
    known: dict[int, NoteEnds] = {
        transcriber_pb2.NOTE_ENDS_UNSPECIFIED: "sound",
        transcriber_pb2.NOTE_ENDS_SOUND: "sound",
        transcriber_pb2.NOTE_ENDS_KEY: "key",
    }
    if ends not in known:
        raise InvalidInput("config.ends", f"expected a value that this server knows, 0 to 2, got {ends}. Choose one.")
    return known[ends]


def _notes_to_proto(new: NewNotes, *, names_model: bool) -> transcriber_pb2.TranscribeAudioResponse:
    return transcriber_pb2.TranscribeAudioResponse(
        notes=score_to_proto(_as_score(new.notes)),
        complete_s=new.complete_s,
        model=convert.model_info_to_proto(new.model) if names_model else None,
    )


def _as_score(notes: Notes) -> Score:
    return Score(
        onset_s=notes.onset_s,
        duration_s=notes.offset_s - notes.onset_s,
        pitch_midi=notes.pitch_midi,
        velocity=notes.velocity,
        part_index=np.zeros(len(notes), np.int32),
        parts=(PIANO,),
    )


def _beats_to_proto(tracked: TrackedBeats, model: ModelInfo) -> transcriber_pb2.TrackBeatsResponse:
    return transcriber_pb2.TrackBeatsResponse(
        beat_s=tracked.beat_s.tolist(),
        beat_in_bar=tracked.beat_in_bar.tolist(),
        tempo_bpm=tracked.tempo_bpm.tolist(),
        time_signature_numerator=tracked.numerator,
        onset_s=tracked.onset_s.tolist(),
        model=convert.model_info_to_proto(model),
    )
