import dataclasses
from collections.abc import Sequence

import pytest
from speed.realtime_streams import claims, refusals_s, row
from stretto_client.bench.listener import Outcome, Status
from stretto_client.bench.load import ClosedLoad
from stretto_client.bench.playout import Arrival, play_out
from stretto_client.bench.summary import summarise


def heard(gap_s: float = 0.0) -> Outcome:
    """A piece of two chunks of a second, the second of which came `gap_s` after the first was over."""
    playout = play_out([Arrival(0.2, 1.0), Arrival(1.2 + gap_s, 1.0)])
    return Outcome(0, Status.OK, 0.0, 0.0, 2.2, playout)


def refused(after_s: float = 0.01, retry_after_s: float | None = 2.0) -> Outcome:
    return Outcome(0, Status.REFUSED, 1.0, 1.0, 1.0 + after_s, error="OVERLOADED", retry_after_s=retry_after_s)


EIGHT = [heard() for _ in range(8)]
TWICE = [*EIGHT, *(refused() for _ in range(8))]
FAILED = dataclasses.replace(heard(), status=Status.FAILED)
SPOILED = "twice_the_admitted_load: those_let_in_have_no_underrun"


def failing(eight: Sequence[Outcome] = EIGHT, twice: Sequence[Outcome] = TWICE, num_admitted: int = 8) -> list[str]:
    return [name for name, holds in claims(eight, twice, num_admitted).items() if not holds]


def test_a_server_that_keeps_its_promises_meets_every_claim() -> None:
    assert failing() == []


@pytest.mark.parametrize("bad", [heard(0.001), FAILED, refused()])
def test_one_of_8_that_is_not_heard_whole_breaks_the_claim(bad: Outcome) -> None:
    assert failing(eight=[*EIGHT[:7], bad]) == ["8_streams_without_an_underrun"]


def test_fewer_than_8_are_no_8() -> None:
    assert failing(eight=EIGHT[:7]) == ["8_streams_without_an_underrun"]
    assert failing(num_admitted=7) == ["admits_8_streams_or_more"]


@pytest.mark.parametrize("bad", [heard(0.001), FAILED])
def test_one_that_is_let_in_and_not_heard_whole_breaks_the_claim(bad: Outcome) -> None:
    assert failing(twice=[*TWICE, bad]) == [SPOILED]


def test_all_refused_is_no_service_and_none_refused_is_no_overload() -> None:
    assert failing(twice=[refused()] * 16) == [SPOILED]
    assert len(failing(twice=EIGHT)) == 2


def test_a_refusal_has_to_come_soon_and_say_when_to_come_back() -> None:
    assert failing(twice=[*TWICE, refused(0.051)]) == ["twice_the_admitted_load: refused_within_50_ms"]
    [broken] = failing(twice=[*TWICE, refused(retry_after_s=None)])
    assert broken == "twice_the_admitted_load: the_others_are_told_when_to_come_back"


def test_a_row_counts_what_happened() -> None:
    outcomes = [*TWICE, heard(0.25), FAILED]
    cells = row("some", outcomes, summarise(ClosedLoad(18), outcomes))
    assert cells[:6] == ("some", 18, 9, 8, 1, 1) and cells[6] == pytest.approx(0.25)
    waited = refusals_s(outcomes)
    assert waited is not None and waited.max == pytest.approx(0.01) and refusals_s(EIGHT) is None
