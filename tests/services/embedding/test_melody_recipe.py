"""The recipe of the melody encoder, end to end on a tiny corpus, and its losses."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stretto_shared.training.corpus.debug import build_debug_corpus, debug_library
from stretto_shared.training.corpus.render import SymusicSynthesizer, bundled_soundfont

RECIPES = Path(__file__).resolve().parents[3] / "services" / "embedding" / "recipes"
sys.path.append(str(RECIPES))
import prepare_melody  # noqa: E402
import train_melody  # noqa: E402


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    build_debug_corpus(folder, 6, seed=0)
    return folder


@pytest.fixture(scope="module")
def pairs(corpus: Path) -> Path:
    out = corpus / "pairs"
    out.mkdir()
    synthesizers = [SymusicSynthesizer(bundled_soundfont(), 24_000)]
    for split in ("train", "valid"):
        made = out / f"pairs_{split}_0000.npz"
        prepare_melody.write_pairs(debug_library(split), synthesizers, corpus, split, 0, made, seed=0)
    return out


def test_pairs_are_clips_and_their_melodies(pairs: Path) -> None:
    with np.load(pairs / "pairs_train_0000.npz") as shard:
        assert shard["mixes"].shape == (6, 160, 144) and shard["covers"].shape == (6, 2, 160, 144)
        heard = (shard["classes"] >= 0).mean(1) > 0.3
        assert heard.any()
        assert shard["covers"][heard].reshape(heard.sum(), -1).max(1).min() == 255
        assert shard["covers"][(shard["classes"] < 0).all(1)].sum() == 0


def test_the_recipe_learns_exports_and_encodes_a_corpus(corpus: Path, pairs: Path, tmp_path: Path) -> None:
    train_melody.main(
        ["--config", str(RECIPES / "melody_debug.toml"), "--pairs", str(pairs), "--run", str(tmp_path / "run")]
    )
    export = tmp_path / "run" / "export" / "melody"
    prepare_melody.main(["codes", "--corpus", str(corpus), "--weights", str(export), "--out", str(tmp_path)])
    codes = np.load(tmp_path / "melody_train_0000.npy")
    assert codes.shape == (6, 2, 11) and codes.dtype == np.int16
    assert len(np.unique(codes)) > 4
    clip = np.load(corpus / "audio_train_0000.npy")[2].astype(np.float32) / 32768
    assert np.array_equal(prepare_melody.load_melody_encoder(export).encode(clip), codes[2])


def test_both_sides_of_a_pair_are_transposed_alike(pairs: Path) -> None:
    data = train_melody.Pairs(pairs, "train")
    data.mixes = np.repeat(np.arange(144, dtype=np.uint8)[None, None], 160, 1)
    data.covers, data.classes = data.mixes[:, None], np.zeros((1, 160), np.int8)
    for seed in range(8):
        batch = data.draw(1, np.random.default_rng(seed))
        move = int(batch.classes[0, 0])
        moved = (move + 5) % 12 - 5
        assert round(float(batch.mixes[0, 0, 72]) * 255) == 72 - 2 * moved
        assert torch.equal(batch.mixes, batch.covers)


def test_the_right_second_costs_nothing_and_the_wrong_one_much() -> None:
    classes = torch.arange(6).repeat_interleave(32).reshape(2, 96)  # 2 clips of 6 s, a new pitch every two seconds
    vectors = torch.eye(12).reshape(2, 6, 12)
    right = train_melody.contrast(vectors, vectors, classes, 0.05)
    assert float(right) < 1e-3
    assert float(train_melody.contrast(vectors, vectors.flip(0), classes, 0.05)) > 1.0


def test_the_same_tune_is_not_held_against_itself() -> None:
    classes = torch.zeros(2, 96, dtype=torch.int64)
    vectors = torch.ones(2, 6, 4) / 2
    assert float(train_melody.contrast(vectors, vectors, classes, 0.05)) < np.log(12)
    different = torch.stack([torch.zeros(96), torch.ones(96)]).long()
    assert float(train_melody.contrast(vectors, vectors, different, 0.05)) > np.log(6)


def test_rests_are_left_out() -> None:
    classes = torch.full((2, 96), -1)
    classes[0, :48] = torch.arange(3).repeat_interleave(16)
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(2, 6, 4), dim=-1)
    noise = vectors.clone()
    noise[1] = -noise[1]
    cost = train_melody.contrast(vectors, vectors, classes, 0.1)
    assert torch.equal(cost, train_melody.contrast(vectors, noise, classes, 0.1))


def test_retrieval_counts_the_nearest_over_all_seconds() -> None:
    items = torch.eye(4)[:, None].repeat(1, 3, 1)
    assert train_melody.retrieval(items, items) == 1.0
    assert train_melody.retrieval(items[[1, 0, 2, 3]], items) == 0.5
