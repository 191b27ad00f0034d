"""How several pieces of one request share what is scarce: room in full stages, and memory in this service.

`Patience` lets a candidate wait for a stage that is full, as long as there are others whose work would be lost with it.
`HeldMusic` bounds what the candidates of all requests hold, for nothing of them can be sent before the choice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stretto_shared.errors import Overloaded

MAX_REFUSALS = 5
MIN_RETRY_AFTER_S = 1.0


class Patience:
    """The candidates of one request that work, are done, or wait for room in a stage.

    Invariant: a candidate waits only while another works or is done; so a request that finds no room at all is refused
    at once.

    Args:
        remaining_s: The time that the request has left; None without a deadline.
    """

    def __init__(self, remaining_s: Callable[[], float | None]) -> None:
        self._remaining_s = remaining_s
        self._num_useful = 0

    @contextmanager
    def useful(self) -> Iterator[None]:
        """Count a candidate that works, and from then on unless it fails."""
        self._num_useful += 1
        try:
            yield
        except BaseException:
            self._num_useful -= 1
            raise

    async def wait_or_raise(self, error: Overloaded, num_refusals: int) -> None:
        """Return when a candidate that was refused so often, and no longer counts as useful, may try again.

        Raises `error` at once where nothing would be lost with it, it was refused too often, or the wait would outlast
        the deadline: the error says more than the deadline would.
        """
        remaining_s = self._remaining_s()
        is_too_late = remaining_s is not None and error.retry_after_s >= remaining_s
        if self._num_useful == 0 or num_refusals >= MAX_REFUSALS or is_too_late:
            raise error
        await asyncio.sleep(error.retry_after_s)


class HeldMusic:
    """The music that candidates of all requests may hold until they are judged and sent.

    Args:
        max_s: Seconds of it, of all of them together; no less than one request may ask for.
    """

    def __init__(self, max_s: float) -> None:
        self._max_s = max_s
        self._requests: dict[object, tuple[float, float]] = {}  # seconds held, and since when

    @contextmanager
    def held(self, music_s: float) -> Iterator[None]:
        """Hold so many seconds for as long as a request is served; none are held at once.

        Raises:
            Overloaded: If others hold too many. It may retry when the first of them will be done, if that takes as long
                to make as to play.
        """
        if music_s == 0:
            yield
            return
        now_s, held_s = time.monotonic(), sum(held_s for held_s, _ in self._requests.values())
        if held_s + music_s > self._max_s:
            ends_s = min((since_s + held_s for held_s, since_s in self._requests.values()), default=now_s)
            raise Overloaded(
                f"Candidates of {held_s:g} s of music are being made, and {music_s:g} s more would be above the limit "
                f"of {self._max_s:g} s. Retry later, or ask for fewer candidates.",
                retry_after_s=max(MIN_RETRY_AFTER_S, ends_s - now_s),
            )
        key = object()
        self._requests[key] = (music_s, now_s)
        try:
            yield
        finally:
            del self._requests[key]
