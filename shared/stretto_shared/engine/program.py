"""What a token engine is asked, what it asks of a model, and the course of one request: nouns without threads.

`Program` follows one request through the delay pattern: which column the model reads next, which entries of the
column after it are known already, which are to be drawn, and which frames are complete. A known frame (prompt or
resume) goes through the same single steps as a drawn one, so that a resumed request gives an unbroken one's bytes.

Legend: K codebooks, T frames, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stretto_shared.engine.sampling import Sampling, sample

Condition = TypeVar("Condition")
ConditionIn = TypeVar("ConditionIn", contravariant=True)
State = TypeVar("State")


class StepModel(Protocol[ConditionIn, State]):
    """A language model of delayed tokens, as the token engine drives it on the model thread.

    A state belongs to one request. `step` gives each state the logits that it would get alone.
    """

    @property
    def cardinality(self) -> int: ...
    @property
    def special_token(self) -> int: ...
    @property
    def delays(self) -> tuple[int, ...]: ...
    def open(self, condition: ConditionIn, *, num_steps: int, guidance_scale: float) -> State:
        """Make the state of a request that will take `num_steps` steps."""
        ...

    def step(self, states: Sequence[State], columns: NDArray[np.int64], *, with_logits: bool) -> Tensor | None:
        """Read one column [K] for each state, `columns` [n, K], and return guided logits [n, K, V] of the next."""
        ...


@dataclass(frozen=True, eq=False)
class TokenRequest(Generic[Condition]):
    """One piece to generate.

    Args:
        condition: What the model's `open` takes.
        num_frames: Length of the whole piece, prompt included.
        prompt: Frames [K, T] that the piece begins with; never given back.
        resume_from: Frames [K, T] after the prompt that an earlier call gave; not given again.
        sampling: How to draw.
        seed: Of the noise, 0 to 2^64 - 1.
    """

    condition: Condition
    num_frames: int
    prompt: NDArray[np.int32]
    resume_from: NDArray[np.int32]
    sampling: Sampling
    seed: int

    @property
    def num_known_frames(self) -> int:
        return int(self.prompt.shape[1] + self.resume_from.shape[1])


@dataclass(frozen=True, eq=False)
class TokenBlock:
    """Consecutive new frames [K, n] of a piece; `first_frame` counts from its beginning, prompt included."""

    codes: NDArray[np.int32]
    first_frame: int


class Program:
    """The course of one request: columns read so far, frames complete so far."""

    def __init__(
        self, request: TokenRequest[Condition], *, delays: Sequence[int], special_token: int, stage: int
    ) -> None:
        known = np.concatenate([request.prompt, request.resume_from], axis=1).astype(np.int64)
        if known.shape[0] != len(delays) or not 0 <= known.shape[1] < request.num_frames:
            raise ValueError(f"{known.shape} known frames do not fit {len(delays)} x {request.num_frames}.")
        self._request = request
        self._stage = stage
        self._delays = np.array(delays, dtype=np.int64)
        self._special_token = special_token
        self._max_delay = max(delays)
        self._codebooks = np.arange(len(delays), dtype=np.int64)
        self._codes = np.full((len(delays), request.num_frames), special_token, dtype=np.int64)
        self._codes[:, : known.shape[1]] = known
        self._num_known = request.num_known_frames
        self._num_given = request.num_known_frames
        self._num_steps_done = 0

    @property
    def num_steps(self) -> int:
        """Steps of the whole piece."""
        return self._request.num_frames + self._max_delay

    @property
    def num_steps_left(self) -> int:
        return self.num_steps - self._num_steps_done

    @property
    def needs_logits(self) -> bool:
        """Whether the next step has something to draw."""
        return self._num_steps_done >= self._num_known

    @property
    def num_frames_ready(self) -> int:
        """Complete frames that were not taken yet."""
        complete = min(self._num_steps_done - self._max_delay, self._request.num_frames)
        return max(0, complete - self._num_given)

    def next_column(self) -> NDArray[np.int64]:
        """Return the column [K] that the model reads next."""
        frames = self._num_steps_done - 1 - self._delays
        is_code = (frames >= 0) & (frames < self._request.num_frames)
        codes = self._codes[self._codebooks, frames.clip(0, self._request.num_frames - 1)]
        return np.where(is_code, codes, self._special_token)

    def advance(self, logits: Tensor | None) -> None:
        """Take the step's logits [K, V], draw what is unknown, and move on by one column."""
        if logits is not None:
            frames = self._num_steps_done - self._delays
            to_draw = (frames >= self._num_known) & (frames < self._request.num_frames)
            rows = self._codebooks[to_draw]
            self._codes[rows, frames[rows]] = sample(
                logits[rows.tolist()],
                self._request.sampling,
                seed=self._request.seed,
                stage=self._stage,
                frames=frames[rows],
                codebooks=rows,
            )
        self._num_steps_done += 1

    def take_frames(self) -> TokenBlock:
        """Give the complete frames that were not given before."""
        start = self._num_given
        self._num_given += self.num_frames_ready
        return TokenBlock(self._codes[:, start : self._num_given].astype(np.int32), start)
