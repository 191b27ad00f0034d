"""The other commands, the examples and README's own snippet, on a real server."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_server import ROOT, START_TIMEOUT_S, STRETTO, readme_blocks
from stretto_client import read_audio

EXAMPLES = {
    "generate_music.py": ("a slow blues", "blues.wav", "--duration-s", "1"),
    "follow_a_melody.py": ("a choir", "{melody}", ".", "--duration-s", "1"),
    "continue_a_recording.py": ("{melody}", "more.wav", "--duration-s", "1"),
    "compress_audio.py": ("{melody}", "back.wav"),
    "compare_texts.py": ("a fast waltz", "a slow song", "quick dance music in three"),
    "tell_a_story.py": ("story.wav", "a calm piano", "fast drums", "--duration-s", "2"),
    "choose_the_best.py": ("a flute", "{melody}", "{melody}"),
    "transcribe_a_recording.py": ("{melody}", "heard"),
    "analyze_a_score.py": ("{score}", "score.rntxt"),
    "handle_errors.py": (),
}


def test_encode_and_decode_in_processes_of_their_own(run: Any, tmp_path: Path, melody_wav: Path) -> None:
    run(*STRETTO, "encode", melody_wav, "-o", "a.tokens", STRETTO_ADDRESS="")
    run(*STRETTO, "decode", "a.tokens", "-o", "back.wav", STRETTO_ADDRESS="")
    before, after = read_audio(melody_wav), read_audio(tmp_path / "back.wav")
    assert after.num_samples == before.num_samples
    loudness = [np.sqrt((clip.samples[0].reshape(-1, 2_400) ** 2).mean(axis=1)) for clip in (before, after)]
    assert np.corrcoef(*loudness)[0, 1] > 0.5


def test_encoding_twice_gives_the_same_file_on_either_server(
    run: Any, door: Any, tmp_path: Path, melody_wav: Path
) -> None:
    run(*STRETTO, "encode", melody_wav, "-o", "a.tokens", "--address", door.address)
    run(*STRETTO, "encode", melody_wav, "-o", "b.tokens", STRETTO_ADDRESS=door.address)
    assert (tmp_path / "a.tokens").read_bytes() == (tmp_path / "b.tokens").read_bytes()


def test_embed_finds_the_closer_text(run: Any, door: Any) -> None:
    words = ("a sad piano", "a melancholic piano", "loud drums")
    said = run(*STRETTO, "embed", *words, "--json", "--address", door.address).stdout
    first, near, far = (np.array(vector) for vector in json.loads(said)["pooled"])
    assert first @ near > first @ far


def test_models_names_every_service_with_digests_and_licences(run: Any, door: Any) -> None:
    listed = json.loads(run(*STRETTO, "models", "--json", "--address", door.address).stdout)
    assert listed["unreachable_services"] == []
    assert {model["service"] for model in listed["models"]} == {
        "acoustic", "codec", "embedding", "harmony", "semantic", "transcriber",
    }  # fmt: skip
    for model in listed["models"]:
        assert re.fullmatch(r"[0-9a-f]{64}", model["digest_sha256"])
        assert model["licence"]
    defaults = {model["service"] for model in listed["models"] if model["is_default"]}
    assert defaults == {model["service"] for model in listed["models"]}


def test_doctor_finds_everything_well_and_measures_health(run: Any, door: Any) -> None:
    done = run(*STRETTO, "doctor", "--json", "--address", door.address, status=None)
    findings = json.loads(done.stdout)
    wrong = [finding for finding in findings if finding["is_well"] is False]
    assert all(finding["what"] == "health check" for finding in wrong), wrong  # slow where the machine is starved
    assert done.returncode == (1 if wrong else 0)
    names = {finding["what"] for finding in findings}
    assert {"python", "torch", "stretto-codec", "health check"} <= names
    assert any(name.startswith("weights of") for name in names)


def test_a_failure_on_a_real_server_is_one_line(run: Any, door: Any) -> None:
    done = run(*STRETTO, "generate", "x" * 2001, "-o", "a.wav", "--address", door.address, status=1)
    assert done.stderr.startswith("stretto: prompt: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_interrupted_command_leaves_no_file_and_no_traceback(door: Any, tmp_path: Path) -> None:
    long = ("--cascade", "musiclm", "--duration-s", "300")  # a minute of work at least, wherever it runs
    command = [*STRETTO, "generate", "a flute", *long, "-o", "long.wav", "--address", door.address]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while not list(tmp_path.iterdir()):  # the temporary file is there once the client waits for audio
        assert process.poll() is None
        assert time.monotonic() < give_up_s
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=START_TIMEOUT_S)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(run: Any, door: Any, melody_wav: Path, tmp_path: Path, name: str) -> None:
    score = tmp_path / "score.krn"
    score.write_text("**kern\n*M2/4\n=1\n4c\n4e\n=2\n4g\n4cc\n==\n*-\n")
    arguments = [argument.format(melody=melody_wav, score=score) for argument in EXAMPLES[name]]
    done = run(sys.executable, ROOT / "examples" / name, *arguments, "--address", door.address)
    assert done.stdout.strip()
    if name == "handle_errors.py":
        lines = [line.split(":")[0] for line in done.stdout.splitlines()]
        assert lines == [
            "correct the field 'prompt'", "choose another 'cascade'", "allow more time", "24000 samples of music",
        ]  # fmt: skip


def test_the_program_in_the_readme_runs(run: Any, door: Any, tmp_path: Path) -> None:
    (program,) = readme_blocks("python")
    assert "127.0.0.1:50051" in program
    program = program.replace("127.0.0.1:50051", door.address)
    assert "made by ['minilm@" in run(sys.executable, "-c", program).stdout
    assert read_audio(tmp_path / "waltz.wav").duration_s == pytest.approx(4.0)


@pytest.mark.parametrize("analyzer", ["chordgnn", "modular"])
def test_analyze_writes_the_harmony_of_a_score(run: Any, door: Any, tmp_path: Path, analyzer: str) -> None:
    score = tmp_path / "score.krn"
    score.write_text("**kern\t**kern\n*M2/4\t*M2/4\n=1\t=1\n4C\t4e\n4G\t4d\n=2\t=2\n2C\t2c\n==\t==\n*-\t*-\n")
    for name, begins in (
        ("out.rntxt", "Title: score"),
        ("out.tsv", "mc\tmn"),
        ("out.json", "{"),
        ("out.musicxml", "<?xml"),
    ):
        said = run(
            *STRETTO, "analyze", score, "-o", name, "--analyzer", analyzer, "--json", "--address", door.address
        ).stdout
        assert json.loads(said)["chords"] > 0 and json.loads(said)["models"][0]["name"] == analyzer
        assert (tmp_path / name).read_text().startswith(begins)
