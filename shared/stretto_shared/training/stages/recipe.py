"""`Recipe`: one TOML file that says how a stage is trained."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """One TOML file; `model` has fields of `StageConfig`, all but those that say whose tokens it speaks.

    Args:
        name: Of the model.
        licence: Of its weights.
        minutes: Wall time to train.
        model: Sizes, rates and windows.
        own_kind: Features that hold the stage's tokens: `codes` or `semantic`.
        first_codebook: The first of them that the stage makes.
        source_kind: Features that hold the source; empty without one.
        short_share: Share of the batches whose windows are shorter than a whole one.
        style_noise: Greatest length of the Gaussian noise on a style of unit length before it becomes codes: in place
            of the other modality, whose points lie that far away.
        style_dropout: Share of the windows that are not told their style.
        melody_dropout: The same of the melody.
        source_dropout: The same of the source, so that its worth can be measured.
        source_noise: Greatest share of a source that is wrong, in half of the windows, as a sampled one may be.
        token_noise: The same of a stream's past.
        codebook_weights: Of the loss, coarsest first; equal where empty.
        average: Share of the old weights in the running average of them, which is what is validated and exported.
        num_start_clips: Clips of which the frequencies of tokens are counted at the start.
    """

    name: str
    licence: str
    minutes: float
    model: dict[str, Any]
    own_kind: str = "codes"
    first_codebook: int = 0
    source_kind: str = ""
    max_steps: int = 0
    batch_size: int = 16
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    short_share: float = 0.25
    style_noise: float = 0.0
    style_dropout: float = 0.12
    melody_dropout: float = 0.12
    source_dropout: float = 0.05
    source_noise: float = 0.0
    token_noise: float = 0.0
    codebook_weights: tuple[float, ...] = ()
    average: float = 0.995
    num_start_clips: int = 2000
    validate_every_s: float = 240.0
    num_validation_windows: int = 128
    log_every: int = 25
    bf16: bool = True
    seed: int = 0


def read_recipe(path: Path) -> Recipe:
    """Read a TOML file; an unknown key is an error."""
    with path.open("rb") as file:
        read: dict[str, Any] = tomllib.load(file)
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in read.items()}
    return Recipe(**values)
