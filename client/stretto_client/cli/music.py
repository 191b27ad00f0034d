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
from stretto_client.convert import MAX_PRIORITY
from stretto_client.errors import ServerFailure
from stretto_client.files import check_output
from stretto_client.picture import check_picture_path, draw_spectrogram
from stretto_client.values import AudioChunk, MusicEvent, Pace, Progress, Receipt

MAX_DURATION_S = 30.0
STAGE_NAMES = {"embedding": "Reading the prompt", "codec": "Listening to the recording", "acoustic": "Composing"}


def generate(
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write: .wav, .flac or .ogg.")],
    prompt: Annotated[
        str, typer.Argument(help="What the music should be, in English. May be left out with --continue.")
    ] = "",
    cascade: Annotated[str, typer.Option(help="The cascade of models that makes the music.")] = "musicgen",
    duration_s: Annotated[
        float, typer.Option(min=0.1, max=MAX_DURATION_S, help="Seconds of new music (with --continue at most 20).")
    ] = 10.0,
    seed: Annotated[int, typer.Option(min=0, help="Same request and seed, same bytes.")] = 0,
    melody: Annotated[Path | None, typer.Option(help="A recording whose melody the music follows.")] = None,
    continued: Annotated[
        Path | None, typer.Option("--continue", help="A recording to continue; its last 10 s are heard.")
    ] = None,
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
        task = bar.add_task("Asking the server", total=None)
        async for event in events:
            match event:
                case Progress():
                    _advance(bar, task, event)
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


def _advance(bar: ProgressBar, task: TaskID, progress: Progress) -> None:
    bar.update(task, description=STAGE_NAMES.get(progress.stage, progress.stage))
    if progress.num_total_frames > 0:
        bar.update(task, total=progress.num_total_frames, completed=progress.num_done_frames)


def _report(receipt: Receipt, written: list[Path], as_json: bool) -> None:
    files = [str(path) for path in written]
    if as_json:
        print_json(receipt_as_json(receipt) | {"files": files})
        return
    console = stdout_console()
    console.print(receipt_table(receipt))
    console.print(f"Real-time factor {receipt.real_time_factor:.2f}. Wrote {' and '.join(files)}.")
