"""`stretto tokenize`: a recording of any length to semantic tokens, as a file."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer
from stretto_shared.audio import Waveform
from stretto_shared.tokens import concatenate

from stretto_client.audio_files import AudioFileReader, open_audio
from stretto_client.cli.output import model_as_json, print_json, progress_bar, stdout_console
from stretto_client.cli.session import Address, AsJson, Timeout, run_session
from stretto_client.client import TOKENIZER_TIMEOUT_S, StrettoClient
from stretto_client.errors import ServerFailure
from stretto_client.files import check_output
from stretto_client.token_files import check_tokens_path, write_tokens
from stretto_client.transcription_calls import MESSAGE_S
from stretto_client.values import TokenChunk


def tokenize(
    audio: Annotated[Path, typer.Argument(help="The recording: WAV, FLAC, OGG or MP3, of any length.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .tokens file to write.")],
    model: Annotated[str, typer.Option(help="The tokenizer; empty takes the server's default.")] = "",
    timeout_s: Timeout = TOKENIZER_TIMEOUT_S,
    address: Address = "",
    as_json: AsJson = False,
) -> None:
    """Turn a recording into semantic tokens: what happens in it, without how it sounds."""
    check_tokens_path(output)
    check_output(output, audio)
    with open_audio(audio):  # a mistake costs nothing while no server has started
        pass

    async def work(client: StrettoClient) -> None:
        with open_audio(audio) as file:
            recording = _Recording(file)
            chunks = await _tokenize(client, recording, model, timeout_s)
        tokens, info = concatenate([chunk.tokens for chunk in chunks]), chunks[0].model
        write_tokens(output, tokens, round(recording.read_s * info.sample_rate_hz))
        if as_json:
            facts = {"frame_count": tokens.num_frames, "frame_rate_hz": tokens.frame_rate_hz, "file": str(output)}
            print_json({"model": model_as_json(info)} | facts)
            return
        stdout_console().print(
            f"Wrote {output}: {tokens.num_frames} frames at {tokens.frame_rate_hz:g} Hz, by {info.model_id}."
        )

    run_session(address, work)


class _Recording:
    """A file as it is sent, and how much of it was."""

    def __init__(self, file: AudioFileReader) -> None:
        self._file = file
        self._num_read = 0
        self.promised_s = file.promised_s

    @property
    def read_s(self) -> float:
        return self._num_read / self._file.sample_rate_hz

    async def messages(self) -> AsyncGenerator[Waveform, None]:
        for waveform in self._file.waveforms(MESSAGE_S):
            self._num_read += waveform.num_samples
            yield waveform


async def _tokenize(client: StrettoClient, recording: _Recording, model: str, timeout_s: float) -> list[TokenChunk]:
    """All chunks, with a bar on stderr."""
    chunks: list[TokenChunk] = []
    with progress_bar() as bar:
        task = bar.add_task("Tokenising", total=recording.promised_s)
        async with aclosing(client.tokenize_audio(recording.messages(), model=model, timeout_s=timeout_s)) as replies:
            async for chunk in replies:
                chunks.append(chunk)
                bar.advance(task, chunk.tokens.duration_s)
    if not chunks:
        raise ServerFailure("The server ended the stream without tokens. Its log has the reason.")
    return chunks
