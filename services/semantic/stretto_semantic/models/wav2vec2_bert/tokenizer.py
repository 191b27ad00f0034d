"""Tokens from w2v-BERT 2.0: an intermediate layer's output to the nearest of k-means' centroids, 50 a second.

The published model has no centroids: `kmeans.safetensors` beside its weights brings them (`recipes/fit_kmeans.py`), as
`centroids` [V, D], `mean` and `scale` [D], and `layer`, the number of layers whose output they were fitted to.

The model heard whole utterances, and its input is normalised over what is heard at once. So a window has seconds of
context, and at the audio's ends there is none rather than silence, which would move the mean.

Legend: N windows, S samples, T frames, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from stretto_semantic.models.tokenizer import Silence, WindowGrid
from stretto_semantic.models.wav2vec2_bert.features import (
    FRAME_LENGTH,
    MEL_HOP,
    SAMPLE_RATE_HZ,
    STRIDE,
    stacked_features,
)
from stretto_semantic.models.wav2vec2_bert.model import Wav2Vec2Bert

GRID = WindowGrid(
    hop_length=STRIDE * MEL_HOP,
    window_frames=400,
    left_frames=100,
    right_frames=100,
    is_padded=False,
    margin=FRAME_LENGTH - MEL_HOP,  # the last mel frame reaches so far beyond its hop
)


class Wav2Vec2BertListener(nn.Module):
    """Windows of audio to the output of the model's last layer that there is."""

    def __init__(self, model: Wav2Vec2Bert, grid: WindowGrid = GRID) -> None:
        super().__init__()
        self.model = model
        self.grid = grid
        self.sample_rate_hz = SAMPLE_RATE_HZ
        self.frame_rate_hz = SAMPLE_RATE_HZ / GRID.hop_length

    def features(self, samples: Tensor) -> Tensor:
        """[N, T * hop + 2 * margin] to [N, T, D]; the margin before the first frame is not heard."""
        out: Tensor = self.model(stacked_features(samples[:, self.grid.margin :]))
        return out


class Wav2Vec2BertTokenizer(Wav2Vec2BertListener):
    """The listener and the centroids.

    Args:
        model: As many layers as the centroids were fitted to.
        centroids: [V, D], of normalised features.
        mean: [D], taken from the features.
        scale: [D], by which they are multiplied then.
        grid: On what windows it hears.

    Raises:
        ValueError: If the shapes do not fit.
    """

    centroids: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(
        self, model: Wav2Vec2Bert, centroids: Tensor, mean: Tensor, scale: Tensor, grid: WindowGrid = GRID
    ) -> None:
        super().__init__(model, grid)
        width = model.config.hidden_size
        if centroids.ndim != 2 or {centroids.shape[1], *mean.shape, *scale.shape} != {width} or not len(centroids):
            raise ValueError(
                f"expected centroids [V, {width}], mean and scale [{width}], got {tuple(centroids.shape)}, "
                f"{tuple(mean.shape)} and {tuple(scale.shape)}. Fit them to this model."
            )
        self.register_buffer("centroids", centroids)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.cardinality = len(centroids)

    def scores(self, samples: Tensor, silences: Sequence[Silence]) -> Tensor:
        """[N, T * hop + 2 * margin] to [N, T, V]: the nearest centroid scores highest. There is never silence."""
        features = (self.features(samples) - self.mean) * self.scale
        return features @ self.centroids.mT - self.centroids.square().sum(1) / 2
