"""What a token engine is asked, what it asks of a model, and the course of one request: nouns without threads.

`Program` follows one request through the delay pattern: which columns the model reads next, which entries of the
column after them are known already, which are to be drawn, and which frames are complete. The columns of known frames
(prompt or resume) may be read several at a time, of drawn ones one at a time; a model that reads several gives them the
bytes of single steps, so that a resumed request gives an unbroken one's.

Any token language model fits: delays [0, 1, 2, ...] are MusicGen's, [0] * K are parallel streams, and [0] with K = 1
is flattened RVQ or a vocabulary of events, whose frames are single tokens. A piece of events may end by itself, with
the frame that holds `end_token`.

Legend: K codebooks, T frames, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stretto_shared.engine.device_sampling import sample_on_device
from stretto_shared.engine.native_sampling import Rows, can_draw, sample_natively
from stretto_shared.engine.sampling import Sampling, sample
from stretto_shared.nn.lowbit import NativeKernel

Condition = TypeVar("Condition")
ConditionIn = TypeVar("ConditionIn", contravariant=True)
State = TypeVar("State")


@dataclass(frozen=True)
class StateCost:
    """What a request's state takes: rows of every pass (conditional and null), and bytes of cache."""

    num_rows: int
    kv_bytes: int


class StepModel(Protocol[ConditionIn, State]):
    """A language model of delayed tokens, as the token engine drives it on the model thread.

    A state belongs to one request. Invariant, which the engine relies on and `self_test` tries: where
    `is_row_invariant`, a state's logits are the same to the bit whatever states are beside it in `step` and however its
    columns are cut into calls. Where it is not, the engine gives `step` one state with one column at a time.
    """

    @property
    def cardinality(self) -> int: ...
    @property
    def special_token(self) -> int: ...
    @property
    def delays(self) -> tuple[int, ...]: ...
    @property
    def is_row_invariant(self) -> bool: ...
    def cost(self, condition: ConditionIn, *, num_steps: int, guidance_scale: float) -> StateCost:
        """Tell what `open` with these arguments would take; cheap, and called on any thread."""
        ...

    def open(self, condition: ConditionIn, *, num_steps: int, guidance_scale: float) -> State:
        """Make the state of a request that will take `num_steps` steps."""
        ...

    def step(
        self, states: Sequence[State], columns: Sequence[NDArray[np.int64]], wants_logits: Sequence[bool]
    ) -> list[Tensor | None]:
        """Read columns [K, c] for each state, in one pass, and advance it.

        Returns:
            For each state the guided float32 logits [K, V] after its last column, or None where it wants none. They
            may be on a device that still computes them, and are drawn from before the next step.

        Raises:
            Exception: Whatever goes wrong; then no state has advanced.
        """
        ...


@runtime_checkable
class HeldState(Protocol):
    """A state that holds a place of a fixed pool. Every state that has `close` is closed when its request is over."""

    def close(self) -> None:
        """Give the place back; cheap, and called on any thread while no step runs."""
        ...


