"""The tensors of `transformers.ClapModel` under this project's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from stretto_embedding.models.clap.config import NUM_SKIPPED_POSITIONS
from stretto_embedding.models.minilm import state_from_hf as text_state_from_hf

_AUDIO = "audio_model.audio_encoder."
_TEXT = "text_model."
_LAYER = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.(.+)")
_LAYER_PARTS = {
    "layernorm_before": "attention_norm",
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "layernorm_after": "feed_forward_norm",
    "intermediate.dense": "expand",
    "output.dense": "contract",
}
_AUDIO_PARTS = {
    "batch_norm": "band_norm",
    "patch_embed.proj": "patch",
    "patch_embed.norm": "patch_norm",
    "norm": "norm",
}
_OTHERS = {
    "text_model.pooler.dense": "text_pool",
    "audio_projection.linear1": "audio_projection.widen",
    "audio_projection.linear2": "audio_projection.out",
    "text_projection.linear1": "text_projection.widen",
    "text_projection.linear2": "text_projection.out",
}
_SCALES = {"logit_scale_a": "log_audio_scale", "logit_scale_t": "log_text_scale"}


def state_from_hf(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors; what follows from the geometry alone, such as position ids, has no place here.

    Raises:
        KeyError: On a tensor of the audio tower that no CLAP of this kind has.
    """
    state: dict[str, Tensor] = {}
    text: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        stem, _, kind = key.rpartition(".")
        if key in _SCALES:
            state[_SCALES[key]] = tensor.reshape(())
        elif stem in _OTHERS:
            state[f"{_OTHERS[stem]}.{kind}"] = tensor
        elif key.startswith(_AUDIO) and kind != "relative_position_index":
            state["audio." + _audio_name(key.removeprefix(_AUDIO))] = tensor
        elif key.startswith(_TEXT):
            text[key.removeprefix(_TEXT)] = tensor
    state |= {f"text.{key}": tensor for key, tensor in text_state_from_hf(text).items()}
    positions, segments = state.pop("text.positions.weight"), state.pop("text.segments.weight")
    state["text.positions.weight"] = positions[NUM_SKIPPED_POSITIONS:].contiguous()
    state["text.segments.weight"] = torch.cat([segments[:1], segments[:1]])  # RoBERTa has one kind, BERT's layers two
    return state


def _audio_name(key: str) -> str:
    stem, _, kind = key.rpartition(".")
    if stem in _AUDIO_PARTS:
        return f"{_AUDIO_PARTS[stem]}.{kind}"
    if match := _LAYER.fullmatch(stem):
        stage, layer, part = match.groups()
        prefix = f"stages.{stage}.layers.{layer}."
        if kind == "relative_position_bias_table":
            return prefix + "attention.bias_table"
        return f"{prefix}{_LAYER_PARTS[part]}.{kind}"
    match = re.fullmatch(r"layers\.(\d+)\.downsample\.(norm|reduction)", stem)
    if match is None:
        raise KeyError(key)
    return f"stages.{match[1]}.merge.{'norm' if match[2] == 'norm' else 'reduce'}.{kind}"
