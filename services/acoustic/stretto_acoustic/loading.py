"""Weights to verified, built language models; an explicit registry by architecture. Knows nothing of requests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from stretto_shared import weights
from stretto_shared.engine.stage_engine import LoadedStage
from stretto_shared.engine.stage_loading import ARCHITECTURE as STAGE_ARCHITECTURE
from stretto_shared.engine.stage_loading import architecture_of
from stretto_shared.engine.stage_loading import load_stage as load_any_stage
from stretto_shared.errors import InvalidInput, NotFound, NotReady
from stretto_shared.features import ModelInfo
from stretto_shared.nn.heap import giving_memory_back
from stretto_shared.nn.lowbit import ARITHMETIC
from stretto_shared.nn.threads import use_threads
from stretto_shared.nn.unfilled import unfilled
from stretto_shared.nn.weight_format import INTEGER_FORMATS, check_weight_format, fill, set_weight_format
from torch import Tensor, nn

from stretto_acoustic.models.musicgen import MusicGenConfig, MusicGenLM
from stretto_acoustic.models.musicgen.layouts import config_from_hugging_face, weights_from_hugging_face

DEFAULT_NAME = "musicgen"
MUSICGEN_LICENCE = "CC-BY-NC-4.0"  # Meta's statement for every facebook/musicgen-* checkpoint

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}  # the last for tests alone
)
PLAIN_FORMATS = ("as_dtype", "fp32")  # that leave the matrices to `dtype`


@dataclass(frozen=True)
class Architecture:
    """How to build one kind of language model from this project's own layout."""

    config_class: Callable[..., MusicGenConfig]
    module_class: Callable[[MusicGenConfig], MusicGenLM]


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({"MusicGenLM": Architecture(MusicGenConfig, MusicGenLM)})

HUGGING_FACE_MODELS = ("musicgen", "musicgen_melody")


@dataclass(frozen=True, eq=False)
class LoadedLM:
    """A language model ready to run, in eval mode; its module belongs on its model thread."""

    info: ModelInfo
    module: MusicGenLM

    @property
    def config(self) -> MusicGenConfig:
        return self.module.config

    @property
    def device(self) -> torch.device:
        return self.module.device


def list_default_names(weights_dir: Path) -> list[str]:
    """What `default` finds in `weights_dir`: `musicgen` first, wanted even if it is not there, and every stage."""
    found = sorted(path.parent.name for path in weights_dir.glob(f"*/{weights.CONFIG_FILE}"))
    return [DEFAULT_NAME, *(name for name in found if name != DEFAULT_NAME and is_stage(name, "default", weights_dir))]


def is_stage(name: str, source: str, weights_dir: Path) -> bool:
    """Whether a model is a stage that refines, as `load_stage` loads them; one that is not there is none."""
    return architecture_of(name, source, weights_dir) == STAGE_ARCHITECTURE


def load_stage(
    name: str, source: str, *, weights_dir: Path, is_default: bool = False, num_threads: int = 0
) -> LoadedStage:
    """Find, verify and build one stage.

    Raises:
        StrettoError: What `stretto_shared.engine.stage_loading.load_stage` raises.
    """
    return load_any_stage(
        name,
        source,
        weights_dir=weights_dir,
        service="acoustic",
        hears_source=True,
        is_default=is_default,
        num_threads=num_threads,
    )


def load(
    name: str,
    source: str,
    *,
    weights_dir: Path,
    is_default: bool = False,
    dtype: str = "float32",
    weight_format: str = "as_dtype",
    native_kernel_dir: Path | None = None,
    num_threads: int = 0,
    device: str = "cpu",
) -> LoadedLM:
    """Find, verify and build one language model.

    Args:
        name: The name that requests use.
        source: `default`, `hf://org/name@revision` or `file:///folder`, the latter in our layout or Hugging Face's.
        weights_dir: Where `default` looks.
        is_default: Whether an empty `model` field selects it.
        dtype: `float32` or `bfloat16`.
        weight_format: One of `stretto_shared.nn.weight_format.WEIGHT_FORMATS`.
        native_kernel_dir: Where the kernel of int8 and int4 is compiled to; None does without, for the same bytes.
        num_threads: Threads inside one operation of the calling thread; 0 leaves the choice to torch.
        device: `cpu` or `cuda`.

    Raises:
        InvalidInput: If the name, the source or the weight format is malformed, the weights are pickled, or there is no
            such device.
        NotFound: If the architecture is not in the registry.
        NotReady: If a file is missing or damaged, or its tensors do not fit its config.
    """
    check_weight_format(weight_format, DTYPES[dtype])
    check_device(device, weight_format)
    use_threads(num_threads)
    resolved = weights.resolve(source, name=name, default_dir=weights_dir)
    with giving_memory_back():
        module, parameter_count = _build(resolved, weight_format, native_kernel_dir)
        return make_loaded(
            name,
            module,
            parameter_count=parameter_count,
            digest_sha256=resolved.digest_sha256,
            licence=_licence_of(resolved),
            score=resolved.score,
            is_default=is_default,
            source=source,
            dtype=dtype,
            weight_format=weight_format,
            native_kernel_dir=native_kernel_dir,
            device=device,
        )


