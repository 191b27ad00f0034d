"""`Listener`: what the caller of one piece hears of it, by the play-out clock, and who is told.

The clock begins with the first chunk and counts only the time in which the stages were waited for: while the caller's
own connection takes no more, nothing can starve it. A piece that breaks off while its listener stands still counts that
wait too, as the wait that ended it. Knows nothing of stages, tokens and the wire.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from stretto_shared.audio import Waveform
from stretto_shared.engine.clock import PlayClock

ROUNDING_S = 1e-6  # sums of seconds are not exact; a millionth of one is no underrun


class ListenerMeter(Protocol):
    """Who counts what listeners hear of one cascade."""

    def observe_first_audio(self, latency_s: float) -> None:
        """Seconds from the request to its first chunk."""

    def observe_gap(self, gap_s: float) -> None:
        """Seconds between a chunk and the one before it."""

    def observe_stream(self, underrun_s: float, *, is_realtime: bool, is_continuous: bool) -> None:
        """A piece that ended, whole or not, after its first chunk."""


class Listener:
    """One piece as it is heard. Used in a `with`, whose end is the piece's.

    Invariant: what the meter is told of a piece adds up: one first audio and one stream for each piece with audio, one
    gap less than chunks (`tests/services/orchestrator/test_listening.py`).

    Args:
        meter: Who counts.
        is_realtime: How the piece is paced.
        now_s: A clock that only goes forward.
    """

    def __init__(self, meter: ListenerMeter, *, is_realtime: bool, now_s: Callable[[], float] = time.monotonic) -> None:
        self._meter = meter
        self._is_realtime = is_realtime
        self._now_s = now_s
        self._began_s = now_s()
        self._reading_s = 0.0
        self._last_s = 0.0
        self._clock: PlayClock | None = None
        self.first_audio_s = 0.0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The caller takes what is handed out; however long that lasts, no stage is to blame."""
        began_s = self._now_s()
        try:
            yield
        finally:
            self._reading_s += self._now_s() - began_s

    def hear(self, chunk: Waveform) -> None:
        """The next chunk came."""
        now_s = self._waited_s()
        if self._clock is None:
            self._clock = PlayClock(chunk.sample_rate_hz)
            self.first_audio_s = self._now_s() - self._began_s
            self._meter.observe_first_audio(self.first_audio_s)
        else:
            self._meter.observe_gap(now_s - self._last_s)
        self._clock.deliver(now_s, chunk.num_samples)
        self._last_s = now_s

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """The piece ended: whole, broken off by a stage (an `Exception`), or given up by its caller (any other)."""
        if self._clock is None:
            return
        underrun_s = self._clock.underrun_s
        if kind is not None:
            underrun_s += max(0.0, -self._clock.ahead_s(self._waited_s()))
        if underrun_s < ROUNDING_S:
            underrun_s = 0.0
        has_failed = kind is not None and issubclass(kind, Exception)
        self._meter.observe_stream(
            underrun_s, is_realtime=self._is_realtime, is_continuous=underrun_s == 0 and not has_failed
        )

    def _waited_s(self) -> float:
        return self._now_s() - self._reading_s
