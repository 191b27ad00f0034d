"""`TranscriberClient`: what was played in a recording, and its score."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

import grpc
from stretto.transcriber.v1 import transcriber_pb2, transcriber_pb2_grpc
from stretto_shared.audio import Waveform
from stretto_shared.features import ModelInfo
from stretto_shared.grpc import convert
from stretto_shared.grpc.convert_score import score_from_proto, score_to_proto
from stretto_shared.grpc.streams import exchange, submit
from stretto_shared.score import Score

from stretto_orchestrator.clients.calling import errors_of, read, read_model

NoteEnds = Literal["sound", "key"]
_ENDS = {"sound": transcriber_pb2.NOTE_ENDS_SOUND, "key": transcriber_pb2.NOTE_ENDS_KEY}


@dataclass(frozen=True, eq=False)
class HeardNotes:
    """Notes that are final; all that begin before `complete_s` have been given. `model` comes with the first."""

    notes: Score
    complete_s: float
    model: ModelInfo | None


@dataclass(frozen=True, eq=False)
class HeardBeats:
    """The beats of a recording; the fields are those of `stretto.transcriber.v1.TrackBeatsResponse`."""

    beat_s: tuple[float, ...]
    beat_in_bar: tuple[int, ...]
    tempo_bpm: tuple[float, ...]
    numerator: int
    onset_s: tuple[float, ...]
    model: ModelInfo


class TranscriberClient:
    """`stretto.transcriber.v1.TranscriberService`. Errors name the model that was asked for as the caller does."""

    stage = "transcriber"

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub = transcriber_pb2_grpc.TranscriberServiceStub(channel)
        self._timeout_s = timeout_s

    async def transcribe(
        self, model: str, audio: AsyncIterator[Waveform], ends: NoteEnds = "sound", *, field: str, ends_field: str = ""
    ) -> AsyncGenerator[HeardNotes, None]:
        """Notes while audio is sent; errors name the model `field` and the ends `ends_field`."""
        request = transcriber_pb2.TranscribeAudioRequest
        config = request(config=transcriber_pb2.TranscribeConfig(model=model, ends=_ENDS[ends]))
        call = self._stub.TranscribeAudio(timeout=self._timeout_s)
        async with (
            aclosing(_requests(config, audio, request)) as sent,
            aclosing(exchange(call, sent)) as responses,
        ):
            names = {"waveform": "waveform", "config.model": field, "config.ends": ends_field}
            with errors_of(self.stage, names):
                async for response in responses:
                    notes = read(lambda m: score_from_proto(m, "notes"), response.notes, self.stage)
                    yield HeardNotes(notes, response.complete_s, read_model(response, self.stage))

    async def track(self, model: str, audio: AsyncIterator[Waveform], *, field: str) -> HeardBeats:
        """Beats of all the audio; errors name the model `field`."""
        request = transcriber_pb2.TrackBeatsRequest
        config = request(config=transcriber_pb2.TrackBeatsConfig(model=model))
        call = self._stub.TrackBeats(timeout=self._timeout_s)
        async with aclosing(_requests(config, audio, request)) as sent:
            with errors_of(self.stage, {"waveform": "waveform", "config.model": field}):
                response = await submit(call, sent)
        return HeardBeats(
            tuple(response.beat_s),
            tuple(response.beat_in_bar),
            tuple(response.tempo_bpm),
            response.time_signature_numerator,
            tuple(response.onset_s),
            read(convert.model_info_from_proto, response.model, self.stage),
        )

    async def engrave(self, performance: Score, title: str) -> tuple[Score, bytes]:
        """The performance as written, and as MusicXML."""
        request = transcriber_pb2.EngraveScoreRequest(score=score_to_proto(performance), title=title)
        with errors_of(self.stage, {"title": "config.title", "score": "score"}):
            response = await self._stub.EngraveScore(request, timeout=self._timeout_s)
        return read(score_from_proto, response.score, self.stage), response.musicxml

    async def list_models(self) -> list[ModelInfo]:
        """The models that the stage can serve."""
        with errors_of(self.stage):
            response = await self._stub.ListModels(transcriber_pb2.ListModelsRequest(), timeout=self._timeout_s)
        return [read(convert.model_info_from_proto, each, self.stage) for each in response.models]


async def _requests(
    config: Any, audio: AsyncIterator[Waveform], request: Callable[..., Any]
) -> AsyncGenerator[bytes, None]:
    yield config.SerializeToString()
    async for waveform in audio:
        yield request(waveform=convert.waveform_to_proto(waveform)).SerializeToString()
