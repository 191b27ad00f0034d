"""The invariants that the semantic tokenizer owes, on tiny random weights."""

from __future__ import annotations

import pytest
import torch
from stretto_semantic.models.centroids import nearest
from stretto_semantic.models.w2vbert.config import FrameGrid, TokenizerConfig, W2vBertConfig
from stretto_semantic.models.w2vbert.conformer import RelativeAttention, by_position, distance_sinusoids
from stretto_semantic.models.w2vbert.model import W2vBert, W2vBertTokenizer, cut_windows, silent_mel
from stretto_shared.dsp.log_mel import log_mel

GRID = FrameGrid(window=6, left=3, right=2)
CONFIG = TokenizerConfig(
    num_mel_bands=80, dim=16, num_heads=2, feed_forward_dim=24, kernel_size=3, subsampling_channels=2,
    num_contrastive_layers=1, num_masked_layers=2, dropout=0.1, grid=GRID, feature_layer=2, num_centroids=32,
)  # fmt: skip


@pytest.fixture
def tokenizer() -> W2vBertTokenizer:
    torch.manual_seed(0)
    tokenizer = W2vBertTokenizer(CONFIG).eval()
    with torch.inference_mode():  # centroids among the features, as k-means puts them
        features = tokenizer.features(random_windows(16, seed=5)).flatten(0, 1)
        tokenizer.centroids = features[:: len(features) // 32][:32].clone()
    return tokenizer


def random_windows(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 4 * GRID.reach, 80, generator=torch.Generator().manual_seed(seed))


def random_clip(num_frames: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(1, 4 * num_frames, 80, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def test_a_window_gives_as_many_tokens_as_the_grid_says_below_the_number_of_centroids(
    tokenizer: W2vBertTokenizer,
) -> None:
    ids = tokenizer.tokenize(random_windows(3))
    assert ids.shape == (3, GRID.window) and ids.dtype == torch.int64
    assert int(ids.min()) >= 0 and int(ids.max()) < 32
    assert len(ids.unique()) > 4
    with pytest.raises(ValueError, match=r"expected mel \[B, 44, 80\]"):
        tokenizer.tokenize(random_windows(1)[:, 1:])


@pytest.mark.parametrize("chunks", [[1] * 17, [17], [5, 12], [9, 1, 7]])
@torch.inference_mode()
def test_a_stream_gives_the_tokens_of_the_whole_clip(tokenizer: W2vBertTokenizer, chunks: list[int]) -> None:
    mel = random_clip(17)
    windows = cut_windows(mel, GRID)[0]
    offline = torch.cat([tokenizer.tokenize(window[None])[0] for window in windows])[:17]
    silence, heard = silent_mel(), torch.empty(0, 80)
    given: list[torch.Tensor] = []
    for part in mel[0].split([4 * size for size in chunks]):
        heard = torch.cat([heard, part])
        is_end, num_frames = len(heard) == 4 * 17, len(heard) // 4
        while (start := len(given) * GRID.window) < num_frames:
            if not is_end and start + GRID.window + GRID.right > num_frames:
                break
            rows = range(4 * (start - GRID.left), 4 * (start + GRID.window + GRID.right))
            window = torch.stack([heard[row] if 0 <= row < len(heard) else silence for row in rows])
            given.append(tokenizer.tokenize(window[None])[0])
    assert torch.equal(torch.cat(given)[:17], offline)


@torch.inference_mode()
def test_a_batch_of_windows_gives_what_each_gives_alone(tokenizer: W2vBertTokenizer) -> None:
    windows = random_windows(4)
    together = tokenizer.features(windows)
    alone = torch.cat([tokenizer.features(window[None]) for window in windows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together[0], together[1])


@torch.inference_mode()
def test_the_same_window_gives_the_same_tokens(tokenizer: W2vBertTokenizer) -> None:
    windows = random_windows(2)
    assert torch.equal(tokenizer.features(windows), tokenizer.features(windows.clone()))


@pytest.mark.parametrize("frame", [0, GRID.left - 1, GRID.left, GRID.reach - 1])
@torch.inference_mode()
def test_every_frame_that_a_window_hears_changes_what_it_gives(tokenizer: W2vBertTokenizer, frame: int) -> None:
    windows = random_windows(1)
    changed = windows.clone()
    changed[:, 4 * frame : 4 * frame + 4] += 3
    before, after = tokenizer.features(windows), tokenizer.features(changed)
    assert (before != after).any(-1).all()  # attention spans the window


@torch.inference_mode()
def test_windows_lie_on_the_grid_with_silence_around_the_clip() -> None:
    mel = random_clip(8)
    windows = cut_windows(mel, GRID)[0]
    assert windows.shape == (2, 4 * GRID.reach, 80)
    silence = silent_mel()
    assert torch.equal(windows[0, :12], silence.expand(12, 80))
    assert torch.equal(windows[0, 12:], mel[0, :32])
    assert torch.equal(windows[1, :20], mel[0, 12:])
    assert torch.equal(windows[1, 20:], silence.expand(24, 80))
    assert list(GRID.starts(8)) == [0, 6]
    with pytest.raises(ValueError, match="positive multiple of 4 mel frames"):
        cut_windows(mel[:, 1:], GRID)


def test_silence_is_what_log_mel_says_of_it() -> None:
    assert torch.equal(log_mel(torch.zeros(1, 2400))[0], silent_mel().expand(10, 80))


def test_scores_by_distance_land_at_the_pair_of_that_distance() -> None:
    frames = 5
    by_distance = torch.arange(frames - 1, -frames, -1.0).expand(2, 3, frames, -1)  # each column holds its distance
    distances = torch.arange(frames)[:, None] - torch.arange(frames)
    assert torch.equal(by_position(by_distance), distances.float().expand(2, 3, -1, -1))


@torch.inference_mode()
def test_attention_hears_how_far_away_a_frame_is() -> None:
    torch.manual_seed(0)
    attention = RelativeAttention(CONFIG).eval()
    frames = torch.randn(1, 1, 16).repeat(1, 6, 1)
    frames[:, 2] += torch.linspace(-1, 1, 16)
    out = attention(frames, distance_sinusoids(6, 16))
    assert not torch.allclose(out[:, 0], out[:, 1], atol=1e-4)  # the same query, one frame nearer to the odd one


def test_the_nearest_centroid_is_the_one_of_least_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    features, centroids = torch.randn(50, 7, generator=generator), 2 * torch.randn(9, 7, generator=generator)
    assert torch.equal(nearest(features, centroids), torch.cdist(features, centroids).argmin(-1))


@torch.inference_mode()
def test_features_are_those_of_the_layer_named_with_mean_and_scale_taken_out(tokenizer: W2vBertTokenizer) -> None:
    assert len(tokenizer.encoder.layers) == 2
    windows = random_windows(1)
    plain = tokenizer.features(windows)
    tokenizer.mean, tokenizer.scale = torch.full((16,), 0.5), torch.full((16,), 3.0)
    torch.testing.assert_close(tokenizer.features(windows), 3 * (plain - 0.5))


def test_the_defaults_are_the_published_size() -> None:
    with torch.device("meta"):
        model = W2vBert(W2vBertConfig())
    assert 5.7e8 < sum(parameter.numel() for parameter in model.parameters()) < 6.5e8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_heads": 3}, "num_heads must divide"),
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"num_mel_bands": 82}, "num_mel_bands must be a multiple of 4"),
        ({"feature_layer": 25}, "feature_layer must lie within"),
        ({"grid": {"window": 0}}, "window must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused_by_name(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(**fields)  # type: ignore[arg-type]
