"""MiniLM: the BERT encoder whose mean-pooled states compare sentences (all-MiniLM-L6-v2).

"BERT" (Devlin et al. 2018, https://arxiv.org/abs/1810.04805), distilled as in "MiniLM" (Wang et al. 2020,
https://arxiv.org/abs/2002.10957), fine-tuned as in "Sentence-BERT" (Reimers & Gurevych 2019,
https://arxiv.org/abs/1908.10084). Post-norm transformer with learned positions and exact GELU.

Departures: no dropout, no padding mask (texts are encoded one at a time) and no second segment, since nothing here
trains it or compares pairs.

Legend: B batch, L tokens, D width, H heads. Knows nothing of tokenizers, files and threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class MiniLmConfig:
    """Geometry; the defaults are all-MiniLM-L6-v2."""

    vocabulary_size: int = 30_522
    dimension: int = 384
    num_layers: int = 6
    num_heads: int = 12
    feed_forward_dimension: int = 1_536
    max_tokens: int = 512
    norm_epsilon: float = 1e-12


class MiniLm(nn.Module):
    """Token ids to token states; `tests/services/embedding/test_minilm.py` holds it to `transformers.BertModel`."""

    def __init__(self, config: MiniLmConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary_size, config.dimension)
        self.positions = nn.Embedding(config.max_tokens, config.dimension)
        self.segments = nn.Embedding(2, config.dimension)
        self.norm = nn.LayerNorm(config.dimension, eps=config.norm_epsilon)
        self.layers = nn.ModuleList(MiniLmLayer(config) for _ in range(config.num_layers))

    def forward(self, ids: Tensor) -> Tensor:
        """States of the last layer: [B, L] -> [B, L, D]. No row may be padded."""
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.segments.weight[0]
        normed: Tensor = self.norm(x)
        for layer in self.layers:
            normed = layer(normed)
        return normed

    def pool(self, states: Tensor) -> Tensor:
        """One unit vector for each text, the direction of its mean state: [B, L, D] -> [B, D]."""
        return functional.normalize(states.mean(dim=1), dim=-1)


class MiniLmLayer(nn.Module):
    """Self-attention, then a feed-forward block, each followed by the norm of its sum with its input."""

    def __init__(self, config: MiniLmConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.query = nn.Linear(config.dimension, config.dimension)
        self.key = nn.Linear(config.dimension, config.dimension)
        self.value = nn.Linear(config.dimension, config.dimension)
        self.output = nn.Linear(config.dimension, config.dimension)
        self.attention_norm = nn.LayerNorm(config.dimension, eps=config.norm_epsilon)
        self.expand = nn.Linear(config.dimension, config.feed_forward_dimension)
        self.contract = nn.Linear(config.feed_forward_dimension, config.dimension)
        self.feed_forward_norm = nn.LayerNorm(config.dimension, eps=config.norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        query, key, value = (
            projection(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, H, L, D / H]
            for projection in (self.query, self.key, self.value)
        )
        attended = functional.scaled_dot_product_attention(query, key, value)
        x = self.attention_norm(x + self.output(attended.transpose(1, 2).flatten(2)))
        normed: Tensor = self.feed_forward_norm(x + self.contract(functional.gelu(self.expand(x))))
        return normed


def config_from_hf(config: dict[str, object]) -> MiniLmConfig:
    """The geometry in a `config.json` of `transformers.BertModel`.

    Raises:
        ValueError: If the model is a BERT of another kind than this one.
    """
    if config.get("hidden_act", "gelu") != "gelu" or config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError("expected a BERT with exact GELU and absolute positions.")
    return MiniLmConfig(
        vocabulary_size=int(str(config["vocab_size"])),
        dimension=int(str(config["hidden_size"])),
        num_layers=int(str(config["num_hidden_layers"])),
        num_heads=int(str(config["num_attention_heads"])),
        feed_forward_dimension=int(str(config["intermediate_size"])),
        max_tokens=int(str(config["max_position_embeddings"])),
        norm_epsilon=float(str(config.get("layer_norm_eps", 1e-12))),
    )


_HF_PARTS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "expand",
    "output.dense": "contract",
    "output.LayerNorm": "feed_forward_norm",
}
_HF_EMBEDDINGS = {
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "segments",
    "embeddings.LayerNorm": "norm",
}


def state_from_hf(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of `transformers.BertModel`; its pooler and position ids have no place here."""
    state: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        key = key.removeprefix("bert.")
        stem, _, kind = key.rpartition(".")
        if stem in _HF_EMBEDDINGS:
            state[f"{_HF_EMBEDDINGS[stem]}.{kind}"] = tensor.to(torch.float32)
        elif stem.startswith("encoder.layer."):
            index, _, part = stem.removeprefix("encoder.layer.").partition(".")
            state[f"layers.{index}.{_HF_PARTS[part]}.{kind}"] = tensor.to(torch.float32)
    return state
