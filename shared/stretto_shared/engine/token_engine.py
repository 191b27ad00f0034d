"""`TokenEngine`: the step loop of a token language model, shared by requests that come and go at any frame.

A step is schedule (which request is next), run (one column through the model), postprocess (draw, hand out frames).
Requests in slots take turns, one step each; each runs as its own forward pass, so that its bytes cannot depend on the
others. `StepModel.step` takes several states already: joining the rows of all slots in one pass changes this file only.

Cancelling a request (closing its iterator) frees its slot before the next step. A reader that lags pauses its request,
never the others. Knows nothing of texts, codecs or the wire.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from stretto_shared.engine.program import Program, StepModel, TokenBlock, TokenRequest
from stretto_shared.engine.sampling import stage_key
from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import NotReady, Overloaded

Condition = TypeVar("Condition")
State = TypeVar("State")

_SMOOTHING = 0.05
_FIRST_GUESS_STEP_S = 0.02
_MAX_TURN_S = 0.25


@dataclass(frozen=True)
class TokenEngineConfig:
    """Limits of one engine.

    Args:
        max_slots: Requests that run at the same time.
        max_queued: Requests that wait for a slot; more fail with Overloaded.
        first_block_frames: Frames in the first block of a request, few for a short wait.
        block_frames: Frames in the blocks after it.
        max_unread_blocks: Blocks that a reader may lag behind before its request pauses.
    """

    max_slots: int = 4
    max_queued: int = 16
    first_block_frames: int = 5
    block_frames: int = 25
    max_unread_blocks: int = 8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")


@dataclass(eq=False)
class _Slot(Generic[Condition, State]):
    request: TokenRequest[Condition]
    program: Program
    on_start: Callable[[], None] | None = None
    outbox: asyncio.Queue[TokenBlock | Exception | None] = field(default_factory=asyncio.Queue)
    state: State | None = None
    is_cancelled: bool = False
    has_given: bool = False


_Event = tuple[_Slot[Condition, State], TokenBlock | Exception | None]


class TokenEngine(Generic[Condition, State]):
    """Runs token requests on the model thread and streams their frames.

    Invariant: a request gives the same frames alone, beside others, and resumed at any frame
    (`tests/shared/engine/test_token_engine.py`).

    Args:
        thread: The model's thread.
        model: What computes logits.
        stage: Name that keeps this stage's noise apart from other stages' under the same seed.
        config: Limits.
    """

    def __init__(
        self, thread: ModelThread, model: StepModel[Condition, State], *, stage: str, config: TokenEngineConfig
    ) -> None:
        self._thread = thread
        self._model = model
        self._stage = stage_key(stage)
        self._config = config
        self._waiting: deque[_Slot[Condition, State]] = deque()
        self._running: list[_Slot[Condition, State]] = []
        self._wake = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None
        self._mean_step_s = _FIRST_GUESS_STEP_S
        self._is_closed = False

    @property
    def num_running(self) -> int:
        """Requests in slots; one that was cancelled does not count, though its last step may still run."""
        return sum(not slot.is_cancelled for slot in self._running)

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    async def generate(
        self, request: TokenRequest[Condition], *, on_start: Callable[[], None] | None = None
    ) -> AsyncGenerator[TokenBlock, None]:
        """Stream the new frames of `request`; closing the iterator frees the slot before the next step.

        Args:
            request: The piece.
            on_start: Called on the event loop when the request takes its slot, before its first step.

        Raises:
            Overloaded: At the first block, if `max_queued` requests wait already.
            NotReady: If the engine was closed.
        """
        slot = self._enqueue(request, on_start)
        try:
            while (item := await slot.outbox.get()) is not None:
                self._wake.set()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            slot.is_cancelled = True
            if slot in self._waiting:
                self._waiting.remove(slot)
            self._wake.set()

    async def close(self) -> None:
        """Refuse new requests, end the others with NotReady, and wait for the step that runs."""
        self._is_closed = True
        self._wake.set()
        if self._driver is not None:
            await asyncio.wait([self._driver])
        self._fail_all(NotReady("The token engine is closing: the server is stopping. Resume at another one."))

    def _enqueue(
        self, request: TokenRequest[Condition], on_start: Callable[[], None] | None
    ) -> _Slot[Condition, State]:
        if self._is_closed:
            raise NotReady("The token engine is closed: the server is stopping. Try another one.")
        if self.num_running + len(self._waiting) >= self._config.max_slots + self._config.max_queued:
            raise Overloaded(
                f"{self.num_running} requests run and {len(self._waiting)} wait, which is the limit. Retry later.",
                retry_after_s=self._estimate_wait_s(),
            )
        program = Program(
            request, delays=self._model.delays, special_token=self._model.special_token, stage=self._stage
        )
        slot: _Slot[Condition, State] = _Slot(request, program, on_start)
        self._waiting.append(slot)
        self._wake.set()
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        return slot

    def _estimate_wait_s(self) -> float:
        """Seconds until the running request with the least left ends, which lets one more wait."""
        least = min((slot.program.num_steps_left for slot in self._running), default=1)
        return max(self._mean_step_s, least * max(1, len(self._running)) * self._mean_step_s)

    async def _drive(self) -> None:
        """Give the model thread turns as long as anybody is there."""
        while not self._is_closed:
            self._running = [slot for slot in self._running if not slot.is_cancelled]
            while self._waiting and len(self._running) < self._config.max_slots:
                slot = self._waiting.popleft()
                self._running.append(slot)
                if slot.on_start is not None:
                    slot.on_start()
            if not self._running:
                return
            ready = [slot for slot in self._running if slot.outbox.qsize() < self._config.max_unread_blocks]
            self._wake.clear()
            if not ready:
                await self._wake.wait()
                continue
            try:
                events = await self._thread.run(lambda slots=ready: self._take_turn(slots))  # type: ignore[misc]
            except Exception as error:  # the thread refused the turn: nobody can go on
                self._fail_all(error)
                return
            for slot, item in events:
                slot.outbox.put_nowait(item)
                if not isinstance(item, TokenBlock):
                    self._running.remove(slot)

    def _fail_all(self, error: Exception) -> None:
        for slot in (*self._running, *self._waiting):
            slot.outbox.put_nowait(error)
        self._running.clear()
        self._waiting.clear()

    def _take_turn(self, slots: list[_Slot[Condition, State]]) -> list[_Event[Condition, State]]:
        """On the model thread: step all slots in turn until one has news, the loop has news, or time is up."""
        end_s = time.perf_counter() + _MAX_TURN_S
        events: list[_Event[Condition, State]] = []
        while not events and time.perf_counter() < end_s:
            for slot in slots:
                if slot.is_cancelled:
                    slot.state = None
                    return events
                try:
                    self._step(slot, events)
                except Exception as error:  # one request's failure is its own; the others go on
                    slot.state = None
                    events.append((slot, error))
            if self._wake.is_set():
                return events
        return events

    def _step(self, slot: _Slot[Condition, State], events: list[_Event[Condition, State]]) -> None:
        start_s = time.perf_counter()
        program = slot.program
        if slot.state is None:
            slot.state = self._model.open(
                slot.request.condition,
                num_steps=program.num_steps,
                guidance_scale=slot.request.sampling.guidance_scale,
            )
        logits = self._model.step([slot.state], program.next_column()[None], with_logits=program.needs_logits)
        program.advance(None if logits is None else logits[0])
        wanted = self._config.block_frames if slot.has_given else self._config.first_block_frames
        is_over = program.num_steps_left == 0
        if program.num_frames_ready >= wanted or (is_over and program.num_frames_ready):
            slot.has_given = True
            events.append((slot, program.take_frames()))
        if is_over:
            slot.state = None
            events.append((slot, None))
        self._mean_step_s += _SMOOTHING * (time.perf_counter() - start_s - self._mean_step_s)
