"""A run as people read it, a table, and as programs do, one JSON object whose keys are the fields of `summary`."""

from __future__ import annotations

import dataclasses
import platform
from typing import Any

from rich.table import Table

from stretto_client.bench.load import Plan
from stretto_client.bench.summary import LevelSummary, Spread
from stretto_client.bench.sweep import Sweep

NOTHING = "–"
NUM_DECIMALS = 6  # of seconds and shares; no clock here is better than a microsecond
COLUMNS = (
    "load",
    "requests",
    "ok",
    "refused",
    "late",
    "failed",
    "continuity",
    "underruns",
    "first audio s",
    "gap s",
    "RTF",
    "audio s/s",
)


def as_json(sweep: Sweep, plan: Plan, *, address: str) -> dict[str, Any]:
    """A run as plain values."""
    return {
        "benchmark": "stretto_bench",
        "stretto_version": sweep.warm_up.stretto_version,
        "address": address,
        "client_machine": platform.machine(),
        "cascade": sweep.warm_up.cascade,
        "models": {model.service: model.model_id for model in sweep.warm_up.models},
        "plan": dataclasses.asdict(plan),
        "byte_difference_count": sweep.byte_difference_count,
        "levels": [_rounded(dataclasses.asdict(level)) for level in sweep.levels],
    }


def level_table(levels: tuple[LevelSummary, ...]) -> Table:
    """A row for each level; times are the median and the 95th percentile."""
    table = Table(title="Under load (times: median / 95th percentile)", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "load" else "right")
    for level in levels:
        table.add_row(
            load_of(level),
            str(level.request_count),
            str(level.ok_count),
            str(level.refused_count),
            str(level.deadline_miss_count),
            str(level.failed_count + level.unsent_count),
            NOTHING if level.audio_continuity_ok is None else f"{level.audio_continuity_ok:.1%}",
            f"{level.audio_underrun_count} ({level.audio_underrun_s:.2f} s)",
            _two(level.audio_ttfp_s),
            _two(level.audio_chunk_gap_s),
            _two(level.audio_rtf),
            f"{level.audio_s_per_s:.2f}",
        )
    return table


def error_table(levels: tuple[LevelSummary, ...]) -> Table | None:
    """A row for each reason of each level for which requests were not heard whole; None if there is none."""
    table = Table(title="Not heard whole", title_justify="left")
    for column in ("load", "what", "reason", "requests", "told after s", "come back after s", "the server's words"):
        table.add_column(column, justify="right" if column.endswith(" s") or column == "requests" else "left")
    for level in levels:
        for error in level.errors:
            table.add_row(
                load_of(level),
                error.status,
                error.reason,
                str(error.count),
                _two(error.latency_s),
                _two(error.retry_after_s),
                error.message,
            )
    return table if table.row_count else None


def load_of(level: LevelSummary) -> str:
    """The load of a level for people."""
    return f"{level.rate_hz:g} a second" if level.rate_hz is not None else f"{level.concurrency} at once"


def verdict(sweep: Sweep) -> str:
    """What went wrong in a way that no load excuses, in one line; empty if nothing did."""
    wrong = [
        f"{error.count} requests at {load_of(level)} {error.status} ({error.reason}: {error.message})"
        for level in sweep.levels
        for error in level.errors
        if error.status in ("failed", "unsent")
    ]
    if sweep.byte_difference_count:
        wrong.append(f"{sweep.byte_difference_count} pieces had other bytes than the first of the same prompt and seed")
    if not any(level.ok_count for level in sweep.levels):
        wrong.append("no piece came whole")
    return "; ".join(wrong)


def _rounded(value: Any) -> Any:
    """Plain values with their numbers as short as they are true."""
    match value:
        case float():
            return round(value, NUM_DECIMALS)
        case dict():
            return {key: _rounded(each) for key, each in value.items()}
        case list() | tuple():
            return [_rounded(each) for each in value]
        case _:
            return value


def _two(spread: Spread | None) -> str:
    return NOTHING if spread is None else f"{spread.p50:.3f} / {spread.p95:.3f}"