def close_state(state: object) -> None:
    """Give back what a state holds, if anything; the state is never stepped again."""
    if isinstance(state, HeldState):
        state.close()


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
        is_realtime: Somebody listens while it is made: it is served before its audio runs out, or refused.
        priority: 0 to 9, of a best-effort piece: it waits before lower ones, and gets `priority + 1` shares of turns.
        end_token: The first frame whose codebook 0 holds it is the last one, and is given like any other; `num_frames`
            is then the most that there can be, and what slots and waits are planned by. None: no token ends the piece.
        noise_offset: Where its first frame lies for the noise: requests that draw consecutive parts of one piece under
            one seed repeat none.
        num_later_frames: Frames of the same piece that later requests will draw, by which waits are planned.
    """

    condition: Condition
    num_frames: int
    prompt: NDArray[np.int32]
    resume_from: NDArray[np.int32]
    sampling: Sampling
    seed: int
    is_realtime: bool = False
    priority: int = 0
    end_token: int | None = None
    noise_offset: int = 0
    num_later_frames: int = 0

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
        if request.end_token is not None and (known[0] == request.end_token).any():
            raise ValueError(f"the known frames hold the end token {request.end_token}: nothing follows it.")
        self._request = request
        self._stage = stage
        self._delays = tuple(delays)
        self._max_delay = max(delays)
        num_columns = 1 + request.num_frames + self._max_delay
        self._columns = np.full((len(delays), num_columns), special_token, dtype=np.int64)  # delayed, as they are read
        for own, codes, delay in zip(self._columns, known, delays, strict=True):
            own[1 + delay : 1 + delay + len(codes)] = codes
        self._num_known = request.num_known_frames
        self._num_given = request.num_known_frames
        self._num_steps_done = 0
        self._num_frames = request.num_frames  # fewer once the end token was drawn

    @property
    def sampling(self) -> Sampling:
        """How its tokens are drawn."""
        return self._request.sampling

    @property
    def seed(self) -> int:
        """The seed of its noise, 0 to 2^64 - 1."""
        return self._request.seed

    @property
    def noise_offset(self) -> int:
        """What is added to a frame where its noise is looked up."""
        return self._request.noise_offset

    @property
    def stage(self) -> int:
        """What keeps its noise apart from other stages'."""
        return self._stage

    @property
    def num_steps(self) -> int:
        """Steps of the whole piece, as far as its end is known."""
        return self._num_frames + self._max_delay

    @property
    def num_steps_left(self) -> int:
        return self.num_steps - self._num_steps_done

    @property
    def needs_logits(self) -> bool:
        """Whether the next step has something to draw."""
        return self._num_steps_done >= self._num_known

    @property
    def num_readable_columns(self) -> int:
        """How many columns are known now: all up to the first one that has to be drawn."""
        return max(1, self._num_known + 1 - self._num_steps_done)

    @property
    def num_steps_to_frame(self) -> int:
        """Steps until the next frame is complete, those of known frames included."""
        next_frame = self._num_given + self.num_frames_ready
        return max(1, min(self.num_steps, next_frame + 1 + self._max_delay) - self._num_steps_done)

    @property
    def num_frames_ready(self) -> int:
        """Complete frames that were not taken yet."""
        complete = min(self._num_steps_done - self._max_delay, self._num_frames)
        return max(0, complete - self._num_given)

    def wants_logits_after(self, num_columns: int) -> bool:
        """Whether something is to be drawn when the next `num_columns` columns are read."""
        return self._num_steps_done + num_columns > self._num_known

    def next_column(self) -> NDArray[np.int64]:
        """Return the column [K] that the model reads next."""
        return self._columns[:, self._num_steps_done].copy()

    def next_columns(self, count: int) -> NDArray[np.int64]:
        """Return the next `count` columns [K, count]; at most `num_readable_columns`."""
        if not 1 <= count <= self.num_readable_columns:
            raise ValueError(f"expected 1 to {self.num_readable_columns} columns, got {count}.")
        return self._columns[:, self._num_steps_done : self._num_steps_done + count].copy()

    def read(self, logits: Tensor | None, num_columns: int = 1) -> Draw | None:
        """Move on by the columns that were read, and say what is to be drawn from the logits [K, V] after the last.

        What is to be drawn has to be settled before the program is asked for anything else.
        """
        self._num_steps_done += num_columns
        step = self._num_steps_done - 1  # that of the last column
        if logits is None:
            return None
        unknown = [k for k, delay in enumerate(self._delays) if self._num_known <= step - delay < self._num_frames]
        return Draw(self, logits, [step - self._delays[k] for k in unknown], unknown) if unknown else None

    def settle(self, draw: Draw, tokens: Sequence[int]) -> None:
        """Take the tokens [R] that were drawn: all of them belong to the next column."""
        column = self._columns[:, self._num_steps_done]
        for codebook, token in zip(draw.codebooks, tokens, strict=True):
            column[codebook] = token
        if draw.codebooks[0] == 0 and tokens[0] == self._request.end_token:
            self._num_frames = draw.frames[0] + 1

    def advance(self, logits: Tensor | None, num_columns: int = 1) -> None:
        """Read, and draw for this program alone."""
        draw = self.read(logits, num_columns)
        if draw is not None:
            draw_all([draw])

    def take_frames(self) -> TokenBlock:
        """Give the complete frames that were not given before."""
        start, count = self._num_given, self.num_frames_ready
        self._num_given += count
        firsts = [1 + delay + start for delay in self._delays]
        codes = [own[first : first + count] for own, first in zip(self._columns, firsts, strict=True)]
        return TokenBlock(np.stack(codes).astype(np.int32), start)


