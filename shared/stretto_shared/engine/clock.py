"""`PlayClock`: how far a listener who began at the first block has come, and when the audio at hand runs out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class PlayClock:
    """The play-out of one stream: it starts with the first delivered frames and plays one second a second.

    A stream whose audio runs out stands still until more comes, as a player does, and the time that it stood still is
    its underrun. Invariant: what was played and what is ahead are together what was delivered
    (`tests/shared/engine/test_clock.py`).

    Args:
        frame_rate_hz: Frames played in a second.
    """

    frame_rate_hz: float
    num_delivered: int = 0
    underrun_s: float = 0.0
    first_s: float | None = None
    _runs_out_s: float = 0.0

    @property
    def has_started(self) -> bool:
        return self.first_s is not None

    @property
    def runs_out_s(self) -> float:
        """When the frames delivered so far have all been played, on the clock of `deliver`."""
        return self._runs_out_s

    def ahead_s(self, now_s: float) -> float:
        """Seconds of audio delivered and not played yet; negative while the player stands still."""
        return self._runs_out_s - now_s

    def forgive(self, until_s: float) -> None:
        """Count a standstill up to that time, if there is one, as nobody's."""
        if self.has_started:
            self._runs_out_s = max(self._runs_out_s, until_s)

    def deliver(self, now_s: float, num_frames: int, *, is_readers_fault: bool = False) -> float:
        """Take `num_frames` more, and return the seconds that the player stood still before them.

        Args:
            now_s: When.
            num_frames: How many.
            is_readers_fault: The stream waited for its own reader; a standstill then counts as nobody's.
        """
        gap_s = 0.0
        if self.first_s is None:
            self.first_s = self._runs_out_s = now_s
        elif now_s > self._runs_out_s:
            gap_s = 0.0 if is_readers_fault else now_s - self._runs_out_s
            self._runs_out_s = now_s
        self.num_delivered += num_frames
        self.underrun_s += gap_s
        self._runs_out_s += num_frames / self.frame_rate_hz
        return gap_s
