"""Sizes of a Wav2Vec2-BERT, and how they are read from the published `config.json`. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Wav2Vec2BertConfig:
    """Sizes by their published names; the defaults are those of `facebook/w2v-bert-2.0`.

    Args:
        hidden_size: Width of the layers.
        num_hidden_layers: Conformer layers.
        num_attention_heads: Heads; they divide `hidden_size`.
        intermediate_size: Inner width of the half-step feed-forwards.
        feature_projection_input_dim: Width of the input: two frames of 80 mel bands.
        layer_norm_eps: Of every norm.
        left_max_position_embeddings: Distance to the left beyond which all keys are as far.
        right_max_position_embeddings: The same to the right.
        conv_depthwise_kernel_size: Frames that the causal convolution spans.
    """

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    feature_projection_input_dim: int = 160
    layer_norm_eps: float = 1e-5
    left_max_position_embeddings: int = 64
    right_max_position_embeddings: int = 8
    conv_depthwise_kernel_size: int = 31

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads must divide hidden_size, got {self.num_attention_heads} and {self.hidden_size}."
            )


def from_hugging_face(content: Mapping[str, Any]) -> Wav2Vec2BertConfig:
    """Read a published `config.json`; what it leaves out has its published default.

    Raises:
        ValueError: If it describes what w2v-BERT 2.0 is not: other positions, activation or bands.
    """
    only = {"position_embeddings_type": "relative_key", "hidden_act": "swish", "feature_projection_input_dim": 160}
    for key, value in only.items():
        if content.get(key, value) != value:
            raise ValueError(f"{key} must be {value!r}, as in w2v-BERT 2.0, got {content[key]!r}.")
    known = {field.name for field in fields(Wav2Vec2BertConfig)}
    return Wav2Vec2BertConfig(**{key: value for key, value in content.items() if key in known})
