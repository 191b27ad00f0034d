"""Lloyd's k-means in float32; empty centroids move onto random points.

Legend: N points, D width, K centroids.
"""

from __future__ import annotations

import torch
from stretto_semantic.models.centroids import nearest
from torch import Tensor

_CHUNK = 8192


def fit(points: Tensor, num_centroids: int, num_rounds: int, seed: int) -> Tensor:
    """Centroids [K, D] of points [N, D], from a random start.

    Raises:
        ValueError: If there are fewer points than centroids.
    """
    if len(points) < num_centroids:
        raise ValueError(f"expected at least {num_centroids} points for as many centroids, got {len(points)}.")
    generator = torch.Generator().manual_seed(seed)
    centroids = points[torch.randperm(len(points), generator=generator)[:num_centroids]].clone()
    for _ in range(num_rounds):
        ids = assign(points, centroids)
        counts = torch.bincount(ids, minlength=num_centroids)
        sums = torch.zeros_like(centroids).index_add_(0, ids, points)
        centroids = sums / counts.clamp(min=1)[:, None]
        empty = counts == 0
        renewed = torch.randint(len(points), (int(empty.sum()),), generator=generator)
        centroids[empty] = points[renewed]
    return centroids


def assign(points: Tensor, centroids: Tensor) -> Tensor:
    """Index [N] of the centroid nearest to each point."""
    return torch.cat([nearest(part, centroids) for part in points.split(_CHUNK)])
