"""Weights to verified, built codecs; an explicit registry by architecture. Knows nothing of requests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from stretto_shared import weights
from stretto_shared.errors import NotFound, NotReady
from stretto_shared.features import ModelInfo
from stretto_shared.nn.convnext import ConvNeXtBlock
from stretto_shared.nn.heap import as_single, giving_memory_back, page_out
from stretto_shared.nn.lowbit import NativeKernel, load_bands
from stretto_shared.nn.lowbit.bands import ARITHMETIC as BANDS_ARITHMETIC
from torch import Tensor, nn

from stretto_codec.models.encodec import Encodec, EncodecConfig
from stretto_codec.models.encodec.config import from_hugging_face
from stretto_codec.models.encodec.layouts import convert_state
from stretto_codec.models.encodec.seanet import Conv, Lstm
from stretto_codec.models.encodec.streaming import (
    EncodecDecoder,
    encodec_decoder,
    encodec_grid,
    rounded_encodec_decoder,
)
from stretto_codec.models.framecodec import FrameCodec, FrameCodecConfig
from stretto_codec.models.joining import find_max_joined
from stretto_codec.models.packed_matrix import JOINED_CLIPS
from stretto_codec.models.soundstream import CausalConv, SoundStream, SoundStreamConfig
from stretto_codec.models.streaming import CausalDecoder, ClipDecoder, CodecConfig, DecodeGrid, StreamDecoder, grid_of

DEFAULT_NAME = "framecodec"


@dataclass(frozen=True)
class Reach:
    """On how many frames before and after itself a frame depends."""

    before: int = 0
    after: int = 0


@dataclass(frozen=True)
class EncoderParts:
    """An encoder, cut where its reach ends, so that a long clip can be encoded window by window.

    Args:
        front: Audio [1, C, S] to [1, D, ceil(S / hop)].
        front_reach: Audio in frames around a frame that `front` needs for it.
        back: All frames [1, D, T] to codes [1, K, T].
        back_reach: Frames around a frame that `back` needs for it.
        remember: What lies between the two and remembers without end: frames and memory to the next of both.
    """

    front: Callable[[Tensor], Tensor]
    front_reach: Reach
    back: Callable[[Tensor], Tensor]
    back_reach: Reach = Reach()
    remember: Callable[[Tensor, Any], tuple[Tensor, Any]] | None = None


@dataclass(frozen=True)
class Segments:
    """A codec that cuts clips by itself: samples of a segment, and from the start of one to that of the next."""

    length: int
    stride: int


@dataclass(frozen=True)
class Architecture:
    """How to build one kind of codec and how to run it.

    Args:
        config_class: The frozen dataclass of its sizes.
        module_class: Built from the config.
        grid: The chunks on which it decodes.
        decoder: What decodes clips chunk by chunk with the module.
        encode: Audio [B, C, S] to codes [B, K, T] and the loudness of each chunk [B, N], N 0 where it has none.
        encoder_parts: How the module encodes a long clip.
        convert: Maps a published state dict to the module's own keys.
        rounded_decoder: The same in bfloat16, by the native kernel where it has a use for it and there is one; None,
            or None from it, where float32 stays.
    """

    config_class: type[Any]
    module_class: Callable[[Any], nn.Module]
    grid: Callable[[Any], DecodeGrid]
    decoder: Callable[[Any], StreamDecoder]
    encode: Callable[[Any, Tensor], tuple[Tensor, Tensor]]
    encoder_parts: Callable[[Any], EncoderParts | Segments]
    convert: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict
    rounded_decoder: Callable[[Any, NativeKernel | None], StreamDecoder | None] | None = None


def _encode_plainly(module: Any, audio: Tensor) -> tuple[Tensor, Tensor]:
    return module.encode(audio), audio.new_zeros(audio.shape[0], 0)


def _framecodec_decoder(module: FrameCodec, dtype: torch.dtype = torch.float32) -> StreamDecoder:
    module.pack_decoder(dtype)
    return CausalDecoder(module)


def _rounded_framecodec_decoder(module: FrameCodec, kernel: NativeKernel | None) -> StreamDecoder:
    return _framecodec_decoder(module, torch.bfloat16)


def _framecodec_parts(module: FrameCodec) -> EncoderParts:
    config, hop = module.config, module.config.hop_length
    window = max(config.n_fft, config.analysis_window)
    fine, coarse = (
        sum(block.depthwise.width - 1 for block in stack.modules() if isinstance(block, ConvNeXtBlock))
        for stack in (module.encoder_fine, module.encoder_latent)
    )
    num_early = (window - config.n_fft) // 2  # samples of the window before its frame
    before = num_early + fine * config.stft_hop + coarse * hop
    after = (config.stride - 1) * config.stft_hop + window - num_early - hop
    return _feed_forward_parts(module, Reach(-(-before // hop), -(-after // hop)))


def _soundstream_parts(module: SoundStream) -> EncoderParts:
    convs = [layer for layer in module.encoder.modules() if isinstance(layer, CausalConv)]
    steps = [(conv.reach, conv.conv.stride[0] - 1, conv.conv.stride[0]) for conv in convs]
    return _feed_forward_parts(module, _reach_of(steps, module.config.hop_length))


def _feed_forward_parts(module: FrameCodec | SoundStream, reach: Reach) -> EncoderParts:
    return EncoderParts(
        front=lambda audio: module.encode_latents(audio).transpose(1, 2),
        front_reach=reach,
        back=lambda latents: module.quantizer.encode(latents.transpose(1, 2)),
    )


def _encodec_parts(module: Encodec) -> EncoderParts | Segments:
    length, stride = module.config.segment_length, module.config.segment_stride
    if length is not None and stride is not None:
        return Segments(length, stride)
    layers = list(module.encoder.layers)
    middle, lstm = next((index, layer) for index, layer in enumerate(layers) if isinstance(layer, Lstm))
    front, back = nn.Sequential(*layers[:middle]), nn.Sequential(*layers[middle + 1 :])
    return EncoderParts(
        front=front,
        front_reach=_reach_of(_encodec_steps(front), module.config.hop_length),
        back=lambda states: module.quantizer.encode(back(states)),
        back_reach=_reach_of(_encodec_steps(back), 1),
        remember=lstm.advance,
    )


def _encodec_steps(layers: nn.Module) -> list[tuple[int, int, int]]:
    """Of every convolution its reach and stride; at a clip's ends, reflection turns either side's reach inwards."""
    convs = [layer for layer in layers.modules() if isinstance(layer, Conv)]
    spans = [(conv.conv.kernel_size[0] - 1) * conv.conv.dilation[0] for conv in convs]
    reaches = [max(conv.pad_left, span - conv.pad_left) for conv, span in zip(convs, spans, strict=True)]
    return [(reach, reach, conv.stride) for reach, conv in zip(reaches, convs, strict=True)]


def _reach_of(steps: Iterable[tuple[int, int, int]], hop_length: int) -> Reach:
    """The reach of a row of convolutions, each as inputs before and after its own place, and stride."""
    before, after, jump = 0, 0, 1
    for left, right, stride in steps:
        before, after, jump = before + left * jump, after + right * jump, jump * stride
    return Reach(-(-before // hop_length), after // hop_length)


ARCHITECTURES: Mapping[str, Architecture] = {
    "FrameCodec": Architecture(
        FrameCodecConfig,
        FrameCodec,
        grid_of,
        _framecodec_decoder,
        _encode_plainly,
        _framecodec_parts,
        rounded_decoder=_rounded_framecodec_decoder,
    ),
    "SoundStream": Architecture(
        SoundStreamConfig, SoundStream, grid_of, CausalDecoder, _encode_plainly, _soundstream_parts
    ),
    "Encodec": Architecture(
        EncodecConfig,
        Encodec,
        encodec_grid,
        encodec_decoder,
        Encodec.encode_scaled,
        _encodec_parts,
        convert_state,
        rounded_decoder=rounded_encodec_decoder,
    ),
}

# `model_type` of a Hugging Face `config.json`: our architecture, and how its sizes are read.
HUGGING_FACE_MODELS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Any]]] = {
    "encodec": ("Encodec", from_hugging_face),
}


@dataclass(frozen=True, eq=False)
class LoadedCodec:
    """A codec ready to run, in eval mode; its methods belong on its model thread.

    Args:
        info: What the service says of it.
        tokens_id: The `codec_id` of its tokens, `{name}@{digest prefix}` of the checkpoint: they are the same in every
            number format.
        config: Its sizes.
        grid: The chunks on which it decodes.
        module: It encodes; what it decodes differs from `decoder` by rounding, in bfloat16 by more.
        architecture: How it is run.
        decoder: What decodes streams.
        max_joined: Streams that may share a decoding step: so many were tried at load.
    """

    info: ModelInfo
    tokens_id: str
    config: CodecConfig
    grid: DecodeGrid
    module: nn.Module
    architecture: Architecture
    decoder: StreamDecoder
    max_joined: int = 1

    @property
    def joined_sizes(self) -> list[int]:
        """How many streams a step may have beside one alone: the numbers that were tried, or all up to the most."""
        sizes = range(2, self.max_joined + 1) if self.decoder.joins_any else JOINED_CLIPS
        return [size for size in sizes if size <= self.max_joined]

    def encode(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Audio [B, C, S] to codes [B, K, T] and the loudness of each chunk [B, N]."""
        return self.architecture.encode(self.module, audio)

    def encoder_parts(self) -> EncoderParts | Segments:
        """How the codec encodes a long clip."""
        return self.architecture.encoder_parts(self.module)

    def open_decoder(self) -> ClipDecoder:
        """A decoder at the start of a clip."""
        return ClipDecoder(self.decoder)


