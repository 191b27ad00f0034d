"""`stretto transcribe` and `stretto beats`: what was played in a recording, as files."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import Progress, TaskID
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.features import ModelInfo
from stretto_shared.score import MAX_NAME_CHARACTERS, Score

from stretto_client.audio_files import AudioFileReader, open_audio
from stretto_client.beat_files import check_beats_path, write_beats
from stretto_client.cli.output import model_as_json, print_json, progress_bar, stdout_console
from stretto_client.cli.session import Address, AsJson, Timeout, run_session
from stretto_client.client import StrettoClient
from stretto_client.errors import ServerFailure
from stretto_client.files import check_output, whole_file
from stretto_client.midi_files import SUFFIXES as MIDI_SUFFIXES
from stretto_client.midi_files import check_midi_path, write_midi
from stretto_client.picture import check_picture_path, draw_piano_roll
from stretto_client.transcription_calls import MESSAGE_S, TRANSCRIPTION_TIMEOUT_S
from stretto_client.values import (
    AnalysisProgress,
    AnalysisReceipt,
    EngravedScore,
    NoteChunk,
    NoteEnds,
    Section,
    TrackedBeats,
)

MUSICXML_SUFFIXES = (".musicxml", ".xml")

Recording = Annotated[Path, typer.Argument(help="The recording: WAV, FLAC, OGG or MP3.")]
Model = Annotated[str, typer.Option(help="The model; empty takes the server's default.")]


def transcribe(
    audio: Recording,
    output: Annotated[Path, typer.Option("-o", "--output", help="The MIDI file to write: the performance as heard.")],
    score: Annotated[
        Path | None, typer.Option(help="A score to write too: .musicxml, or .mid for its notes. An hour at most.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="A piano roll to draw: .png, .pdf or .svg.")] = None,
    model: Model = "",
    ends: Annotated[
        NoteEnds,
        typer.Option(help="When notes end, in the score too: with their sound, the pedal included, or their key."),
    ] = NoteEnds.SOUND,
    title: Annotated[str, typer.Option(help="What the score is called; the file's name unless it is said.")] = "",
    timeout_s: Timeout = TRANSCRIPTION_TIMEOUT_S,
    address: Address = "",
    as_json: AsJson = False,
) -> None:
    """Turn a recording of a piano into MIDI, and with --score into a score."""
    check_midi_path(output)
    if score is not None:
        check_score_path(score)
    if picture is not None:
        check_picture_path(picture)
    _check_outputs(audio, output, score, picture)
    name = title or audio.stem.encode("utf-8", "replace").decode("utf-8")[:MAX_NAME_CHARACTERS]

    def say(line: str) -> None:
        if not as_json:
            stdout_console().print(line)

    async def work(client: StrettoClient) -> None:
        sections = [Section.NOTES] if score is None else [Section.NOTES, Section.BEATS, Section.SCORE]
        with open_audio(audio) as file:
            found = await _analyze(client, _Recording(file), sections, model, ends, name, timeout_s)
        heard_s, performance = found.receipt.duration_s, found.performance
        by = ", ".join(model.model_id for model in found.receipt.models)
        write_midi(output, performance)
        say(f"Wrote {output}: {performance.num_notes} notes of {heard_s:.1f} s, by {by}.")
        if picture is not None:
            draw_piano_roll(picture, performance, name, heard_s)
            say(f"Drew {picture}.")
        if score is not None:
            _write_score(score, found.written)
            say(f"Wrote {score}.")
        if as_json:
            files = {"file": str(output), "score": score and str(score), "picture": picture and str(picture)}
            models = [model_as_json(each) for each in found.receipt.models]
            print_json({"notes": performance.num_notes, "duration_s": heard_s} | files | {"models": models})

    run_session(address, work)


def beats(
    audio: Recording,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write: .beats or .json.")],
    model: Model = "",
    timeout_s: Timeout = TRANSCRIPTION_TIMEOUT_S,
    address: Address = "",
    as_json: AsJson = False,
) -> None:
    """Find the beats and bars of a recording of an hour at most."""
    check_beats_path(output)
    _check_outputs(audio, output)

    async def work(client: StrettoClient) -> None:
        with open_audio(audio) as file, progress_bar() as bar:
            recording = _Recording(file)
            task = bar.add_task("Hearing beats", total=recording.promised_s)
            tracked = await client.track_beats(recording.messages(bar, task), model=model, timeout_s=timeout_s)
        write_beats(output, tracked)
        by = _id_of(tracked.model)
        known_bpm = tracked.tempo_bpm[tracked.tempo_bpm > 0]
        tempo_bpm = float(np.median(known_bpm)) if known_bpm.size else None
        if as_json:
            facts = {"beats": tracked.beat_s.size, "tempo_bpm": tempo_bpm, "beats_per_bar": tracked.numerator}
            print_json(facts | {"file": str(output), "model": by})
            return
        bars = f", {tracked.numerator} in a bar" if tracked.numerator and tracked.beat_s.size else ""
        about = "" if tempo_bpm is None else f" around {tempo_bpm:.0f} a minute"
        count = "1 beat" if tracked.beat_s.size == 1 else f"{tracked.beat_s.size} beats"
        stdout_console().print(f"Wrote {output}: {count}{about}{bars}, by {by}.")

    run_session(address, work)


def check_score_path(path: Path) -> None:
    """Refuse a file name that no score can have.

    Raises:
        InvalidInput: If the suffix is neither that of MusicXML nor that of MIDI.
    """
    if path.suffix.lower() not in (*MUSICXML_SUFFIXES, *MIDI_SUFFIXES):
        known = ", ".join((*MUSICXML_SUFFIXES, *MIDI_SUFFIXES))
        raise InvalidInput("score", f"expected a file that ends in {known}, got {str(path)!r}. Rename it.")


class _Recording:
    """A file as it is sent."""

    def __init__(self, file: AudioFileReader) -> None:
        self._file = file
        self.promised_s = file.promised_s

    async def messages(self, bar: Progress | None = None, task: TaskID | None = None) -> AsyncGenerator[Waveform, None]:
        for waveform in self._file.waveforms(MESSAGE_S):
            yield waveform
            if bar is not None and task is not None:
                bar.advance(task, waveform.duration_s)


class _Found:
    """What came of a recording."""

    def __init__(self) -> None:
        self.chunks: list[NoteChunk] = []
        self.beats: TrackedBeats | None = None
        self.written: EngravedScore | None = None
        self.receipt = AnalysisReceipt((), (), 0.0, "", "", 0.0)

    @property
    def performance(self) -> Score:
        """All notes, with the beats where they were asked for."""
        performance = _joined([chunk.notes for chunk in self.chunks])
        if self.beats is None:
            return performance
        return dataclasses.replace(performance, beat_s=self.beats.beat_s, beat_in_bar=self.beats.beat_in_bar)


_COLUMNS = ("onset_s", "duration_s", "pitch_midi", "velocity", "part_index")


def _joined(scores: list[Score]) -> Score:
    """The notes of all in order; the parts are those of the first."""
    columns = [np.concatenate([getattr(score, name) for score in scores]) for name in _COLUMNS]
    order = np.lexsort((columns[2], columns[0]))
    onset_s, duration_s, pitch_midi, velocity, part_index = (column[order] for column in columns)
    return Score(onset_s, duration_s, pitch_midi, velocity, part_index, scores[0].parts)


async def _analyze(
    client: StrettoClient,
    recording: _Recording,
    sections: list[Section],
    model: str,
    ends: NoteEnds,
    title: str,
    timeout_s: float,
) -> _Found:
    """Everything, with a bar on stderr."""
    found = _Found()
    with progress_bar() as bar:
        task = bar.add_task("Listening", total=recording.promised_s)
        events = client.analyze_music(
            recording.messages(), sections=sections, note_model=model, note_ends=ends, title=title, timeout_s=timeout_s
        )
        async with aclosing(events):
            async for event in events:
                match event:
                    case AnalysisProgress(stage="transcriber/score"):
                        bar.update(task, description="Writing the score")
                    case AnalysisProgress():
                        pass
                    case NoteChunk():
                        found.chunks.append(event)
                        bar.update(task, completed=event.complete_s)
                    case TrackedBeats():
                        found.beats = event
                    case EngravedScore():
                        found.written = event
                    case AnalysisReceipt():
                        found.receipt = event
    if not found.chunks or not found.receipt.models:
        raise ServerFailure("The server ended the stream before it was done. Its log has the reason.")
    return found


def _write_score(path: Path, written: EngravedScore | None) -> None:
    """Write the score in the form that the name asks for.

    Raises:
        InvalidInput: If there is none.
    """
    if written is None:
        raise InvalidInput(
            "score",
            f"expected notes and at least two beats (10000 at most) to make {path} of, heard fewer or more. "
            "Leave --score out.",
        )
    if path.suffix.lower() in MIDI_SUFFIXES:
        write_midi(path, written.score)
    else:
        with whole_file(path) as temporary:
            temporary.write_bytes(written.musicxml)


def _check_outputs(audio: Path, *outputs: Path | None) -> None:
    """Find every mistake that costs nothing while no server has started."""
    wanted = [path for path in outputs if path is not None]
    for index, path in enumerate(wanted):
        if path in wanted[:index]:
            raise InvalidInput("path", f"expected different files to write, got {path} twice. Choose another.")
        check_output(path, audio)
    with open_audio(audio):
        pass


def _id_of(model: ModelInfo | None) -> str:
    return "" if model is None else model.model_id
