"""Conformer layers: feed-forward, self-attention with relative positions, convolution, feed-forward.

Source: Gulati et al., "Conformer: Convolution-augmented Transformer for Speech Recognition" (2020),
https://arxiv.org/abs/2005.08100; relative positions as Dai et al., "Transformer-XL" (2019),
https://arxiv.org/abs/1901.02860: sinusoids of the distance, two learned biases a head.

Departure: the convolution module normalises each frame by itself (LayerNorm) instead of over the batch, so that what a
window gives does not depend on its neighbours.

Legend: B batch, T frames, R relative distances (2 T - 1), D width, H heads, C channels, M mel bands.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_semantic.models.w2vbert.config import W2vBertConfig


class Subsampling(nn.Module):
    """Two 3 x 3 convolutions of stride 2 in time and frequency, then one product: 4 mel frames become one frame."""

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        channels = config.subsampling_channels
        self.first = nn.Conv2d(1, channels, 3, stride=2, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.project = nn.Linear(channels * config.num_mel_bands // 4, config.dim)

    def forward(self, mel: Tensor) -> Tensor:
        """[B, 4 T, M] to [B, T, D]."""
        hidden = F.relu(self.second(F.relu(self.first(mel[:, None]))))  # [B, C, T, M / 4]
        out: Tensor = self.project(hidden.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Norm, widen, swish, narrow."""

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.widen = nn.Linear(config.dim, config.feed_forward_dim)
        self.narrow = nn.Linear(config.feed_forward_dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        out: Tensor = self.dropout(self.narrow(F.silu(self.widen(self.norm(hidden)))))
        return out


def distance_sinusoids(num_frames: int, dim: int) -> Tensor:
    """Sinusoids [R, D] of the distances T - 1 down to 1 - T."""
    distances = torch.arange(num_frames - 1, -num_frames, -1.0)
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    angles = distances[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def by_position(by_distance: Tensor) -> Tensor:
    """Scores [B, H, T, R] of queries and distances T - 1 ... 1 - T to scores [B, H, T, T] of queries and keys.

    Row i needs the distances i ... i - T + 1, that is columns T - 1 - i on: padding one column on the left and reading
    the rows as if they were one shorter moves each row one further than that before it.
    """
    batch, heads, frames, distances = by_distance.shape
    moved = F.pad(by_distance, (1, 0)).view(batch, heads, distances + 1, frames)[:, :, 1:]
    return moved.reshape(batch, heads, frames, distances)[..., :frames]


class RelativeAttention(nn.Module):
    """Norm and self-attention over the whole window."""

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.norm = nn.LayerNorm(config.dim)
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.distance = nn.Linear(config.dim, config.dim, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(config.num_heads, 1, config.dim // config.num_heads))
        self.distance_bias = nn.Parameter(torch.zeros(config.num_heads, 1, config.dim // config.num_heads))
        self.out = nn.Linear(config.dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, sinusoids: Tensor) -> Tensor:
        """[B, T, D] and sinusoids [R, D] to [B, T, D]."""
        batch, frames, dim = hidden.shape
        parts = self.qkv(self.norm(hidden)).view(batch, frames, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)  # [B, H, T, D / H]
        distances = self.distance(sinusoids).view(-1, self.num_heads, dim // self.num_heads).permute(1, 2, 0)
        scores = (query + self.content_bias) @ key.mT
        scores = scores + by_position((query + self.distance_bias) @ distances)
        weights = (scores / math.sqrt(dim // self.num_heads)).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).reshape(batch, frames, dim)
        out: Tensor = self.dropout(self.out(mixed))
        return out


class Convolution(nn.Module):
    """Norm, gated product, depthwise convolution, norm, swish, product."""

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.widen = nn.Linear(config.dim, 2 * config.dim)
        self.depthwise = nn.Conv1d(
            config.dim, config.dim, config.kernel_size, padding=config.kernel_size // 2, groups=config.dim
        )
        self.inner_norm = nn.LayerNorm(config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        gated = F.glu(self.widen(self.norm(hidden)))
        mixed = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.dropout(self.out(F.silu(self.inner_norm(mixed))))
        return out


class ConformerLayer(nn.Module):
    """One layer; the last thing it does is to normalise."""

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        self.before = FeedForward(config)
        self.attention = RelativeAttention(config)
        self.convolution = Convolution(config)
        self.after = FeedForward(config)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, hidden: Tensor, sinusoids: Tensor) -> Tensor:
        """[B, T, D] and sinusoids [R, D] to [B, T, D]."""
        hidden = hidden + 0.5 * self.before(hidden)
        hidden = hidden + self.attention(hidden, sinusoids)
        hidden = hidden + self.convolution(hidden)
        out: Tensor = self.norm(hidden + 0.5 * self.after(hidden))
        return out
