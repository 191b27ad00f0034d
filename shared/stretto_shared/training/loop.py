"""A training run that is planned in wall time: on shared machines a budget in minutes is kept, one in steps is not.

Knows nothing about models: a recipe supplies the step, the validation and what to keep.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class Budget:
    """Training time used and left; survives a restart through `elapsed_s`.

    Args:
        minutes: Wall time to train in all.
        max_steps: Stop after this many steps even if time is left; 0 for no such limit.
    """

    def __init__(self, minutes: float, *, max_steps: int = 0, elapsed_s: float = 0.0, step: int = 0) -> None:
        self.total_s = minutes * 60
        self.max_steps = max_steps
        self.step = step
        self._started = time.monotonic() - elapsed_s

    @property
    def elapsed_s(self) -> float:
        """Seconds used so far, restarts included."""
        return time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """Share of the budget used, 0 to 1."""
        by_step = self.step / self.max_steps if self.max_steps else 0.0
        return min(1.0, max(self.elapsed_s / self.total_s, by_step))

    def steps(self) -> Iterator[int]:
        """Step numbers until the budget is used; at least one."""
        while True:
            yield self.step
            self.step += 1
            if self.progress >= 1.0:
                return


def learning_rate(peak: float, step: int, progress: float, *, warmup_steps: int, floor: float = 0.02) -> float:
    """Linear warm-up in steps, then a cosine over the budget from `peak` to `floor * peak`."""
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    return peak * warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


class RunLog:
    """Appends one JSON object a line to `log.jsonl` in the run's folder, and prints it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "log.jsonl"

    def write(self, record: Mapping[str, float | int | str]) -> None:
        """Append `record`; floats keep five significant digits."""
        rounded = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in record.items()}
        line = json.dumps(rounded)
        print(line, flush=True)
        with self._path.open("a") as file:
            file.write(line + "\n")


class Averages:
    """Running means of named losses since the last `take`."""

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._count = 0

    def add(self, values: Mapping[str, Any]) -> None:
        """Add one step's values: numbers, or tensors of one element, which nobody waits for before `take`."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def take(self) -> dict[str, float]:
        """The means, and start over."""
        means = {name: float(total) / max(1, self._count) for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means
