"""Weights to a verified, built stage of a token cascade. Knows nothing of requests."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stretto_shared import weights
from stretto_shared.engine.served_models import TokenModel
from stretto_shared.engine.stage_engine import LoadedStage
from stretto_shared.engine.stage_requests import continues_source, num_given_codebooks
from stretto_shared.engine.stage_stepper import StageStepper
from stretto_shared.errors import InvalidInput, NotReady
from stretto_shared.features import ModelInfo
from stretto_shared.nn.heap import giving_memory_back
from stretto_shared.nn.stage_lm import StageConfig, StageLM
from stretto_shared.nn.stage_lm.config import StageCondition
from stretto_shared.nn.threads import use_threads
from stretto_shared.nn.weight_format import set_weight_format

ARCHITECTURE = "StageLM"


def architecture_of(name: str, source: str, weights_dir: Path) -> str:
    """What the `config.json` of a model calls its architecture; empty where there is none to read.

    Only files of this machine are asked: no stage has a published checkpoint of another layout.
    """
    if source.startswith("hf://"):
        return ""
    folder = weights_dir / name if source == "default" else Path(source.removeprefix("file://"))
    path = folder / weights.CONFIG_FILE
    if not path.is_file():
        return ""
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("architecture", ""))
    except (ValueError, AttributeError):  # whoever loads it says what is wrong with it
        return ""


def load_stage(
    name: str,
    source: str,
    *,
    weights_dir: Path,
    service: str,
    hears_source: bool,
    is_default: bool = False,
    num_threads: int = 0,
) -> LoadedStage:
    """Find, verify and build the language model of one stage, in float32 on the CPU.

    Args:
        name: The name that requests use.
        source: `default` or `file:///folder`.
        weights_dir: Where `default` looks.
        service: Whose model it is.
        hears_source: Whether the service has a source for it.
        is_default: Whether an empty `model` field selects it.
        num_threads: Threads inside one operation of the calling thread; 0 leaves the choice to torch.

    Raises:
        InvalidInput: If the name or the source is malformed, the weights are pickled, or it is another service's stage.
        NotReady: If a file is missing or damaged, or its tensors do not fit its config.
    """
    use_threads(num_threads)
    with giving_memory_back():
        resolved = weights.resolve(source, name=name, default_dir=weights_dir)
        module = _build(resolved)
    if module.config.hears_source != hears_source:
        wanted = "one that refines the tokens of a stage before it" if hears_source else "one without a stage before it"
        raise InvalidInput("models", f"expected {wanted}, got {name!r} from {source!r}. Serve it elsewhere.")
    return make_loaded_stage(
        name,
        module,
        service=service,
        digest_sha256=resolved.digest_sha256,
        licence=resolved.licence,
        score=resolved.score,
        is_default=is_default,
        source=source,
    )


def make_loaded_stage(
    name: str,
    module: StageLM,
    *,
    service: str,
    digest_sha256: str,
    licence: str = weights.NO_LICENCE_STATED,
    score: str = "",
    is_default: bool = False,
    source: str = "default",
) -> LoadedStage:
    """Put a module in eval mode, its matrices as the CPU's kernels read them, and write down what it is.

    Packed so, a row's result is its own on the processors at hand, and pieces join, which the stepper tries.
    """
    module.float().eval().requires_grad_(False)
    config, parameter_count = module.config, module.num_parameters()
    set_weight_format(module, "as_dtype")

    def make_stepper(max_rows: int, joins: bool) -> TokenModel[StageCondition]:
        return StageStepper.tried(module, max_rows=max_rows) if joins else StageStepper(module)

    info = ModelInfo(
        name=name,
        service=service,
        digest_sha256=digest_sha256,
        licence=licence,
        score=score,
        parameter_count=parameter_count,
        is_default=is_default,
        source=source,
        sample_rate_hz=config.sample_rate_hz,
        frame_rate_hz=config.frame_rate_hz,
        num_codebooks=num_given_codebooks(config),
        num_channels=1,
    )
    return LoadedStage(info, config, make_stepper)


def _build(resolved: weights.ResolvedWeights) -> StageLM:
    try:
        module = StageLM(_config_of(resolved.config["config"]))
        module.load_state_dict({key: tensor.float() for key, tensor in weights.load_tensors(resolved).items()})
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise NotReady(
            f"Weights of {resolved.name!r} from {resolved.source!r} do not fit their config.json: {error}. "
            "Restore the pair.",
            reason="WEIGHTS_DAMAGED",
        ) from error
    return module


def _config_of(fields: Mapping[str, Any]) -> StageConfig:
    """The geometry, checked for what serving relies on.

    Raises:
        TypeError: If a field is unknown or missing.
        ValueError: If windows make no headway, or the model does not say whose tokens it reads and makes.
    """
    config = StageConfig(**fields)
    if not 1 <= config.stride_frames <= config.window_frames:
        raise ValueError(
            f"stride_s: expected one frame to the whole window of {config.window_s:g} s, got {config.stride_s:g}"
        )
    needed = {"tokens": True, "source_tokens": config.hears_source}
    needed |= {"style_encoder": config.hears_style, "melody_encoder": config.hears_melody}
    if missing := [field for field, is_needed in needed.items() if is_needed and not dataclasses.asdict(config)[field]]:
        raise ValueError(f"{', '.join(missing)}: expected a name@digest each, got none")
    if continues_source(config) and config.source_frame_rate_hz != config.frame_rate_hz:
        raise ValueError(
            f"source_frame_rate_hz: expected {config.frame_rate_hz:g}, that of the frames to which the source's "
            f"codebooks belong, got {config.source_frame_rate_hz:g}"
        )
    return config
