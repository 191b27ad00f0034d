"""What the parts of one eval found, gathered for one report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness import Row, Table, surely_above
from stretto_shared.metrics.bootstrap import Interval


@dataclass
class Findings:
    """Tables for people, numbers for programs, claims."""

    tables: list[Table] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    passed: dict[str, bool] = field(default_factory=dict)

    def add_intervals(self, name: str, title: str, intervals: Mapping[str, Interval]) -> None:
        """A table of means with their intervals, and the same for programs under `name`."""
        rows: list[Row] = [("", "mean", "95 %", "values")]
        for label, each in intervals.items():
            rows.append((label, each.mean, f"[{each.low:+.3f}, {each.high:+.3f}]", each.num_values))
        self.tables.append(Table(title, rows))
        self.numbers[name] = {label: [each.mean, each.low, each.high] for label, each in intervals.items()}

    def claim_above(self, claim: str, interval: Interval) -> None:
        """A claim that a mean lies above 0."""
        self.passed[claim] = surely_above(interval)
