"""`stretto generate`: text, and a melody or a recording if there is one, to an audio file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import Progress as ProgressBar
from rich.progress import TaskID
from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.features import SamplingOptions

from stretto_client.audio_files import AudioFileWriter, audio_format, read_audio, within_full_scale
from stretto_client.cli.output import (
    print_json,
    progress_bar,
    receipt_as_json,
    receipt_table,
    stderr_console,
    stdout_console,
)
from stretto_client.cli.session import Address, AsJson, Timeout, run_session
from stretto_client.client import MUSIC_TIMEOUT_S, StrettoClient
from stretto_client.convert import MAX_CANDIDATES, MAX_PRIORITY
from stretto_client.errors import ServerFailure
from stretto_client.files import check_output
from stretto_client.picture import check_picture_path, draw_spectrogram
from stretto_client.values import AudioChunk, MusicEvent, Pace, Progress, PromptSpan, Receipt

MAX_DURATION_S = 300.0
STAGE_NAMES = {
    "embedding": "Reading the prompt",
    "codec": "Listening to the recording",
    "semantic": "Composing",
    "acoustic": "Composing",
}


def generate(
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write: .wav, .flac or .ogg.")],
    prompt: Annotated[
        str, typer.Argument(help="What the music should be, in English. May be left out with --continue.")
    ] = "",
    cascade: Annotated[str, typer.Option(help="The cascade of models that makes the music.")] = "musicgen",
    duration_s: Annotated[
        float,
        typer.Option(
            min=0.1, max=MAX_DURATION_S, help="Seconds of new music, at most 30 (20 with --continue, 300 with musiclm)."
        ),
    ] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Same request and seed, same bytes.")] = 0,
    melody: Annotated[Path | None, typer.Option(help="A recording whose melody the music follows.")] = None,
    continued: Annotated[
        Path | None, typer.Option("--continue", help="A recording to continue; its last 10 s are heard.")
    ] = None,
    story: Annotated[
        list[str] | None,
        typer.Option(help='What the music becomes, as START_S:PROMPT or START_S/BLEND_S:PROMPT: 20/8:"a storm".'),
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=1, max=MAX_CANDIDATES, help="Make so many pieces and keep the one that fits best.")
    ] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, max=10.0, help="Divides the logits; 0 takes the likeliest token.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="Draw from the k likeliest tokens; 0 from all.")] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Draw from the likeliest tokens that reach p.")
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(min=0.0, max=20.0, help="How hard to follow the prompt; 1 is plainly.")
    ] = None,
    pace: Annotated[
        Pace, typer.Option(help="realtime: made as fast as it plays, or refused at once; best_effort waits its turn.")
    ] = Pace.BEST_EFFORT,
    priority: Annotated[
        int, typer.Option(min=0, max=MAX_PRIORITY, help="Of a best-effort piece: higher ones go first.")
    ] = 0,
    picture: Annotated[Path | None, typer.Option(help="Also draw the spectrogram: .png, .pdf or .svg.")] = None,
    timeout_s: Timeout = MUSIC_TIMEOUT_S,
    address: Address = "",
    as_json: AsJson = False,
) -> None:
    """Make music from a text, and print the receipt that makes it again."""
    # what can be checked without a server is checked before one starts, so that a mistake costs nothing
    if melody is not None and continued is not None:
        raise InvalidInput("--melody", "expected either --melody or --continue, got both. Choose one.")
    if not prompt and continued is None:
        raise InvalidInput("PROMPT", "expected what the music should be, got nothing. Say it in a few words.")
    spans = [parse_span(text) for text in story or ()]
    if continued is not None and (spans or candidates > 1):
        option = "--story" if spans else "--candidates"
        raise InvalidInput(option, "expected no --continue beside it, got both. Choose one.")
    audio_format(output)
    check_output(output, melody, continued)
    if picture is not None:
        check_picture_path(picture)
        check_output(picture, melody, continued)
    sampling = SamplingOptions(temperature, top_k, top_p, guidance_scale)
    melody_audio = read_audio(melody) if melody is not None else None
    recording = read_audio(continued) if continued is not None else None

    async def work(client: StrettoClient) -> None:
        if recording is not None:
            events = client.continue_music(
                recording,
                prompt=prompt,
                cascade=cascade,
                duration_s=duration_s,
                seed=seed,
                sampling=sampling,
                pace=pace,
                priority=priority,
                timeout_s=timeout_s,
            )
        else:
            events = client.generate_music(
                prompt,
                cascade=cascade,
                duration_s=duration_s,
                seed=seed,
                sampling=sampling,
                pace=pace,
                priority=priority,
                melody=melody_audio,
                story=spans,
                candidates=candidates,
                timeout_s=timeout_s,
            )
        waveform, receipt = await _write_music(events, output)
        written = [output]
        try:
            if picture is not None:
                draw_spectrogram(picture, waveform, title=prompt or f"after {continued}")
                written.append(picture)
        finally:  # the music is made: whatever becomes of its picture, here is how to make it again
            _report(receipt, written, as_json)

    run_session(address, work)


async def _write_music(events: AsyncIterator[MusicEvent], output: Path) -> tuple[Waveform, Receipt]:
    """Collect the audio with a bar on stderr, and write it once the receipt is there.

    Music louder than full scale is turned down as a whole, for a file would clip it, and the command says so.
    """
    chunks: list[Waveform] = []
    receipt: Receipt | None = None
    with progress_bar() as bar, AudioFileWriter(output) as writer:
        shown = StageBars(bar)
        async for event in events:
            match event:
                case Progress():
                    shown.advance(event)
                case AudioChunk():
                    chunks.append(event.waveform)
                case Receipt():
                    receipt = event
        if receipt is None or not chunks:
            raise ServerFailure(
                "The server ended the music without audio or without a receipt. Its log has the reason."
            )
        samples = np.concatenate([chunk.samples for chunk in chunks], axis=1)
        waveform, gain_db = within_full_scale(Waveform(samples, chunks[0].sample_rate_hz))
        if gain_db < 0:
            stderr_console().print(f"Turned down by {-gain_db:.1f} dB to fit full scale.")
        writer.write(waveform)
    return waveform, receipt


class StageBars:
    """A line that says what is being done, and one more for each further stage that makes frames at the same time."""

    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar
        self._first = bar.add_task("Asking the server", total=None)
        self._tasks: dict[str, TaskID] = {}

    def advance(self, progress: Progress) -> None:
        """Show how far a stage is."""
        name, _, model = progress.stage.partition("/")
        description = STAGE_NAMES.get(name, name) + (f" ({model or name})" if model or name == "semantic" else "")
        if progress.num_total_frames == 0:
            if not self._tasks:
                self._bar.update(self._first, description=description)
            return
        if progress.stage not in self._tasks:
            self._tasks[progress.stage] = self._bar.add_task(description) if self._tasks else self._first
        self._bar.update(
            self._tasks[progress.stage],
            description=description,
            total=progress.num_total_frames,
            completed=progress.num_done_frames,
        )


def parse_span(text: str) -> PromptSpan:
    """`20:a storm` or `20/8:a storm`: from 20 s on, in 8 s, a storm.

    Raises:
        InvalidInput: If it is not of that form.
    """
    times, colon, prompt = text.partition(":")
    start, slash, blend = times.partition("/")
    wrong = InvalidInput("--story", f"expected START_S:PROMPT or START_S/BLEND_S:PROMPT, got {text!r}.")
    if not colon or not prompt.strip():
        raise wrong
    try:
        return PromptSpan(float(start), prompt.strip(), float(blend) if slash else None)
    except ValueError:
        raise wrong from None


def _report(receipt: Receipt, written: list[Path], as_json: bool) -> None:
    files = [str(path) for path in written]
    if as_json:
        print_json(receipt_as_json(receipt) | {"files": files})
        return
    console = stdout_console()
    console.print(receipt_table(receipt))
    console.print(f"Real-time factor {receipt.real_time_factor:.2f}. Wrote {' and '.join(files)}.")
