"""Which stepper drives a language model: by the device that it was loaded to, and by what its matrices are."""

from __future__ import annotations

from typing import Any, Protocol

from stretto_shared.engine.program import StepModel
from stretto_shared.engine.self_test import Trial
from stretto_shared.engine.token_engine import TokenEngineConfig

from stretto_acoustic.loading import LoadedLM
from stretto_acoustic.models.musicgen import (
    IntegerStepper,
    MusicGenCondition,
    MusicGenStepper,
    PooledStepper,
    is_integer,
)

_ROWS_PER_PIECE = 2  # conditional and null


class Stepper(StepModel[MusicGenCondition, Any], Protocol):
    """A language model as this engine tries and drives it."""

    @property
    def min_rows(self) -> int:
        """Least number of rows of a pass; one of fewer is filled up."""

    def trials(self) -> list[Trial[MusicGenCondition]]:
        """One request of each kind that the model takes, the plainest guided one first."""


def make_stepper(loaded: LoadedLM, config: TokenEngineConfig, *, joins: bool) -> Stepper:
    """Try how a model may be stepped, on its thread, and drive it so.

    Raises:
        InvalidInput: If the caches of a pool do not fit `kv_budget_bytes`.
    """
    if is_integer(loaded.module):
        return IntegerStepper.tried(loaded.module) if joins else IntegerStepper(loaded.module, joins=False)
    if loaded.device.type == "cpu":
        max_rows = _ROWS_PER_PIECE * (config.max_slots + config.prefill_columns)
        return MusicGenStepper.tried(loaded.module, max_rows=max_rows) if joins else MusicGenStepper(loaded.module)
    make = PooledStepper.tried if joins else PooledStepper.apart
    return make(loaded.module, num_slots=config.max_slots, kv_budget_bytes=config.kv_budget_bytes)
