"""w2v-BERT: a conformer that learns from audio alone, and semantic tokens from one of its layers.

Source: Chung et al., "w2v-BERT: Combining Contrastive Learning and Masked Language Modeling for Self-Supervised Speech
Pre-Training" (2021), https://arxiv.org/abs/2108.06209. Tokens as Borsos et al., "AudioLM" (2022),
https://arxiv.org/abs/2209.03143, and Agostinelli et al., "MusicLM" (2023), https://arxiv.org/abs/2301.11325: features
of an intermediate layer, normalised, to the nearest of k-means' centroids, 25 a second.

Departures: log-mel of 24 kHz audio at 100 frames a second; a window's reach is bounded (`FrameGrid`), so that audio of
any length can be tokenised while it comes. What only training needs, the quantizer and the losses, is in the recipe.

Legend: B batch, T frames of 25 a second, M mel bands, D width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from stretto_shared.dsp.log_mel import log_mel
from torch import Tensor, nn

from stretto_semantic.models.centroids import nearest
from stretto_semantic.models.w2vbert.config import MEL_FRAMES_PER_TOKEN, FrameGrid, TokenizerConfig, W2vBertConfig
from stretto_semantic.models.w2vbert.conformer import ConformerLayer, Subsampling, distance_sinusoids


class W2vBert(nn.Module):
    """Subsampling, the contrastive module and the masked-prediction module.

    Args:
        config: Sizes.
        num_layers: Build only so many layers of the two stacks; by default all.
    """

    def __init__(self, config: W2vBertConfig, num_layers: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.subsampling = Subsampling(config)
        self.input_norm = nn.LayerNorm(config.dim)
        self.layers = nn.ModuleList(
            ConformerLayer(config) for _ in range(config.num_layers if num_layers is None else num_layers)
        )

    def subsample(self, mel: Tensor) -> Tensor:
        """Log-mel [B, 4 T, M] to features [B, T, D]: what is masked, and what the quantizer sees unmasked."""
        out: Tensor = self.input_norm(self.subsampling(mel))
        return out

    def contextualise(self, features: Tensor) -> Iterator[Tensor]:
        """Features [B, T, D] to the output [B, T, D] of each layer in turn."""
        sinusoids = distance_sinusoids(features.shape[1], self.config.dim).to(features)
        for layer in self.layers:
            features = layer(features, sinusoids)
            yield features

    def hear(self, mel: Tensor) -> list[Tensor]:
        """Log-mel [B, 4 T, M] to the features and the output of each layer, all [B, T, D]; nothing is masked."""
        features = self.subsample(mel)
        return [features, *self.contextualise(features)]


class W2vBertTokenizer(nn.Module):
    """Semantic tokens of windows.

    Invariant: tokens of a window depend on that window alone (`tests/services/semantic/test_w2vbert.py`).
    """

    mean: Tensor
    scale: Tensor
    centroids: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = W2vBert(config, config.feature_layer)
        self.register_buffer("mean", torch.zeros(config.dim))
        self.register_buffer("scale", torch.ones(config.dim))
        self.register_buffer("centroids", torch.randn(config.num_centroids, config.dim))

    @property
    def grid(self) -> FrameGrid:
        """Where windows lie."""
        return self.config.grid

    def features(self, mel: Tensor) -> Tensor:
        """Log-mel windows [B, 4 * reach, M] to normalised features [B, window, D] of the frames that they give.

        Raises:
            ValueError: If the windows have another length or other bands.
        """
        expected = (MEL_FRAMES_PER_TOKEN * self.grid.reach, self.config.num_mel_bands)
        if mel.ndim != 3 or tuple(mel.shape[1:]) != expected:
            raise ValueError(f"expected mel [B, {expected[0]}, {expected[1]}], got {tuple(mel.shape)}. Cut it anew.")
        hidden = self.encoder.hear(mel)[-1][:, self.grid.left : self.grid.left + self.grid.window]
        return (hidden - self.mean) * self.scale

    def tokenize(self, mel: Tensor) -> Tensor:
        """Log-mel windows [B, 4 * reach, M] to tokens int64 [B, window]."""
        return nearest(self.features(mel), self.centroids)


def silent_mel() -> Tensor:
    """The log-mel frame [M] of silence, which lies before and after all audio."""
    return log_mel(torch.zeros(1, 240))[0, 0]


def cut_windows(mel: Tensor, grid: FrameGrid) -> Tensor:
    """Log-mel [B, 4 T, M] of whole audio to its windows [B, N, 4 * reach, M], silence around it.

    Raises:
        ValueError: If the number of mel frames is not a positive multiple of 4.
    """
    if mel.shape[1] % MEL_FRAMES_PER_TOKEN or not mel.shape[1]:
        raise ValueError(f"expected a positive multiple of 4 mel frames, got {mel.shape[1]}. Fill up with silence.")
    num_frames = mel.shape[1] // MEL_FRAMES_PER_TOKEN
    num_windows = -(-num_frames // grid.window)
    after = (num_windows * grid.window - num_frames + grid.right) * MEL_FRAMES_PER_TOKEN
    silence = silent_mel().to(mel).expand(len(mel), 1, -1)
    before = grid.left * MEL_FRAMES_PER_TOKEN
    padded = torch.cat([silence.expand(-1, before, -1), mel, silence.expand(-1, after, -1)], 1)
    size, step = grid.reach * MEL_FRAMES_PER_TOKEN, grid.window * MEL_FRAMES_PER_TOKEN
    return padded.unfold(1, size, step).transpose(2, 3)
