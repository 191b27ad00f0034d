"""`stretto embed`, `stretto rank` and `stretto tag`: texts and recordings as vectors, and what follows from them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table
from safetensors.numpy import save_file
from stretto_shared.errors import InvalidInput
from stretto_shared.features import ModelInfo

from stretto_client.audio_files import open_audio, read_audio
from stretto_client.cli.output import model_as_json, print_json, stdout_console
from stretto_client.cli.session import Address, AsJson, Timeout, run_session
from stretto_client.client import StrettoClient
from stretto_client.embedding_calls import LISTENING_TIMEOUT_S, SHORT_TIMEOUT_S
from stretto_client.files import check_output, whole_file
from stretto_client.values import EmbeddedAudio, EmbeddedText

JointModel = Annotated[str, typer.Option("--model", help="The joint encoder; empty takes the server's default.")]


def embed(
    inputs: Annotated[list[str], typer.Argument(metavar="TEXTS...", help="One to 64 texts; with --audio, recordings.")],
    are_audio: Annotated[bool, typer.Option("--audio", help="Take the arguments for names of recordings.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write the vectors here, as safetensors."),
    ] = None,
    model: Annotated[str, typer.Option(help="The encoder; empty takes the server's default.")] = "",
    timeout_s: Annotated[
        float | None, typer.Option("--timeout-s", min=0.001, help="Deadline of each call, in seconds.")
    ] = None,
    address: Address = "",
    as_json: AsJson = False,
) -> None:
    """Turn texts or recordings into vectors, and say how alike they are."""
    paths = [Path(each) for each in inputs] if are_audio else []
    if output is not None:
        check_output(output, *paths)
    for path in paths:
        with open_audio(path):  # one that is no audio is found before any is sent
            pass

    async def hear(client: StrettoClient) -> None:
        limit_s = timeout_s or LISTENING_TIMEOUT_S
        heard = []
        for path in paths:  # one recording in memory at a time
            waveform = await asyncio.to_thread(read_audio, path)
            heard.append(await client.embed_audio(waveform, model=model, timeout_s=limit_s))
        if output is not None:
            _write(output, _audio_tensors(heard), heard[0].model)
        if as_json:
            print_json({"model": model_as_json(heard[0].model), "recordings": _audio_as_json(inputs, heard)})
            return
        vectors = [each.embedding.values for each in heard]
        notes = [f"{len(each.windows)} windows x {each.embedding.values.shape[0]}" for each in heard]
        _print_alike(inputs, vectors, notes, output)

    async def read(client: StrettoClient) -> None:
        read = await client.embed_text(inputs, model=model, timeout_s=timeout_s or SHORT_TIMEOUT_S)
        if output is not None:
            _write(output, _text_tensors(read), read.model)
        if as_json:
            print_json({"model": model_as_json(read.model), "texts": inputs} | _texts_as_json(read))
            return
        notes = [f"{len(each.states)} tokens x {each.dimension}" for each in read.states]
        notes += [f"1 point x {each.values.shape[0]}" for each in read.embeddings]
        _print_alike(inputs, _vectors(read), notes, output)

    run_session(address, hear if are_audio else read)


def rank(
    query: Annotated[str, typer.Argument(help="What the music should be; with --audio, a recording that it is like.")],
    recordings: Annotated[list[Path], typer.Argument(metavar="FILES...", help="One to 64 recordings.")],
    is_audio: Annotated[bool, typer.Option("--audio", help="Take QUERY for the name of a recording.")] = False,
    model: JointModel = "",
    timeout_s: Timeout = LISTENING_TIMEOUT_S,
    address: Address = "",
    as_json: AsJson = False,
) -> None:
    """Order recordings by how well they fit a text, or another recording."""
    wanted = read_audio(Path(query)) if is_audio else query
    candidates = [read_audio(path) for path in recordings]

    async def work(client: StrettoClient) -> None:
        ranking = await client.rank_audio(wanted, candidates, model=model, timeout_s=timeout_s)
        rows = [(str(recordings[each.candidate_index]), each.similarity) for each in ranking.ranked]
        if as_json:
            found = [{"file": name, "similarity": similarity} for name, similarity in rows]
            print_json({"model": model_as_json(ranking.model), "query": query, "ranking": found})
            return
        table = Table("similarity", "recording", title=f"By {ranking.model.model_id}", title_justify="left")
        for name, similarity in rows:
            table.add_row(f"{similarity:.3f}", name)
        stdout_console().print(table)

    run_session(address, work)


def tag(
    recording: Annotated[Path, typer.Argument(help="The recording: WAV, FLAC, OGG or MP3.")],
    tags: Annotated[
        str, typer.Option(help="Tags to try, separated by commas; empty takes the encoder's own list.")
    ] = "",
    model: JointModel = "",
    timeout_s: Timeout = LISTENING_TIMEOUT_S,
    address: Address = "",
    as_json: AsJson = False,
) -> None:
    """Say how well each of a list of tags fits a recording."""
    tried = _split_tags(tags)
    waveform = read_audio(recording)

    async def work(client: StrettoClient) -> None:
        tagged = await client.tag_audio(waveform, tried, model=model, timeout_s=timeout_s)
        if as_json:
            found = [
                {"tag": each.tag, "similarity": each.similarity, "probability": each.probability}
                for each in tagged.tags
            ]
            print_json({"model": model_as_json(tagged.model), "file": str(recording), "tags": found})
            return
        table = Table("tag", "similarity", "share", title=f"By {tagged.model.model_id}", title_justify="left")
        for each in tagged.tags:
            table.add_row(each.tag, f"{each.similarity:.3f}", f"{each.probability:.3f}")
        stdout_console().print(table)

    run_session(address, work)


def _split_tags(text: str) -> list[str]:
    tags = [part.strip() for part in text.split(",")]
    if text and not all(tags):
        raise InvalidInput("tags", f"expected words separated by single commas, got {text!r}. Leave out empty ones.")
    return tags if text else []


def _print_alike(
    names: Sequence[str], vectors: Sequence[NDArray[np.float32]], notes: Sequence[str], output: Path | None
) -> None:
    console = stdout_console()
    first = vectors[0]
    for name, vector, note in zip(names, vectors, notes):
        norms = float(np.linalg.norm(first) * np.linalg.norm(vector))
        alike = float(first @ vector) / norms if norms else 0.0
        console.print(f"{note}, cosine to the first {alike:.3f}: {name}")
    if output is not None:
        console.print(f"Wrote {output}.")


def _vectors(read: EmbeddedText) -> list[NDArray[np.float32]]:
    return [each.pooled for each in read.states] + [each.values for each in read.embeddings]


def _texts_as_json(read: EmbeddedText) -> dict[str, Any]:
    if read.states:
        return {"pooled": [each.pooled.tolist() for each in read.states]}
    return {"embeddings": [{"values": each.values.tolist(), "codes": each.codes} for each in read.embeddings]}


def _audio_as_json(names: Sequence[str], heard: Sequence[EmbeddedAudio]) -> list[dict[str, Any]]:
    return [
        {
            "file": name,
            "values": each.embedding.values.tolist(),
            "codes": each.embedding.codes,
            "window_count": len(each.windows),
            "window_s": each.window_s,
            "stride_s": each.stride_s,
        }
        for name, each in zip(names, heard)
    ]


def _text_tensors(read: EmbeddedText) -> dict[str, NDArray[Any]]:
    """`pooled` [N, D] and for text n `token_states.n` [L, D]; of a joint encoder `embeddings` [N, D] and `codes`."""
    if not read.states:
        return _point_tensors([(each.values, each.codes) for each in read.embeddings])
    tensors = {"pooled": np.stack([each.pooled for each in read.states])}
    return tensors | {f"token_states.{index}": np.array(each.states) for index, each in enumerate(read.states)}


def _audio_tensors(heard: Sequence[EmbeddedAudio]) -> dict[str, NDArray[Any]]:
    """`embeddings` [N, D], `codes` [N, Q], and for recording n `windows.n` [W, D]."""
    tensors = _point_tensors([(each.embedding.values, each.embedding.codes) for each in heard])
    windows = [np.stack([window.values for window in each.windows]) for each in heard]
    return tensors | {f"windows.{index}": each for index, each in enumerate(windows)}


def _point_tensors(points: Sequence[tuple[NDArray[np.float32], tuple[int, ...]]]) -> dict[str, NDArray[Any]]:
    return {
        "embeddings": np.stack([values for values, _ in points]),
        "codes": np.array([codes for _, codes in points], dtype=np.int32),
    }


def _write(path: Path, tensors: dict[str, NDArray[Any]], model: ModelInfo) -> None:
    """The tensors, and in the metadata who made them."""
    with whole_file(path) as temporary:
        save_file(tensors, temporary, {"encoder_id": model.model_id})
