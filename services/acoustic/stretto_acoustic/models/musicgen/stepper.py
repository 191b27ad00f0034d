"""`MusicGenStepper`: MusicGen's language model as the token engine drives it, guidance included.

A request under guidance runs as two rows of one forward pass, conditional and null; at guidance 1, 0, or without any
condition, as one row. Numpy in, logits out; knows nothing of requests, threads and the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_shared.engine.sampling import guide
from torch import Tensor

from stretto_acoustic.models.musicgen.lm import MusicGenLM
from stretto_acoustic.models.musicgen.state import MusicGenState


@dataclass(frozen=True, eq=False)
class MusicGenCondition:
    """What one piece should be: text states [L, D] and pitch classes [P]; None of both is unconditional."""

    text_states: NDArray[np.float32] | None = None
    pitch_classes: NDArray[np.int32] | None = None


@dataclass(eq=False)
class GuidedState:
    """The state of one request: one row, or a conditional and a null one."""

    inner: MusicGenState
    guidance_scale: float

    @property
    def is_guided(self) -> bool:
        return self.inner.batch_size == 2


class MusicGenStepper:
    """Drives a `MusicGenLM` in eval mode one column at a time; implements `StepModel`."""

    def __init__(self, model: MusicGenLM) -> None:
        self._model = model
        self._dtype = model.embeddings.weight.dtype

    @property
    def cardinality(self) -> int:
        return self._model.config.cardinality

    @property
    def special_token(self) -> int:
        return self._model.config.special_token

    @property
    def delays(self) -> tuple[int, ...]:
        return self._model.config.delays

    @torch.inference_mode()
    def open(self, condition: MusicGenCondition, *, num_steps: int, guidance_scale: float) -> GuidedState:
        """Allocate the caches of a request and project its conditions."""
        has_condition = condition.text_states is not None or condition.pitch_classes is not None
        if guidance_scale == 0 or not has_condition:
            return GuidedState(self._model.init_state(1, num_steps), guidance_scale)
        num_rows = 1 if guidance_scale == 1 else 2
        text = mask = chroma = None
        if condition.text_states is not None:
            text = torch.tensor(condition.text_states, dtype=self._dtype).repeat(num_rows, 1, 1)
            mask = torch.ones(text.shape[:2])
            mask[1:] = 0
        if condition.pitch_classes is not None:
            chroma = torch.tensor(condition.pitch_classes, dtype=torch.int64).repeat(num_rows, 1)
            chroma[1:] = -1
        return GuidedState(self._model.init_state(num_rows, num_steps, text, mask, chroma), guidance_scale)

    @torch.inference_mode()
    def step(self, states: Sequence[GuidedState], columns: NDArray[np.int64], *, with_logits: bool) -> Tensor | None:
        """Read a column [K] for each state; return guided float32 logits [n, K, V] unless nobody draws."""
        logits = [self._step_one(state, column, with_logits) for state, column in zip(states, columns, strict=True)]
        return torch.stack([each for each in logits if each is not None]) if with_logits else None

    def _step_one(self, state: GuidedState, column: NDArray[np.int64], with_logits: bool) -> Tensor | None:
        codes = torch.from_numpy(column).expand(state.inner.batch_size, -1)
        logits = self._model.step(codes, state.inner, with_logits=with_logits)
        if logits is None:
            return None
        logits = logits.float()
        return guide(logits[0], logits[1], state.guidance_scale) if state.is_guided else logits[0]
