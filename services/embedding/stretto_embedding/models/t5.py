"""T5's encoder: what the official MusicGen checkpoints hear a prompt with.

"Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (Raffel et al. 2019,
https://arxiv.org/abs/1910.10683), and T5 1.1's gated feed-forward ("GLU Variants Improve Transformer", Shazeer 2020,
https://arxiv.org/abs/2002.05202). Pre-norm with RMSNorm, no biases, attention scores neither scaled nor given positions
except by a learned bias per bucket of relative distance, which the first layer owns and all share.

Departures: encoder only, no dropout and no padding mask (texts are encoded one at a time). T5 defines no vector for a
whole text; `pool` is the mean state, not normalised.

Legend: B batch, L tokens, D width, H heads. Knows nothing of tokenizers, files and threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class T5Config:
    """Geometry; the defaults are t5-base."""

    vocabulary_size: int = 32_128
    dimension: int = 768
    num_layers: int = 12
    num_heads: int = 12
    head_dimension: int = 64
    feed_forward_dimension: int = 3_072
    num_buckets: int = 32
    max_distance: int = 128
    is_gated: bool = False
    activation: str = "relu"
    norm_epsilon: float = 1e-6
    max_tokens: int = 512


class T5Encoder(nn.Module):
    """Token ids to token states; `tests/services/embedding/test_t5.py` holds it to `transformers.T5EncoderModel`."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        if config.activation not in ("relu", "gelu_new"):
            raise ValueError(f"expected the activation 'relu' or 'gelu_new', got {config.activation!r}.")
        self.config = config
        self.words = nn.Embedding(config.vocabulary_size, config.dimension)
        self.position_bias = nn.Embedding(config.num_buckets, config.num_heads)
        self.layers = nn.ModuleList(T5Layer(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.dimension, eps=config.norm_epsilon)

    def forward(self, ids: Tensor) -> Tensor:
        """States of the last layer: [B, L] -> [B, L, D]. No row may be padded."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        buckets = relative_bucket(positions[None, :] - positions[:, None], self.config)
        bias = self.position_bias(buckets).permute(2, 0, 1)[None]  # [1, H, L, L]
        x = self.words(ids)
        for layer in self.layers:
            x = layer(x, bias)
        normed: Tensor = self.norm(x)
        return normed

    def pool(self, states: Tensor) -> Tensor:
        """The mean state of each text: [B, L, D] -> [B, D]."""
        return states.mean(dim=1)


class T5Layer(nn.Module):
    """Self-attention and feed-forward, each on the norm of its input and added to it."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        inner = config.num_heads * config.head_dimension
        self.num_heads = config.num_heads
        self.activation = config.activation
        self.attention_norm = nn.RMSNorm(config.dimension, eps=config.norm_epsilon)
        self.query = nn.Linear(config.dimension, inner, bias=False)
        self.key = nn.Linear(config.dimension, inner, bias=False)
        self.value = nn.Linear(config.dimension, inner, bias=False)
        self.output = nn.Linear(inner, config.dimension, bias=False)
        self.feed_forward_norm = nn.RMSNorm(config.dimension, eps=config.norm_epsilon)
        self.expand = nn.Linear(config.dimension, config.feed_forward_dimension, bias=False)
        self.gate = nn.Linear(config.dimension, config.feed_forward_dimension, bias=False) if config.is_gated else None
        self.contract = nn.Linear(config.feed_forward_dimension, config.dimension, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B, L, D] and the position bias [1, H, L, L] -> [B, L, D]."""
        normed = self.attention_norm(x)
        query, key, value = (
            projection(normed).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, H, L, D / H]
            for projection in (self.query, self.key, self.value)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
        x = x + self.output(attended.transpose(1, 2).flatten(2))
        normed = self.feed_forward_norm(x)
        expanded = self.expand(normed)
        hidden = (
            functional.relu(expanded) if self.activation == "relu" else functional.gelu(expanded, approximate="tanh")
        )
        if self.gate is not None:
            hidden = hidden * self.gate(normed)
        added: Tensor = x + self.contract(hidden)
        return added


def relative_bucket(distances: Tensor, config: T5Config) -> Tensor:
    """Bucket of each signed distance in tokens: near ones exactly, far ones on a log scale, one half per direction."""
    half = config.num_buckets // 2
    exact = half // 2
    size = distances.abs()
    spread = torch.log(size.clamp(min=1).float() / exact) / math.log(config.max_distance / exact)
    far = (exact + (spread * (half - exact)).to(torch.long)).clamp(max=half - 1)
    return torch.where(size < exact, size, far) + (distances > 0).long() * half


def config_from_hf(config: dict[str, object]) -> T5Config:
    """The geometry in a `config.json` of `transformers.T5EncoderModel`."""
    kind = str(config.get("feed_forward_proj", "relu"))
    activation = kind.removeprefix("gated-")
    return T5Config(
        vocabulary_size=int(str(config["vocab_size"])),
        dimension=int(str(config["d_model"])),
        num_layers=int(str(config["num_layers"])),
        num_heads=int(str(config["num_heads"])),
        head_dimension=int(str(config["d_kv"])),
        feed_forward_dimension=int(str(config["d_ff"])),
        num_buckets=int(str(config.get("relative_attention_num_buckets", 32))),
        max_distance=int(str(config.get("relative_attention_max_distance", 128))),
        is_gated=kind.startswith("gated-"),
        activation="gelu_new" if kind == "gated-gelu" else activation,
        norm_epsilon=float(str(config.get("layer_norm_epsilon", 1e-6))),
        max_tokens=int(str(config.get("n_positions", 512))),
    )


def state_from_hf(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the encoder's tensors of `transformers.T5EncoderModel` or of a whole T5; the decoder's are left out."""
    is_gated = any(".wi_1." in key for key in tensors)
    parts = {
        "layer.0.SelfAttention.q": "query",
        "layer.0.SelfAttention.k": "key",
        "layer.0.SelfAttention.v": "value",
        "layer.0.SelfAttention.o": "output",
        "layer.0.layer_norm": "attention_norm",
        "layer.1.DenseReluDense.wi_0" if is_gated else "layer.1.DenseReluDense.wi": "expand",
        "layer.1.DenseReluDense.wi_1": "gate",
        "layer.1.DenseReluDense.wo": "contract",
        "layer.1.layer_norm": "feed_forward_norm",
    }
    state: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key in ("shared.weight", "encoder.embed_tokens.weight"):
            state["words.weight"] = tensor.to(torch.float32)
        elif key == "encoder.final_layer_norm.weight":
            state["norm.weight"] = tensor.to(torch.float32)
        elif key.startswith("encoder.block."):
            index, _, rest = key.removeprefix("encoder.block.").partition(".")
            if rest == "layer.0.SelfAttention.relative_attention_bias.weight":
                state["position_bias.weight"] = tensor.to(torch.float32)
            else:
                stem, _, kind = rest.rpartition(".")
                state[f"layers.{index}.{parts[stem]}.{kind}"] = tensor.to(torch.float32)
    return state
