"""The transformer layer of both towers: pre-norm, as in AST and in most that came after BERT.

Legend: B batch, L tokens, D width, H heads. Knows neither audio nor text.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Layer(nn.Module):
    """Self-attention, then a feed-forward part, each added to what it was given."""

    def __init__(self, dim: int, num_heads: int, feed_forward_dim: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, feed_forward_dim)
        self.contract = nn.Linear(feed_forward_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, L, D] -> [B, L, D]; `mask` [B, L] is true where there is a token, None if everywhere."""
        parts = self.query_key_value(self.attention_norm(x)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each [B, H, L, D / H]
        heard = None if mask is None else mask[:, None, None]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=heard).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.output(attended))
        inner = self.contract(F.gelu(self.expand(self.feed_forward_norm(x))))
        out: Tensor = x + self.dropout(inner)
        return out
