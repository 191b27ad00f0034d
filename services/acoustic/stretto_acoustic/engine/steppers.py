"""Which stepper drives a language model: by the device that it was loaded to, and by what its matrices are."""

from __future__ import annotations

from stretto_shared.engine.served_models import ROWS_PER_PIECE, TokenModel
from stretto_shared.engine.token_engine import TokenEngineConfig

from stretto_acoustic.loading import LoadedLM
from stretto_acoustic.models.musicgen import (
    IntegerStepper,
    MusicGenCondition,
    MusicGenStepper,
    PooledStepper,
    is_integer,
)

Stepper = TokenModel[MusicGenCondition]
"""A language model as this engine tries and drives it."""


def make_stepper(loaded: LoadedLM, config: TokenEngineConfig, *, joins: bool) -> Stepper:
    """Try how a model may be stepped, on its thread, and drive it so.

    Raises:
        InvalidInput: If the caches of a pool do not fit `kv_budget_bytes`.
    """
    if is_integer(loaded.module):
        budget = config.kv_budget_bytes
        if joins:
            return IntegerStepper.tried(loaded.module, kv_budget_bytes=budget)
        return IntegerStepper(loaded.module, joins=False, kv_budget_bytes=budget)
    if loaded.device.type == "cpu":
        max_rows = ROWS_PER_PIECE * (config.max_slots + config.prefill_columns)
        return MusicGenStepper.tried(loaded.module, max_rows=max_rows) if joins else MusicGenStepper(loaded.module)
    make = PooledStepper.tried if joins else PooledStepper.apart
    return make(loaded.module, num_slots=config.max_slots, kv_budget_bytes=config.kv_budget_bytes)
