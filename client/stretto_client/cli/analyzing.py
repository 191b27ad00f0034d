"""`stretto analyze`: the chords, keys and Roman numerals of a score or a recording, as a file."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TaskID
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.features import ModelInfo
from stretto_shared.harmony import HarmonyLabel
from stretto_shared.score import MAX_NAME_CHARACTERS

from stretto_client.audio_files import AudioFileReader, open_audio
from stretto_client.cli.output import model_as_json, print_json, progress_bar, stdout_console
from stretto_client.cli.session import Address, AsJson, Timeout, run_session
from stretto_client.client import StrettoClient
from stretto_client.files import check_output, whole_file
from stretto_client.harmony_values import (
    ANALYSIS_SUFFIXES,
    SCORE_SUFFIXES,
    AnalysisFormat,
    HarmonyAnalysis,
    HarmonyEvent,
    HarmonyOutline,
    HarmonyWindow,
    ScoreFile,
    ScoreFormat,
)
from stretto_client.transcription_calls import MESSAGE_S, TRANSCRIPTION_TIMEOUT_S
from stretto_client.values import AnalysisProgress, AnalysisReceipt, LabelledScore, NoteChunk, Section


@dataclass(frozen=True, eq=False)
class _Found:
    """Labels, neighbours that say the same as one; who made them; and a file of the score that they are of."""

    labels: tuple[HarmonyLabel, ...]
    models: tuple[ModelInfo, ...]
    score: ScoreFile
    has_numerals: bool = False


def analyze(
    music: Annotated[
        Path,
        typer.Argument(
            help="A score: MusicXML (.musicxml, .xml, .mxl), MIDI or Humdrum (.krn); or a recording of a piano."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="The file to write: .rntxt (RomanText), .tsv (DCML), .json, or .musicxml with the numerals under it.",
        ),
    ],
    analyzer: Annotated[str, typer.Option(help="chordgnn or modular; empty takes the server's default.")] = "",
    title: Annotated[str, typer.Option(help="What the piece is called; the file's name unless it is said.")] = "",
    timeout_s: Timeout = TRANSCRIPTION_TIMEOUT_S,
    address: Address = "",
    as_json: AsJson = False,
) -> None:
    """Write down the chords, keys and Roman numerals of a score, or of a recording of a piano."""
    format = _format_of(output)
    check_output(output, music)
    file = ScoreFile.read(music) if music.suffix.lower() in SCORE_SUFFIXES else None
    if file is None:
        with open_audio(music):  # what is no recording either is told so before a server starts
            pass
    name = title or music.stem.encode("utf-8", "replace").decode("utf-8")[:MAX_NAME_CHARACTERS]

    async def work(client: StrettoClient) -> None:
        if file is not None:
            found = await _analyze_score(client, file, analyzer, timeout_s)
        else:
            with open_audio(music) as audio:
                found = await _analyze_recording(client, audio, analyzer, name, timeout_s)
        if format is AnalysisFormat.MUSICXML and found.has_numerals:
            content = found.score.data
        else:
            by = found.models[-1].model_id
            content = await client.write_harmony(found.score, found.labels, format, title=name, analyst=by)
        with whole_file(output) as temporary:
            temporary.write_bytes(content)
        _say(output, found, as_json=as_json)

    run_session(address, work)


def _format_of(path: Path) -> AnalysisFormat:
    """The format that the name of a file asks for.

    Raises:
        InvalidInput: If no analysis has this suffix.
    """
    if path.suffix.lower() not in ANALYSIS_SUFFIXES:
        known = ", ".join(ANALYSIS_SUFFIXES)
        raise InvalidInput("output", f"expected a file that ends in {known}, got {str(path)!r}. Rename it.")
    return ANALYSIS_SUFFIXES[path.suffix.lower()]


async def _analyze_score(client: StrettoClient, file: ScoreFile, analyzer: str, timeout_s: float) -> _Found:
    with progress_bar() as bar:
        task = bar.add_task("Reading the score", total=None)

        async def watched() -> AsyncGenerator[HarmonyEvent, None]:
            events = client.analyze_harmony(file, analyzer=analyzer, timeout_s=timeout_s)
            async with aclosing(events):
                async for event in events:
                    _show(bar, task, event)
                    yield event

        async with aclosing(watched()) as events:
            analysis = await HarmonyAnalysis.collect(events)
    return _Found(analysis.joined, (analysis.outline.model,), file)


def _show(bar: Progress, task: TaskID, event: HarmonyEvent) -> None:
    match event:
        case HarmonyOutline():
            bar.update(task, description="Analysing", total=event.num_measures)
        case HarmonyWindow():
            bar.advance(task, event.num_measures)


async def _analyze_recording(
    client: StrettoClient, audio: AudioFileReader, analyzer: str, title: str, timeout_s: float
) -> _Found:
    labelled, receipt = None, None
    with progress_bar() as bar:
        task = bar.add_task("Listening", total=audio.promised_s)
        events = client.analyze_music(
            _messages(audio),
            sections=[Section.NOTES, Section.HARMONY],
            title=title,
            harmony_model=analyzer,
            timeout_s=timeout_s,
        )
        async with aclosing(events):
            async for event in events:
                match event:
                    case NoteChunk():
                        bar.update(task, completed=event.complete_s)
                    case AnalysisProgress(stage="transcriber/score"):
                        bar.update(task, description="Writing the score")
                    case AnalysisProgress(stage="harmony"):
                        bar.update(task, description="Analysing")
                    case LabelledScore():
                        labelled = event
                    case AnalysisReceipt():
                        receipt = event
    if labelled is None or receipt is None:
        raise InvalidInput(
            "music", "expected notes and at least two beats (10000 at most) to make a score of, heard fewer or more."
        )
    return _Found(labelled.labels, receipt.models, ScoreFile(labelled.musicxml, ScoreFormat.MUSICXML), True)


async def _messages(audio: AudioFileReader) -> AsyncGenerator[Waveform, None]:
    for waveform in audio.waveforms(MESSAGE_S):
        yield waveform


def _say(output: Path, found: _Found, *, as_json: bool) -> None:
    keys = list(dict.fromkeys(label.key.name for label in found.labels))
    if as_json:
        models = [model_as_json(each) for each in found.models]
        print_json({"chords": len(found.labels), "keys": keys, "file": str(output), "models": models})
        return
    in_keys = f" in {', '.join(keys[:8])}{' …' if len(keys) > 8 else ''}" if keys else ""
    by = ", ".join(model.model_id for model in found.models)
    stdout_console().print(f"Wrote {output}: {len(found.labels)} chords{in_keys}, by {by}.")
