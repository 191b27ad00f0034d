"""The language model and its stepper as the acoustic service makes them of its settings, for evals without a server.

On the CPU; the weight format, the number format and whether pieces join are those of `STRETTO_ACOUSTIC_*`. A report is
named after what the model says of itself, so that the numbers of one format never replace those of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from stretto_acoustic import loading
from stretto_acoustic.engine import Stepper, make_stepper
from stretto_acoustic.models.musicgen import MusicGenCondition
from stretto_acoustic.settings import AcousticSettings
from stretto_shared.engine.config import TokenEngineConfig
from stretto_shared.features import ModelInfo
from stretto_shared.weights import parse_model_list
from torch import Tensor


def load_lm(models: str = "", *, weight_format: str = "", num_threads: int = 0) -> loading.LoadedLM:
    """The first language model of `models`, of the settings where that is empty.

    Args:
        models: `name` or `name=source`.
        weight_format: Instead of the settings' own.
        num_threads: Of torch, in this thread; 0 leaves them as they are.
    """
    settings = AcousticSettings()
    name, source = next(iter(parse_model_list(models or settings.models or loading.DEFAULT_NAME).items()))
    return loading.load(
        name,
        source,
        weights_dir=settings.weights_dir,
        dtype=settings.dtype,
        weight_format=weight_format or settings.weight_format,
        native_kernel_dir=settings.native_kernel_dir,
        num_threads=num_threads,
    )


def stepper_of(loaded: loading.LoadedLM, *, joins: bool | None = None) -> Stepper:
    """What steps the model in a service of these settings; `joins` instead of theirs unless it is None."""
    settings = AcousticSettings()
    config = TokenEngineConfig(max_slots=settings.max_slots, prefill_columns=settings.prefill_columns)
    return make_stepper(loaded, config, joins=settings.joins if joins is None else joins)


def step_through(
    stepper: Stepper, conditions: Sequence[MusicGenCondition], columns: Tensor, *, guidance_scale: float
) -> Tensor:
    """Step pieces through given columns, one column a pass, together where no bit depends on that.

    Args:
        stepper: Of the service.
        conditions: Of each piece.
        columns: Delayed columns [N, K, T] of each piece.
        guidance_scale: 1 for the conditional distribution.

    Returns:
        Guided float32 logits [N, K, T, V] after each column.
    """
    if not stepper.is_row_invariant and len(conditions) > 1:
        alone = [
            step_through(stepper, [own], columns[[i]], guidance_scale=guidance_scale)
            for i, own in enumerate(conditions)
        ]
        return torch.cat(alone)
    num_steps, pieces = columns.shape[2], list(columns.numpy())
    states = [stepper.open(own, num_steps=num_steps, guidance_scale=guidance_scale) for own in conditions]
    wants = [True] * len(states)
    rows = [stepper.step(states, [piece[:, t : t + 1] for piece in pieces], wants) for t in range(num_steps)]
    return torch.stack([torch.stack([row for row in step if row is not None]) for step in rows], dim=2)


def formats_of(models: Iterable[ModelInfo]) -> str:
    """The number formats of the language model among these, `int8` of the source `default#int8`; empty if plain."""
    sources = [model.source for model in models if model.service == "acoustic"]
    return sources[0].rpartition("#")[2] if sources and "#" in sources[0] else ""


def report_name(name: str, models: Iterable[ModelInfo]) -> str:
    """The eval's name, and the formats of the language model that it measured where they are not plain."""
    formats = formats_of(models)
    return f"{name}_{formats}" if formats else name
