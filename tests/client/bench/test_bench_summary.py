"""The numbers of a level, from outcomes made by hand, and how they are shown."""

import json
from pathlib import Path
from typing import Any

import pytest
from stretto_client.bench.chart import draw_levels
from stretto_client.bench.listener import Outcome, Status
from stretto_client.bench.load import ClosedLoad, OpenLoad
from stretto_client.bench.playout import Arrival, play_out
from stretto_client.bench.report import error_table, level_table
from stretto_client.bench.summary import Spread, summarise


def outcome(
    index: int, status: Status, sent_s: float, ended_s: float, *chunks: tuple[float, float], **more: Any
) -> Outcome:
    playout = play_out([Arrival(*chunk) for chunk in chunks])
    return Outcome(index, status, more.pop("scheduled_s", sent_s), sent_s, ended_s, playout, **more)


OUTCOMES = (
    outcome(0, Status.OK, 0.0, 4.0, (1.0, 2.0), (2.0, 2.0)),
    outcome(1, Status.OK, 1.0, 5.0, (2.0, 1.0), (4.0, 3.0), scheduled_s=0.5),  # waits 1 s
    outcome(2, Status.REFUSED, 1.0, 1.25, error="OVERLOADED", message="full", retry_after_s=3.0),
    outcome(3, Status.REFUSED, 1.0, 1.75, error="OVERLOADED", message="full", retry_after_s=5.0),
    outcome(4, Status.LATE, 2.0, 8.0, (3.0, 4.0), error="DEADLINE_EXCEEDED", message="late"),
    outcome(5, Status.FAILED, 2.0, 3.0, error="SERVER_FAILURE", message="broken"),
    outcome(6, Status.UNSENT, 2.0, 2.0, error="UNSENT", message="too many"),
)


def test_every_number_of_a_level_is_what_its_definition_says() -> None:
    level = summarise(OpenLoad(2.0), OUTCOMES)
    assert (level.concurrency, level.rate_hz, level.request_count) == (None, 2.0, 7)
    assert (level.ok_count, level.refused_count, level.deadline_miss_count) == (2, 2, 1)
    assert (level.failed_count, level.unsent_count) == (1, 1)
    assert level.audio_continuity_ok == 1 / 4  # of 0, 1, 4 and 5
    assert (level.audio_underrun_count, level.audio_underrun_s, level.audio_underrun_max_s) == (1, 1.0, 1.0)
    assert level.audio_ttfp_s == Spread.of([1.0, 1.5, 1.0])
    assert level.audio_chunk_gap_s == Spread.of([1.0, 2.0])
    assert level.audio_rtf == Spread.of([4.0 / 4.0, 4.5 / 4.0])
    assert (level.wall_s, level.audio_s, level.audio_s_per_s) == (8.0, 12.0, 1.5)
    assert level.mean_in_flight == pytest.approx((4 + 4 + 0.25 + 0.75 + 6 + 1) / 8)
    assert level.peak_in_flight == 4  # in [1, 1.25): 0, 1, 2 and 3
    assert level.client_lag_s is not None and level.client_lag_s.max == 0.5
    first = level.errors[0]
    assert (first.reason, first.count, first.latency_s) == ("OVERLOADED", 2, Spread.of([0.25, 0.75]))
    assert first.retry_after_s == Spread.of([3.0, 5.0])
    assert {error.reason for error in level.errors} == {"OVERLOADED", "DEADLINE_EXCEEDED", "SERVER_FAILURE", "UNSENT"}


def test_percentiles_are_linear_between_neighbours() -> None:
    spread = Spread.of(range(101))
    assert spread == Spread(50.0, 95.0, 99.0, 100.0)
    assert Spread.of([]) is None


def test_a_level_of_nothing_and_one_of_refusals_are_shown_and_drawn(tmp_path: Path) -> None:
    levels = (
        summarise(OpenLoad(0.5), ()),
        summarise(ClosedLoad(4), OUTCOMES[2:4]),
        summarise(ClosedLoad(2), OUTCOMES),
    )
    assert levels[0].audio_continuity_ok is levels[1].audio_continuity_ok is None
    assert level_table(levels).row_count == 3
    errors = error_table(levels)
    assert errors is not None and errors.row_count == 1 + 4
    for name in ("a.png", "a.svg"):
        draw_levels(tmp_path / name, levels, title="costs $5 and $6")
        assert (tmp_path / name).stat().st_size > 1_000


def test_a_summary_is_json_without_numbers_that_json_lacks() -> None:
    import dataclasses

    json.dumps(dataclasses.asdict(summarise(ClosedLoad(1), ())), allow_nan=False)
