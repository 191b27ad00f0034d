"""`PooledStepper`: MusicGen's language model as the token engine drives it, over slots that are allocated once.

For accelerators, where starting many small kernels takes longer than running them, and where shapes that change make
graphs impossible: `FixedPass` says what is fixed. It works on a CPU too, slower than `MusicGenStepper`, and is tested
there. A state is a place in the pool, to be given back by `close`.

Known columns (prompts, resumes) are read one pass each, those of several pieces beside each other: the very passes of
drawn columns, so that a resumed piece equals an unbroken one by construction. A melody, a text and "prefix_only" are
read when a state is opened, by `MusicGenLM.init_state`, outside any graph.

Numpy in, logits out, on the device and perhaps not computed yet; knows nothing of requests, threads and the wire.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_shared.engine.program import StateCost
from stretto_shared.engine.self_test import Trial, joins_exactly
from stretto_shared.errors import InvalidInput
from torch import Tensor

from stretto_acoustic.models.musicgen.fixed_pass import FixedPass, Record, RowInput, recorder_for
from stretto_acoustic.models.musicgen.lm import MusicGenLM
from stretto_acoustic.models.musicgen.slot_cache import ROWS_PER_SLOT, SlotCache
from stretto_acoustic.models.musicgen.state import MusicGenState
from stretto_acoustic.models.musicgen.stepper import MusicGenCondition, OfMusicGen, init_state, num_rows_of


@dataclass(eq=False)
class PooledState:
    """The place of one request in a pool, until it is closed."""

    slot: int
    num_rows: int
    max_steps: int
    first_position: int
    num_prefix: tuple[int, ...]  # entries of the prefix that each row hears
    num_text: int
    give_back: Callable[[int], None] = field(repr=False)
    num_steps: int = 0
    is_closed: bool = False

    def close(self) -> None:
        """Give the slot back; a second time does nothing."""
        if not self.is_closed:
            self.is_closed = True
            self.give_back(self.slot)


class PooledStepper(OfMusicGen):
    """Drives a `MusicGenLM` in eval mode on its own device; implements `StepModel`.

    Invariant: a state's logits do not depend on its slot, on other states, on what the slot held before, nor on how its
    columns are cut into calls (`tests/services/acoustic/test_pooled_stepper.py`). Shapes that never change make it
    likely, `tried` makes sure: a pass of several slots is used where no bit differs, else every slot has its own.

    Args:
        model: The model, on its thread and device.
        num_slots: States that may be open at a time.
        kv_budget_bytes: Memory that their caches may take.
        joins: Whether all slots share a pass; False: each has one of its own.
        record: What makes passes repeatable; None: what the device has for it.

    Raises:
        InvalidInput: If the slots do not fit the budget.
    """

    def __init__(
        self,
        model: MusicGenLM,
        *,
        num_slots: int,
        kv_budget_bytes: int,
        joins: bool = True,
        record: Record | None = None,
    ) -> None:
        self._model = model
        self._slot_bytes = SlotCache.slot_bytes(model.config, model.embeddings.weight.element_size())
        if num_slots * self._slot_bytes > kv_budget_bytes:
            raise InvalidInput(
                "kv_memory_mb",
                f"expected at least {math.ceil(num_slots * self._slot_bytes / 2**20)} for {num_slots} slots, which are "
                f"allocated whole on this device, got {kv_budget_bytes >> 20}. Raise it, or lower max_slots.",
            )
        self._cache = SlotCache(model, num_slots)
        self._free = list(range(num_slots))
        self._guidance = torch.full((num_slots,), torch.nan, device=model.device)
        self._record = record or recorder_for(model.device)
        self._use_passes(joins=joins)

    def _use_passes(self, *, joins: bool) -> None:
        self._slots_per_pass = self._cache.num_slots if joins else 1
        self._passes = [
            FixedPass(
                self._model,
                self._cache,
                self._guidance,
                first_slot=first,
                num_slots=self._slots_per_pass,
                record=self._record,
            )
            for first in range(0, self._cache.num_slots, self._slots_per_pass)
        ]
        self._joins = joins

    @classmethod
    def tried(
        cls, model: MusicGenLM, *, num_slots: int, kv_budget_bytes: int, record: Record | None = None
    ) -> PooledStepper:
        """Let all slots share a pass if no bit of any kind of request changes at any slot; else give each its own."""
        stepper = cls(model, num_slots=num_slots, kv_budget_bytes=kv_budget_bytes, record=record)
        if not all(joins_exactly(stepper, trials) for trials in _casts(stepper.trials(), num_slots)):
            stepper._use_passes(joins=False)
        return stepper

    @classmethod
    def apart(cls, model: MusicGenLM, *, num_slots: int, kv_budget_bytes: int) -> PooledStepper:
        """Give each slot a pass of its own, untried."""
        return cls(model, num_slots=num_slots, kv_budget_bytes=kv_budget_bytes, joins=False)

    @property
    def is_row_invariant(self) -> bool:
        return self._joins

    @property
    def min_rows(self) -> int:
        """Rows of every pass."""
        return ROWS_PER_SLOT * self._slots_per_pass

    @property
    def num_free_slots(self) -> int:
        return len(self._free)

    @property
    def num_cache_bytes(self) -> int:
        return self._cache.num_bytes

    def cost(self, condition: MusicGenCondition, *, num_steps: int, guidance_scale: float) -> StateCost:
        """Rows of a request, and the bytes of a slot, which is given whole."""
        return StateCost(num_rows_of(condition, guidance_scale), self._slot_bytes)

    @torch.inference_mode()
    def open(self, condition: MusicGenCondition, *, num_steps: int, guidance_scale: float) -> PooledState:
        """Take a slot, and read a request's conditions into it.

        Raises:
            ValueError: If a slot has no room for so many steps or so long a condition.
            RuntimeError: If no slot is free.
        """
        if num_steps > self._model.config.max_steps:
            raise ValueError(f"expected at most {self._model.config.max_steps} steps, got {num_steps}.")
        if not self._free:
            raise RuntimeError(f"all {self._cache.num_slots} slots are taken. Close a state first.")
        inner = init_state(self._model, condition, num_steps=0, guidance_scale=guidance_scale)
        slot = heapq.heappop(self._free)
        try:
            self._cache.fill(slot, inner)
        except BaseException:
            self._give_back(slot)
            raise
        self._guidance[slot] = guidance_scale if inner.batch_size == ROWS_PER_SLOT else torch.nan
        return PooledState(
            slot=slot,
            num_rows=inner.batch_size,
            max_steps=num_steps,
            first_position=inner.first_position,
            num_prefix=_heard_prefixes(inner),
            num_text=max(1, inner.memories[0][0].shape[2] if inner.memories else 0),  # of nothing, one entry of zeros
            give_back=self._give_back,
        )

    @torch.inference_mode()
    def step(
        self, states: Sequence[PooledState], columns: Sequence[NDArray[np.int64]], wants_logits: Sequence[bool]
    ) -> list[Tensor | None]:
        """Read columns [K, c] for each state, one column of every state a pass; return guided float32 logits [K, V]."""
        self._check(states, columns)
        fixed_pass = self._passes[states[0].slot // self._slots_per_pass]
        results: list[Tensor | None] = [None] * len(states)
        for at in range(max(each.shape[1] for each in columns)):
            reading = [i for i, each in enumerate(columns) if at < each.shape[1]]
            fixed_pass(each for i in reading for each in self._row_inputs(states[i], columns[i][:, at], at))
            ending = [i for i in reading if wants_logits[i] and at + 1 == columns[i].shape[1]]
            if ending:
                logits = fixed_pass.logits()
                for i in ending:
                    results[i] = logits[states[i].slot - fixed_pass.first_slot]
        for state, each in zip(states, columns):
            state.num_steps += each.shape[1]
        return results

    def _row_inputs(self, state: PooledState, column: NDArray[np.int64], at: int) -> Iterator[RowInput]:
        """What the rows of a state read in the pass of its column `at` from here."""
        num_steps = state.num_steps + at
        first_step = max(0, num_steps + 1 - (self._model.config.attention_frames or num_steps + 1))
        for row, num_prefix in enumerate(state.num_prefix):
            yield RowInput(
                row=ROWS_PER_SLOT * state.slot + row,
                column=column,
                position=state.first_position + num_steps,
                write_at=self._cache.prefix_room + num_steps,
                first_entry=self._cache.prefix_room + first_step,
                num_prefix=num_prefix,
                num_text=state.num_text,
            )

    def _check(self, states: Sequence[PooledState], columns: Sequence[NDArray[np.int64]]) -> None:
        if not states or (len(states) > 1 and not self._joins):
            raise ValueError(f"slots have passes of their own: expected one state, got {len(states)}.")
        if len({state.slot for state in states}) != len(states):
            raise ValueError("a state can be in a pass once only; give it more columns instead.")
        for state, each in zip(states, columns, strict=True):
            if state.is_closed:
                raise ValueError("the state was closed, and its slot may be another's. Open one.")
            if state.num_steps + each.shape[1] > state.max_steps:
                raise ValueError(f"the state holds {state.max_steps} steps and all are used; allocate more.")

    def _give_back(self, slot: int) -> None:
        heapq.heappush(self._free, slot)


def _heard_prefixes(state: MusicGenState) -> tuple[int, ...]:
    """Entries of the prefix that each row hears: all or none."""
    if state.prefix_bias is None:
        return (state.prefix_length,) * state.batch_size
    return tuple(state.prefix_length * int(bias == 0) for bias in state.prefix_bias[:, 0, 0, 0].tolist())


def _casts(trials: Sequence[Trial[MusicGenCondition]], num_slots: int) -> list[list[Trial[MusicGenCondition]]]:
    """Fill the pool with trials until each kind had a slot at least once."""
    num_casts = math.ceil(len(trials) / num_slots)
    order = [trials[i % len(trials)] for i in range(num_casts * num_slots)]
    return [order[first : first + num_slots] for first in range(0, len(order), num_slots)]
