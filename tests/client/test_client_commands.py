"""The `stretto` command against a door: what it prints, writes and returns."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from stretto_client import Progress, read_audio, read_tokens, up, write_audio
from stretto_client.audio_files import Waveform
from stretto_client.cli.music import StageBars
from stretto_client.cli.output import progress_bar
from stretto_client.up import Place, parse_places, settings_of
from stretto_shared.errors import InvalidInput

Run = Callable[..., tuple[int, str, str]]


def test_generate_writes_audio_and_picture_and_prints_the_receipt(run: Run, tmp_path: Path) -> None:
    wav, png = tmp_path / "a.wav", tmp_path / "a.png"
    status, out, _ = run("generate", "a waltz", "--duration-s", 2, "--seed", 7, "-o", wav, "--picture", png)
    assert status == 0
    assert read_audio(wav).duration_s == 2.0
    assert png.read_bytes().startswith(b"\x89PNG")
    for part in ("a waltz", "musicgen", "7", "cd" * 32, "Real-time factor 0.50", str(wav)):
        assert part in out


def test_generate_prints_json_for_programs(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("generate", "a waltz", "--duration-s", 1, "--json", "-o", tmp_path / "a.flac")
    receipt = json.loads(out)
    assert status == 0
    assert (receipt["prompt"], receipt["duration_s"], receipt["files"]) == ("a waltz", 1.0, [str(tmp_path / "a.flac")])
    assert receipt["models"][0]["digest_sha256"] == "ab" * 32


def test_every_option_of_generate_reaches_the_door(run: Run, door: Any, tmp_path: Path, recording: Path) -> None:
    sampling = ("--temperature", 0.5, "--top-k", 9, "--top-p", 0.9, "--guidance-scale", 2.5)
    assert run("generate", "x", "--melody", recording, *sampling, "--duration-s", 1, "-o", tmp_path / "a.ogg")[0] == 0
    asked = door.seen.requests[-1]
    assert (asked.cascade, asked.melody.sample_rate_hz, len(asked.melody.samples)) == ("musicgen", 24_000, 120_000)
    options = asked.sampling
    assert (options.temperature, options.top_k, options.top_p, options.guidance_scale) == (0.5, 9, 0.9, 2.5)
    assert run("generate", "--continue", recording, "--duration-s", 1, "-o", tmp_path / "b.wav")[0] == 0
    assert door.seen.requests[-1].audio.sample_rate_hz == 24_000


def test_a_story_and_candidates_reach_the_door_and_are_in_the_receipt(run: Run, door: Any, tmp_path: Path) -> None:
    story = ("--story", "1:a storm: loud", "--story", "2.5/0.5: a calm ")
    options = ("--cascade", "musiclm", "--duration-s", 3, "--candidates", 4, "-o", tmp_path / "a.wav")
    status, out, _ = run("generate", "a waltz", *story, *options)
    asked = door.seen.requests[-1]
    assert (status, asked.cascade, asked.candidate_count) == (0, "musiclm", 4)
    assert [(span.start_s, span.prompt) for span in asked.story] == [(1, "a storm: loud"), (2.5, "a calm")]
    assert not asked.story[0].HasField("blend_s") and asked.story[1].blend_s == 0.5
    for part in ("from 1 s: a storm: loud", "from 2.5 s: a calm", "4, similarity 0.250"):
        assert part in out
    receipt = json.loads(run("generate", "a waltz", *story, *options, "--json")[1])
    assert receipt["story"][1] == {"start_s": 2.5, "prompt": "a calm", "blend_s": 0.5}


@pytest.mark.parametrize("span", ["a storm", "x:a storm", "5/x:a storm", "5:", "5: "])
def test_a_story_that_is_none_is_one_line_that_says_how(run: Run, door: Any, tmp_path: Path, span: str) -> None:
    num_requests = len(door.seen.requests)
    status, _, err = run("generate", "x", "--story", span, "-o", tmp_path / "a.wav")
    assert status == 1 and len(err.splitlines()) == 1 and "START_S:PROMPT" in err and repr(span) in err
    assert len(door.seen.requests) == num_requests


@pytest.mark.parametrize("option", [("--story", "1:y"), ("--candidates", 2)])
def test_a_recording_is_continued_without_story_and_candidates(
    run: Run, tmp_path: Path, recording: Path, option: tuple[object, ...]
) -> None:
    status, _, err = run("generate", "x", "--continue", recording, *option, "-o", tmp_path / "a.wav")
    assert status == 1 and str(option[0]) in err and "--continue" in err


def test_stages_that_work_at_the_same_time_have_a_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a bar only moves where somebody watches
    monkeypatch.setenv("COLUMNS", "200")
    with progress_bar() as bar:
        shown = StageBars(bar)
        for stage, num_done in (("embedding", 0), ("semantic", 0), ("semantic", 5), ("acoustic/musiclm_fine", 2)):
            shown.advance(Progress(stage, num_done, 10 if num_done else 0))
        tasks = [(task.description, task.completed, task.total) for task in bar.tasks]
    assert tasks == [("Composing (semantic)", 5, 10), ("Composing (musiclm_fine)", 2, 10)]
    assert "Composing (musiclm_fine)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("invalid", "-o", "{}/a.wav"), 1, "expected a better one"),
        (("dies", "-o", "{}/a.wav"), 1, "server failed"),
        (("slow", "-o", "{}/a.wav", "--timeout-s", "0.4"), 1, "timeout"),
        (("x", "-o", "{}/a.mp7"), 1, ".wav"),
        (("x", "-o", "{}/no/a.wav"), 1, "Create it first"),
        (("x", "-o", "{}/a.wav", "--picture", "{}/a.txt"), 1, ".png"),
        (("x", "-o", "{}/a.wav", "--melody", "{}/none.wav"), 1, "none.wav"),
        (("-o", "{}/a.wav"), 1, "PROMPT"),
        (("x", "-o", "{}/a.wav", "--top-p", "0"), 1, "top_p"),
        (("x", "-o", "{}/a.wav", "--address", "127.0.0.1:1"), 1, "No server answers"),
        (("x", "-o", "{}/a.wav", "--address", "nonsense"), 1, "host:port"),
        (("x", "-o", "{}/a.wav", "--duration-s", "301"), 2, "equal to 300"),
        (("x", "-o", "{}/a.wav", "--duration-s", "nan"), 2, "duration-s"),
        (("x", "-o", "{}/a.wav", "--temperature", "11"), 2, "equal to 10"),
        (("x",), 2, "--output"),
    ],
)
def test_a_failure_is_one_clear_line_and_no_file(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    got, out, err = run("generate", *(argument.format(tmp_path) for argument in arguments))
    assert got == status
    assert said in err
    assert "Traceback" not in err
    assert out == ""
    assert [line[:9] for line in err.splitlines() if line.strip()] == ["stretto: "]
    assert list(tmp_path.iterdir()) == []


def test_encode_and_decode_are_inverse_in_length(run: Run, tmp_path: Path, recording: Path) -> None:
    tokens_path, back = tmp_path / "a.tokens", tmp_path / "back.wav"
    status, out, _ = run("encode", recording, "-o", tokens_path, "--codebooks", 2)
    assert (status, "63 frames of 2 codebooks at 50 Hz" in out) == (0, True)
    tokens, num_samples = read_tokens(tokens_path)
    assert (tokens.num_codebooks, num_samples) == (2, 30_000)
    status, out, _ = run("decode", tokens_path, "-o", back)
    assert (status, "1.25 s at 24000 Hz" in out) == (0, True)
    assert read_audio(back).num_samples == 30_000
    assert json.loads(run("encode", recording, "-o", tokens_path, "--json")[1])["frame_count"] == 63


def test_tokenize_writes_the_tokens_and_how_long_the_audio_was(run: Run, tmp_path: Path, recording: Path) -> None:
    path = tmp_path / "a.tokens"
    status, out, err = run("tokenize", recording, "-o", path)
    assert (status, err) == (0, "")
    assert f"Wrote {path}: 31 frames at 25 Hz, by w2vbert@{'ab' * 6}." in out
    tokens, num_samples = read_tokens(path)
    assert tokens.codes.tolist() == [[0] * 25 + [1] * 6] and tokens.codec_id == "w2vbert@" + "ab" * 6
    assert num_samples == 20_000, "1.25 s at the tokenizer's 16 kHz"
    facts = json.loads(run("tokenize", recording, "-o", path, "--json")[1])
    assert facts["frame_count"] == 31 and facts["model"]["name"] == "w2vbert"
    path.unlink()
    status, out, err = run("tokenize", recording, "-o", path, "--model", "missing")
    assert status == 1 and "w2vbert" in err and out == "" and not path.exists()


def test_embed_prints_and_writes_states(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("embed", "a b c", "d", "-o", tmp_path / "states.safetensors")
    assert status == 0
    assert "3 tokens x 4" in out
    tensors = load_file(tmp_path / "states.safetensors")
    assert {name: value.shape for name, value in tensors.items()} == {
        "pooled": (2, 4),
        "token_states.0": (3, 4),
        "token_states.1": (1, 4),
    }
    assert len(json.loads(run("embed", "a b c", "--json")[1])["pooled"][0]) == 4


def test_models_lists_name_digest_licence_and_score(run: Run) -> None:
    status, out, err = run("models")
    assert status == 0
    for part in ("musicgen", "ab" * 6, "Apache-2.0", "mel 0.2", "12,345"):
        assert part in out
    assert "embedding" in err
    assert json.loads(run("models", "--json")[1])["unreachable_services"] == ["embedding"]


def test_doctor_says_what_is_wrong_and_exits_with_one(run: Run, door: Any) -> None:
    status, out, _ = run("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(out)}
    assert findings["python"]["is_well"]
    assert findings["stretto-client"]["is_well"]
    assert findings[f"server at {door.address}"]["is_well"]
    assert "ms" in findings["health check"]["note"]
    assert findings["models"]["is_well"] is False  # the door's embedding service does not answer
    assert status == 1
    status, out, _ = run("doctor", "--address", "127.0.0.1:1")
    assert (status, "No server answers" in out) == (1, True)


def test_serve_names_the_services_it_does_not_have(run: Run) -> None:
    status, _, err = run("serve", "--services", "codec,kazoo")
    assert status == 1
    assert "kazoo" in err


def test_up_takes_names_with_ports() -> None:
    words = ["codec=50052", "acoustic=50054", "acoustic=50064"]
    assert [str(place) for place in parse_places(words)] == words
    for bad in (["codec"], ["=1"], ["codec=x"], ["codec=70000"], ["codec=50052", "acoustic=50052"], []):
        with pytest.raises(InvalidInput, match="services"):
            parse_places(bad)


def test_up_gives_every_service_a_metrics_page_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    places = (Place("orchestrator", 50051), Place("acoustic", 50054), Place("acoustic", 50064))
    monkeypatch.setenv("STRETTO_GRPC_METRICS_PORT", "9100")
    monkeypatch.setenv("STRETTO_GRPC_HEALTH_PORT", "9200")
    settings = settings_of(places).values()
    assert [each.port for each in settings] == [50051, 50054, 50064]
    assert [each.metrics_port for each in settings] == [9100, 9101, 9102]
    assert [each.health_port for each in settings] == [9200, 9201, 9202]
    monkeypatch.setenv("STRETTO_GRPC_METRICS_PORT", "65534")
    with pytest.raises(InvalidInput, match=r"STRETTO_GRPC_METRICS_PORT: expected at most 65533, .* got 65534"):
        settings_of(places)
    monkeypatch.delenv("STRETTO_GRPC_METRICS_PORT")
    assert {each.metrics_port for each in settings_of(places).values()} == {0}


def test_up_says_one_line_where_a_setting_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STRETTO_GRPC_METRICS_PORT", "abc")
    monkeypatch.setattr(sys, "argv", ["up", "codec=50052"])
    with pytest.raises(SystemExit) as ended:
        up.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("stretto: STRETTO_GRPC_METRICS_PORT: expected a valid integer")


@pytest.mark.parametrize(
    ("arguments", "variable", "value", "said"),
    [
        (
            ("models", "--address", "127.0.0.1:1"),
            "STRETTO_CHANNEL_MAX_ATTEMPTS",
            "9",
            "less than or equal to 5, got '9'",
        ),
        (("serve", "--services", "orchestrator"), "STRETTO_GRPC_METRICS_PORT", "abc", "a valid integer"),
        (
            ("serve", "--services", "orchestrator"),
            "STRETTO_ORCHESTRATOR_EXTRA_CASCADES",
            '{"mine": {"text": "t5"}}',
            "text_model, acoustic_model, codec_model in cascade 'mine', got 'text'",
        ),
        (("serve", "--services", "orchestrator"), "STRETTO_ORCHESTRATOR_EXTRA_CASCADES", "nonsense", "got 'nonsense'"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_variable(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("stretto: ")]
    assert line.startswith(f"stretto: {variable}: expected ") and said in line
    assert "Traceback" not in err


def test_a_whole_song_is_continued_from_its_last_ten_seconds(run: Run, door: Any, tmp_path: Path) -> None:
    song = tmp_path / "song.wav"
    samples = np.sin(np.arange(2 * 8_000 * 60).reshape(2, -1) / 99) / 2
    write_audio(song, Waveform(samples, 8_000))  # 3.8 MB on the wire, of which the door takes 1 MB
    assert run("generate", "--continue", song, "--duration-s", 1, "-o", tmp_path / "b.wav")[0] == 0
    sent = door.seen.requests[-1].audio
    assert (sent.sample_rate_hz, sent.channel_count, len(sent.samples)) == (8_000, 2, 640_000)
    assert sent.samples == read_audio(song).samples[:, -80_000:].T.tobytes()


def test_a_recording_that_is_too_long_to_encode_says_how_much_fits(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recording: Path
) -> None:
    monkeypatch.setenv("STRETTO_CHANNEL_MAX_RECEIVE_BYTES", str(100_000))
    status, out, err = run("encode", recording, "-o", tmp_path / "a.tokens")
    assert (status, out) == (1, "")
    assert "waveform: expected at most 1 s of mono audio at 24000 Hz" in err and "got 1.2 s" in err
    assert not (tmp_path / "a.tokens").exists()


def test_no_command_shows_the_help_and_an_unknown_one_fails(run: Run) -> None:
    status, out, _ = run()
    assert status == 0
    assert all(
        command in out for command in ("serve", "generate", "encode", "decode", "tokenize", "embed", "models", "doctor")
    )
    status, _, err = run("compose")
    assert (status, "compose" in err) == (2, True)
