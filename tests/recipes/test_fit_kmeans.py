"""Centroids for a published model without tokens: fitted on recordings, they make it a tokenizer."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from stretto_semantic.loading import load_tokenizer
from stretto_semantic.models.wav2vec2_bert import GRID, Wav2Vec2Bert, Wav2Vec2BertConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "services/semantic/recipes"))

import fit_kmeans

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny checkpoint in the published layout, and two recordings."""
    torch.manual_seed(0)
    save_file(Wav2Vec2Bert(Wav2Vec2BertConfig(**TINY)).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2-bert"} | TINY))
    (tmp_path / "audio" / "more").mkdir(parents=True)
    generator = np.random.default_rng(0)
    soundfile.write(tmp_path / "audio" / "a.wav", generator.normal(0, 0.1, (44_100, 2)), 44_100)
    soundfile.write(tmp_path / "audio" / "more" / "b.flac", generator.normal(0, 0.1, 24_000 * 9), 24_000)
    return tmp_path


def run(folder: Path, *more: str) -> None:
    options = {"source": folder.as_uri(), "layer": "1", "audio": folder / "audio", "out": folder / "kmeans.safetensors"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    fit_kmeans.main([*words, "--num-centroids", "8", "--frames-per-window", "30", *more])


def test_fitted_centroids_make_a_tokenizer_that_uses_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder)
    assert "8 centroids of 90 frames" in capsys.readouterr().out, (
        "three windows, 8 s and 1 s of one file, 1 s of another"
    )
    tensors = load_file(folder / "kmeans.safetensors")
    assert int(tensors["layer"]) == 1 and tensors["centroids"].shape == (8, 16)
    tokenizer = load_tokenizer("w2v", folder.as_uri(), weights_dir=folder)
    samples = torch.randn(1, 100 * GRID.hop_length + 2 * GRID.margin, generator=torch.Generator().manual_seed(1))
    ids = tokenizer.tokenize(0.1 * samples, [(0, 0)])
    assert ids.shape == (1, 100) and len(ids.unique()) >= 4


def test_the_same_seed_gives_the_same_centroids_and_another_others(folder: Path) -> None:
    found = []
    for seed in ("0", "0", "1"):
        run(folder, "--seed", seed)
        found.append(load_file(folder / "kmeans.safetensors")["centroids"])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_fitted_features_are_normalised_and_each_point_is_near_its_centroid() -> None:
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([[5.0, 500.0], [-5.0, 500.0], [5.0, 300.0]])
    points = places.repeat(50, 1) + 0.01 * torch.randn(150, 2, generator=generator)
    tensors = fit_kmeans.fit(points, 3, 20, 3)
    normalised = (points - tensors["mean"]) * tensors["scale"]
    torch.testing.assert_close(normalised.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.std(0), torch.ones(2))
    assert torch.cdist(normalised, tensors["centroids"]).min(1).values.max() < 0.1


def test_a_folder_without_recordings_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(SystemExit):
        run(folder, "--audio", str(folder / "empty"))
    assert "found none" in capsys.readouterr().err
