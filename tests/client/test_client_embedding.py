"""`stretto embed`, `rank` and `tag`, and the client's calls behind them, against a door."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from stretto_client import InvalidInput, JointEmbedding, StrettoClient, write_audio
from stretto_client.audio_files import Waveform, read_audio
from stretto_client.cli import embedding

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def quiet(tmp_path: Path) -> Path:
    write_audio(tmp_path / "quiet.wav", Waveform(np.sin(np.arange(8_000) / 20) / 8, 8_000))
    return tmp_path / "quiet.wav"


def test_texts_are_points_of_a_joint_encoder(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "points.safetensors"
    status, out, _ = run("embed", "a" * 10, "b" * 30, "--model", "mulan", "-o", path)
    assert status == 0 and "1 point x 2, cosine to the first 0.894: bbb" in out
    tensors = load_file(path)
    assert tensors["embeddings"].shape == (2, 2) and tensors["codes"].tolist() == [[3, 5], [3, 5]]
    points = json.loads(run("embed", "a" * 10, "--model", "mulan", "--json")[1])["embeddings"]
    assert points[0]["codes"] == [3, 5] and points[0]["values"] == pytest.approx([0.5**0.5] * 2)


def test_recordings_are_embedded_by_name(run: Run, door: Any, tmp_path: Path, recording: Path, quiet: Path) -> None:
    path = tmp_path / "points.safetensors"
    status, out, _ = run("embed", "--audio", recording, quiet, "-o", path)
    assert status == 0 and f"2 windows x 2, cosine to the first 1.000: {recording}" in out and str(quiet) in out
    assert door.seen.requests[-1].waveform.sample_rate_hz == 8_000
    tensors = load_file(path)
    assert {name: value.shape for name, value in tensors.items()} == {
        "embeddings": (2, 2),
        "codes": (2, 2),
        "windows.0": (2, 2),
        "windows.1": (2, 2),
    }
    [heard] = json.loads(run("embed", "--audio", quiet, "--json")[1])["recordings"]
    assert (heard["file"], heard["window_count"], heard["stride_s"]) == (str(quiet), 2, 1.024)


def test_recordings_are_read_one_at_a_time_and_only_if_all_are_there(
    run: Run, door: Any, monkeypatch: pytest.MonkeyPatch, recording: Path, quiet: Path
) -> None:
    num_sent = len(door.seen.requests)
    status, _, err = run("embed", "--audio", recording, quiet, "none.wav")
    assert status == 1 and "none.wav" in err and len(door.seen.requests) == num_sent
    sent: list[int] = []

    def watched(path: Path) -> Waveform:
        sent.append(len(door.seen.requests) - num_sent)
        return read_audio(path)

    monkeypatch.setattr(embedding, "read_audio", watched)
    assert run("embed", "--audio", recording, quiet, recording)[0] == 0
    assert sent == [0, 1, 2]


def test_recordings_are_ranked_and_named(run: Run, door: Any, recording: Path, quiet: Path) -> None:
    status, out, _ = run("rank", "a loud piece", quiet, recording)
    assert status == 0 and out.index(str(recording)) < out.index(str(quiet)) and "mulan@" in out
    assert door.seen.requests[-1].text == "a loud piece"
    ranking = json.loads(run("rank", "--audio", quiet, quiet, recording, "--model", "clap", "--json")[1])["ranking"]
    assert [each["file"] for each in ranking] == [str(recording), str(quiet)]
    assert ranking[0]["similarity"] == pytest.approx(0.5, abs=1e-3)
    asked = door.seen.requests[-1]
    assert asked.WhichOneof("query") == "reference" and asked.model == "clap" and len(asked.candidates) == 2


def test_tags_are_those_named_or_the_encoders_own(run: Run, door: Any, recording: Path) -> None:
    status, out, _ = run("tag", recording)
    assert status == 0 and "piano [/b]" in out and not door.seen.requests[-1].tags
    tagged = json.loads(run("tag", recording, "--tags", "slow, solo piano", "--json")[1])
    assert [each["tag"] for each in tagged["tags"]] == ["slow", "solo piano"] == list(door.seen.requests[-1].tags)
    assert tagged["tags"][0]["probability"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("rank", "invalid", "{}"), 1, "expected a better one"),
        (("rank", "full", "{}"), 1, "queue is full"),
        (("rank", "x", "{}.none"), 1, ".none"),
        (("rank", "--audio", "none.wav", "{}"), 1, "none.wav"),
        (("rank", "x"), 2, "FILES"),
        (("tag", "{}.none"), 1, ".none"),
        (("tag", "{}", "--tags", "a,,b"), 1, "single commas"),
        (("tag", "{}", "--address", "127.0.0.1:1"), 1, "No server answers"),
        (("embed", "--audio", "{}.none"), 1, ".none"),
        (("embed", "--audio", "{}", "-o", "{}"), 1, "for both"),
        (("embed", "--audio", "{}", "-o", "no/folder/x.safetensors"), 1, "Create it first"),
    ],
)
def test_a_failure_is_one_clear_line(
    run: Run, recording: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    before = recording.read_bytes()
    got, out, err = run(*(argument.format(recording) for argument in arguments))
    assert (got, out) == (status, "") and said in err
    assert [line[:9] for line in err.splitlines() if line.strip()] == ["stretto: "]
    assert recording.read_bytes() == before


def test_recordings_that_are_too_long_together_say_how_much_fits(
    run: Run, monkeypatch: pytest.MonkeyPatch, recording: Path, quiet: Path
) -> None:
    monkeypatch.setenv("STRETTO_CHANNEL_MAX_RECEIVE_BYTES", str(200_000))
    assert run("rank", "x", recording)[0] == 0
    status, out, err = run("rank", "--audio", recording, recording)
    assert (status, out) == (1, "")
    assert "candidates: expected about 2 s of such audio at most" in err and "got 2.5 s in all" in err
    monkeypatch.setenv("STRETTO_CHANNEL_MAX_RECEIVE_BYTES", str(100_000))
    for command in ("tag", "embed"):
        status, _, err = run(command, *(("--audio",) if command == "embed" else ()), recording)
        assert status == 1 and "waveform: expected at most 1 s of mono audio at 24000 Hz" in err
    status, _, err = run("rank", "--audio", recording, quiet)
    assert status == 1 and "reference: expected at most 1 s of mono audio at 24000 Hz" in err
    assert run("rank", "--audio", quiet, quiet)[0] == 0


async def test_the_client_gives_values_and_no_protobuf(door: Any) -> None:
    recording = Waveform(np.full(8_000, 0.5), 8_000)
    async with StrettoClient(door.address) as client:
        heard = await client.embed_audio(recording)
        assert isinstance(heard.embedding, JointEmbedding) and (heard.window_s, len(heard.windows)) == (10.24, 2)
        assert heard.embedding.codes == (3, 5) and heard.model.name == "mulan"
        [coded] = await client.quantize_embeddings([heard.embedding])
        assert coded.codes == (3, 5, 7)
        ranking = await client.rank_audio("x", [recording])
        assert ranking.ranked[0].candidate_index == 0 and ranking.model.name == "mulan"
        tagged = await client.tag_audio(recording, ["a"])
        assert [(each.tag, each.probability) for each in tagged.tags] == [("a", 1.0)]
        chroma = await client.embed_melody(recording)
        assert chroma.melody is not None and chroma.melody.pitch_classes.tolist() == [9, -1] and chroma.codes is None
        melody = await client.embed_melody(recording, model="melody")
        assert melody.codes is not None and melody.codes.codes.tolist() == [[1, 2], [3, 4]] and melody.melody is None
        with pytest.raises(InvalidInput, match="better"):
            await client.rank_audio("invalid", [recording])
