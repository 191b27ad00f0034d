"""What a server tries on its own model before it serves: that joining changes no bit, and how long passes take.

Runs on the model thread, at load. Takes any `StepModel`; knows no model and no wire.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stretto_shared.engine.program import StepModel, close_state

Condition = TypeVar("Condition")
_NUM_COLUMNS = 4
_NUM_TIMED = 2
_SEED = 20_002


@dataclass(frozen=True, eq=False)
class Trial(Generic[Condition]):
    """One kind of request to try: a condition and its guidance."""

    condition: Condition
    guidance_scale: float


def joins_exactly(model: StepModel[Condition, Any], trials: Sequence[Trial[Condition]]) -> bool:
    """Whether every trial gets the same logits alone, column by column, and joined with the others in random cuts."""
    rng = np.random.default_rng(_SEED)
    codes = [rng.integers(0, model.cardinality, (len(model.delays), _NUM_COLUMNS)) for _ in trials]
    alone = [_alone(model, trial, each) for trial, each in zip(trials, codes, strict=True)]
    with _opened(model, trials, _NUM_COLUMNS) as states:
        return _joins(model, states, codes, alone, rng)


def _joins(
    model: StepModel[Condition, Any],
    states: Sequence[Any],
    codes: Sequence[NDArray[np.int64]],
    alone: Sequence[Sequence[Tensor]],
    rng: np.random.Generator,
) -> bool:
    """Whether the states get the logits that they get alone, in passes of some of them and some of their columns."""
    done = [0] * len(states)
    while min(done) < _NUM_COLUMNS:
        unfinished = [i for i in range(len(states)) if done[i] < _NUM_COLUMNS]
        chosen = sorted(rng.choice(unfinished, size=rng.integers(1, len(unfinished) + 1), replace=False).tolist())
        counts = [int(rng.integers(1, min(3, _NUM_COLUMNS - done[i]) + 1)) for i in chosen]
        parts = [codes[i][:, done[i] : done[i] + count] for i, count in zip(chosen, counts)]
        logits = model.step([states[i] for i in chosen], parts, [True] * len(chosen))
        for i, count, row in zip(chosen, counts, logits):
            done[i] += count
            if row is None or not torch.equal(row, alone[i][done[i] - 1]):
                return False
    return True


def measure_step_s(
    model: StepModel[Condition, Any], trial: Trial[Condition], *, max_states: int, max_columns: int
) -> dict[int, float]:
    """Time passes of one to `max_states` states, and of one state with `max_columns` columns; the least of a few.

    Returns:
        Seconds by number of rows; only a lone state where the model does not join.
    """
    num_rows = model.cost(trial.condition, num_steps=1, guidance_scale=trial.guidance_scale).num_rows
    sizes = [(1, 1)]
    if model.is_row_invariant:
        doubling = [2**i for i in range(1, max_states.bit_length()) if 2**i < max_states]
        sizes += [(count, 1) for count in (*doubling, max_states) if count > 1]
        sizes += [(max_states, 1 + max_columns)]  # the first of them reads them all
    return {(count + columns - 1) * num_rows: _time_s(model, trial, count, columns) for count, columns in sizes}


def _time_s(model: StepModel[Condition, Any], trial: Trial[Condition], num_states: int, num_columns: int) -> float:
    column: NDArray[np.int64] = np.zeros((len(model.delays), 1), dtype=np.int64)
    columns = [column.repeat(num_columns, axis=1), *[column] * (num_states - 1)]
    taken_s = []
    with _opened(model, [trial] * num_states, _NUM_TIMED * num_columns) as states:
        for _ in range(_NUM_TIMED):
            start_s = time.perf_counter()
            logits = model.step(states, columns, [True] * num_states)
            _wait_for(logits)
            taken_s.append(time.perf_counter() - start_s)
    return min(taken_s)


def _wait_for(logits: Sequence[Tensor | None]) -> None:
    """Return when a device has computed them: what is in its queue comes one after the other."""
    for row in logits[-1:]:
        if row is not None:
            row.cpu()


def _alone(model: StepModel[Condition, Any], trial: Trial[Condition], codes: NDArray[np.int64]) -> list[Tensor]:
    with _opened(model, [trial], _NUM_COLUMNS) as states:
        logits = [model.step(states, [codes[:, i : i + 1]], [True])[0] for i in range(_NUM_COLUMNS)]
    return [row for row in logits if row is not None]


@contextmanager
def _opened(
    model: StepModel[Condition, Any], trials: Sequence[Trial[Condition]], num_steps: int
) -> Iterator[list[Any]]:
    """States of the trials, closed in the end."""
    states: list[Any] = []
    try:
        for trial in trials:
            states.append(model.open(trial.condition, num_steps=num_steps, guidance_scale=trial.guidance_scale))
        yield states
    finally:
        for state in states:
            close_state(state)
