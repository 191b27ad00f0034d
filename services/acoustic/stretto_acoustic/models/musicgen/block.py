"""`MusicGenBlock`: one block of MusicGen's transformer, whole for the parallel pass and in its parts for steps.

Legend: B batch or rows, T steps, D width, H heads, E width of a head, L text tokens.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stretto_acoustic.models.musicgen.config import MusicGenConfig
from stretto_acoustic.models.musicgen.state import Memory


class MusicGenBlock(nn.Module):
    """One pre-norm block: self-attention, cross-attention where the model has it, feed-forward."""

    def __init__(self, config: MusicGenConfig) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.norm_self = nn.LayerNorm(dim)
        self.self_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.self_out = nn.Linear(dim, dim, bias=False)
        self.has_cross_attention = config.has_cross_attention
        if self.has_cross_attention:
            self.norm_cross = nn.LayerNorm(dim)
            self.cross_q = nn.Linear(dim, dim, bias=False)
            self.cross_kv = nn.Linear(dim, 2 * dim, bias=False)
            self.cross_out = nn.Linear(dim, dim, bias=False)
        self.norm_ffn = nn.LayerNorm(dim)
        self.ffn_in = nn.Linear(dim, config.ffn_dim, bias=False)
        self.ffn_out = nn.Linear(config.ffn_dim, dim, bias=False)

    def split_heads(self, x: Tensor, num_parts: int) -> tuple[Tensor, ...]:
        """Split [B, T, num_parts * D] into tensors [B, H, T, E]."""
        batch, steps, width = x.shape
        parts = x.view(batch, steps, num_parts, self.num_heads, width // num_parts // self.num_heads)
        return parts.permute(2, 0, 3, 1, 4).unbind(0)

    def memory(self, text: Tensor) -> Memory:
        """Keys and values [B, H, L, E] of the projected text [B, L, D]."""
        keys, values = self.split_heads(self.cross_kv(text), 2)
        return keys, values

    def qkv(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values [B, H, T, E] of the hidden states [B, T, D]."""
        return self.split_heads(self.self_qkv(self.norm_self(x)), 3)

    def add_self(self, x: Tensor, attended: Tensor) -> Tensor:
        """Self-attention's outcome [B, H, T, E] onto the hidden states [B, T, D]."""
        return x + self._drop(self.self_out(_join_heads(attended)))

    def cross_query(self, x: Tensor) -> Tensor:
        """Queries [B, H, T, E] for the text."""
        (query,) = self.split_heads(self.cross_q(self.norm_cross(x)), 1)
        return query

    def add_cross(self, x: Tensor, heard: Tensor) -> Tensor:
        """Cross-attention's outcome [B, H, T, E] onto the hidden states [B, T, D]."""
        return x + self._drop(self.cross_out(_join_heads(heard)))

    def add_feed_forward(self, x: Tensor) -> Tensor:
        """The feed-forward layer onto the hidden states [B, T, D]."""
        return x + self._drop(self.ffn_out(F.gelu(self.ffn_in(self.norm_ffn(x)))))

    def finish(self, x: Tensor, attended: Tensor, memory: Memory | None, bias: Tensor | None) -> Tensor:
        """Everything after self-attention: `attended` [B, H, T, E] onto the hidden states [B, T, D]."""
        x = self.add_self(x, attended)
        if memory is not None:
            heard = F.scaled_dot_product_attention(self.cross_query(x), memory[0], memory[1], attn_mask=bias)
            x = self.add_cross(x, heard)
        return self.add_feed_forward(x)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


def _join_heads(x: Tensor) -> Tensor:
    batch, heads, steps, width = x.shape
    return x.transpose(1, 2).reshape(batch, steps, heads * width)
