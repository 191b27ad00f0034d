"""`StageStepper`: the language model of one stage of a cascade as the token engine drives it, guidance included.

To the engine a stage has one codebook without delay: its flattened stream. A request is one window. Under guidance it
runs as two rows of a pass; the null one is told neither style nor melody, but hears the source. The rows of several
requests, and of several columns of one, share a pass where the model's layers treat each row by itself, which `tried`
finds out. Numpy in, logits out; knows nothing of requests, threads and the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stretto_shared.engine.program import StateCost
from stretto_shared.engine.sampling import guide
from stretto_shared.engine.self_test import Trial, joins_exactly
from stretto_shared.nn.row_invariance import fewest_invariant_rows, linear_layers
from stretto_shared.nn.stage_lm import (
    UNTOLD,
    Biases,
    Feed,
    Layout,
    StageCache,
    StageCondition,
    StageConfig,
    StageLM,
    cache_bytes,
    open_window,
    read,
)


@dataclass(eq=False)
class StageState:
    """The state of one request: one row, or a conditional and a null one."""

    cache: StageCache
    guidance_scale: float


class StageStepper:
    """Drives a `StageLM` in eval mode; implements `StepModel`.

    Args:
        model: The model, on its thread.
        min_rows: Number of rows from which on its layers treat each row by itself; a pass of fewer is filled up. None
            where they do not, and no two requests share a pass.
    """

    def __init__(self, model: StageLM, *, min_rows: int | None = None) -> None:
        self._model = model
        self._min_rows = min_rows
        self._biases = Biases(model)

    @classmethod
    def tried(cls, model: StageLM, *, max_rows: int) -> StageStepper:
        """Try the model's layers with up to `max_rows` rows, then the whole, and join as far as no bit changes."""
        layers = linear_layers(model.layers)
        min_rows = fewest_invariant_rows(layers, max_rows=max_rows, dtype=torch.float32)
        joined = cls(model, min_rows=min_rows)
        return joined if min_rows is not None and joins_exactly(joined, joined.trials()) else cls(model)

    @property
    def cardinality(self) -> int:
        return self._model.config.cardinality

    @property
    def special_token(self) -> int:
        return self._model.config.cardinality

    @property
    def delays(self) -> tuple[int, ...]:
        return (0,)

    @property
    def is_row_invariant(self) -> bool:
        return self._min_rows is not None

    @property
    def min_rows(self) -> int:
        return self._min_rows or 1

    def trials(self) -> list[Trial[StageCondition]]:
        """One request of each kind that the model takes, the plainest guided one first."""
        config, rng = self._model.config, np.random.default_rng(0)
        style = rng.integers(0, config.style_cardinality, config.num_style_codes) if config.hears_style else None
        melody, source = None, None
        if config.hears_melody:
            melody = rng.integers(0, config.melody_cardinality, (config.num_melody_codebooks, 3))
        if config.hears_source:
            source = rng.integers(0, config.source_cardinality, (config.num_source_codebooks, 7))
        return [
            Trial(StageCondition(style, None, source), 3.0),
            Trial(StageCondition(), 1.0),
            Trial(StageCondition(style, melody, None if source is None else source[:, :2]), 2.0),
            Trial(StageCondition(None, melody, source), 1.0),
        ]

    def cost(self, condition: StageCondition, *, num_steps: int, guidance_scale: float) -> StateCost:
        """Rows of a request, and bytes of its cache: its prefix and its steps."""
        config = self._model.config
        num_frames = -(-num_steps // config.num_codebooks)
        num_melody = config.melody_frames(num_frames) if condition.melody is None else condition.melody.shape[1]
        num_source = config.source_frames(num_frames) if condition.source is None else condition.source.shape[1]
        num_prefix = Layout(num_melody, num_source, num_steps).num_prefix(config)
        num_rows = num_rows_of(condition, guidance_scale)
        return StateCost(num_rows, cache_bytes(config, num_rows, num_prefix + num_steps))

    @torch.inference_mode()
    def open(self, condition: StageCondition, *, num_steps: int, guidance_scale: float) -> StageState:
        """Allocate the cache of a window and read its prefix.

        Raises:
            ValueError: If the condition does not fit the model.
        """
        config, num_rows = self._model.config, num_rows_of(condition, guidance_scale)
        check_condition(condition, config)
        num_told = 0 if guidance_scale == 0 else 1
        style = _rows(condition.style, num_rows, num_told)
        melody = _rows(condition.melody, num_rows, num_told)
        source = _rows(condition.source, num_rows, num_rows)
        cache = open_window(self._model, num_rows, num_steps, style, melody, source, self._biases)
        return StageState(cache, guidance_scale)

    @torch.inference_mode()
    def step(
        self, states: Sequence[StageState], columns: Sequence[NDArray[np.int64]], wants_logits: Sequence[bool]
    ) -> list[Tensor | None]:
        """Read columns [1, c] for each state in one pass; return guided float32 logits [1, V] where they are wanted."""
        if not self.is_row_invariant and (len(states) != 1 or columns[0].shape[1] != 1):
            raise ValueError(
                f"this model's layers let rows depend on their neighbours: expected one state and one column, got "
                f"{len(states)} and {[each.shape[1] for each in columns]}. Step them one by one."
            )
        feeds = [
            Feed(state.cache, torch.from_numpy(each[0]), wants)
            for state, each, wants in zip(states, columns, wants_logits, strict=True)
        ]
        logits = read(self._model, feeds, min_rows=self.min_rows)
        return [None if rows is None else _guided(state, rows.float()) for state, rows in zip(states, logits)]


def num_rows_of(condition: StageCondition, guidance_scale: float) -> int:
    """Rows of a request: two under guidance, one where there is nothing to guide by."""
    is_any = condition.style is not None or condition.melody is not None
    return 2 if is_any and guidance_scale not in (0, 1) else 1


def check_condition(condition: StageCondition, config: StageConfig) -> None:
    """Refuse codes out of range; what else does not fit, the model refuses.

    Raises:
        ValueError: Naming the field.
    """
    given = (
        ("style", condition.style, config.num_style_codes, config.style_cardinality),
        ("melody", condition.melody, config.num_melody_codebooks, config.melody_cardinality),
        ("source", condition.source, config.num_source_codebooks, config.source_cardinality),
    )
    for name, codes, num_codes, cardinality in given:
        if codes is None:
            continue
        if codes.shape[0] != num_codes or not codes.size:
            raise ValueError(f"{name}: expected {num_codes} codes, got {codes.shape}. 0: this stage hears none.")
        if int(codes.min()) < 0 or int(codes.max()) >= cardinality:
            raise ValueError(f"{name}: expected 0 to {cardinality - 1}, got {int(codes.min())} to {int(codes.max())}.")


def _rows(codes: NDArray[np.int64] | None, num_rows: int, num_told: int) -> Tensor | None:
    """Codes for each row of a request; those after the first `num_told` rows are not told, but keep their places."""
    if codes is None:
        return None
    rows = torch.from_numpy(np.asarray(codes, dtype=np.int64))[None].repeat(num_rows, *[1] * codes.ndim)
    rows[num_told:] = UNTOLD
    return rows


def _guided(state: StageState, logits: Tensor) -> Tensor:
    return guide(logits[:1], logits[1:], state.guidance_scale) if logits.shape[0] == 2 else logits
