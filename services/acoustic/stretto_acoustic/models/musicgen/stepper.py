"""`MusicGenStepper`: MusicGen's language model as the token engine drives it, guidance included.

A request under guidance runs as two rows of a pass, conditional and null; at guidance 1, 0, or without any condition,
as one row. The rows of several requests, and of several columns of one, share a pass where the model's layers treat
each row by itself, which `tried` finds out. Numpy in, logits out; knows nothing of requests, threads and the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_shared.engine.program import StateCost
from stretto_shared.engine.sampling import guide
from stretto_shared.engine.self_test import Trial, joins_exactly
from stretto_shared.nn.row_invariance import fewest_invariant_rows, linear_layers
from torch import Tensor

from stretto_acoustic.models.musicgen.config import MusicGenConfig
from stretto_acoustic.models.musicgen.joined import Feed
from stretto_acoustic.models.musicgen.lm import MusicGenLM
from stretto_acoustic.models.musicgen.state import MusicGenState


@dataclass(frozen=True, eq=False)
class MusicGenCondition:
    """What one piece should be: text states [L, D] and pitch classes [P]; None of both is unconditional."""

    text_states: NDArray[np.float32] | None = None
    pitch_classes: NDArray[np.int32] | None = None

    @property
    def is_any(self) -> bool:
        return self.text_states is not None or self.pitch_classes is not None


@dataclass(eq=False)
class GuidedState:
    """The state of one request: one row, or a conditional and a null one."""

    inner: MusicGenState
    guidance_scale: float

    @property
    def is_guided(self) -> bool:
        return self.inner.batch_size == 2


class OfMusicGen:
    """What the token engine and its trial ask of every stepper of a MusicGen model."""

    _model: MusicGenLM

    def trials(self) -> list[Trial[MusicGenCondition]]:
        """One request of each kind that this model takes, the plainest guided one first."""
        return trials_of(self._model.config)

    @property
    def cardinality(self) -> int:
        return self._model.config.cardinality

    @property
    def special_token(self) -> int:
        return self._model.config.special_token

    @property
    def delays(self) -> tuple[int, ...]:
        return self._model.config.delays


class MusicGenStepper(OfMusicGen):
    """Drives a `MusicGenLM` in eval mode; implements `StepModel`.

    Args:
        model: The model, on its thread.
        min_rows: Number of rows from which on its layers treat each row by itself; a pass of fewer is filled up. None
            where they do not, and no two requests share a pass.
    """

    def __init__(self, model: MusicGenLM, *, min_rows: int | None = None) -> None:
        self._model = model
        self._min_rows = min_rows

    @classmethod
    def tried(cls, model: MusicGenLM, *, max_rows: int) -> MusicGenStepper:
        """Try the model's layers with up to `max_rows` rows, then the whole, and join as far as no bit changes."""
        layers = linear_layers(model.layers)
        min_rows = fewest_invariant_rows([*layers, model.heads], max_rows=max_rows, dtype=model.embeddings.weight.dtype)
        joined = cls(model, min_rows=min_rows)
        return joined if min_rows is not None and joins_exactly(joined, joined.trials()) else cls(model)

    @property
    def is_row_invariant(self) -> bool:
        return self._min_rows is not None

    @property
    def min_rows(self) -> int:
        return self._min_rows or 1

    def cost(self, condition: MusicGenCondition, *, num_steps: int, guidance_scale: float) -> StateCost:
        """Rows of a request, and bytes of its caches: its steps, its prefix and its text."""
        config = self._model.config
        num_rows = num_rows_of(condition, guidance_scale)
        num_entries = num_steps
        if config.melody_conditioning == "prefix_only":
            num_entries += config.chroma_frames
        elif condition.pitch_classes is not None:
            num_entries += condition.pitch_classes.size
        if condition.text_states is not None:
            num_entries += condition.text_states.shape[0]
        return StateCost(num_rows, num_entries * self._model.kv_bytes_per_step(num_rows))

    @torch.inference_mode()
    def open(self, condition: MusicGenCondition, *, num_steps: int, guidance_scale: float) -> GuidedState:
        """Allocate the caches of a request and project its conditions."""
        state = init_state(self._model, condition, num_steps=num_steps, guidance_scale=guidance_scale)
        return GuidedState(state, guidance_scale)

    @torch.inference_mode()
    def step(
        self, states: Sequence[GuidedState], columns: Sequence[NDArray[np.int64]], wants_logits: Sequence[bool]
    ) -> list[Tensor | None]:
        """Read columns [K, c] for each state in one pass; return guided float32 logits [K, V] where they are wanted."""
        if not self.is_row_invariant and (len(states) != 1 or columns[0].shape[1] != 1):
            raise ValueError(
                f"this model's layers let rows depend on their neighbours: expected one state and one column, got "
                f"{len(states)} and {[each.shape[1] for each in columns]}. Step them one by one."
            )
        feeds = [
            Feed(state.inner, torch.from_numpy(each).expand(state.inner.batch_size, -1, -1), wants)
            for state, each, wants in zip(states, columns, wants_logits, strict=True)
        ]
        logits = self._model.read(feeds, min_rows=self.min_rows)
        return [None if rows is None else _guided(state, rows.float()) for state, rows in zip(states, logits)]


