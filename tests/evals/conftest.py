import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stretto_acoustic.models.musicgen import MusicGenConfig, MusicGenLM
from stretto_shared import weights

# Evals are programs beside the packages, and import each other by their place.
sys.path.append(str(Path(__file__).resolve().parents[2] / "evals"))


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Features of eight test clips for a tiny language model, which the service's settings name; no train split."""
    torch.manual_seed(0)
    config = MusicGenConfig(
        num_codebooks=2, cardinality=16, dim=16, num_layers=1, num_heads=2, ffn_dim=32, text_dim=8, max_frames=20,
        melody_conditioning="prefix",
    )  # fmt: skip
    model = MusicGenLM(config)
    with torch.no_grad():
        model.heads.weight.mul_(6)
    weights.write(
        tmp_path / "tiny", model.state_dict(), name="tiny", architecture="MusicGenLM",
        config=dataclasses.asdict(config), licence="CC0-1.0", score="", training={},
    )  # fmt: skip
    monkeypatch.setenv("STRETTO_ACOUSTIC_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("STRETTO_ACOUSTIC_MODELS", "tiny")
    monkeypatch.setattr("stretto_shared.nn.weight_format.load_native_kernel", lambda folder: None)  # the same bytes
    random = np.random.default_rng(0)
    states, offsets = random.standard_normal((24, 8)).astype(np.float16), np.arange(0, 27, 3)
    edges = np.stack([offsets[:-1], offsets[1:]], axis=1)
    np.savez(tmp_path / "text_test_0000.npz", states=states, offsets=edges, heldout=np.ones(8, int))
    np.save(tmp_path / "codes_test_0000.npy", random.integers(0, 16, (8, 2, 12)).astype(np.int16))
    np.save(tmp_path / "chroma_test_0000.npy", random.integers(0, 12, (8, 5)).astype(np.int8))
    return tmp_path
