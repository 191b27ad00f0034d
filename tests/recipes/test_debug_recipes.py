"""The recipes run end to end on a corpus made in seconds: corpus, codec, features, language model."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stretto_acoustic.models.musicgen import MusicGenConfig, MusicGenLM
from stretto_shared import weights
from stretto_shared.training.corpus.debug import build_debug_corpus

ROOT = Path(__file__).parents[2]
CODEC_RECIPES, ACOUSTIC_RECIPES = ROOT / "services/codec/recipes", ROOT / "services/acoustic/recipes"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    build_debug_corpus(folder, num_clips=16, seed=0)
    return folder


def run(script: Path, *arguments: object) -> None:
    subprocess.run([sys.executable, str(script), *map(str, arguments)], check=True, timeout=900)


@pytest.fixture(scope="module")
def train_codec(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def train(config: str) -> Path:
        folder = tmp_path_factory.mktemp("run")
        script = CODEC_RECIPES / "train_codec.py"
        run(script, "--config", CODEC_RECIPES / config, "--corpus", corpus, "--run", folder, "--threads", 1)
        return folder

    return train


@pytest.fixture(scope="module")
def codec_run(train_codec: Callable[[str], Path]) -> Path:
    return train_codec("debug.toml")


def losses(folder: Path, name: str) -> list[float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record[name] for record in records if name in record]


def test_the_codec_recipe_learns_and_exports(codec_run: Path) -> None:
    mels = losses(codec_run, "mel")
    # Step 0 is the closed-form start, on one batch; the next record is the mean of the ten steps after it.
    assert min(mels[-3:]) < 0.9 * mels[1]
    exported = codec_run / "export" / "framecodec-debug"
    resolved = weights.resolve(exported.as_uri(), name="framecodec-debug", default_dir=exported)
    assert resolved.config["architecture"] == "FrameCodec"
    assert len(losses(codec_run, "valid_mel")) == 2  # after training, and after the codes were placed anew


def test_the_soundstream_recipe_learns_and_exports(train_codec: Callable[[str], Path]) -> None:
    folder = train_codec("debug_soundstream.toml")
    mels = losses(folder, "mel")
    # As above; 0.68 with learning, and without it 0.87 by the draw of the batches. `commit` and `wave` fall either way.
    assert min(mels[-3:]) < 0.8 * mels[1]
    assert (folder / "export" / "soundstream-debug" / "model.safetensors").exists()


def test_the_language_model_recipe_learns_and_exports(corpus: Path, codec_run: Path, tmp_path: Path) -> None:
    codec, features, folder = codec_run / "export" / "framecodec-debug", tmp_path / "features", tmp_path / "run"
    prepare = ACOUSTIC_RECIPES / "prepare_features.py"
    run(prepare, "--corpus", corpus, "--codec", codec, "--out", features)
    codes = np.load(features / "codes_train_0000.npy")
    assert codes.shape[:2] == (16, 4) and 0 <= codes.min() and codes.max() < 64
    train = ACOUSTIC_RECIPES / "train_musicgen.py"
    config = ACOUSTIC_RECIPES / "debug.toml"
    run(train, "--config", config, "--features", features, "--codec", codec, "--run", folder, "--threads", 1)
    assert losses(folder, "ce")[-1] < 0.95 * losses(folder, "ce")[0]
    exported = folder / "export" / "musicgen-debug"
    document = json.loads((exported / "config.json").read_text())
    model = MusicGenLM(MusicGenConfig(**document["config"]))
    model.load_state_dict({k: v.float() for k, v in load_file(exported / "model.safetensors").items()})
    assert document["config"]["codec_id"].startswith("framecodec-debug@")
    assert torch.isfinite(model(torch.zeros(1, 4, 3, dtype=torch.long))).all()


def test_a_resumed_run_continues_at_its_step(codec_run: Path, corpus: Path) -> None:
    before = torch.load(codec_run / "state.pt", weights_only=True)["step"]
    script, config = CODEC_RECIPES / "train_codec.py", CODEC_RECIPES / "debug.toml"
    run(script, "--config", config, "--corpus", corpus, "--run", codec_run, "--threads", 1)
    assert torch.load(codec_run / "state.pt", weights_only=True)["step"] == before + 1
