"""CLAP's audio tower: HTS-AT, a Swin transformer over a folded spectrogram.

"HTS-AT" (Chen et al. 2022, https://arxiv.org/abs/2202.00874) over "Swin Transformer" (Liu et al. 2021,
https://arxiv.org/abs/2103.14030), with the arithmetic of `transformers.ClapAudioModel`: the spectrogram is normalised
by band, stretched to 1024 frames, cut into four stripes of time that lie on top of each other in a square, and heard in
patches whose attention stays in windows; every second layer moves the windows by half of one.

Departures: inference only; without feature fusion. The class heads of HTS-AT are not part of CLAP.

Legend: B batch, T frames, M mel bands, P patches on a side, N = P * P patches, D width, H heads, W patches on a side of
a window, L = W * W patches of a window, G windows.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_embedding.models.clap.config import SwinConfig

_APART = -100.0  # added to the score of two patches that lie together only because windows wrap around


class SwinTower(nn.Module):
    """Spectrograms to one vector each; `tests/services/embedding/test_clap.py` holds it to `transformers`."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.config = config
        self.band_norm = nn.BatchNorm2d(config.num_mel_bands)
        padding = (config.patch_size - config.patch_stride) // 2
        self.patch = nn.Conv2d(1, config.dim, config.patch_size, config.patch_stride, padding)
        self.patch_norm = nn.LayerNorm(config.dim)
        self.stages = nn.ModuleList(Stage(config, index) for index in range(len(config.depths)))
        self.norm = nn.LayerNorm(config.output_dim)

    def forward(self, mel: Tensor) -> Tensor:
        """[B, T, M] -> [B, D] of the last stage; T at most 4 * the image's side."""
        x = self.band_norm(mel[:, None].transpose(1, 3)).transpose(1, 3)  # [B, 1, T, M]
        x = self.patch_norm(self.patch(self._fold(x)).flatten(2).transpose(1, 2))  # [B, N, D]
        for stage in self.stages:
            x = stage(x)
        return cast(Tensor, self.norm(x).mean(1))

    def _fold(self, x: Tensor) -> Tensor:
        """[B, 1, T, M] to a square [B, 1, M * stripes, T / stripes]."""
        config = self.config
        if x.shape[2] > config.num_frames:
            raise ValueError(f"expected at most {config.num_frames} frames, got {x.shape[2]}.")
        if x.shape[2] < config.num_frames:
            x = F.interpolate(x, (config.num_frames, config.num_mel_bands), mode="bicubic", align_corners=True)
        stripes = x.reshape(len(x), 1, config.num_stripes, -1, config.num_mel_bands)  # [B, 1, stripes, T / stripes, M]
        return stripes.transpose(3, 4).flatten(2, 3)


class Stage(nn.Module):
    """Layers of one resolution, and the merging of four patches into one after them, except in the last stage."""

    def __init__(self, config: SwinConfig, index: int) -> None:
        super().__init__()
        side, dim = config.side_of(index), config.dim * 2**index
        self.layers = nn.ModuleList(
            Layer(config, dim, config.num_heads[index], side, is_moved=bool(layer % 2))
            for layer in range(config.depths[index])
        )
        is_last = index == len(config.depths) - 1
        self.merge = None if is_last else Merge(dim, side)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N / 4, 2 * D], or [B, N, D] in the last stage."""
        for layer in self.layers:
            x = layer(x)
        return x if self.merge is None else cast(Tensor, self.merge(x))


class Merge(nn.Module):
    """Four neighbouring patches to one of twice their width."""

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.norm = nn.LayerNorm(4 * dim)
        self.reduce = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N / 4, 2 * D]."""
        half = self.side // 2
        x = x.reshape(len(x), half, 2, half, 2, -1)  # [B, P / 2, row, P / 2, column, D]
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)  # the column changes slowest
        return cast(Tensor, self.reduce(self.norm(x)))


