"""The w2v-BERT recipe runs end to end on a corpus made in seconds: mel, model, tokenizer, tokens."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stretto_semantic.models.w2vbert.config import TokenizerConfig
from stretto_semantic.models.w2vbert.model import W2vBertTokenizer, cut_windows
from stretto_shared import weights
from stretto_shared.audio import Waveform
from stretto_shared.dsp.chroma import extract_chroma
from stretto_shared.dsp.log_mel import log_mel
from stretto_shared.training.corpus.debug import build_debug_corpus

RECIPES = Path(__file__).parents[2] / "services/semantic/recipes"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    build_debug_corpus(folder, num_clips=32, seed=0)
    for path in folder.glob("audio_*.npy"):
        shard, clips = path.stem.removeprefix("audio_"), np.load(path).astype(np.float32) / 32768
        np.save(folder / f"mel_{shard}.npy", log_mel(torch.from_numpy(clips)).half().numpy())
        chroma = [extract_chroma(Waveform(clip, 24_000)).pitch_classes for clip in clips]
        np.save(folder / f"chroma_{shard}.npy", np.stack(chroma).astype(np.int8))
    return folder


def run(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, str(RECIPES / script), *map(str, arguments)], check=True, timeout=900)


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run("train_w2vbert.py", "--config", RECIPES / "debug.toml", "--features", corpus, "--run", folder)
    return folder


@pytest.fixture(scope="module")
def exported(corpus: Path, trained: Path) -> Path:
    out = trained / "export" / "w2vbert-debug"
    config = RECIPES / "debug.toml"
    run("fit_tokens.py", "--config", config, "--features", corpus, "--corpus", corpus, "--run", trained, "--out", out)
    return out


def values(folder: Path, name: str) -> list[float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record[name] for record in records if name in record]


def test_the_recipe_learns_to_name_masked_codes_and_keeps_them_in_use(trained: Path) -> None:
    assert values(trained, "prediction")[-1] < 0.9 * values(trained, "prediction")[0]
    assert values(trained, "valid_usage")[-1] > 0.2


def test_the_tokenizer_is_cut_off_after_a_layer_and_loads(exported: Path) -> None:
    resolved = weights.resolve(exported.as_uri(), name="w2vbert-debug", default_dir=exported)
    assert resolved.config["architecture"] == "W2vBertTokenizer"
    config = TokenizerConfig(**resolved.config["config"])
    assert 1 <= config.feature_layer <= 2
    tokenizer = W2vBertTokenizer(config)
    tokenizer.load_state_dict(weights.load_tensors(resolved))
    assert resolved.config["training"]["steps"] == 60


def test_the_tokens_written_are_those_of_the_windows(exported: Path, corpus: Path, tmp_path: Path) -> None:
    run("write_tokens.py", "--tokenizer", exported, "--features", corpus, "--out", tmp_path)
    mel = np.load(corpus / "mel_train_0000.npy")
    tokens = np.load(tmp_path / "semantic_train_0000.npy")
    assert tokens.shape == (32, mel.shape[1] // 4) and tokens.dtype == np.int16
    assert len(np.unique(tokens)) > 16
    resolved = weights.resolve(exported.as_uri(), name="w2vbert-debug", default_dir=exported)
    tokenizer = W2vBertTokenizer(TokenizerConfig(**resolved.config["config"])).eval()
    tokenizer.load_state_dict({name: value.float() for name, value in weights.load_tensors(resolved).items()})
    with torch.inference_mode():
        windows = cut_windows(torch.from_numpy(mel[5:6].astype(np.float32)), tokenizer.grid)[0]
        alone = torch.cat([tokenizer.tokenize(window[None])[0] for window in windows])[: tokens.shape[1]]
    assert np.mean(tokens[5] == alone.numpy()) > 0.99  # rounding may choose among centroids equally near


def test_a_resumed_run_continues_at_its_step(trained: Path, corpus: Path) -> None:
    before = torch.load(trained / "state.pt", weights_only=True)["step"]
    run("train_w2vbert.py", "--config", RECIPES / "debug.toml", "--features", corpus, "--run", trained)
    assert torch.load(trained / "state.pt", weights_only=True)["step"] == before + 1