def check_device(device: str, weight_format: str) -> None:
    """Refuse a device that is not there, or that cannot hold matrices so.

    Raises:
        InvalidInput: If there is no such device, or it has no arithmetic for the weight format.
    """
    if device not in ("cpu", "cuda"):
        raise InvalidInput("device", f"expected cpu or cuda, got {device!r}.")
    if device == "cpu":
        return
    if weight_format not in PLAIN_FORMATS:
        raise InvalidInput(
            "weight_format",
            f"expected {' or '.join(PLAIN_FORMATS)} on cuda, got {weight_format!r}, whose arithmetic is the CPU's. "
            "Unset STRETTO_ACOUSTIC_WEIGHT_FORMAT; STRETTO_ACOUSTIC_DTYPE=bfloat16 halves the bytes there.",
        )
    if not torch.cuda.is_available():
        raise InvalidInput(
            "device",
            f"expected cpu, since torch {torch.__version__} finds no CUDA GPU here, got 'cuda'. Unset "
            "STRETTO_ACOUSTIC_DEVICE, or start on a machine with a GPU and a build of torch for it.",
        )


def make_loaded(
    name: str,
    module: MusicGenLM,
    *,
    digest_sha256: str,
    licence: str = weights.NO_LICENCE_STATED,
    score: str = "",
    is_default: bool = False,
    source: str = "default",
    dtype: str = "float32",
    weight_format: str = "as_dtype",
    native_kernel_dir: Path | None = None,
    device: str = "cpu",
    parameter_count: int | None = None,
) -> LoadedLM:
    """Put a module in eval mode on its device, bring its matrices into their format, and write down what it is.

    What does not give the bytes of the checkpoint in float32 has a digest of its own, and says so after its source, so
    that a receipt tells formats and devices apart and a piece is not resumed in another one.

    Raises:
        NotReady: If a weight that is to be rounded is not finite.
    """
    parameter_count = parameter_count or module.num_parameters()
    _freeze(module)
    if weight_format not in PLAIN_FORMATS:  # from the checkpoint's own numbers, before any rounding to dtype
        try:
            set_weight_format(module, weight_format, native_kernel_dir=native_kernel_dir)
        except ValueError as error:
            raise NotReady(f"Weights of {name!r} from {source!r}: {error}", reason="WEIGHTS_DAMAGED") from error
    module.to(device=device, dtype=DTYPES[dtype])
    set_weight_format(module, "as_dtype")
    choices = ((dtype, ("float32",)), (weight_format, PLAIN_FORMATS), (device, ("cpu",)))
    if variant := "+".join(choice for choice, plain in choices if choice not in plain):
        arithmetic = f" {ARITHMETIC}" if weight_format in INTEGER_FORMATS else ""
        digest_sha256 = hashlib.sha256(f"{digest_sha256} {variant}{arithmetic}".encode()).hexdigest()
        source = f"{source}#{variant}"
    info = ModelInfo(
        name=name,
        service="acoustic",
        digest_sha256=digest_sha256,
        licence=licence,
        score=score,
        parameter_count=parameter_count,
        is_default=is_default,
        source=source,
        sample_rate_hz=module.config.sample_rate_hz,
        frame_rate_hz=module.config.frame_rate_hz,
        num_codebooks=module.config.num_codebooks,
        num_channels=module.config.num_channels,
    )
    return LoadedLM(info, module)


def _build(
    resolved: weights.ResolvedWeights, weight_format: str, native_kernel_dir: Path | None
) -> tuple[MusicGenLM, int]:
    """The module with its weights, matrices in their format where that is not `as_dtype`, and its parameter count."""
    try:
        config, tensors = _read(resolved)
        with unfilled():
            module = ARCHITECTURES["MusicGenLM"].module_class(config)
        parameter_count = module.num_parameters()
        fill(module, tensors, weight_format, native_kernel_dir=native_kernel_dir)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise NotReady(
            f"Weights of {resolved.name!r} from {resolved.source!r} do not fit their config.json: {error}. "
            "Restore the pair.",
            reason="WEIGHTS_DAMAGED",
        ) from error
    module.reset_buffers()
    return module, parameter_count


def _licence_of(resolved: weights.ResolvedWeights) -> str:
    is_published = resolved.source.startswith("hf://facebook/")
    return str(resolved.config.get("licence", MUSICGEN_LICENCE)) if is_published else resolved.licence


def _read(resolved: weights.ResolvedWeights) -> tuple[MusicGenConfig, Mapping[str, Tensor]]:
    """Read geometry and tensors, each when it is asked for, in our layout or in that of Hugging Face."""
    if resolved.is_hugging_face_layout:
        model_type = str(resolved.config.get("model_type"))
        if model_type not in HUGGING_FACE_MODELS:
            raise _unknown(model_type, resolved, HUGGING_FACE_MODELS)
        config = config_from_hugging_face(resolved.config)
        return config, weights_from_hugging_face(weights.open_tensors(resolved), config)
    architecture = str(resolved.config.get("architecture"))
    if architecture not in ARCHITECTURES:
        raise _unknown(architecture, resolved, tuple(ARCHITECTURES))
    fields: Mapping[str, Any] = resolved.config["config"]
    return ARCHITECTURES[architecture].config_class(**fields), weights.open_tensors(resolved)


def _unknown(found: str, resolved: weights.ResolvedWeights, known: tuple[str, ...]) -> NotFound:
    return NotFound(
        "model", f"expected a model of {', '.join(known)}, got {found!r} from {resolved.source!r}. Name another source."
    )


def _freeze(module: nn.Module) -> None:
    module.eval().requires_grad_(False)
