"""Wav2Vec2-BERT: a conformer over stacked mel frames.

Source: Chung et al., "w2v-BERT" (2021), https://arxiv.org/abs/2108.06209; the 2.0 model and its layout as in Barrault
et al., "Seamless" (2023), https://arxiv.org/abs/2312.05187. The modules' names are the published keys
(`encoder.layers.N.self_attn.linear_q.weight`), so that a checkpoint loads as it is.

Departures: inference only, so without dropout, masking and the adapter behind the last layer; no padding inside a
batch, so without masks. The distance bias is computed once for each distance and then spread, not for each pair.

Legend: N windows, T frames, D width, H heads, R distances.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_semantic.models.wav2vec2_bert.config import Wav2Vec2BertConfig

_HEAD_PREFIX = "wav2vec2_bert."  # of checkpoints with a head on top
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")


class FeatureProjection(nn.Module):
    """Norm, then a product to the width of the layers."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.feature_projection_input_dim, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.feature_projection_input_dim, config.hidden_size)

    def forward(self, features: Tensor) -> Tensor:
        """[N, T, 160] to [N, T, D]."""
        out: Tensor = self.projection(self.layer_norm(features))
        return out


class FeedForward(nn.Module):
    """Widen, swish, narrow."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, T, D] to [N, T, D]."""
        out: Tensor = self.output_dense(F.silu(self.intermediate_dense(hidden)))
        return out


class SelfAttention(nn.Module):
    """Attention over the whole window with a learned vector for each clipped distance."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.left, self.right = config.left_max_position_embeddings, config.right_max_position_embeddings
        self.linear_q = nn.Linear(config.hidden_size, config.hidden_size)
        self.linear_k = nn.Linear(config.hidden_size, config.hidden_size)
        self.linear_v = nn.Linear(config.hidden_size, config.hidden_size)
        self.linear_out = nn.Linear(config.hidden_size, config.hidden_size)
        self.distance_embedding = nn.Embedding(self.left + self.right + 1, config.hidden_size // self.num_heads)

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, T, D] to [N, T, D]."""
        count, num_frames, width = hidden.shape
        shape = (count, num_frames, self.num_heads, width // self.num_heads)
        query, key, value = (
            linear(hidden).view(shape).transpose(1, 2) for linear in (self.linear_q, self.linear_k, self.linear_v)
        )  # [N, H, T, D / H]
        scale = float(shape[-1]) ** -0.5
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=self._bias(query) * scale, scale=scale)
        out: Tensor = self.linear_out(mixed.transpose(1, 2).reshape(count, num_frames, width))
        return out

    def _bias(self, query: Tensor) -> Tensor:
        """Queries [N, H, T, D / H] to what each distance adds, [N, H, T, T]."""
        by_distance = query @ self.distance_embedding.weight.mT  # [N, H, T, R]
        place = torch.arange(query.shape[2])
        distance = (place[None, :] - place[:, None]).clamp(-self.left, self.right) + self.left  # of key j to query i
        return by_distance.gather(-1, distance.expand(*query.shape[:2], -1, -1))


class ConvolutionModule(nn.Module):
    """Norm, gated product, causal depthwise convolution, norm, swish, product."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        width, kernel = config.hidden_size, config.conv_depthwise_kernel_size
        self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(width, width, kernel, groups=width, bias=False)
        self.depthwise_layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.pointwise_conv2 = nn.Conv1d(width, width, 1, bias=False)
        self._num_before = kernel - 1

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, T, D] to [N, T, D]."""
        gated = F.glu(self.pointwise_conv1(self.layer_norm(hidden).mT), dim=1)
        mixed = self.depthwise_conv(F.pad(gated, (self._num_before, 0)))
        out: Tensor = self.pointwise_conv2(F.silu(self.depthwise_layer_norm(mixed.mT)).mT).mT
        return out


class EncoderLayer(nn.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, norm."""

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.ffn1_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.ffn1 = FeedForward(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = SelfAttention(config)
        self.conv_module = ConvolutionModule(config)
        self.ffn2_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.ffn2 = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, T, D] to [N, T, D]."""
        hidden = hidden + 0.5 * self.ffn1(self.ffn1_layer_norm(hidden))
        hidden = hidden + self.self_attn(self.self_attn_layer_norm(hidden))
        hidden = hidden + self.conv_module(hidden)
        out: Tensor = self.final_layer_norm(hidden + 0.5 * self.ffn2(self.ffn2_layer_norm(hidden)))
        return out


class Encoder(nn.Module):
    """The layers, in order."""

    def __init__(self, config: Wav2Vec2BertConfig, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(num_layers))


class Wav2Vec2Bert(nn.Module):
    """The model up to a layer; hidden state n of the published model is the output of its layer n, counted from 1.

    Args:
        config: Sizes.
        num_layers: How many layers there are; None for all.

    Raises:
        ValueError: If the published model has fewer.
    """

    def __init__(self, config: Wav2Vec2BertConfig, num_layers: int | None = None) -> None:
        super().__init__()
        num_layers = config.num_hidden_layers if num_layers is None else num_layers
        if not 0 <= num_layers <= config.num_hidden_layers:
            raise ValueError(f"layer must lie within the {config.num_hidden_layers} layers, got {num_layers}.")
        self.config = config
        self.feature_projection = FeatureProjection(config)
        self.encoder = Encoder(config, num_layers)

    def forward(self, features: Tensor) -> Tensor:
        """Stacked mel frames [N, T, 160] to the output [N, T, D] of the last layer that there is."""
        hidden: Tensor = self.feature_projection(features)
        for layer in self.encoder.layers:
            hidden = layer(hidden)
        return hidden


def layers_read(tensors: Mapping[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """Of a published state dict what a model of `num_layers` layers holds, by its own keys; nothing else is read."""
    wanted = {}
    for key in tensors:
        own = key.removeprefix(_HEAD_PREFIX)
        layer = _LAYER.match(own)
        if own.startswith("feature_projection.") or (layer is not None and int(layer[1]) < num_layers):
            wanted[own] = tensors[key]
    return wanted
