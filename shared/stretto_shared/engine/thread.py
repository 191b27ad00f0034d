"""`ModelThread`: the one thread on which a model runs, so that the event loop never waits for a forward pass.

Where threads can have priorities of their own, on Linux, it has a lower one than the event loop: whoever asks for
health or is refused is answered before the next pass goes on. Knows nothing of models, torch or the wire: it runs
callables in the order in which they came, one at a time, on a bounded queue.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from stretto_shared.errors import NotReady, Overloaded

T = TypeVar("T")

_SMOOTHING = 0.2
_FIRST_GUESS_S = 0.05
NICENESS, LONG_NICENESS = 5, 10
"""How much lower than that of the process the priority of a model's thread is; the latter where the stages after it
work on what it makes, and come first."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class _Call(Generic[T]):
    work: Callable[[], T]
    future: asyncio.Future[T]
    loop: asyncio.AbstractEventLoop
    context: contextvars.Context


class ModelThread:
    """Runs callables one at a time, first come first served unless asked otherwise, on a thread of its own.

    Invariant: never more than `max_queued` calls wait; a call cancelled while it waits is never run
    (`tests/shared/engine/test_model_thread.py`). A call that runs already is finished, and its result dropped.

    Args:
        name: Name of the thread, and of the model in error messages.
        max_queued: How many calls may wait for the one that runs.
        niceness: How much lower than the process's its priority is.
    """

    def __init__(self, name: str, *, max_queued: int = 64, niceness: int = NICENESS) -> None:
        if max_queued < 1:
            raise ValueError(f"max_queued must be at least 1, got {max_queued}.")
        self._name = name
        self._max_queued = max_queued
        self._niceness = niceness
        self._calls: deque[_Call[Any]] = deque()
        self._wake = threading.Condition()
        self._is_closed = False
        self._mean_work_s = _FIRST_GUESS_S
        self._thread: threading.Thread | None = None

    @property
    def num_queued(self) -> int:
        """How many calls wait; the one that runs is not counted."""
        return len(self._calls)

    @property
    def estimated_wait_s(self) -> float:
        """Seconds until a call queued now would start, from the smoothed duration of the calls before it."""
        return (len(self._calls) + 1) * self._mean_work_s

    async def run(self, work: Callable[[], T], *, is_next: bool = False) -> T:
        """Run `work` on the thread and return what it returns, or raise what it raises.

        Args:
            work: What is to be run.
            is_next: Before all that wait; for work that takes next to no time.

        Raises:
            Overloaded: If `max_queued` calls wait already; carries the queue's own estimate.
            NotReady: If the thread was closed, or closes while the call waits.
        """
        loop = asyncio.get_running_loop()
        call: _Call[T] = _Call(work, loop.create_future(), loop, contextvars.copy_context())
        with self._wake:
            if self._is_closed:
                raise NotReady(f"The model thread '{self._name}' is closed: the server is stopping. Try another one.")
            if len(self._calls) >= self._max_queued:
                raise Overloaded(
                    f"The model '{self._name}' has {len(self._calls)} calls waiting, which is its limit. Retry later.",
                    retry_after_s=self.estimated_wait_s,
                )
            if self._thread is None:
                self._thread = threading.Thread(target=self._work_until_closed, name=f"model-{self._name}", daemon=True)
                self._thread.start()
            if is_next:
                self._calls.appendleft(call)
            else:
                self._calls.append(call)
            self._wake.notify()
        try:
            return await call.future
        except asyncio.CancelledError:
            with self._wake:
                if call in self._calls:
                    self._calls.remove(call)
            raise

    async def close(self) -> None:
        """Refuse new calls, fail the waiting ones with NotReady, and wait for the one that runs."""
        with self._wake:
            self._is_closed = True
            waiting = list(self._calls)
            self._calls.clear()
            self._wake.notify()
        error = NotReady(f"The model thread '{self._name}' closed before the call ran: the server is stopping.")
        for call in waiting:
            deliver(call.loop, call.future, None, error)
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _work_until_closed(self) -> None:
        _yield_to_others(self._niceness)
        while True:
            with self._wake:
                while not self._calls and not self._is_closed:
                    self._wake.wait()
                if self._is_closed:
                    return
                call = self._calls.popleft()
            start_s = time.perf_counter()
            try:
                result, error = call.context.run(call.work), None
            except Exception as raised:  # whatever the work raises belongs to its caller, who awaits the future
                result, error = None, raised
            self._mean_work_s += _SMOOTHING * (time.perf_counter() - start_s - self._mean_work_s)
            deliver(call.loop, call.future, result, error)


def _yield_to_others(niceness: int) -> None:
    """Lower the priority of this thread alone, which the threads that it starts inherit."""
    if sys.platform == "linux":  # elsewhere it would be the whole process's
        thread_id = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread_id, os.getpriority(os.PRIO_PROCESS, thread_id) + niceness)


def deliver(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], result: object, error: Exception | None
) -> None:
    """Settle a future of an event loop from another thread, unless it was given up."""

    def settle() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the caller's event loop is gone, and with it everybody who could want the result
        _log.warning("model_thread_result_dropped", reason="event loop closed")
