"""Wav2Vec2-BERT against the published implementation: equal features, equal hidden states, the same keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stretto_semantic import loading
from stretto_semantic.models.centroids import CENTROIDS_FILE, CentroidTokenizer
from stretto_semantic.models.wav2vec2_bert import (
    GRID,
    Wav2Vec2Bert,
    Wav2Vec2BertConfig,
    from_hugging_face,
    layers_read,
    stacked_features,
)
from stretto_semantic.models.wav2vec2_bert.features import log_mel_bank
from stretto_shared.errors import NotFound, NotReady
from transformers import SeamlessM4TFeatureExtractor
from transformers import Wav2Vec2BertConfig as PublishedConfig
from transformers import Wav2Vec2BertModel as PublishedModel

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "left_max_position_embeddings": 6,
    "right_max_position_embeddings": 2,
    "conv_depthwise_kernel_size": 5,
}


def sound(duration_s: float, seed: int = 0) -> Any:
    """Noise under a tone that rises and falls."""
    time_s = np.arange(round(duration_s * 16_000)) / 16_000
    tone = np.sin(2 * np.pi * 440 * time_s) * np.sin(2 * np.pi * 1.3 * time_s)
    return (0.3 * tone + np.random.default_rng(seed).normal(0, 0.02, time_s.size)).astype(np.float32)


@pytest.fixture(scope="module")
def published() -> Any:
    torch.manual_seed(0)
    model = PublishedModel(PublishedConfig(**TINY)).eval()
    with torch.no_grad():  # away from the values at which norms start, which would hide a missing one
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("duration_s", [0.035, 0.5, 1.234, 3.0])
def test_features_are_those_of_the_published_extractor(duration_s: float) -> None:
    samples = sound(duration_s)
    extractor = SeamlessM4TFeatureExtractor()
    expected = extractor(samples, sampling_rate=16_000, return_tensors="np", pad_to_multiple_of=None)
    ours = stacked_features(torch.from_numpy(samples)[None]).numpy()
    assert ours.shape == expected["input_features"].shape
    np.testing.assert_allclose(ours, expected["input_features"], atol=2e-4)


def test_mel_energies_are_those_of_the_published_extractor_in_silence_too() -> None:
    samples = np.concatenate([sound(0.2), np.zeros(4000, np.float32)])
    expected = SeamlessM4TFeatureExtractor()._extract_fbank_features(samples)
    np.testing.assert_allclose(log_mel_bank(torch.from_numpy(samples)[None])[0], expected, atol=1e-4)


def test_audio_without_two_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 560"):
        stacked_features(torch.zeros(1, 559))


@pytest.mark.parametrize("num_layers", [0, 1, 3])
@pytest.mark.parametrize("num_frames", [1, 2, 7, 40])
def test_hidden_states_are_those_of_the_published_model(published: Any, num_layers: int, num_frames: int) -> None:
    ours = Wav2Vec2Bert(Wav2Vec2BertConfig(**TINY), num_layers)
    ours.load_state_dict(layers_read(published.state_dict(), num_layers))
    features = torch.randn(2, num_frames, 160, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = published(features, output_hidden_states=True).hidden_states[num_layers]
        found = ours.eval()(features)
    assert found.abs().mean() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_every_key_of_the_published_geometry_has_its_place_and_shape() -> None:
    with torch.device("meta"):
        theirs = PublishedModel(PublishedConfig()).state_dict()
        ours = Wav2Vec2Bert(Wav2Vec2BertConfig()).state_dict()
    assert {key: tensor.shape for key, tensor in ours.items()} == {
        key: tensor.shape for key, tensor in theirs.items() if key != "masked_spec_embed"
    }
    assert sum(tensor.numel() for tensor in ours.values()) // 100_000 == 5804


def test_the_published_config_is_read_and_another_variant_is_refused() -> None:
    assert from_hugging_face(PublishedConfig().to_dict()) == Wav2Vec2BertConfig()
    assert from_hugging_face({"model_type": "wav2vec2-bert"} | TINY) == Wav2Vec2BertConfig(**TINY)
    for change in (
        {"position_embeddings_type": "rotary"},
        {"hidden_act": "gelu"},
        {"feature_projection_input_dim": 80},
    ):
        with pytest.raises(ValueError, match=next(iter(change))):
            from_hugging_face(change)
    with pytest.raises(ValueError, match="divide"):
        from_hugging_face({"num_attention_heads": 3})
    with pytest.raises(ValueError, match="within the 3 layers"):
        Wav2Vec2Bert(Wav2Vec2BertConfig(**TINY), 4)


def write_checkpoint(folder: Path, published: Any, *, num_layers: int = 2, prefix: str = "", width: int = 32) -> None:
    folder.mkdir(exist_ok=True)
    tensors = {prefix + key: tensor.contiguous() for key, tensor in published.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "wav2vec2-bert"} | TINY))
    generator = torch.Generator().manual_seed(2)
    kmeans = {
        "centroids": torch.randn(24, width, generator=generator),
        "mean": torch.randn(width, generator=generator),
        "scale": torch.rand(width, generator=generator) + 0.5,
        "layer": torch.tensor(num_layers),
    }
    save_file(kmeans, folder / CENTROIDS_FILE)


@pytest.mark.parametrize("prefix", ["", "wav2vec2_bert."])
def test_tokens_are_the_nearest_centroids_of_the_published_hidden_state(
    published: Any, tmp_path: Path, prefix: str
) -> None:
    write_checkpoint(tmp_path, published, prefix=prefix)
    loaded = loading.load_tokenizer("w2v", tmp_path.as_uri(), weights_dir=tmp_path, max_joined=8)
    assert loaded.max_joined == 1 and (loaded.sample_rate_hz, loaded.frame_rate_hz) == (16_000, 50.0)
    assert loaded.tokenizer.cardinality == 24
    samples = sound(1.0)
    margin = np.zeros(GRID.margin, np.float32)
    ids = loaded.tokenize(torch.from_numpy(np.concatenate([margin, samples, margin]))[None], [(0, 0)])
    heard = np.concatenate([samples, margin])  # so that there are as many frames as hops
    features = SeamlessM4TFeatureExtractor()(heard, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        hidden = published(features["input_features"], output_hidden_states=True).hidden_states[2][0]
    tokenizer = loaded.tokenizer
    assert isinstance(tokenizer, CentroidTokenizer)
    distances = torch.cdist((hidden - tokenizer.mean) * tokenizer.scale, tokenizer.centroids)
    nearest, second = distances.sort(-1).values[:, :2].unbind(-1)
    is_clear = second - nearest > 1e-3  # no near tie, which rounding would decide
    assert is_clear.float().mean() > 0.9 and ids.shape == (1, 50)
    assert torch.equal(ids[0][is_clear], distances.argmin(-1)[is_clear])
    assert len(set(ids[0].tolist())) > 3


def test_only_the_layers_that_the_centroids_need_are_kept(published: Any, tmp_path: Path) -> None:
    counts = []
    for num_layers in (1, 3):
        write_checkpoint(tmp_path, published, num_layers=num_layers)
        counts.append(loading.load_tokenizer("w2v", tmp_path.as_uri(), weights_dir=tmp_path).info.parameter_count)
    assert counts[0] < counts[1] / 2


def test_other_centroids_are_another_model(published: Any, tmp_path: Path) -> None:
    digests = set()
    for num_layers in (1, 2):
        write_checkpoint(tmp_path, published, num_layers=num_layers)
        digests.add(loading.load_tokenizer("w2v", tmp_path.as_uri(), weights_dir=tmp_path).info.digest_sha256)
    assert len(digests) == 2 and all(len(digest) == 64 for digest in digests)


def test_centroids_may_lie_in_the_services_own_folder_of_that_name(published: Any, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "cache", published)
    own = tmp_path / "weights" / "w2v"
    own.mkdir(parents=True)
    (tmp_path / "cache" / CENTROIDS_FILE).rename(own / CENTROIDS_FILE)
    source = (tmp_path / "cache").as_uri()
    assert loading.load_tokenizer("w2v", source, weights_dir=tmp_path / "weights").tokenizer.cardinality == 24
    with pytest.raises(NotReady, match="other"):
        loading.load_tokenizer("other", source, weights_dir=tmp_path / "weights")


def test_without_centroids_the_error_says_how_to_fit_them(published: Any, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, published)
    (tmp_path / CENTROIDS_FILE).unlink()
    with pytest.raises(NotReady, match=r"kmeans\.safetensors.*fit_kmeans\.py") as caught:
        loading.load_tokenizer("w2v", tmp_path.as_uri(), weights_dir=tmp_path)
    assert caught.value.reason == "WEIGHTS_MISSING"


@pytest.mark.parametrize("damage", ["truncated", "misshapen", "nameless", "deep", "foreign"])
def test_damaged_centroids_are_refused(published: Any, tmp_path: Path, damage: str) -> None:
    write_checkpoint(
        tmp_path, published, num_layers=9 if damage == "deep" else 2, width=31 if damage == "misshapen" else 32
    )
    if damage == "truncated":
        (tmp_path / CENTROIDS_FILE).write_bytes(b"\x00" * 5)
    if damage == "nameless":
        save_file({"centroids": torch.zeros(2, 32)}, tmp_path / CENTROIDS_FILE)
    if damage == "foreign":
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert"}))
    with pytest.raises(NotFound if damage == "foreign" else NotReady):
        loading.load_tokenizer("w2v", tmp_path.as_uri(), weights_dir=tmp_path)
