"""How far apart two sets of clips lie in a space of embeddings: the Frechet distance of two Gaussians.

Kilgour et al., "Fréchet Audio Distance" (2019), https://arxiv.org/abs/1812.08466: |m1 - m2|² + tr(C1 + C2 - 2 (C1
C2)^½), where m and C are mean and covariance of each set's embeddings.

Departure: embeddings are first projected on the leading principal axes of the reference (`fit_projection`). The
distance of few clips is biased upwards, the more so the more dimensions there are: compare sets of one size only, and
read them beside the distance of as many real clips.

Legend: N rows (one embedding each), D dimensions of the embedding, d kept dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stretto_shared.metrics.validation import FloatArray


@dataclass(frozen=True, eq=False)
class Projection:
    """The leading principal axes of a reference; `explained` is the share of its variance that they keep."""

    mean: FloatArray  # [D]
    axes: FloatArray  # [D, d], orthonormal columns
    explained: float

    def __call__(self, embeddings: ArrayLike) -> FloatArray:
        """Rows [N, D] to rows [N, d]; not whitened, so that axes keep their weight."""
        projected: FloatArray = (_rows("embeddings", embeddings) - self.mean) @ self.axes
        return projected


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean [d] and covariance [d, d] of a set."""

    mean: FloatArray
    covariance: FloatArray


def fit_projection(reference: ArrayLike, num_dims: int) -> Projection:
    """Principal axes of reference rows [N, D], the `num_dims` with the most variance.

    Raises:
        ValueError: If there are not more rows than dimensions to keep, or the rows do not vary.
    """
    rows = _rows("reference", reference)
    if not 0 < num_dims <= min(rows.shape[0] - 1, rows.shape[1]):
        raise ValueError(f"num_dims must lie in [1, {min(rows.shape[0] - 1, rows.shape[1])}], got {num_dims}.")
    mean = rows.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov(rows, rowvar=False).reshape(rows.shape[1], rows.shape[1]))
    if values[-1] <= 0:
        raise ValueError("reference must vary: all its rows are equal.")
    kept = slice(len(values) - num_dims, None)
    return Projection(mean, axes[:, kept][:, ::-1], float(values[kept].sum() / values.sum()))


def fit_gaussian(rows: ArrayLike) -> Gaussian:
    """Mean and unbiased covariance of rows [N, d], N >= 2."""
    array = _rows("rows", rows)
    dims = array.shape[1]
    return Gaussian(array.mean(axis=0), np.cov(array, rowvar=False).reshape(dims, dims))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians, 0 or more; 0 for equal ones.

    Raises:
        ValueError: If their dimensions differ.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"expected equal dimensions, got {first.mean.shape[0]} and {second.mean.shape[0]}.")
    values, axes = np.linalg.eigh(first.covariance)
    root = (axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T
    # (C1 C2)^½ and (C1^½ C2 C1^½)^½ have the same trace, and the latter is symmetric.
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second.covariance @ root), 0.0)).sum()
    spread = np.trace(first.covariance) + np.trace(second.covariance) - 2.0 * shared
    return max(0.0, float(np.square(first.mean - second.mean).sum() + spread))


def _rows(name: str, rows: ArrayLike) -> FloatArray:
    array = np.asarray(rows, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] < 1:
        raise ValueError(f"{name} must be [N, D] with at least 2 rows, got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity.")
    return array
