"""Weights to verified, built codecs; an explicit registry by architecture. Knows nothing of requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from stretto_shared import weights
from stretto_shared.errors import NotFound, NotReady
from stretto_shared.features import ModelInfo
from torch import Tensor, nn

from stretto_codec.models.encodec import Encodec, EncodecConfig
from stretto_codec.models.encodec.config import from_hugging_face
from stretto_codec.models.encodec.layouts import convert_state
from stretto_codec.models.encodec.streaming import encodec_grid, open_encodec_decoder
from stretto_codec.models.framecodec import FrameCodec, FrameCodecConfig
from stretto_codec.models.soundstream import SoundStream, SoundStreamConfig
from stretto_codec.models.streaming import CausalChunkDecoder, ChunkDecoder, CodecConfig, DecodeGrid, grid_of

DEFAULT_NAME = "framecodec"
NO_LICENCE_STATED = "NOASSERTION"


@dataclass(frozen=True)
class Architecture:
    """How to build one kind of codec and how to run it.

    Args:
        config_class: The frozen dataclass of its sizes.
        module_class: Built from the config.
        grid: The chunks on which it decodes.
        open_decoder: A decoder of the module at the start of a clip.
        encode: Audio [B, C, S] to codes [B, K, T] and the loudness of each chunk [B, N], N 0 where it has none.
        convert: Maps a published state dict to the module's own keys.
    """

    config_class: type[Any]
    module_class: Callable[[Any], nn.Module]
    grid: Callable[[Any], DecodeGrid]
    open_decoder: Callable[[Any], ChunkDecoder]
    encode: Callable[[Any, Tensor], tuple[Tensor, Tensor]]
    convert: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict


def _encode_plainly(module: Any, audio: Tensor) -> tuple[Tensor, Tensor]:
    return module.encode(audio), audio.new_zeros(audio.shape[0], 0)


ARCHITECTURES: Mapping[str, Architecture] = {
    "FrameCodec": Architecture(FrameCodecConfig, FrameCodec, grid_of, CausalChunkDecoder, _encode_plainly),
    "SoundStream": Architecture(SoundStreamConfig, SoundStream, grid_of, CausalChunkDecoder, _encode_plainly),
    "Encodec": Architecture(
        EncodecConfig, Encodec, encodec_grid, open_encodec_decoder, Encodec.encode_scaled, convert_state
    ),
}

# `model_type` of a Hugging Face `config.json`: our architecture, and how its sizes are read.
HUGGING_FACE_MODELS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Any]]] = {
    "encodec": ("Encodec", from_hugging_face),
}


@dataclass(frozen=True, eq=False)
class LoadedCodec:
    """A codec ready to run, in eval mode; its methods belong on its model thread."""

    info: ModelInfo
    config: CodecConfig
    grid: DecodeGrid
    module: nn.Module
    architecture: Architecture

    def encode(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Audio [B, C, S] to codes [B, K, T] and the loudness of each chunk [B, N]."""
        return self.architecture.encode(self.module, audio)

    def open_decoder(self) -> ChunkDecoder:
        """A decoder at the start of a clip."""
        return self.architecture.open_decoder(self.module)


def list_default_names(weights_dir: Path) -> list[str]:
    """The codecs that `default` finds in `weights_dir`: `framecodec` first, wanted even if it is not there."""
    found = {path.parent.name for path in weights_dir.glob(f"*/{weights.CONFIG_FILE}")}
    return [DEFAULT_NAME, *sorted(found - {DEFAULT_NAME})]


def load(name: str, source: str, *, weights_dir: Path, is_default: bool = False) -> LoadedCodec:
    """Find, verify and build one codec.

    Args:
        name: The name that requests use.
        source: `default`, `hf://org/name@revision` or `file:///folder`.
        weights_dir: Where `default` looks.
        is_default: Whether an empty `model` field selects it.

    Raises:
        InvalidInput: If the name or the source is malformed, or the weights are pickled.
        NotFound: If the architecture is not in the registry.
        NotReady: If a file is missing or damaged, or its tensors do not fit its config.
    """
    resolved = weights.resolve(source, name=name, default_dir=weights_dir)
    architecture, config = _read_config(resolved)
    module = architecture.module_class(config)
    try:
        module.load_state_dict(architecture.convert(weights.load_tensors(resolved)))
    except (RuntimeError, ValueError) as error:
        raise NotReady(
            f"Weights of {name!r} from {source!r} do not fit their config.json: {error} Restore the pair.",
            reason="WEIGHTS_DAMAGED",
        ) from error
    module.eval().requires_grad_(False)
    info = ModelInfo(
        name=name,
        service="codec",
        digest_sha256=resolved.digest_sha256,
        licence=str(resolved.config.get("licence", NO_LICENCE_STATED)),
        score=str(resolved.config.get("score", "")),
        parameter_count=sum(tensor.numel() for tensor in module.state_dict().values()),
        is_default=is_default,
        source=source,
        sample_rate_hz=config.sample_rate_hz,
        frame_rate_hz=config.frame_rate_hz,
        num_codebooks=config.num_codebooks,
    )
    return LoadedCodec(info, config, architecture.grid(config), module, architecture)


def _read_config(resolved: weights.ResolvedWeights) -> tuple[Architecture, CodecConfig]:
    """The architecture and the sizes that `config.json` names, in our layout or in that of Hugging Face."""
    try:
        if resolved.is_hugging_face_layout:
            model_type = str(resolved.config.get("model_type"))
            key, read = HUGGING_FACE_MODELS[model_type]
            return ARCHITECTURES[key], cast(CodecConfig, read(resolved.config))
        model_type = str(resolved.config.get("architecture"))
        architecture = ARCHITECTURES[model_type]
        return architecture, cast(CodecConfig, architecture.config_class(**resolved.config["config"]))
    except KeyError as error:
        known = ", ".join(HUGGING_FACE_MODELS if resolved.is_hugging_face_layout else ARCHITECTURES)
        raise NotFound(
            "model", f"expected a codec of {known}, got {error} from {resolved.source!r}. Name another source."
        ) from error
    except (TypeError, ValueError) as error:
        raise NotReady(
            f"config.json of {resolved.name!r} from {resolved.source!r} does not describe a codec: {error}",
            reason="WEIGHTS_DAMAGED",
        ) from error
