"""`Transcribing`: audio of any length to notes, while it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from stretto_shared.audio import Waveform
from stretto_shared.features import ModelInfo
from stretto_shared.score import MAX_TIME_S

from stretto_transcriber.engine.hearing import Hearing, MeasuredAudio
from stretto_transcriber.loading import LoadedTranscriber
from stretto_transcriber.models.notes import NoteEnds, Notes

LONGEST_NOTE_S = 60.0  # more than any decoder holds one: with it, every note of the longest stream ends within the day
MAX_TRANSCRIBED_S = MAX_TIME_S - LONGEST_NOTE_S


@dataclass(frozen=True, eq=False)
class NewNotes:
    """Notes that have become final; all that begin before `complete_s` are in this message or in one before it."""

    notes: Notes
    complete_s: float
    model: ModelInfo


class Transcribing:
    """Notes of what is heard.

    Invariant: a note that was given is never given again nor taken back, and the notes of a stream are those of the
    whole audio; `tests/services/transcriber/test_transcribe_audio.py` holds it to that.

    Args:
        hearing: The models that hear notes.
    """

    def __init__(self, hearing: Hearing[LoadedTranscriber]) -> None:
        self.hearing = hearing

    async def transcribe(
        self, model: str, audio: AsyncIterator[Waveform], ends: NoteEnds = "sound"
    ) -> AsyncGenerator[NewNotes, None]:
        """One message for each window of the audio, and one more when it has ended.

        Args:
            model: The model; empty takes the default one.
            audio: Messages of at least one sample, all of one rate and as many channels; at least one message.
            ends: When notes end.

        Raises:
            InvalidInput: If the model does not hear those ends, there is no audio, its rate or channels change, or it
                is too loud or too long.
            NotFound: If there is no such model.
            Overloaded: If the model serves as many streams as it takes.
        """
        loaded = self.hearing.find(model)
        with self.hearing.admitted(loaded):
            measured, decoder, complete_s = MeasuredAudio(audio, MAX_TRANSCRIBED_S), loaded.new_decoder(ends), 0.0
            async with (
                aclosing(measured.messages()) as messages,
                aclosing(self.hearing.frames(loaded, messages)) as heard,
            ):
                async for frames in heard:
                    notes = await asyncio.to_thread(decoder.push, frames)
                    complete_s = min(max(complete_s, decoder.complete_s), measured.duration_s)
                    yield NewNotes(notes, complete_s, loaded.info)
            yield NewNotes(await asyncio.to_thread(decoder.flush), measured.duration_s, loaded.info)
