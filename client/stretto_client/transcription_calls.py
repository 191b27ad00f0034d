"""The client's calls on what was played in a recording; `StrettoClient` has them all."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto.transcriber.v1 import transcriber_pb2
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.features import ModelInfo
from stretto_shared.grpc import convert
from stretto_shared.grpc.convert_harmony import labels_from_proto
from stretto_shared.grpc.convert_score import score_from_proto, score_to_proto
from stretto_shared.score import Score

from stretto_client.calls import answer, stream, submitted
from stretto_client.errors import ServerFailure
from stretto_client.values import (
    AnalysisEvent,
    AnalysisProgress,
    AnalysisReceipt,
    EngravedScore,
    LabelledScore,
    NoteChunk,
    NoteEnds,
    Section,
    TrackedBeats,
)

TRANSCRIPTION_TIMEOUT_S = 600.0
ENGRAVING_TIMEOUT_S = 120.0
MESSAGE_S = 1.0  # of audio that is streamed

_SECTIONS = {
    Section.NOTES: orchestrator_pb2.ANALYSIS_SECTION_NOTES,
    Section.BEATS: orchestrator_pb2.ANALYSIS_SECTION_BEATS,
    Section.SCORE: orchestrator_pb2.ANALYSIS_SECTION_SCORE,
    Section.HARMONY: orchestrator_pb2.ANALYSIS_SECTION_HARMONY,
}
_ENDS = {NoteEnds.SOUND: transcriber_pb2.NOTE_ENDS_SOUND, NoteEnds.KEY: transcriber_pb2.NOTE_ENDS_KEY}


class TranscriptionCalls:
    """Every method of the transcriber service, as the door passes it on, and the door's own analysis."""

    _transcriber: Any  # the stubs, from enter to exit
    _orchestrator: Any

    async def transcribe_audio(
        self,
        audio: Waveform | AsyncIterator[Waveform],
        *,
        model: str = "",
        ends: NoteEnds = NoteEnds.SOUND,
        timeout_s: float = TRANSCRIPTION_TIMEOUT_S,
    ) -> AsyncGenerator[NoteChunk, None]:
        """Piano music of any length to notes; a stream of consecutive waveforms is transcribed while it comes.

        Args:
            audio: At any rate, mono or stereo; all waveforms of a stream alike. Where they were cut changes nothing.
            model: Empty takes the default one.
            ends: When notes end.
            timeout_s: Deadline of the whole call.
        """
        request = transcriber_pb2.TranscribeAudioRequest
        config = request(config=transcriber_pb2.TranscribeConfig(model=model, ends=_ENDS[ends]))
        call, info = self._transcriber.TranscribeAudio(timeout=timeout_s), None
        async with (
            aclosing(_requests(config, audio, request)) as sent,
            aclosing(stream(call, sent)) as replies,
        ):
            async for reply in replies:
                info = info or convert.model_info_from_proto(reply.model)
                yield NoteChunk(score_from_proto(reply.notes, "notes"), reply.complete_s, info)

    async def track_beats(
        self,
        audio: Waveform | AsyncIterator[Waveform],
        *,
        model: str = "",
        timeout_s: float = TRANSCRIPTION_TIMEOUT_S,
    ) -> TrackedBeats:
        """Beats, bars, tempo and onsets of up to an hour of music.

        Args:
            audio: As in `transcribe_audio`.
            model: Empty takes the default one.
            timeout_s: Deadline of the whole call.
        """
        request = transcriber_pb2.TrackBeatsRequest
        config = request(config=transcriber_pb2.TrackBeatsConfig(model=model))
        async with aclosing(_requests(config, audio, request)) as sent:
            reply = await submitted(self._transcriber.TrackBeats(timeout=timeout_s), sent)
        return _beats_from_proto(reply, convert.model_info_from_proto(reply.model))

    async def engrave_score(
        self, performance: Score, *, title: str = "", timeout_s: float = ENGRAVING_TIMEOUT_S
    ) -> EngravedScore:
        """A performance with its beats, as written and as MusicXML.

        Args:
            performance: At most 20000 notes, and 2 to 10000 beats in `beat_s`.
            title: At most 200 characters.
            timeout_s: Deadline of the call.
        """
        request = transcriber_pb2.EngraveScoreRequest(score=score_to_proto(performance), title=title)
        reply = await answer(self._transcriber.EngraveScore(request, timeout=timeout_s))
        return EngravedScore(score_from_proto(reply.score), reply.musicxml)

    async def analyze_music(
        self,
        audio: Waveform | AsyncIterator[Waveform],
        *,
        sections: Sequence[Section] = (),
        note_model: str = "",
        beat_model: str = "",
        title: str = "",
        harmony_model: str = "",
        note_ends: NoteEnds = NoteEnds.SOUND,
        timeout_s: float = TRANSCRIPTION_TIMEOUT_S,
    ) -> AsyncGenerator[AnalysisEvent, None]:
        """Progress, notes while the recording comes, its beats, the score of both, its harmony, and the receipt last.

        Args:
            audio: As in `transcribe_audio`; at most an hour, unless only notes are wanted.
            sections: What is wanted; empty takes all but harmony.
            note_model: Empty takes the default one.
            beat_model: Empty takes the default one.
            title: What the score is called.
            harmony_model: Empty takes the default one.
            note_ends: When notes end, those that the score is made of too.
            timeout_s: Deadline of the whole call.
        """
        config = orchestrator_pb2.AnalyzeConfig(
            sections=_sections_to_proto(sections),
            note_model=note_model,
            beat_model=beat_model,
            title=title,
            harmony_model=harmony_model,
            note_ends=_ENDS[note_ends],
        )
        request = orchestrator_pb2.AnalyzeMusicRequest
        call = self._orchestrator.AnalyzeMusic(timeout=timeout_s)
        async with (
            aclosing(_requests(request(config=config), audio, request)) as sent,
            aclosing(stream(call, sent)) as replies,
        ):
            async for reply in replies:
                yield _event_from_proto(reply)


