"""`StepTimes`: how long a pass of so many rows takes, learnt from the passes that ran."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping

_SMOOTHING = 0.1
_FIRST_GUESS_S = 0.02


class StepTimes:
    """Smoothed seconds of a pass by its number of rows. One thread writes; others may read.

    A number of rows that never ran is estimated from its neighbours: between two, on the line through them; below all,
    as the smallest. No estimate is more than a smaller pass in proportion, so that one slow pass of many rows, once, on
    a busy machine, does not keep streams out for good.

    Args:
        measured_s: What is known at the start, by number of rows.
    """

    def __init__(self, measured_s: Mapping[int, float] | None = None) -> None:
        self._mean_s = dict(measured_s or {})
        self._rows = sorted(self._mean_s)

    def observe(self, num_rows: int, elapsed_s: float) -> None:
        """Learn from one pass."""
        if num_rows not in self._mean_s:
            self._mean_s[num_rows] = elapsed_s
            self._rows = sorted(self._mean_s)
        else:
            self._mean_s[num_rows] += _SMOOTHING * (elapsed_s - self._mean_s[num_rows])

    def predict_s(self, num_rows: int) -> float:
        """Estimate the seconds of a pass of `num_rows` rows; a guess of 20 ms while nothing is known."""
        rows = self._rows
        if not rows:
            return _FIRST_GUESS_S
        at = bisect_left(rows, num_rows)
        at_most_s = min((self._mean_s[low] * num_rows / low for low in rows[:at]), default=math.inf)
        if at == len(rows):
            return at_most_s
        high = rows[at]
        if high == num_rows or at == 0:
            return min(at_most_s, self._mean_s[high])
        low = rows[at - 1]
        share = (num_rows - low) / (high - low)
        return min(at_most_s, self._mean_s[low] + share * (self._mean_s[high] - self._mean_s[low]))
