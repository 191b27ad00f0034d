"""`Meter`: what one caller may still begin, counted in requests a minute and requests at once.

The rate is a token bucket that fills evenly: after a silence a tenth of a minute's worth may come at once, so that no
minute sees more than 1.1 times the rate. Nothing is queued: who is refused is told when to come again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stretto_shared.errors import Overloaded

BURST_SHARE = 0.1
MIN_RETRY_S = 0.05
FIRST_GUESS_S = 1.0
KEPT_SHARE = 0.8  # of the mean duration, when a further request has ended


@dataclass(frozen=True)
class Limits:
    """What one caller may do; 0 sets no limit.

    Args:
        requests_per_minute: Requests begun in a minute.
        requests_at_once: Requests in flight.
        request_bytes: Bytes of all messages of one request.
    """

    requests_per_minute: float = 0.0
    requests_at_once: int = 0
    request_bytes: int = 0

    @property
    def burst(self) -> float:
        return max(1.0, BURST_SHARE * self.requests_per_minute)


class Meter:
    """Counts the requests of one caller.

    Invariant: `num_in_flight` is the number of open `admitted` blocks, whatever the limits are changed to meanwhile.

    Args:
        limits: What the caller may do; may be replaced at any time.
        now_s: A clock that only goes forward.
    """

    def __init__(self, limits: Limits, now_s: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.num_in_flight = 0
        self._now_s = now_s
        self._tokens = limits.burst
        self._filled_at_s = now_s()
        self._mean_duration_s = FIRST_GUESS_S

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """One request, from its beginning to its end.

        Raises:
            Overloaded: If the caller has used up a limit, with the time until there will be room.
        """
        self._check_at_once()
        self._take_token()
        self.num_in_flight += 1
        began_s = self._now_s()
        try:
            yield
        finally:
            self.num_in_flight -= 1
            lasted_s = self._now_s() - began_s
            self._mean_duration_s = KEPT_SHARE * self._mean_duration_s + (1 - KEPT_SHARE) * lasted_s

    def _check_at_once(self) -> None:
        limit = self.limits.requests_at_once
        if limit and self.num_in_flight >= limit:
            raise Overloaded(
                f"expected at most {limit} requests of this caller at once, {self.num_in_flight} are in flight. Let "
                "one end first.",
                retry_after_s=max(MIN_RETRY_S, self._mean_duration_s / self.num_in_flight),
                reason="TOO_MANY_AT_ONCE",
            )

    def _take_token(self) -> None:
        rate = self.limits.requests_per_minute
        if not rate:
            return
        now_s = self._now_s()
        self._tokens = min(self.limits.burst, self._tokens + (now_s - self._filled_at_s) * rate / 60.0)
        self._filled_at_s = now_s
        if self._tokens < 1.0:
            raise Overloaded(
                f"expected at most {rate:g} requests of this caller in a minute. Send fewer, or wait.",
                retry_after_s=max(MIN_RETRY_S, (1.0 - self._tokens) * 60.0 / rate),
                reason="RATE_LIMITED",
            )
        self._tokens -= 1.0
