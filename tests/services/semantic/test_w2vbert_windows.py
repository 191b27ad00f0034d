"""Our w2v-BERT behind the service: its tokens are those of the recipe for the whole clip."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stretto.common.v1 import audio_pb2
from stretto.semantic.v1 import semantic_pb2, semantic_pb2_grpc
from stretto_semantic.loading import load_tokenizer
from stretto_semantic.models.w2vbert import windows
from stretto_semantic.models.w2vbert.config import FrameGrid, TokenizerConfig
from stretto_semantic.models.w2vbert.model import W2vBertTokenizer, cut_windows
from stretto_semantic.models.w2vbert.windows import WindowedW2vBert
from stretto_shared import weights
from stretto_shared.dsp.log_mel import log_mel
from stretto_shared.errors import NotReady

CONFIG = TokenizerConfig(
    num_mel_bands=80, dim=16, num_heads=2, feed_forward_dim=24, kernel_size=3, subsampling_channels=2,
    num_contrastive_layers=1, num_masked_layers=2, dropout=0.1, grid=FrameGrid(window=6, left=3, right=2),
    feature_layer=2, num_centroids=32,
)  # fmt: skip


def sound(num_samples: int) -> Any:
    generator = np.random.default_rng(3)
    levels = np.repeat(generator.uniform(0.001, 0.5, num_samples // 500 + 1), 500)[:num_samples]
    return (generator.normal(0, 1, num_samples) * levels).astype(np.float32)


@pytest.fixture
def tokenizer(weights_dir: Path) -> W2vBertTokenizer:
    """As a recipe exports it, in half precision."""
    torch.manual_seed(0)
    tokenizer = W2vBertTokenizer(CONFIG).eval()
    with torch.inference_mode():  # centroids among the features, as k-means puts them
        heard = cut_windows(log_mel(torch.from_numpy(sound(960 * 36))[None]), CONFIG.grid)[0]
        features = tokenizer.features(heard).flatten(0, 1)
        tokenizer.mean, tokenizer.scale = features.mean(0), 1 / features.std(0)
        tokenizer.centroids = ((features - tokenizer.mean) * tokenizer.scale)[:32].clone()
    tokenizer.half()
    weights.write(
        weights_dir / "w2vbert",
        tokenizer.state_dict(),
        name="w2vbert",
        architecture="W2vBertTokenizer",
        config=dataclasses.asdict(CONFIG),
        licence="Apache-2.0",
        score="",
        training={},
    )
    return tokenizer.float()


@pytest.mark.parametrize("num_frames", [1, 6, 17, 40])
async def test_served_tokens_are_those_of_the_whole_clip(
    serve: Any, tokenizer: W2vBertTokenizer, num_frames: int
) -> None:
    samples = sound(960 * num_frames)
    with torch.inference_mode():
        heard = cut_windows(log_mel(torch.from_numpy(samples)[None]), CONFIG.grid)[0]
        features = tokenizer.features(heard).flatten(0, 1)[:num_frames]
    distances = torch.cdist(features, tokenizer.centroids)
    nearest, second = distances.sort(-1).values[:, :2].unbind(-1)
    is_clear = second - nearest > 1e-3  # no near tie, which rounding would decide
    messages = [semantic_pb2.TokenizeAudioRequest(config=semantic_pb2.TokenizeConfig())]
    for part in np.array_split(samples, 3):
        waveform = audio_pb2.Waveform(sample_rate_hz=24_000, channel_count=1, samples=part.tobytes())
        messages.append(semantic_pb2.TokenizeAudioRequest(waveform=waveform))
    async with serve() as channel:
        stub = semantic_pb2_grpc.SemanticServiceStub(channel)
        replies = [reply async for reply in stub.TokenizeAudio(iter(messages), timeout=60)]
    assert replies[0].model.name == "w2vbert" and replies[0].model.is_default, "it comes before other names"
    assert (replies[0].model.sample_rate_hz, replies[0].model.frame_rate_hz) == (24_000, 25.0)
    ids = torch.tensor([code for reply in replies for code in reply.tokens.codes])
    assert len(ids) == num_frames and is_clear.float().mean() >= 0.9
    assert torch.equal(ids[is_clear], distances.argmin(-1)[is_clear])


def test_scores_outside_the_audio_are_those_of_silence_exactly(tokenizer: W2vBertTokenizer, weights_dir: Path) -> None:
    loaded = load_tokenizer("w2vbert", "default", weights_dir=weights_dir)
    grid = loaded.grid
    samples = torch.from_numpy(sound(grid.num_samples))
    outside = grid.left_frames * grid.hop_length + grid.margin
    with torch.inference_mode():
        found = [
            loaded.tokenizer.scores((samples * scale)[None], [(grid.left_frames, 0)])
            for scale in (torch.ones(grid.num_samples), (torch.arange(grid.num_samples) >= outside - 392).float())
        ]
    assert torch.equal(found[0], found[1]), "only log-mel frames of the audio are heard"


def test_silence_is_heard_once_and_not_for_every_window(
    tokenizer: W2vBertTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    windowed = WindowedW2vBert(tokenizer)
    monkeypatch.setattr(windows, "silent_mel", lambda: pytest.fail("silence was heard again"))
    samples = torch.from_numpy(sound(2 * windowed.grid.num_samples)).view(2, -1)
    with torch.inference_mode():
        assert windowed.scores(samples, [(1, 0), (0, 2)]).shape == (2, CONFIG.grid.reach, 32)


def test_weights_that_do_not_fit_are_refused(tokenizer: W2vBertTokenizer, weights_dir: Path) -> None:
    path = weights_dir / "w2vbert" / "config.json"
    path.write_text(path.read_text().replace('"num_centroids": 32', '"num_centroids": 31'))
    with pytest.raises(NotReady, match="do not fit together"):
        load_tokenizer("w2vbert", "default", weights_dir=weights_dir)
