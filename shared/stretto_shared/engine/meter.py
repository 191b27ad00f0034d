"""`TokenMeter`: what a token engine tells of itself to whoever counts; `SilentMeter` for nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class TokenMeter(Protocol):
    """Who counts what a token engine does. Called from the event loop and from the model thread: be quick."""

    def watch_slots(self, num_slots: int, count_used: Callable[[], int]) -> None:
        """Tell how many slots there are, and whom to ask how many are used; asked from any thread."""

    def watch_kv(self, budget_bytes: int, count_bytes: Callable[[], int]) -> None:
        """Tell the cache's budget, and whom to ask how much of it is used; asked from any thread."""

    def observe_step(self, step_s: float, num_rows: int) -> None:
        """One pass: how long, and with how many rows, padding excluded."""

    def observe_first_frames(self, wait_s: float) -> None:
        """Seconds between a request's arrival and its first frames."""

    def observe_chunk(self, num_tokens: int, gap_s: float | None) -> None:
        """One block: its tokens, and the seconds since the one before it; None for the first."""

    def observe_stream(self, underrun_s: float, *, is_realtime: bool) -> None:
        """A stream ended: the seconds that a player who began at its first block stood still."""


class SilentMeter:
    """Counts nothing."""

    def watch_slots(self, num_slots: int, count_used: Callable[[], int]) -> None:
        pass

    def watch_kv(self, budget_bytes: int, count_bytes: Callable[[], int]) -> None:
        pass

    def observe_step(self, step_s: float, num_rows: int) -> None:
        pass

    def observe_first_frames(self, wait_s: float) -> None:
        pass

    def observe_chunk(self, num_tokens: int, gap_s: float | None) -> None:
        pass

    def observe_stream(self, underrun_s: float, *, is_realtime: bool) -> None:
        pass


class StageMeter(Protocol):
    """Who counts what a stage does, whatever its models."""

    def observe_queue_wait(self, wait_s: float) -> None:
        """Tell how long one request waited for its slot."""

    def observe_rtf(self, real_time_factor: float) -> None:
        """Tell how much time in its slot one second of music took."""