def list_default_names(weights_dir: Path) -> list[str]:
    """The codecs that `default` finds in `weights_dir`: `framecodec` first, wanted even if it is not there."""
    found = {path.parent.name for path in weights_dir.glob(f"*/{weights.CONFIG_FILE}")}
    return [DEFAULT_NAME, *sorted(found - {DEFAULT_NAME})]


def load(
    name: str,
    source: str,
    *,
    weights_dir: Path,
    is_default: bool = False,
    dtype: str = "float32",
    max_joined: int = 1,
    only_streams: bool = False,
    native_kernel_dir: Path | None = None,
) -> LoadedCodec:
    """Find, verify and build one codec.

    Args:
        name: The name that requests use.
        source: `default`, `hf://org/name@revision` or `file:///folder`.
        weights_dir: Where `default` looks.
        is_default: Whether an empty `model` field selects it.
        dtype: Number format of decoding, `float32` or `bfloat16`; encoding, and so every code, is float32's.
        max_joined: Streams that may share a decoding step where a trial finds that they stay as alone.
        only_streams: Give back the memory of what only `module.decode` needs, where it is much; it is not called then.
        native_kernel_dir: Where the kernel for EnCodec in bfloat16 is compiled to; None computes with torch alone.

    Raises:
        InvalidInput: If the name or the source is malformed, or the weights are pickled.
        NotFound: If the architecture is not in the registry.
        NotReady: If a file is missing or damaged, or its tensors do not fit its config.
    """
    with giving_memory_back():
        resolved = weights.resolve(source, name=name, default_dir=weights_dir)
        architecture, config = _read_config(resolved)
        module = architecture.module_class(config)
        tensors = weights.load_tensors(resolved)
        try:
            module.load_state_dict(as_single(architecture.convert(tensors)), assign=True)
        except (RuntimeError, ValueError) as error:
            raise NotReady(
                f"Weights of {name!r} from {source!r} do not fit their config.json: {error} Restore the pair.",
                reason="WEIGHTS_DAMAGED",
            ) from error
        loaded = make_loaded(
            name,
            module,
            architecture,
            config,
            digest_sha256=resolved.digest_sha256,
            licence=resolved.licence,
            score=resolved.score,
            parameter_count=sum(tensor.numel() for tensor in tensors.values()),
            is_default=is_default,
            source=source,
            dtype=dtype,
            max_joined=max_joined,
            only_streams=only_streams,
            native_kernel_dir=native_kernel_dir,
        )
        if only_streams:
            kept = {each.data_ptr() for each in module.state_dict().values()}
            page_out(each for each in tensors.values() if each.data_ptr() not in kept)
        return loaded


