"""`Stream`, one request from its arrival to its end, and `SlotPool`, who runs and who waits.

The pool is changed on the event loop only. The model thread reads the running streams that it is handed, and owns their
state, program and clock while a turn lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from stretto_shared.engine.clock import PlayClock
from stretto_shared.engine.program import Program, StateCost, TokenBlock, TokenRequest, close_state

Condition = TypeVar("Condition")
State = TypeVar("State")


@dataclass(eq=False)
class Stream(Generic[Condition, State]):
    """One request: what it asks, how far it is, and where its blocks go.

    Args:
        request: The piece.
        program: Its course.
        cost: Rows and cache bytes while it holds a slot.
        clock: Its listener; None where frames have no time, as events have not.
        arrived_s: When it came, on `time.perf_counter`.
        on_start: Called on the event loop when it takes its slot.
    """

    request: TokenRequest[Condition]
    program: Program
    cost: StateCost
    clock: PlayClock | None
    arrived_s: float
    on_start: Callable[[], None] | None = None
    outbox: asyncio.Queue[TokenBlock | Exception | None] = field(default_factory=asyncio.Queue)
    state: State | None = None
    started_s: float = 0.0
    last_block_s: float | None = None
    num_blocks: int = 0
    share_used: float = 0.0
    is_cancelled: bool = False
    was_paused: bool = False

    @property
    def is_realtime(self) -> bool:
        return self.request.is_realtime and self.clock is not None

    @property
    def num_rows(self) -> int:
        return self.cost.num_rows

    def drop_state(self) -> None:
        """Let go of the state, and of the place that it may hold."""
        state, self.state = self.state, None
        close_state(state)


@dataclass(eq=False)
class Piece(Generic[Condition, State]):
    """A piece that was let in once and runs as several requests, one after another, for one listener.

    Args:
        stream: The latest of them, or at first one that looks like the longest.
    """

    stream: Stream[Condition, State]


class SlotPool(Generic[Condition, State]):
    """A fixed number of slots under one budget of cache bytes, and a queue before them.

    A piece of several requests holds no slot between two of them, and will come back. If it is real-time, a best-effort
    request gets no slot that it would then lack.

    The queue gives real-time streams first, then by priority, then by arrival; nobody overtakes the head of the queue,
    also where the head needs more memory than is free and the next would not.

    Invariant: never more than `num_slots` run, and their caches never take more than `kv_budget_bytes`
    (`tests/shared/engine/test_slots.py`).
    """

    def __init__(self, num_slots: int, kv_budget_bytes: int) -> None:
        self.num_slots = num_slots
        self.kv_budget_bytes = kv_budget_bytes
        self.running: list[Stream[Condition, State]] = []
        self.waiting: list[Stream[Condition, State]] = []
        self.pieces: list[Piece[Condition, State]] = []

    @property
    def idle(self) -> list[Stream[Condition, State]]:
        """Of each piece that neither runs nor waits now its latest request."""
        streams = [piece.stream for piece in self.pieces]
        return [stream for stream in streams if stream not in self.running and stream not in self.waiting]

    @property
    def num_running(self) -> int:
        """Streams in slots; one that was cancelled does not count, though its last step may still run."""
        return sum(not stream.is_cancelled for stream in list(self.running))

    @property
    def kv_bytes_used(self) -> int:
        return sum(stream.cost.kv_bytes for stream in list(self.running))

    def has_room_for(self, cost: StateCost) -> bool:
        """Whether a request of this cost could take a slot now, if nobody waited before it."""
        is_free = len(self.running) < self.num_slots
        return is_free and self.kv_bytes_used + cost.kv_bytes <= self.kv_budget_bytes

    def enqueue(self, stream: Stream[Condition, State]) -> None:
        """Put a stream in the queue at its place."""
        self.waiting.append(stream)
        self.waiting.sort(key=_rank)  # stable: equals stay in order of arrival

    def before(self, stream: Stream[Condition, State]) -> list[Stream[Condition, State]]:
        """Those who wait and would get a slot before this one, which need not be in the queue yet."""
        return [other for other in self.waiting if other is not stream and _rank(other) <= _rank(stream)]

    def fill(self, now_s: float) -> list[Stream[Condition, State]]:
        """Drop the cancelled, give free slots to those who wait, and return the newly started."""
        for stream in [stream for stream in self.running if stream.is_cancelled]:
            stream.drop_state()
            self.running.remove(stream)
        started = []
        while self.waiting and self.has_room_for(self.waiting[0].cost) and not self._is_kept_from(self.waiting[0]):
            stream = self.waiting.pop(0)
            stream.started_s = now_s
            stream.share_used = min((other.share_used for other in self.running), default=0.0)
            self.running.append(stream)
            started.append(stream)
        return started

    def _is_kept_from(self, stream: Stream[Condition, State]) -> bool:
        """Whether a free place is that of a real-time piece between two of its requests."""
        kept = [other for other in self.idle if other.is_realtime]
        if stream.is_realtime or not kept:
            return False
        num_bytes = self.kv_bytes_used + sum(other.cost.kv_bytes for other in kept) + stream.cost.kv_bytes
        return len(self.running) + len(kept) >= self.num_slots or num_bytes > self.kv_budget_bytes

    def discard(self, stream: Stream[Condition, State]) -> None:
        """Take a stream out, wherever it is."""
        for streams in (self.running, self.waiting):
            if stream in streams:
                streams.remove(stream)

    def take_all(self) -> list[Stream[Condition, State]]:
        """Empty the pool of all that run and wait, and return them."""
        everybody = [*self.running, *self.waiting]
        self.running, self.waiting = [], []
        return everybody


def _rank(stream: Stream[Condition, State]) -> tuple[bool, int]:
    return (not stream.is_realtime, -stream.request.priority)
