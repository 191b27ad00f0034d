"""w2v-BERT's masking, losses, quantizers and k-means, which live with its recipe."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "services/semantic/recipes"))
import kmeans
from losses import contrastive_loss, draw_spans, masked_prediction_loss
from mel_clips import MelClips
from quantizers import GumbelQuantizer, RandomProjectionQuantizer, usage
from stretto_semantic.models.w2vbert.config import FrameGrid
from stretto_semantic.models.w2vbert.model import silent_mel


def clustered(num_clusters: int = 8, count: int = 400, dim: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(num_clusters, dim, generator=generator)
    which = torch.arange(count) % num_clusters
    return centres[which] + 0.05 * torch.randn(count, dim, generator=generator), which


def test_rows_have_equally_many_masked_frames_and_most_lie_in_spans() -> None:
    mask = draw_spans(np.random.default_rng(0), 16, 128, num_spans=8, span=10)
    assert mask.shape == (16, 128)
    assert set(mask.sum(1).tolist()) == {53}
    runs = (mask[:, 1:] & mask[:, :-1]).sum(1).float()
    assert float(runs.mean()) > 0.8 * 53  # single frames drawn at random would give 0.4
    assert not torch.equal(mask[0], mask[1])


def test_the_contrastive_loss_is_small_where_each_context_is_its_own_target() -> None:
    sought = torch.eye(6)[None]
    ids = torch.arange(6).view(1, 6, 1)
    low, right = contrastive_loss(sought, sought, ids, 0.1)
    high, wrong = contrastive_loss(sought.roll(1, 1), sought, ids, 0.1)
    assert float(low) < 0.01 and float(right) == 1.0
    assert float(high) > 5 and float(wrong) == 0.0


def test_a_frame_with_the_same_codes_is_no_distractor() -> None:
    sought = torch.ones(1, 4, 3)
    one_code, _ = contrastive_loss(sought, sought, torch.zeros(1, 4, 2, dtype=torch.long), 0.1)
    other_codes, _ = contrastive_loss(sought, sought, torch.arange(8).view(1, 4, 2), 0.1)
    assert float(one_code) == pytest.approx(0, abs=1e-5)
    assert float(other_codes) == pytest.approx(np.log(4), abs=1e-5)


def test_masked_prediction_is_cross_entropy_over_all_groups() -> None:
    ids = torch.tensor([[[0, 2], [1, 1]]])
    loss, right = masked_prediction_loss(20 * torch.nn.functional.one_hot(ids, 3).float(), ids)
    assert float(loss) < 1e-4 and float(right) == 1.0
    loss, _ = masked_prediction_loss(torch.zeros(1, 2, 2, 3), ids)
    assert float(loss) == pytest.approx(np.log(3))


def test_kmeans_finds_clusters() -> None:
    points, which = clustered()
    centroids = kmeans.fit(points, 16, 20, seed=0)
    ids = kmeans.assign(points, centroids)
    for cluster in range(8):
        assert not set(ids[which == cluster].tolist()) & set(ids[which != cluster].tolist())
    with pytest.raises(ValueError, match="at least 401 points"):
        kmeans.fit(points, 401, 1, seed=0)


def test_the_gumbel_quantizer_starts_at_the_cells_of_kmeans() -> None:
    torch.manual_seed(0)
    points = torch.randn(500, 6) @ torch.randn(6, 6) + 3
    quantizer = GumbelQuantizer(6, num_groups=2, num_codes=8, code_dim=8).eval()
    quantizer.start(points, seed=0)
    targets = quantizer(points[None], 1.0)
    assert targets.ids.shape == (1, 500, 2) and targets.vectors.shape == (1, 500, 8)
    axes = torch.linalg.svd(points - points.mean(0), full_matrices=False)[2]
    white = (points - points.mean(0)) @ axes.T
    white = white / white.square().mean(0).sqrt()
    for group in range(2):
        own = white[:, group::2]
        cells = kmeans.assign(own, kmeans.fit(own, 8, 10, seed=group))
        assert float((targets.ids[0, :, group] == cells).float().mean()) > 0.99
    assert usage(targets.ids, 8) > 0.6


def test_the_gumbel_quantizer_learns_its_choices_and_its_codes() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(20, 2, 8, 8).train()
    targets = quantizer(clustered()[0][None], 1.0)
    (targets.vectors.square().mean() + targets.diversity_loss).backward()
    assert float(quantizer.logits.weight.grad.abs().sum()) > 0 and float(quantizer.codes.grad.abs().sum()) > 0


def test_diversity_is_lost_where_one_code_takes_all() -> None:
    quantizer = GumbelQuantizer(4, 1, 8, 8).eval()
    with torch.no_grad():
        quantizer.logits.weight.zero_()
        quantizer.logits.bias.zero_()
        even = float(quantizer(torch.randn(1, 50, 4), 1.0).diversity_loss)
        quantizer.logits.bias[3] = 50
        one = float(quantizer(torch.randn(1, 50, 4), 1.0).diversity_loss)
    assert even == pytest.approx(0, abs=1e-4) and one == pytest.approx(7 / 8, abs=1e-4)


def test_the_random_quantizer_never_changes_its_choices() -> None:
    torch.manual_seed(0)
    quantizer = RandomProjectionQuantizer(20, 2, 8, 8)
    points = clustered()[0][None]
    before = quantizer(points, 1.0)
    assert len(before.ids.unique(dim=1)[0]) > 4
    trained = {name for name, _ in quantizer.named_parameters()}
    assert trained == {"codes", "project.weight", "project.bias"}


def test_usage_is_one_where_codes_are_even_and_least_where_one_is_used() -> None:
    assert usage(torch.arange(8).view(1, 8, 1), 8) == pytest.approx(1)
    assert usage(torch.zeros(1, 8, 1, dtype=torch.long), 8) == pytest.approx(1 / 8)


def test_crops_reach_past_the_clip_as_windows_do_and_no_further(tmp_path: Path) -> None:
    clip = np.full((1, 4 * 12, 80), 1.0, np.float16) + np.arange(48, dtype=np.float16)[None, :, None]
    np.save(tmp_path / "mel_train_0000.npy", clip)
    grid = FrameGrid(window=6, left=3, right=2)
    crops = MelClips(tmp_path, "train", grid, seed=0).batch(300)
    assert crops.shape == (300, 44, 80)
    silent = (crops == silent_mel()).all(-1)
    assert int(silent[:, :22].sum(1).max()) == 12 and int(silent[:, 22:].sum(1).max()) == 8
    assert float(crops.max()) == 48.0


def test_shards_that_come_later_are_found(tmp_path: Path) -> None:
    np.save(tmp_path / "mel_train_0000.npy", np.zeros((3, 48, 80), np.float16))
    clips = MelClips(tmp_path, "train", FrameGrid(6, 3, 2), seed=0)
    np.save(tmp_path / "mel_train_0001.npy", np.ones((2, 48, 80), np.float16))
    assert len(clips) == 3
    clips.refresh()
    assert len(clips) == 5 and float(clips.clip(3).mean()) == 1.0 and float(clips.clip(2).mean()) == 0.0
    with pytest.raises(SystemExit, match="No mel_test"):
        MelClips(tmp_path, "test", FrameGrid(6, 3, 2), seed=0)
