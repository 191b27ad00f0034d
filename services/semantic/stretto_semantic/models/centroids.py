"""Tokens as the nearest of k-means' centroids, and `CentroidTokenizer`, which gives them to a model that has none.

`kmeans.safetensors` beside the model's weights, or in the service's own folder of that name, brings them: `centroids`
[V, D], `mean` and `scale` [D] that normalise the features first, and `layer`, the number of layers whose output they
were fitted to. `recipes/fit_kmeans.py` writes it.

Legend: N windows, T frames, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stretto_shared.dsp.window_grid import Silence
from torch import Tensor, nn

from stretto_semantic.models.tokenizer import Listener

CENTROIDS_FILE = "kmeans.safetensors"


class CentroidTokenizer(nn.Module):
    """A listener and the centroids of its features.

    Args:
        listener: Hears with as many layers as the centroids were fitted to.
        tensors: `centroids`, `mean` and `scale`.

    Raises:
        KeyError: If one of them is missing.
        ValueError: If their shapes do not fit.
    """

    centroids: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, listener: Listener, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.listener = listener
        centroids, mean, scale = tensors["centroids"], tensors["mean"], tensors["scale"]
        width = listener.width
        if centroids.ndim != 2 or {centroids.shape[1], *mean.shape, *scale.shape} != {width} or not len(centroids):
            raise ValueError(
                f"expected centroids [V, {width}], mean and scale [{width}], got {tuple(centroids.shape)}, "
                f"{tuple(mean.shape)} and {tuple(scale.shape)}. Fit them to this model."
            )
        self.register_buffer("centroids", centroids)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.cardinality = len(centroids)
        self.sample_rate_hz = listener.sample_rate_hz
        self.frame_rate_hz = listener.frame_rate_hz
        self.grid = listener.grid

    def scores(self, samples: Tensor, silences: Sequence[Silence]) -> Tensor:
        """[N, T * hop + 2 * margin] to [N, T, V]: the nearest centroid scores highest."""
        features = (self.listener.features(samples, silences) - self.mean) * self.scale
        return nearness(features, self.centroids)


def nearness(features: Tensor, centroids: Tensor) -> Tensor:
    """[..., D] and centroids [V, D] to [..., V]: highest for the nearest.

    It is half the square of their distance, negative, without the feature's own share, which all centroids have alike.
    """
    return features @ centroids.mT - centroids.square().sum(1) / 2


def nearest(features: Tensor, centroids: Tensor) -> Tensor:
    """Index [...] of the centroid [V, D] nearest to each feature [..., D]."""
    return nearness(features, centroids).argmax(-1)
