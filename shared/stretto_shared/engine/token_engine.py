"""`TokenEngine`: one step loop over a fixed pool of slots, which requests join and leave at any frame.

A step is schedule (`scheduler`: who is in the next pass), run (one pass of the model for all of them, where the model's
layers treat each row by itself; one pass each where not), postprocess (`step_loop`: draw, hand out frames). The pool
(`slots`) says who runs and who waits. This file is the event loop's side: it lets requests in or refuses them, fills
free slots, gives the model thread its turns, and carries blocks to their readers.

Cancelling a request (closing its iterator) frees its slot before the next step. A reader that lags pauses its request,
never the others. A piece that is made by one request after another (`windows`) is let in once, by `open_piece`: none
of its requests is refused later, and its listener's clock goes on from one to the next. Knows nothing of texts, codecs
or the wire.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Generic, TypeVar

from opentelemetry import trace

from stretto_shared.engine.clock import PlayClock
from stretto_shared.engine.config import TokenEngineConfig
from stretto_shared.engine.meter import SilentMeter, TokenMeter
from stretto_shared.engine.program import Program, StateCost, StepModel, TokenBlock, TokenRequest
from stretto_shared.engine.sampling import stage_key
from stretto_shared.engine.scheduler import Scheduler
from stretto_shared.engine.slots import Piece, SlotPool, Stream
from stretto_shared.engine.step_loop import StepLoop
from stretto_shared.engine.step_times import StepTimes
from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import InvalidInput, NotReady, Overloaded

__all__ = ["TokenEngine", "TokenEngineConfig"]

RETURN_SPACING_S = 0.25
"""Between the times at which two refused real-time listeners are told to come back."""
Condition = TypeVar("Condition")
State = TypeVar("State")


class TokenEngine(Generic[Condition, State]):
    """Runs token requests on the model thread and streams their frames.

    Invariant: a request gives the same frames alone, beside any others, and resumed at any frame
    (`tests/shared/engine/test_token_engine.py`, `tests/services/acoustic/test_acoustic_schedules.py`).

    Args:
        thread: The model's thread.
        model: What computes logits.
        stage: Name that keeps this stage's noise apart from other stages' under the same seed.
        config: Limits.
        frame_rate_hz: Frames played in a second; None where frames have no time, and no request is real-time.
        step_times: What is known of the model's step times; learnt as it runs.
        meter: Who counts.
    """

    def __init__(
        self,
        thread: ModelThread,
        model: StepModel[Condition, State],
        *,
        stage: str,
        config: TokenEngineConfig,
        frame_rate_hz: float | None = None,
        step_times: StepTimes | None = None,
        meter: TokenMeter | None = None,
    ) -> None:
        self._thread = thread
        self._model = model
        self._stage = stage_key(stage)
        self._config = config
        self._frame_rate_hz = frame_rate_hz
        self._meter: TokenMeter = meter or SilentMeter()
        times = step_times or StepTimes()
        self._scheduler = Scheduler(config, times, joins=model.is_row_invariant)
        self._loop = StepLoop(model, config, self._scheduler, times, self._meter)
        self._pool: SlotPool[Condition, State] = SlotPool(config.max_slots, config.kv_budget_bytes)
        self._promised: list[tuple[float, Stream[Condition, State]]] = []
        self._play_until_s: list[float] = []
        self._last_return_s = 0.0
        self._wake = asyncio.Event()
        self._driver: asyncio.Task[None] | None = None
        self._is_closed = False
        self._meter.watch_slots(config.max_slots, lambda: self._pool.num_running)
        self._meter.watch_kv(config.kv_budget_bytes, lambda: self._pool.kv_bytes_used)

    @property
    def num_running(self) -> int:
        """Requests in slots; one that was cancelled does not count, though its last step may still run."""
        return self._pool.num_running

    @property
    def num_waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._pool.waiting)

    @property
    def num_idle(self) -> int:
        """Open pieces none of whose requests runs or waits now."""
        return len(self._pool.idle)

    @property
    def kv_bytes_used(self) -> int:
        """Bytes that the caches of the running requests take."""
        return self._pool.kv_bytes_used

    async def generate(
        self,
        request: TokenRequest[Condition],
        *,
        on_start: Callable[[], None] | None = None,
        piece: Piece[Condition, State] | None = None,
    ) -> AsyncGenerator[TokenBlock, None]:
        """Stream the new frames of `request`; closing the iterator frees the slot before the next step.

        Args:
            request: The piece.
            on_start: Called on the event loop when the request takes its slot, before its first step.
            piece: The open piece of which this is the next request: it may have to wait, and is never refused.

        Raises:
            InvalidInput: At the first block, if the piece alone needs more cache than the whole budget.
            Overloaded: At the first block, if `max_queued` requests wait already, or if it is real-time and would
                make running real-time streams run dry, or wait too long for a slot.
            NotReady: If the engine was closed.
        """
        stream = self._enqueue(request, on_start) if piece is None else self._enqueue_next(piece, request, on_start)
        has_begun = False
        try:
            while (item := await stream.outbox.get()) is not None:
                self._wake.set()
                if isinstance(item, Exception):
                    raise item
                if not has_begun:  # in the trace of whoever asked, so that it reaches from the door to the model
                    trace.get_current_span().add_event("first_frames", {"stretto.first_frame": item.first_frame})
                    has_begun = True
                yield item
            if piece is None:
                self._keep_listener(stream)
        finally:
            stream.is_cancelled = stream in self._pool.running
            if stream in self._pool.waiting:
                self._pool.discard(stream)
            if piece is None:
                self._observe_end(stream)
            self._wake.set()

    def check_fits(self, request: TokenRequest[Condition]) -> None:
        """Refuse a request that can never run; takes no place, and asks nothing of who runs now.

        Raises:
            InvalidInput: If it alone needs more cache than the whole budget.
        """
        self._check_fits(self._stream(request, None).cost)

    def open_piece(self, request: TokenRequest[Condition]) -> Piece[Condition, State]:
        """Let in a piece of several requests, of which the longest looks like this one; `close_piece` ends it.

        It counts as one request, also while none of its requests runs or waits.

        Raises:
            StrettoError: What `generate` would raise for this request.
        """
        piece = Piece(self._admitted(request, None))
        self._pool.pieces.append(piece)
        return piece

    def close_piece(self, piece: Piece[Condition, State]) -> None:
        """End a piece none of whose requests is read any more."""
        self._pool.pieces.remove(piece)
        stream = piece.stream
        if stream.program.num_steps_left == 0 and stream.request.num_later_frames == 0:
            self._keep_listener(stream)
        self._observe_end(stream)
        self._wake.set()

    def check_admission(self, request: TokenRequest[Condition]) -> None:
        """Raise what `generate` would raise now for this request.

        It takes no place; but a real-time request that has one counts as one that runs for `promise_s`, or until a
        real-time request comes. So of many who ask at once no more are let in than there is room for.
        """
        stream = self._admitted(request, None)
        if stream.is_realtime:
            self._promised.append((stream.arrived_s + self._config.promise_s, stream))

    async def close(self) -> None:
        """Refuse new requests, end the others with NotReady, and wait for the step that runs."""
        self._is_closed = True
        self._wake.set()
        if self._driver is not None:
            await asyncio.wait([self._driver])
        self._fail_all(NotReady("The token engine is closing: the server is stopping. Resume at another one."))

    def _enqueue(
        self, request: TokenRequest[Condition], on_start: Callable[[], None] | None
    ) -> Stream[Condition, State]:
        stream = self._admitted(request, on_start, takes_promise=True)
        self._put_in_queue(stream)
        return stream

    def _enqueue_next(
        self,
        piece: Piece[Condition, State],
        request: TokenRequest[Condition],
        on_start: Callable[[], None] | None,
    ) -> Stream[Condition, State]:
        """Put a piece's next request in the queue, with the listener of the one before."""
        before, stream = piece.stream, self._stream(request, on_start)
        stream.clock, stream.num_blocks, stream.last_block_s = before.clock, before.num_blocks, before.last_block_s
        if stream.clock is not None:
            # Who stood still before the request came waited for its source or its reader, not for the model.
            stream.clock.forgive(stream.arrived_s)
        piece.stream = stream
        self._put_in_queue(stream)
        return stream

    def _put_in_queue(self, stream: Stream[Condition, State]) -> None:
        self._pool.enqueue(stream)
        self._wake.set()
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())

    def _observe_end(self, stream: Stream[Condition, State]) -> None:
        if stream.clock is not None and stream.clock.has_started:
            self._meter.observe_stream(stream.clock.underrun_s, is_realtime=stream.is_realtime)

    def _admitted(
        self, request: TokenRequest[Condition], on_start: Callable[[], None] | None, *, takes_promise: bool = False
    ) -> Stream[Condition, State]:
        """A stream that may be put in the queue."""
        if takes_promise and request.is_realtime and self._expected():
            self._promised.pop(0)
        stream = self._stream(request, on_start)
        self._admit(stream)
        return stream

    def _stream(
        self, request: TokenRequest[Condition], on_start: Callable[[], None] | None
    ) -> Stream[Condition, State]:
        if self._is_closed:
            raise NotReady("The token engine is closed: the server is stopping. Try another one.")
        program = Program(
            request, delays=self._model.delays, special_token=self._model.special_token, stage=self._stage
        )
        cost = self._model.cost(
            request.condition, num_steps=program.num_steps, guidance_scale=request.sampling.guidance_scale
        )
        clock = None if self._frame_rate_hz is None else PlayClock(self._frame_rate_hz)
        return Stream(request, program, cost, clock, time.perf_counter(), on_start)

    def _admit(self, stream: Stream[Condition, State]) -> None:
        """Refuse what can never run, what the queue has no room for, and what would make others run dry."""
        pool, scheduler = self._pool, self._scheduler
        self._check_fits(stream.cost)
        num_waiting = len(pool.waiting) + len(pool.idle)
        if pool.num_running + num_waiting >= pool.num_slots + self._config.max_queued:
            raise Overloaded(
                f"{pool.num_running} requests run and {num_waiting} wait, which is the limit. Retry later.",
                retry_after_s=scheduler.estimate_end_s(pool.running),
            )
        if stream.is_realtime:
            self._admit_realtime(stream)

    def _check_fits(self, cost: StateCost) -> None:
        if cost.kv_bytes > self._pool.kv_budget_bytes:
            raise InvalidInput(
                "duration_s",
                f"expected a piece whose cache fits {self._pool.kv_budget_bytes} bytes, got one of {cost.kv_bytes}. "
                "Ask for a shorter piece, or let the operator raise the cache's memory.",
            )

    def _admit_realtime(self, stream: Stream[Condition, State]) -> None:
        pool, scheduler = self._pool, self._scheduler
        running = [other for other in pool.running if not other.is_cancelled]
        expected = [*self._expected(), *(other for other in pool.idle if other.is_realtime)]
        others = [*running, *pool.waiting, *expected]
        if scheduler.would_underrun(stream, others):
            raise Overloaded(
                "One more real-time stream would make those that play run dry. Retry later, or ask for best effort.",
                retry_after_s=self._own_turn_s(self._first_end_s([other for other in others if other.is_realtime])),
            )
        holders = [*running, *pool.before(stream), *expected]
        num_bytes = sum(other.cost.kv_bytes for other in holders) + stream.cost.kv_bytes
        if len(holders) < pool.num_slots and num_bytes <= pool.kv_budget_bytes:
            wait_s = self._listeners_wait_s(holders)
        else:
            slot_s = scheduler.estimate_end_s(holders, max(1, len(holders) + 1 - pool.num_slots))
            wait_s = max(slot_s, self._listeners_wait_s(holders))
        if wait_s > self._config.max_realtime_wait_s:
            raise Overloaded(
                f"No slot is free for a real-time stream for {wait_s:.1f} s, more than the "
                f"{self._config.max_realtime_wait_s:g} s that it may wait. Retry later, or ask for best effort.",
                retry_after_s=self._own_turn_s(wait_s),
            )

    def _first_end_s(self, realtime: Sequence[Stream[Condition, State]]) -> float:
        """Seconds until the first of these will have been made, which none is long before it was heard."""
        now_s = time.perf_counter()
        heard_s = min(self._left_to_play_s(stream, now_s) for stream in realtime) - self._config.realtime_max_lead_s
        return max(self._scheduler.estimate_end_s(realtime), heard_s)

    def _keep_listener(self, stream: Stream[Condition, State]) -> None:
        """Remember until when a piece that was made to its end is still played."""
        if stream.is_realtime and stream.clock is not None and stream.clock.has_started:
            self._play_until_s.append(stream.clock.runs_out_s)

    def _own_turn_s(self, wait_s: float) -> float:
        """When a refused listener should come back: not before `wait_s`, and no two at once.

        Many who were told the same would come back together, and what they are answered with delays those who play.
        """
        now_s = time.perf_counter()
        self._last_return_s = max(now_s + wait_s, self._last_return_s + RETURN_SPACING_S)
        return self._last_return_s - now_s

    def _listeners_wait_s(self, holders: Sequence[Stream[Condition, State]]) -> float:
        """Seconds until fewer real-time listeners than there are slots still play; 0 where they do.

        A piece that was made faster than it plays counts until it was played: the stages after this one have it still
        to do, and the number of slots says how many listeners all of them bear.
        """
        now_s = time.perf_counter()
        self._play_until_s = [until_s for until_s in self._play_until_s if now_s < until_s]
        plays_s = [until_s - now_s for until_s in self._play_until_s]
        plays_s += [self._left_to_play_s(stream, now_s) for stream in holders if stream.is_realtime]
        num_over = len(plays_s) + 1 - self._pool.num_slots
        return sorted(plays_s)[num_over - 1] if num_over > 0 else 0.0

    def _left_to_play_s(self, stream: Stream[Condition, State], now_s: float) -> float:
        """Seconds of a piece that its listener has not heard yet."""
        if stream.clock is None:
            return 0.0
        ahead_s = max(0.0, stream.clock.ahead_s(now_s)) if stream.clock.has_started else 0.0
        num_left = stream.program.num_steps_left + stream.request.num_later_frames
        return ahead_s + num_left / stream.clock.frame_rate_hz

    def _expected(self) -> list[Stream[Condition, State]]:
        """The real-time streams that were told that there is room, and have not come yet."""
        now_s = time.perf_counter()
        self._promised = [(until_s, stream) for until_s, stream in self._promised if now_s < until_s]
        return [stream for _, stream in self._promised]

    async def _drive(self) -> None:
        """Give the model thread turns as long as anybody is there."""
        while not self._is_closed:
            for stream in self._pool.fill(time.perf_counter()):
                if stream.on_start is not None:
                    stream.on_start()
            if not self._pool.running and not self._pool.waiting:
                return
            ready = []
            for stream in self._pool.running:
                if stream.outbox.qsize() < self._config.max_unread_blocks:
                    ready.append(stream)
                else:
                    stream.was_paused = True
            ready, rest_s = self._scheduler.awake(ready, time.perf_counter()) if ready else (ready, math.inf)
            self._wake.clear()
            if not ready:
                await self._until_news(rest_s)
                continue
            try:
                events = await self._thread.run(
                    lambda streams=ready: self._loop.take_turn(streams, self._wake.is_set)  # type: ignore[misc]
                )
            except Exception as error:  # the thread refused the turn: nobody can go on
                self._fail_all(error)
                return
            for stream, item in events:
                stream.outbox.put_nowait(item)
                if not isinstance(item, TokenBlock):
                    self._pool.discard(stream)

    async def _until_news(self, at_most_s: float) -> None:
        """Wait until somebody came, left or read on, or for so long."""
        try:
            async with asyncio.timeout(None if math.isinf(at_most_s) else at_most_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _fail_all(self, error: Exception) -> None:
        for stream in self._pool.take_all():
            stream.drop_state()
            stream.outbox.put_nowait(error)