async def pieces(audio: Waveform | AsyncIterator[Waveform]) -> AsyncGenerator[Waveform, None]:
    """Messages of a size that streams."""
    if isinstance(audio, Waveform):
        step = max(1, round(MESSAGE_S * audio.sample_rate_hz))
        for start in range(0, audio.num_samples, step):
            yield Waveform(audio.samples[:, start : start + step], audio.sample_rate_hz)
    else:
        async for part in audio:
            yield part


async def _requests(
    config: Any, audio: Waveform | AsyncIterator[Waveform], request: Callable[..., Any]
) -> AsyncGenerator[bytes, None]:
    yield config.SerializeToString()
    async for part in pieces(audio):
        yield request(waveform=convert.waveform_to_proto(part)).SerializeToString()


def _sections_to_proto(sections: Sequence[Section]) -> list[orchestrator_pb2.AnalysisSection]:
    for section in sections:
        if section not in _SECTIONS:
            raise InvalidInput("sections", f"expected some of {', '.join(Section)}, got {section!r}.")
    return [_SECTIONS[section] for section in sections]


def _event_from_proto(message: orchestrator_pb2.AnalyzeMusicResponse) -> AnalysisEvent:
    """The one thing that a message of an analysis brings."""
    match message.WhichOneof("payload"):
        case "progress":
            return AnalysisProgress(message.progress.stage, message.progress.done_s)
        case "notes":
            return NoteChunk(score_from_proto(message.notes.notes, "notes"), message.notes.complete_s)
        case "beats":
            return _beats_from_proto(message.beats, None)
        case "score":
            return EngravedScore(score_from_proto(message.score.score), message.score.musicxml)
        case "harmony":
            return LabelledScore(labels_from_proto(message.harmony.labels), message.harmony.musicxml)
        case "receipt":
            return _receipt_from_proto(message.receipt)
        case unknown:
            raise ServerFailure(f"The server sent a message that this client does not know ({unknown}). Update it.")


def _beats_from_proto(
    message: transcriber_pb2.TrackBeatsResponse | orchestrator_pb2.AnalyzedBeats, model: ModelInfo | None
) -> TrackedBeats:
    return TrackedBeats(
        beat_s=np.array(message.beat_s, np.float64),
        beat_in_bar=np.array(message.beat_in_bar, np.int32),
        tempo_bpm=np.array(message.tempo_bpm, np.float64),
        numerator=message.time_signature_numerator,
        onset_s=np.array(message.onset_s, np.float64),
        model=model,
    )


def _receipt_from_proto(message: orchestrator_pb2.AnalysisReceipt) -> AnalysisReceipt:
    names = {number: section for section, number in _SECTIONS.items()}
    return AnalysisReceipt(
        sections=tuple(names[number] for number in message.sections if number in names),
        models=tuple(convert.model_info_from_proto(model) for model in message.models),
        duration_s=message.duration_s,
        input_sha256=message.input_sha256,
        stretto_version=message.stretto_version,
        total_latency_s=message.total_latency.ToTimedelta().total_seconds(),
    )
