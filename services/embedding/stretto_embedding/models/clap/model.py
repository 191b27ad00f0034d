"""CLAP: two towers, and a projection of each into one space.

"Large-scale Contrastive Language-Audio Pretraining" (Wu et al. 2023, https://arxiv.org/abs/2211.06687), with the
arithmetic of `transformers.ClapModel`. The text tower is RoBERTa, whose layers are BERT's.

Legend: B batch, T frames, M mel bands, L tokens, D width of the space. Knows nothing of tokenizers, files and requests.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_embedding.models.clap.config import ClapConfig
from stretto_embedding.models.clap.swin import SwinTower
from stretto_embedding.models.minilm import MiniLm


class Projection(nn.Module):
    """Two linear maps with a ReLU between them."""

    def __init__(self, dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.widen = nn.Linear(dim, embedding_dim)
        self.out = nn.Linear(embedding_dim, embedding_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D'] -> [B, D]."""
        projected: Tensor = self.out(F.relu(self.widen(x)))
        return projected


class Clap(nn.Module):
    """Both towers; what leaves it has unit length."""

    def __init__(self, config: ClapConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = SwinTower(config.audio)
        self.audio_projection = Projection(config.audio.output_dim, config.embedding_dim)
        self.text = MiniLm(config.text)
        self.text_pool = nn.Linear(config.text.dimension, config.text.dimension)
        self.text_projection = Projection(config.text.dimension, config.embedding_dim)
        self.log_audio_scale = nn.Parameter(torch.zeros(()))
        self.log_text_scale = nn.Parameter(torch.zeros(()))

    @property
    def temperature(self) -> float:
        """What the cosines of a recording are divided by before a softmax over texts."""
        return float((-self.log_audio_scale.detach()).exp())

    def embed_audio(self, mel: Tensor) -> Tensor:
        """Spectrograms [B, T, M] of `FrontEnd` -> [B, D]."""
        return F.normalize(self.audio_projection(self.audio(mel)), dim=-1)

    def embed_text(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] with their markers, no row padded -> [B, D]."""
        pooled = torch.tanh(self.text_pool(self.text(ids)[:, 0]))
        return F.normalize(self.text_projection(pooled), dim=-1)
