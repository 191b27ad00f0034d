"""The `stretto` command and what people write: mistakes cost nothing, and brackets are only brackets."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stretto_client import TokenMatrix, embedded
from stretto_client.cli import music
from stretto_client.cli.output import progress_bar
from stretto_client.token_files import write_tokens

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("prompt", ["a [piano] piece", "a piece [/b]", "[red]a[/] [link=x]piece", ":piano: [/b] :x:"])
def test_a_prompt_and_a_file_are_printed_as_they_were_written(run: Run, tmp_path: Path, prompt: str) -> None:
    (tmp_path / "out[").mkdir()
    wav = tmp_path / "out[" / "b].wav"  # so that its name holds [/b], which closes what nothing opened
    status, out, err = run("generate", prompt, "--duration-s", 1, "-o", wav)
    assert (status, err) == (0, "")
    assert prompt in out
    assert f"Wrote {wav}." in out
    assert run("embed", prompt, "-o", wav.with_suffix(".safetensors"))[1].endswith(
        f"{prompt}\nWrote {wav.with_suffix('.safetensors')}.\n"
    )


def test_names_of_token_files_and_recordings_may_hold_brackets(run: Run, tmp_path: Path, recording: Path) -> None:
    (tmp_path / "out[").mkdir()
    tokens, wav = tmp_path / "out[" / "b].tokens", tmp_path / "out[" / "b].wav"
    assert f"Wrote {tokens}: " in run("encode", recording, "-o", tokens)[1]
    assert f"Wrote {wav}: " in run("decode", tokens, "-o", wav)[1]


def test_what_a_server_says_is_no_markup(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "mel 0.2 [/b]" in run("models")[1]
    assert "server at [/b]:1" in run("doctor", "--address", "[/b]:1")[1]
    monkeypatch.setenv("FORCE_COLOR", "1")  # a bar only moves where somebody watches
    with progress_bar() as bar:
        bar.add_task("Stage [/b]", total=None)
    assert "Stage [/b]" in capsys.readouterr().err


LONG = "a" * 250


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("generate", "x", "-o", "{}/no/a.wav"), "Create it first"),
        (("generate", "x", "-o", "{}/folder.wav"), "got the folder"),
        (("generate", "x", "-o", f"{{}}/{LONG}.wav"), f"too long: {{}}/{LONG}.wav"),
        (("generate", "x", "-o", "{}/a.wav", "--picture", "{}/no/a.png"), "Create it first"),
        (("generate", "--continue", "{}/recording.wav", "-o", "{}/recording.wav"), "for both"),
        (("generate", "x", "--melody", "{}/recording.wav", "-o", "{}/link.wav"), "for both"),
        (("generate", "x", "--melody", "{}/music.png", "-o", "{}/a.wav", "--picture", "{}/music.png"), "for both"),
        (("encode", "{}/recording.wav", "-o", "{}/no/a.tokens"), "Create it first"),
        (("encode", "{}/recording.wav", "-o", "{}/recording.wav"), "ends in .tokens"),
        (("encode", "{}/recording.wav", "-o", "{}/a.npz"), "ends in .tokens"),
        (("encode", "{}/music.tokens", "-o", "{}/music.tokens"), "for both"),
        (("encode", "{}/samples.raw", "-o", "{}/a.tokens"), "its rate and channels"),
        (("tokenize", "{}/recording.wav", "-o", "{}/a.npz"), "ends in .tokens"),
        (("tokenize", "{}/samples.raw", "-o", "{}/a.tokens"), "its rate and channels"),
        (("transcribe", "{}/recording.wav", "-o", "{}/a.wav"), "ends in .mid or .midi"),
        (("transcribe", "{}/recording.wav", "-o", "{}/a.mid", "--score", "{}/a.pdf"), "ends in .musicxml"),
        (("transcribe", "{}/recording.wav", "-o", "{}/a.mid", "--picture", "{}/a.gif"), "ends in .png"),
        (("transcribe", "{}/recording.wav", "-o", "{}/a.mid", "--score", "{}/a.mid"), "a.mid twice"),
        (("transcribe", "{}/samples.raw", "-o", "{}/a.mid"), "its rate and channels"),
        (("transcribe", "{}/absent.wav", "-o", "{}/a.mid"), "is not a file"),
        (("beats", "{}/recording.wav", "-o", "{}/a.txt"), "ends in .beats or .json"),
        (("beats", "{}/recording.wav", "-o", "{}/no/a.beats"), "Create it first"),
        (("decode", "{}/a.tokens", "-o", "{}/no/a.wav"), "Create it first"),
        (("decode", "{}/tokens.wav", "-o", "{}/tokens.wav"), "for both"),
        (("embed", "x", "-o", "{}/no/a.safetensors"), "Create it first"),
    ],
)
def test_a_mistake_in_a_file_name_is_said_before_anything_is_loaded_and_spoils_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recording: Path, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.delenv("STRETTO_ADDRESS")
    monkeypatch.setattr(embedded, "load_builders", lambda names: pytest.fail("the services are loaded"))
    (tmp_path / "link.wav").symlink_to(recording)
    (tmp_path / "folder.wav").mkdir()
    for name in ("music.png", "music.tokens", "samples.raw"):
        (tmp_path / name).write_bytes(recording.read_bytes())
    for name in ("a.tokens", "tokens.wav"):
        write_tokens(tmp_path / name, TokenMatrix(np.zeros((1, 1)), 50.0, "framecodec@" + "ab" * 6), 480)
    before = contents(tmp_path)
    status, out, err = run(*(argument.format(tmp_path) for argument in arguments))
    assert (status, out) == (1, "")
    assert said.format(tmp_path) in err
    assert [line[:9] for line in err.splitlines()] == ["stretto: "]
    assert contents(tmp_path) == before


def test_a_picture_that_fails_takes_no_receipt_with_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(music, "draw_spectrogram", fail)
    wav = tmp_path / "a.wav"
    status, out, err = run("generate", "x", "--duration-s", 1, "-o", wav, "--picture", tmp_path / "a.png")
    assert (status, err) == (1, "stretto: No space left on device\n")
    assert "cd" * 32 in out
    assert f"Wrote {wav}." in out


def test_a_prompt_that_is_not_utf8_is_one_line(run: Run, tmp_path: Path) -> None:
    status, out, err = run("generate", os.fsdecode(b"caf\xe9"), "-o", tmp_path / "a.wav")
    assert (status, out) == (2, "")
    assert err == "stretto: expected text in UTF-8, got 'caf\\udce9'. See: stretto --help\n"


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems know only names in UTF-8")
def test_a_file_name_that_is_not_utf8_is_a_name_like_any_other(run: Run, tmp_path: Path, recording: Path) -> None:
    song = recording.rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    wav, png = song.with_suffix(".flac"), song.with_suffix(".png")
    for options in ((), ("--json",)):
        status, out, err = run("generate", "--continue", song, "--duration-s", 1, "-o", wav, "--picture", png, *options)
        assert (status, err) == (0, "")
        assert "caf\\udce9.flac" in out
    assert wav.exists() and png.exists()
