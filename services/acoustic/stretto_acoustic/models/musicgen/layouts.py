"""Published layouts of MusicGen weights, mapped to this model's own keys: tensors in, tensors out, no files.

Two layouts: that of `transformers` (`decoder.model.decoder.*`, `decoder.lm_heads.k`, `enc_to_dec_proj`) and that of
audiocraft's `state_dict.bin` (`transformer.layers.i.self_attn.in_proj_weight` and so on). Text encoder and audio codec,
which the former carries too, are left out: they are other services.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
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


class DeferredWeights(Mapping[str, Tensor]):
    """Tensors by this model's keys, each made when it is asked for; a missing source is a KeyError then."""

    def __init__(self, made_by: Mapping[str, Callable[[], Tensor]]) -> None:
        self._made_by = made_by

    def __getitem__(self, key: str) -> Tensor:
        return self._made_by[key]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._made_by)

    def __len__(self) -> int:
        return len(self._made_by)


def weights_from_hugging_face(tensors: Mapping[str, Tensor], config: MusicGenConfig) -> DeferredWeights:
    """Map the keys of `transformers`' MusicgenForConditionalGeneration or MusicgenMelodyForConditionalGeneration."""

    def joined(*keys: str) -> Callable[[], Tensor]:
        """One tensor, or several one below the other."""
        return lambda: tensors[keys[0]] if len(keys) == 1 else torch.cat([tensors[key] for key in keys])

    def norm(source: str, target: str) -> dict[str, Callable[[], Tensor]]:
        return {f"{target}.{name}": joined(f"{source}.{name}") for name in ("weight", "bias")}

    codebooks, decoder = range(config.num_codebooks), "decoder.model.decoder"
    result = {
        "embeddings.weight": joined(*(f"{decoder}.embed_tokens.{k}.weight" for k in codebooks)),
        "heads.weight": joined(*(f"decoder.lm_heads.{k}.weight" for k in codebooks)),
        **norm(f"{decoder}.layer_norm", "norm"),
        "conditioner.text_proj.weight": lambda: torch.eye(config.dim),
        "conditioner.text_proj.bias": lambda: torch.zeros(config.dim),
    }
    if "enc_to_dec_proj.weight" in tensors:  # which a text encoder as wide as the decoder goes without
        result |= {f"conditioner.text_proj.{name}": joined(f"enc_to_dec_proj.{name}") for name in ("weight", "bias")}
    if config.melody_conditioning != "none":
        for name in ("weight", "bias"):
            result[f"conditioner.chroma_proj.{name}"] = joined(f"audio_enc_to_dec_proj.{name}")
    for source, target in _layers(config, f"{decoder}.layers"):
        result[f"{target}.self_qkv.weight"] = joined(*(f"{source}.self_attn.{name}_proj.weight" for name in "qkv"))
        result[f"{target}.self_out.weight"] = joined(f"{source}.self_attn.out_proj.weight")
        result |= norm(f"{source}.self_attn_layer_norm", f"{target}.norm_self")
        result |= norm(f"{source}.final_layer_norm", f"{target}.norm_ffn")
        result[f"{target}.ffn_in.weight"] = joined(f"{source}.fc1.weight")
        result[f"{target}.ffn_out.weight"] = joined(f"{source}.fc2.weight")
        if config.has_cross_attention:
            keys_values = (f"{source}.encoder_attn.{name}_proj.weight" for name in "kv")
            result[f"{target}.cross_q.weight"] = joined(f"{source}.encoder_attn.q_proj.weight")
            result[f"{target}.cross_kv.weight"] = joined(*keys_values)
            result[f"{target}.cross_out.weight"] = joined(f"{source}.encoder_attn.out_proj.weight")
            result |= norm(f"{source}.encoder_attn_layer_norm", f"{target}.norm_cross")
    return DeferredWeights(result)


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
