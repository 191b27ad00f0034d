"""Causal ConvNeXt blocks over frames, with streaming state.

Source: Liu et al., "A ConvNet for the 2020s" (2022), https://arxiv.org/abs/2201.03545, in the one-dimensional form of
Siuzdak, "Vocos" (2023), https://arxiv.org/abs/2306.00814. Departure: the depthwise convolution looks back only, so
that audio can be decoded while it is being made; and it is computed as a sum of shifted products in [B, T, D] layout,
which on CPUs is twice as fast as the grouped convolution.

Legend: B batch, T frames, D channels, W kernel width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CausalDepthwise(nn.Module):
    """Depthwise convolution of W frames, the present one last; [B, T, D] to [B, T, D]."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.randn(width, dim) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(dim))

    def init_state(self, batch_size: int) -> Tensor:
        """The frames before the first: [B, W - 1, D] of zeros."""
        return self.weight.new_zeros(batch_size, self.width - 1, self.weight.shape[1])

    def forward(self, frames: Tensor, state: Tensor | None = None) -> Tensor:
        """Convolve `frames`, after those in `state` if given."""
        padded = F.pad(frames, (0, 0, self.width - 1, 0)) if state is None else torch.cat([state, frames], 1)
        num_frames = frames.shape[1]
        weight = self.weight.to(frames.dtype)
        total = padded[:, :num_frames] * weight[0] + self.bias.to(frames.dtype)
        for shift in range(1, self.width):
            total = torch.addcmul(total, padded[:, shift : shift + num_frames], weight[shift])
        return total

    def next_state(self, frames: Tensor, state: Tensor) -> Tensor:
        """The last W - 1 frames of `state` and `frames` together."""
        return torch.cat([state, frames], 1)[:, frames.shape[1] :]


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, LayerNorm, a GELU bottleneck of `expansion * dim`, scaled and added to its input."""

    def __init__(self, dim: int, *, width: int = 7, expansion: int = 4, scale: float = 0.05) -> None:
        super().__init__()
        self.depthwise = CausalDepthwise(dim, width)
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, expansion * dim)
        self.contract = nn.Linear(expansion * dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def forward(self, frames: Tensor, state: Tensor | None = None) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        hidden = self.contract(F.gelu(self.expand(self.norm(self.depthwise(frames, state)))))
        return torch.addcmul(frames, hidden.to(frames.dtype), self.scale.to(frames.dtype))


class ConvNeXtStack(nn.Module):
    """A row of blocks at one frame rate.

    Invariant: a stream of `step` calls equals one `forward` (`tests/shared/nn/test_convnext.py`).
    """

    def __init__(self, dim: int, num_blocks: int, *, width: int = 7) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ConvNeXtBlock(dim, width=width) for _ in range(num_blocks))

    @property
    def _blocks(self) -> Sequence[ConvNeXtBlock]:
        """The blocks in order, by their type."""
        return cast(Sequence[ConvNeXtBlock], self.blocks)

    def forward(self, frames: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D], from silence."""
        for block in self.blocks:
            frames = block(frames)
        return frames

    def init_state(self, batch_size: int) -> list[Tensor]:
        """One [B, W - 1, D] for each block."""
        return [block.depthwise.init_state(batch_size) for block in self._blocks]

    def step(self, frames: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The next frames, and the state after them; `state` is not changed."""
        following = []
        for block, past in zip(self._blocks, state, strict=True):
            following.append(block.depthwise.next_state(frames, past))
            frames = block(frames, past)
        return frames, following