def trials_of(config: MusicGenConfig) -> list[Trial[MusicGenCondition]]:
    """One request of each kind that a model of this geometry takes, the plainest guided one first."""
    rng = np.random.default_rng(0)
    text = rng.standard_normal((5, config.text_dim)).astype(np.float32)
    melody = np.arange(config.chroma_frames, dtype=np.int32)[:7] % config.num_chroma
    trials = [
        Trial(MusicGenCondition(text), 3.0),
        Trial(MusicGenCondition(), 1.0),
        Trial(MusicGenCondition(text[:3]), 1.0),
        Trial(MusicGenCondition(text[1:]), 2.0),
    ]
    if config.melody_conditioning != "none":
        trials += [Trial(MusicGenCondition(text, melody), 3.0), Trial(MusicGenCondition(None, melody), 1.0)]
    return trials


def num_rows_of(condition: MusicGenCondition, guidance_scale: float) -> int:
    """Rows of a request: two under guidance, one where there is nothing to guide by."""
    return 2 if condition.is_any and guidance_scale not in (0, 1) else 1


def init_state(
    model: MusicGenLM, condition: MusicGenCondition, *, num_steps: int, guidance_scale: float
) -> MusicGenState:
    """The state of a request with room for `num_steps` steps: its conditional row, and a null one under guidance."""
    if guidance_scale == 0 or not condition.is_any:
        return model.init_state(1, num_steps)
    num_rows = num_rows_of(condition, guidance_scale)
    return model.init_state(num_rows, num_steps, *condition_tensors(model, condition, num_rows))


def condition_tensors(
    model: MusicGenLM, condition: MusicGenCondition, num_rows: int
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Text states [B, L, D], their mask [B, L] and pitch classes [B, P]; the second row is the null one."""
    weight = model.embeddings.weight
    text = mask = chroma = None
    if condition.text_states is not None:
        text = torch.tensor(condition.text_states, dtype=weight.dtype, device=weight.device).repeat(num_rows, 1, 1)
        mask = torch.ones(text.shape[:2], device=weight.device)
        mask[1:] = 0
    if condition.pitch_classes is not None:
        chroma = torch.tensor(condition.pitch_classes, dtype=torch.int64, device=weight.device).repeat(num_rows, 1)
        chroma[1:] = -1
    return text, mask, chroma


def _guided(state: GuidedState, logits: Tensor) -> Tensor:
    return guide(logits[0], logits[1], state.guidance_scale) if state.is_guided else logits[0]
