"""`ModelThread`: the one thread on which a model runs, so that the event loop never waits for a forward pass.

Knows nothing of models, torch or the wire: it runs callables in the order in which they came, one at a time, on a
bounded queue.
"""

from __future__ import annotations

import asyncio
import contextvars
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
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class _Call(Generic[T]):
    work: Callable[[], T]
    future: asyncio.Future[T]
    loop: asyncio.AbstractEventLoop
    context: contextvars.Context


class ModelThread:
    """Runs callables one at a time, first come first served, on a thread of its own.

    Invariant: never more than `max_queued` calls wait; a call cancelled while it waits is never run
    (`tests/shared/engine/test_model_thread.py`). A call that runs already is finished, and its result dropped.

    Args:
        name: Name of the thread, and of the model in error messages.
        max_queued: How many calls may wait for the one that runs.
    """

    def __init__(self, name: str, *, max_queued: int = 64) -> None:
        if max_queued < 1:
            raise ValueError(f"max_queued must be at least 1, got {max_queued}.")
        self._name = name
        self._max_queued = max_queued
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

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` on the thread and return what it returns, or raise what it raises.

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
            _deliver(call, None, error)
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _work_until_closed(self) -> None:
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
            _deliver(call, result, error)


def _deliver(call: _Call[Any], result: object, error: Exception | None) -> None:
    def settle() -> None:
        if call.future.done():
            return
        if error is not None:
            call.future.set_exception(error)
        else:
            call.future.set_result(result)

    try:
        call.loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the caller's event loop is gone, and with it everybody who could want the result
        _log.warning("model_thread_result_dropped", reason="event loop closed")