@dataclass(frozen=True, eq=False, slots=True)
class Draw:
    """What a program has to draw: guided logits [K, V], and frames [R] and codebooks [R] of its unknown entries."""

    program: Program
    logits: Tensor
    frames: list[int]
    codebooks: list[int]

    @property
    def noise_frames(self) -> list[int]:
        """Where its frames lie for the noise."""
        offset = self.program.noise_offset
        return [offset + frame for frame in self.frames]


def draw_all(draws: Sequence[Draw], kernel: NativeKernel | None = None) -> None:
    """Draw and settle for any number of programs: once for all that draw in the same way, which gives each the same.

    Args:
        draws: Of each program one.
        kernel: Draws what it can; None where there is none, for the same tokens.
    """
    on_device: dict[int, list[Draw]] = defaultdict(list)
    natively: dict[tuple[int, int], list[Draw]] = defaultdict(list)
    alike: dict[tuple[Sampling, int], list[Draw]] = defaultdict(list)
    for draw in draws:
        sampling, stage = draw.program.sampling, draw.program.stage
        if kernel is not None and can_draw(draw.logits, sampling):
            natively[stage, draw.logits.shape[-1]].append(draw)
        elif _is_on_device(draw.logits) and sampling.top_p == 1:
            on_device[stage].append(draw)
        else:
            alike[sampling, stage].append(draw)
    for stage, group in on_device.items():
        _draw_on_device(group, stage)
    for (sampling, stage), group in alike.items():
        _draw_alike(group, sampling, stage)
    for (stage, _), group in natively.items():
        if kernel is not None:
            _draw_natively(group, stage, kernel)


def _draw_natively(group: Sequence[Draw], stage: int, kernel: NativeKernel) -> None:
    rows = [
        Rows(draw.logits, draw.codebooks, draw.noise_frames, draw.program.sampling, draw.program.seed) for draw in group
    ]
    for draw, tokens in zip(group, sample_natively(kernel, rows, stage), strict=True):
        draw.program.settle(draw, tokens)


def _is_on_device(logits: Tensor) -> bool:
    return logits.device.type != "cpu"


def _draw_on_device(group: Sequence[Draw], stage: int) -> None:
    """Draw for all codebooks, also for those whose token is known, as picking rows there would take longer."""
    num_codebooks = group[0].logits.shape[0]
    frames = np.zeros((len(group), num_codebooks), dtype=np.int64)
    for row, draw in zip(frames, group, strict=True):
        row[draw.codebooks] = draw.noise_frames
    samplings = [draw.program.sampling for draw in group]
    tokens = sample_on_device(
        torch.cat([draw.logits for draw in group]),
        temperatures=np.array([each.temperature for each in samplings], dtype=np.float64).repeat(num_codebooks),
        top_ks=np.array([each.top_k for each in samplings], dtype=np.int64).repeat(num_codebooks),
        seeds=np.array([draw.program.seed for draw in group], dtype=np.uint64).repeat(num_codebooks),
        stage=stage,
        frames=frames.ravel(),
        codebooks=np.tile(np.arange(num_codebooks, dtype=np.int64), len(group)),
    )
    for draw, own in zip(group, tokens.reshape(frames.shape), strict=True):
        draw.program.settle(draw, own[draw.codebooks].tolist())


def _draw_alike(group: Sequence[Draw], sampling: Sampling, stage: int) -> None:
    tokens = sample(
        torch.cat([_rows_to_draw(draw) for draw in group]),
        sampling,
        seed=np.concatenate([np.full(len(draw.frames), draw.program.seed, dtype=np.uint64) for draw in group]),
        stage=stage,
        frames=np.concatenate([draw.noise_frames for draw in group]).astype(np.int64),
        codebooks=np.concatenate([draw.codebooks for draw in group]).astype(np.int64),
    )
    ends = np.cumsum([len(draw.frames) for draw in group])
    for draw, own in zip(group, np.split(tokens, ends[:-1]), strict=True):
        draw.program.settle(draw, own.tolist())


def _rows_to_draw(draw: Draw) -> Tensor:
    is_all = len(draw.codebooks) == draw.logits.shape[0]
    return draw.logits if is_all else draw.logits[draw.codebooks]
