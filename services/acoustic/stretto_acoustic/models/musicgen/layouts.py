"""Published layouts of MusicGen weights, mapped to this model's own keys: tensors in, tensors out, no files.

Two layouts: that of `transformers` (`decoder.model.decoder.*`, `decoder.lm_heads.k`, `enc_to_dec_proj`) and that of
audiocraft's `state_dict.bin` (`transformer.layers.i.self_attn.in_proj_weight` and so on). Text encoder and audio codec,
which the former carries too, are left out: they are other services.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from stretto_acoustic.models.musicgen.config import MusicGenConfig

# What a `config.json` leaves out where it equals the default of `transformers`' configuration classes.
_DECODER_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "num_codebooks": 4,
        "vocab_size": 2048,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "ffn_dim": 4096,
        "audio_channels": 1,
    }
)
_TEXT_DEFAULTS: Mapping[str, Any] = MappingProxyType({"d_model": 512})
_AUDIO_DEFAULTS: Mapping[str, Any] = MappingProxyType({"sampling_rate": 24_000, "upsampling_ratios": (8, 5, 4, 2)})
_HEAD_DIM = 64  # of every published checkpoint; audiocraft's layout does not say it


def config_from_hugging_face(config: Mapping[str, Any]) -> MusicGenConfig:
    """Read the geometry from a `config.json` of `model_type` musicgen or musicgen_melody.

    Raises:
        KeyError, TypeError, ValueError: If it lacks a field or describes no such model.
    """
    decoder = {**_DECODER_DEFAULTS, **config["decoder"]}
    text = {**_TEXT_DEFAULTS, **config["text_encoder"]}
    audio = {**_AUDIO_DEFAULTS, **config["audio_encoder"]}
    is_melody = config["model_type"] == "musicgen_melody"
    sample_rate_hz = int(audio["sampling_rate"])
    frame_rate_hz = sample_rate_hz / math.prod(audio["upsampling_ratios"])
    return MusicGenConfig(
        num_codebooks=int(decoder["num_codebooks"]),
        cardinality=int(decoder["vocab_size"]),
        dim=int(decoder["hidden_size"]),
        num_layers=int(decoder["num_hidden_layers"]),
        num_heads=int(decoder["num_attention_heads"]),
        ffn_dim=int(decoder["ffn_dim"]),
        text_dim=int(text["d_model"]),
        max_frames=int(30 * frame_rate_hz),
        num_channels=int(decoder["audio_channels"]),
        melody_conditioning="prefix_only" if is_melody else "none",
        num_chroma=int(config.get("num_chroma", 12)),
        chroma_frames=int(config.get("chroma_length", 235)),
        frame_rate_hz=frame_rate_hz,
        sample_rate_hz=sample_rate_hz,
        codec_id=_last_name(audio.get("_name_or_path"), "encodec_32khz"),
        text_encoder_id=_last_name(text.get("_name_or_path"), "t5-base"),
    )


def weights_from_hugging_face(tensors: Mapping[str, Tensor], config: MusicGenConfig) -> dict[str, Tensor]:
    """Map the keys of `transformers`' MusicgenForConditionalGeneration or MusicgenMelodyForConditionalGeneration.

    Raises:
        KeyError: If a tensor is missing.
    """
    decoder = "decoder.model.decoder"
    result = {
        "embeddings.weight": _stack(tensors, f"{decoder}.embed_tokens", config),
        "heads.weight": _stack(tensors, "decoder.lm_heads", config),
        **_norm(tensors, f"{decoder}.layer_norm", "norm"),
        "conditioner.text_proj.weight": tensors.get("enc_to_dec_proj.weight", torch.eye(config.dim)),
        "conditioner.text_proj.bias": tensors.get("enc_to_dec_proj.bias", torch.zeros(config.dim)),
    }
    if config.melody_conditioning != "none":
        for name in ("weight", "bias"):
            result[f"conditioner.chroma_proj.{name}"] = tensors[f"audio_enc_to_dec_proj.{name}"]
    for source, target in _layers(config, f"{decoder}.layers"):
        projections = [tensors[f"{source}.self_attn.{name}_proj.weight"] for name in "qkv"]
        result[f"{target}.self_qkv.weight"] = torch.cat(projections)
        result[f"{target}.self_out.weight"] = tensors[f"{source}.self_attn.out_proj.weight"]
        result |= _norm(tensors, f"{source}.self_attn_layer_norm", f"{target}.norm_self")
        result |= _norm(tensors, f"{source}.final_layer_norm", f"{target}.norm_ffn")
        result[f"{target}.ffn_in.weight"] = tensors[f"{source}.fc1.weight"]
        result[f"{target}.ffn_out.weight"] = tensors[f"{source}.fc2.weight"]
        if config.has_cross_attention:
            keys_values = [tensors[f"{source}.encoder_attn.{name}_proj.weight"] for name in "kv"]
            result[f"{target}.cross_q.weight"] = tensors[f"{source}.encoder_attn.q_proj.weight"]
            result[f"{target}.cross_kv.weight"] = torch.cat(keys_values)
            result[f"{target}.cross_out.weight"] = tensors[f"{source}.encoder_attn.out_proj.weight"]
            result |= _norm(tensors, f"{source}.encoder_attn_layer_norm", f"{target}.norm_cross")
    return result


def config_from_audiocraft(tensors: Mapping[str, Tensor]) -> MusicGenConfig:
    """Read the geometry of a released checkpoint off the shapes in its `best_state`; 8 streams mean stereo.

    Raises:
        KeyError: If a tensor that decides it is missing.
    """
    cardinality_and_special, dim = tensors["emb.0.weight"].shape
    num_codebooks = sum(1 for key in tensors if key.startswith("emb.") and key.endswith(".weight"))
    layers = {key.split(".")[2] for key in tensors if key.startswith("transformer.layers.")}
    has_cross_attention = "transformer.layers.0.norm_cross.weight" in tensors
    is_stereo = num_codebooks == 8
    base = MusicGenConfig(
        num_codebooks=num_codebooks,
        cardinality=cardinality_and_special - 1,
        dim=dim,
        num_layers=len(layers),
        num_heads=max(1, dim // _HEAD_DIM),
        ffn_dim=int(tensors["transformer.layers.0.linear1.weight"].shape[0]),
        text_dim=int(tensors["condition_provider.conditioners.description.output_proj.weight"].shape[1]),
        num_channels=2 if is_stereo else 1,
        sample_rate_hz=32_000,
        codec_id="encodec_32khz",
        text_encoder_id="t5-base",
    )
    return base if has_cross_attention else dataclasses.replace(base, melody_conditioning="prefix_only")


def weights_from_audiocraft(tensors: Mapping[str, Tensor], config: MusicGenConfig) -> dict[str, Tensor]:
    """Map the keys of audiocraft's LMModel, which are those of `best_state` in `state_dict.bin`.

    Raises:
        KeyError: If a tensor is missing.
    """
    provider = "condition_provider.conditioners"
    result = {
        "embeddings.weight": _stack(tensors, "emb", config),
        "heads.weight": _stack(tensors, "linears", config),
        **_norm(tensors, "out_norm", "norm"),
    }
    for name in ("weight", "bias"):
        result[f"conditioner.text_proj.{name}"] = tensors[f"{provider}.description.output_proj.{name}"]
        if config.melody_conditioning != "none":
            result[f"conditioner.chroma_proj.{name}"] = tensors[f"{provider}.self_wav.output_proj.{name}"]
    for source, target in _layers(config, "transformer.layers"):
        result[f"{target}.self_qkv.weight"] = tensors[f"{source}.self_attn.in_proj_weight"]
        result[f"{target}.self_out.weight"] = tensors[f"{source}.self_attn.out_proj.weight"]
        result |= _norm(tensors, f"{source}.norm1", f"{target}.norm_self")
        result |= _norm(tensors, f"{source}.norm2", f"{target}.norm_ffn")
        result[f"{target}.ffn_in.weight"] = tensors[f"{source}.linear1.weight"]
        result[f"{target}.ffn_out.weight"] = tensors[f"{source}.linear2.weight"]
        if config.has_cross_attention:
            in_proj = tensors[f"{source}.cross_attention.in_proj_weight"]
            result[f"{target}.cross_q.weight"] = in_proj[: config.dim]
            result[f"{target}.cross_kv.weight"] = in_proj[config.dim :]
            result[f"{target}.cross_out.weight"] = tensors[f"{source}.cross_attention.out_proj.weight"]
            result |= _norm(tensors, f"{source}.norm_cross", f"{target}.norm_cross")
    return result


def _stack(tensors: Mapping[str, Tensor], prefix: str, config: MusicGenConfig) -> Tensor:
    return torch.cat([tensors[f"{prefix}.{k}.weight"] for k in range(config.num_codebooks)])


def _norm(tensors: Mapping[str, Tensor], source: str, target: str) -> dict[str, Tensor]:
    return {f"{target}.{name}": tensors[f"{source}.{name}"] for name in ("weight", "bias")}


def _layers(config: MusicGenConfig, prefix: str) -> Iterator[tuple[str, str]]:
    return ((f"{prefix}.{index}", f"layers.{index}") for index in range(config.num_layers))


def _last_name(path: object, otherwise: str) -> str:
    return path.rstrip("/").rpartition("/")[2] if isinstance(path, str) and path else otherwise