class Layer(nn.Module):
    """Attention in windows, then a feed-forward part, each added to what it was given; norms come first."""

    def __init__(self, config: SwinConfig, dim: int, num_heads: int, side: int, *, is_moved: bool) -> None:
        super().__init__()
        self.side = side
        self.window = min(side, config.window_size)
        self.shift = config.window_size // 2 if is_moved and side > config.window_size else 0
        self.attention_norm = nn.LayerNorm(dim, eps=config.norm_epsilon)
        self.attention = WindowAttention(dim, num_heads, config.window_size, config.has_query_key_value_bias)
        self.feed_forward_norm = nn.LayerNorm(dim, eps=config.norm_epsilon)
        inner = int(config.feed_forward_ratio * dim)
        self.expand = nn.Linear(dim, inner)
        self.contract = nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        square = self.attention_norm(x).reshape(len(x), self.side, self.side, -1)
        if self.shift:
            square = torch.roll(square, (-self.shift, -self.shift), dims=(1, 2))
        heard = self.attention(cut(square, self.window), self._apart(x.device, x.dtype))
        square = join(heard, self.side, self.window)
        if self.shift:
            square = torch.roll(square, (self.shift, self.shift), dims=(1, 2))
        x = x + square.flatten(1, 2)
        return cast(Tensor, x + self.contract(F.gelu(self.expand(self.feed_forward_norm(x)))))

    def _apart(self, device: torch.device, dtype: torch.dtype) -> Tensor | None:
        """What keeps patches apart that only wrapping brings into one window: [G, L, L]; None where nothing wraps."""
        if not self.shift:
            return None
        index = torch.arange(self.side, device=device)
        region = (index >= self.side - self.window).long() + (index >= self.side - self.shift).long()
        square = (3 * region[:, None] + region).reshape(1, self.side, self.side, 1)
        regions = cut(square, self.window)[0, :, :, 0]  # [G, L]
        return (regions[:, None] != regions[:, :, None]).to(dtype) * _APART


def cut(square: Tensor, window: int) -> Tensor:
    """[B, P, P, D] to windows [B, G, L, D]."""
    batch, side, _, dim = square.shape
    count = side // window
    windows = square.reshape(batch, count, window, count, window, dim).transpose(2, 3)
    return windows.reshape(batch, count * count, window * window, dim)


def join(windows: Tensor, side: int, window: int) -> Tensor:
    """Windows [B, G, L, D] back to [B, P, P, D]."""
    batch, _, _, dim = windows.shape
    count = side // window
    square = windows.reshape(batch, count, count, window, window, dim).transpose(2, 3)
    return square.reshape(batch, side, side, dim)


class WindowAttention(nn.Module):
    """Self-attention among the patches of a window, with a bias for each pair of relative places."""

    def __init__(self, dim: int, num_heads: int, window: int, has_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim, bias=has_bias)
        self.key = nn.Linear(dim, dim, bias=has_bias)
        self.value = nn.Linear(dim, dim, bias=has_bias)
        self.output = nn.Linear(dim, dim)
        self.bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        self.window = window

    def forward(self, x: Tensor, apart: Tensor | None) -> Tensor:
        """Windows [B, G, L, D] -> [B, G, L, D]; `apart` [G, L, L] is added to the scores."""
        query, key, value = (
            projection(x).reshape(*x.shape[:3], self.num_heads, -1).transpose(2, 3)  # [B, G, H, L, D / H]
            for projection in (self.query, self.key, self.value)
        )
        bias = self.bias_table[relative_places(self.window)].permute(2, 0, 1)  # [H, L, L]
        if apart is not None:
            bias = bias + apart[:, None]  # [G, H, L, L]
        heard = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return cast(Tensor, self.output(heard.transpose(2, 3).flatten(3)))


def relative_places(window: int) -> Tensor:
    """The row of the bias table for each pair of patches of a window: [L, L]."""
    row, column = (each.flatten() for each in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    rows = row[:, None] - row + window - 1
    columns = column[:, None] - column + window - 1
    return rows * (2 * window - 1) + columns
