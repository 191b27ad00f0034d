"""The play-out clock of a stream."""

import pytest
from stretto_shared.engine.clock import PlayClock


def test_a_stream_that_keeps_up_never_stands_still() -> None:
    clock = PlayClock(frame_rate_hz=10.0)
    assert not clock.has_started
    for i in range(20):
        assert clock.deliver(100.0 + 0.1 * i, 2) == 0
    assert clock.underrun_s == 0 and clock.num_delivered == 40
    assert clock.ahead_s(102.0) == pytest.approx(2.0)


def test_a_stream_that_is_late_stands_still_until_more_comes_and_plays_on_from_there() -> None:
    clock = PlayClock(frame_rate_hz=10.0)
    clock.deliver(0.0, 5)
    assert clock.deliver(0.75, 5) == pytest.approx(0.25)
    assert clock.underrun_s == pytest.approx(0.25) and clock.runs_out_s == pytest.approx(1.25)
    assert clock.deliver(1.2, 1) == 0


def test_waiting_for_its_own_reader_is_no_underrun() -> None:
    clock = PlayClock(frame_rate_hz=10.0)
    clock.deliver(0.0, 5)
    assert clock.deliver(9.0, 5, is_readers_fault=True) == 0
    assert clock.underrun_s == 0 and clock.runs_out_s == pytest.approx(9.5)


def test_a_standstill_is_forgiven_up_to_a_time_and_counts_from_there() -> None:
    clock = PlayClock(frame_rate_hz=10.0)
    clock.forgive(3.0)
    assert not clock.has_started
    clock.deliver(0.0, 5)
    clock.forgive(0.2)
    assert clock.runs_out_s == pytest.approx(0.5), "it plays still"
    clock.forgive(3.0)
    assert clock.deliver(3.75, 5) == pytest.approx(0.75)
    assert clock.underrun_s == pytest.approx(0.75) and clock.runs_out_s == pytest.approx(4.25)
