"""The text tower: a trained head on the token states of a frozen text encoder.

Legend: B batch, L tokens, S width of the states, D width. Knows neither tokenizers nor audio.
"""

from __future__ import annotations

from torch import Tensor, nn

from stretto_embedding.models.mulan.config import MuLanConfig
from stretto_embedding.models.mulan.layers import Layer


class TextTower(nn.Module):
    """Token states to one vector for each text."""

    def __init__(self, config: MuLanConfig, dropout: float = 0.0) -> None:
        super().__init__()
        dim = config.text_dim
        self.narrow = nn.Linear(config.text_states_dim, dim)
        self.layers = nn.ModuleList(
            Layer(dim, config.text_heads, dim * config.feed_forward_ratio, dropout) for _ in range(config.text_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(dim, config.embedding_dim)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """States [B, L, S] -> [B, D], not of unit length; `mask` [B, L] is true where there is a token."""
        x = self.narrow(states)
        for layer in self.layers:
            x = layer(x, mask)
        x = self.norm(x)
        if mask is None:
            pooled = x.mean(1)
        else:
            weights = mask.to(x.dtype)[..., None]
            pooled = (x * weights).sum(1) / weights.sum(1)
        out: Tensor = self.project(pooled)
        return out
