"""`stretto encode` and `stretto decode`: a codec's two halves, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from stretto_shared.audio import Waveform

from stretto_client.audio_files import AudioFileWriter, audio_format, read_audio
from stretto_client.cli.output import model_as_json, print_json, stdout_console
from stretto_client.cli.session import Address, AsJson, Timeout, run_session
from stretto_client.client import CODEC_TIMEOUT_S, StrettoClient
from stretto_client.files import check_output
from stretto_client.token_files import check_tokens_path, read_tokens, write_tokens


def encode(
    audio: Annotated[Path, typer.Argument(help="The recording: WAV, FLAC, OGG or MP3.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .tokens file to write.")],
    model: Annotated[str, typer.Option(help="The codec; empty takes the server's default.")] = "",
    codebooks: Annotated[int, typer.Option(min=0, max=64, help="Codebooks to keep, coarsest first; 0 keeps all.")] = 0,
    timeout_s: Timeout = CODEC_TIMEOUT_S,
    address: Address = "",
    as_json: AsJson = False,
) -> None:
    """Turn a recording into a codec's tokens."""
    check_tokens_path(output)
    check_output(output, audio)
    waveform = read_audio(audio)

    async def work(client: StrettoClient) -> None:
        encoded = await client.encode_audio(waveform, model=model, num_codebooks=codebooks, timeout_s=timeout_s)
        write_tokens(output, encoded.tokens, encoded.num_samples)
        tokens = encoded.tokens
        if as_json:
            facts = {
                "frame_count": tokens.num_frames,
                "frame_rate_hz": tokens.frame_rate_hz,
                "codebook_count": tokens.num_codebooks,
                "sample_count": encoded.num_samples,
                "file": str(output),
            }
            print_json({"model": model_as_json(encoded.model)} | facts)
            return
        stdout_console().print(
            f"Wrote {output}: {tokens.num_frames} frames of {tokens.num_codebooks} codebooks at "
            f"{tokens.frame_rate_hz:g} Hz, by {encoded.model.model_id}."
        )

    run_session(address, work)


def decode(
    tokens_file: Annotated[Path, typer.Argument(metavar="TOKENS", help="A .tokens file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write: .wav, .flac or .ogg.")],
    model: Annotated[str, typer.Option(help="The codec; empty takes the one that made the tokens.")] = "",
    timeout_s: Timeout = CODEC_TIMEOUT_S,
    address: Address = "",
) -> None:
    """Turn a codec's tokens back into audio."""
    audio_format(output)
    check_output(output, tokens_file)
    tokens, num_samples = read_tokens(tokens_file)
    model = model or tokens.codec_id.partition("@")[0]

    async def work(client: StrettoClient) -> None:
        num_left, sample_rate_hz = num_samples, 0
        with AudioFileWriter(output) as writer:
            async for chunk in client.decode_tokens(tokens, model=model, timeout_s=timeout_s):
                sample_rate_hz = chunk.waveform.sample_rate_hz
                kept = chunk.waveform.samples[:, : max(num_left, 0)]
                if kept.shape[1]:
                    writer.write(Waveform(kept, sample_rate_hz))
                num_left -= kept.shape[1]
        written_s = (num_samples - num_left) / sample_rate_hz
        stdout_console().print(f"Wrote {output}: {written_s:.2f} s at {sample_rate_hz} Hz.")

    run_session(address, work)