def make_loaded(
    name: str,
    module: nn.Module,
    architecture: Architecture,
    config: CodecConfig,
    *,
    digest_sha256: str,
    licence: str = weights.NO_LICENCE_STATED,
    score: str = "",
    parameter_count: int | None = None,
    is_default: bool = False,
    source: str = "default",
    dtype: str = "float32",
    max_joined: int = 1,
    only_streams: bool = False,
    native_kernel_dir: Path | None = None,
) -> LoadedCodec:
    """Put a module in eval mode, try how many streams may share its steps, and write down what the service says of it.

    A codec that decodes in another format than the checkpoint's has a digest of its own, and says so after its source,
    so that a receipt tells formats apart, and the native kernel's roundings from torch's; one that stays in float32
    whatever was asked for says nothing.
    """
    module.eval().requires_grad_(False)
    if parameter_count is None:
        parameter_count = sum(tensor.numel() for tensor in module.state_dict().values())
    info = ModelInfo(
        name=name,
        service="codec",
        digest_sha256=digest_sha256,
        licence=licence,
        score=score,
        parameter_count=parameter_count,
        is_default=is_default,
        source=source,
        sample_rate_hz=config.sample_rate_hz,
        frame_rate_hz=config.frame_rate_hz,
        num_codebooks=config.num_codebooks,
        num_channels=config.num_channels,
    )
    decoder, kernel, tokens_id = None, None, info.model_id
    if dtype != "float32" and architecture.rounded_decoder is not None:
        if isinstance(module, Encodec) and native_kernel_dir is not None:
            kernel = load_bands(native_kernel_dir)
        decoder = architecture.rounded_decoder(module, kernel)
    if decoder is not None:
        arithmetic = dtype if kernel is None else f"{dtype} {kernel.rounded_as(BANDS_ARITHMETIC)}"
        digest = hashlib.sha256(f"{digest_sha256} {arithmetic}".encode()).hexdigest()
        info = replace(info, digest_sha256=digest, source=f"{source}#{dtype}")
    decoder = decoder or architecture.decoder(module)
    grid = architecture.grid(config)
    joined = find_max_joined(decoder, grid, config, max_joined)
    if only_streams and isinstance(module, Encodec) and isinstance(decoder, EncodecDecoder):  # which has its own copies
        del module.decoder
    return LoadedCodec(info, tokens_id, config, grid, module, architecture, decoder, joined)


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
