"""The transcriber's recipe runs end to end on a corpus made in seconds, and what it exports is heard with."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from piano_tones import write_clip
from stretto_shared import weights
from stretto_transcriber.models.onsets_frames import (
    OnsetsFrames,
    OnsetsFramesConfig,
    build_onsets_frames,
    transcribe_clip,
)

RECIPES = Path(__file__).parents[2] / "services/transcriber/recipes"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("piano")
    for number in range(4):
        write_clip(folder / "train", f"{'MAPS' if number == 0 else 'clip'}_{number}", number)
    write_clip(folder / "valid", "clip_9", 9)
    return folder


def train(corpus: Path, folder: Path, *changes: str, start: Path | None = None) -> list[dict[str, float]]:
    command = [sys.executable, RECIPES / "train_transcriber.py", "--config", RECIPES / "onsets_frames_debug.toml"]
    command += ["--corpus", corpus, "--run", folder, *(f"--set={change}" for change in changes)]
    command += [] if start is None else ["--start", start]
    subprocess.run(list(map(str, command)), check=True, timeout=900)
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def exported(run: Path) -> OnsetsFrames:
    resolved = weights.resolve("default", name="onsets_frames_debug", default_dir=run / "export")
    assert resolved.config["architecture"] == "OnsetsFrames"
    return build_onsets_frames(resolved.config["config"], weights.load_tensors(resolved))


def test_it_learns_goes_on_where_it_was_and_exports(corpus: Path, tmp_path: Path) -> None:
    log = train(corpus, tmp_path)
    losses = [line["onset"] for line in log if "onset" in line]

    assert losses[-1] < losses[0]
    model = exported(tmp_path)
    samples, _ = soundfile.read(corpus / "valid" / "clip_9.wav", dtype="float32")
    transcribe_clip(model, samples)

    again = train(corpus, tmp_path)
    assert again[len(log)]["step"] == log[-1]["step"] + 1


def test_a_run_that_starts_from_an_export_trains_only_what_its_recipe_says(corpus: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path / "first", "max_steps=3")
    start, before = tmp_path / "first/export/onsets_frames_debug", exported(tmp_path / "first").state_dict()
    trained = 'trained=["network.sustain_branch", "network.key_head"]'
    log = train(corpus, tmp_path / "second", "max_steps=3", trained, start=start)
    after = exported(tmp_path / "second").state_dict()

    assert log[-1]["step"] == 2
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {"network.key_head.weight", "network.sustain_branch.near.1.running_mean"} <= changed
    assert all(name.startswith(("network.sustain_branch.", "network.key_head.")) for name in changed)


def test_a_run_keeps_the_network_of_releases_of_the_export_it_starts_from(corpus: Path, tmp_path: Path) -> None:
    train(corpus, tmp_path / "first", "max_steps=1")
    plain = exported(tmp_path / "first")
    config = dataclasses.asdict(plain.config) | {"release_channels": 4, "key_level": 0.7}
    telling = OnsetsFrames(OnsetsFramesConfig(**config))
    tensors = {name: value.half() for name, value in telling.state_dict().items() if value.dtype.is_floating_point}
    start = tmp_path / "told" / "onsets_frames_debug"
    weights.write(
        start, tensors, name=start.name, architecture="OnsetsFrames", config=config, licence="x", score="", training={}
    )
    train(corpus, tmp_path / "second", "max_steps=1", start=start)

    went_on = exported(tmp_path / "second")
    assert (went_on.config.release_channels, went_on.config.key_level) == (4, 0.7)
    releases = {name: value for name, value in went_on.state_dict().items() if name.startswith("releases.")}
    assert len(releases) == 28 and all(torch.equal(value, tensors[name].float()) for name, value in releases.items())


def test_what_cannot_be_gone_on_from_is_refused(
    corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(corpus, tmp_path / "first", "max_steps=1")
    start = tmp_path / "first/export/onsets_frames_debug"
    for change, said in (('trained=["network.pedal"]', "network.pedal"), ("model={lstm_size=9}", "missing")):
        with pytest.raises(subprocess.CalledProcessError):
            train(corpus, tmp_path / "second", "max_steps=1", change, start=start)
        assert said in capfd.readouterr().err.splitlines()[-1]


def test_a_corpus_without_clips_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(subprocess.CalledProcessError):
        train(tmp_path, tmp_path / "run")
