"""What the evals of reliability conclude from what they saw: each claim fails when what it says is not so."""

from argparse import Namespace
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from reliability import cluster, drains, fuzz, kills, overload
from reliability.cost import extra
from reliability.probe import Health
from reliability.wild_messages import WildMessages
from stretto_client.bench.listener import Outcome, Status
from stretto_client.bench.playout import Arrival, play_out
from stretto_shared.features import ModelInfo

REQUEST = kills.requests()[0]
WELL = kills.Piece(REQUEST, "a", 0.2, 0)
RESUMED = kills.Piece(REQUEST, "a", 1.2, 1)
ARGS = Namespace(every_s=3.0, at_once=4, seed=0)


def failing(passed: dict[str, bool]) -> list[str]:
    return [name for name, holds in passed.items() if not holds]


@pytest.mark.parametrize(
    ("harmed", "broken"),
    [
        ([WELL, RESUMED], []),
        ([WELL, WELL], ["some_piece_was_resumed"]),
        ([RESUMED, replace(WELL, sha256="b")], ["no_byte_differs"]),
        ([RESUMED, replace(WELL, sha256="", error="UNREACHABLE: gone")], ["no_request_failed"]),
    ],
)
def test_a_killed_replica_may_cost_a_pause_and_nothing_else(harmed: list[kills.Piece], broken: list[str]) -> None:
    found = kills.outcome([WELL, WELL], harmed, Counter(codec=2), ARGS)
    assert failing(dict(found.passed)) == broken
    if RESUMED in harmed:
        assert found.numbers["pause_p95_s"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("tally", "health", "broken"),
    [
        (drains.Tally(), Health(9, 0, 0.001, 0.01, 0.04), []),
        (drains.Tally(failures=Counter({"encode: X": 1})), Health(9, 0, 0.001, 0.01, 0.04), ["no_call_failed"]),
        (drains.Tally(num_differences=1), Health(9, 0, 0.001, 0.01, 0.04), ["no_byte_differs"]),
        (drains.Tally(), Health(9, 0, 0.001, 0.01, 0.06), ["health_answers_in_50_ms_throughout"]),
        (drains.Tally(), Health(9, 1, 0.001, 0.01, 0.04), ["health_answers_in_50_ms_throughout"]),
    ],
)
def test_a_drain_may_cost_nothing(tally: drains.Tally, health: Health, broken: list[str]) -> None:
    assert failing(dict(drains.outcome(tally, health, (), (), ARGS).passed)) == broken


def test_a_late_answer_is_told_by_its_service_its_state_and_what_went_on_beside() -> None:
    codec, other = cluster.Replica("codec", 1), cluster.Replica("acoustic", 2)
    gone = [drains.Drain(codec, 10.0, 11.0, 13.0), drains.Drain(other, 14.0, 15.0, 16.0)]
    late = {
        codec.address: [(9.0, 0.06), (10.5, 0.07), (14.5, 0.1), (15.5, 0.1)],
        other.address: [(11.0, 0.3), (12.0, 0.2)],
    }
    found = drains.late_answers(Health(late=late), (codec, other), gone)
    assert found == [
        ("acoustic", "serving", "codec starting", 2, 0.3),
        ("codec", "serving", "acoustic draining", 1, 0.1),
        ("codec", "serving", "acoustic starting", 1, 0.1),
        ("codec", "draining", "", 1, 0.07),
        ("codec", "serving", "", 1, 0.06),
    ]


def heard(gap_s: float = 0.0) -> Outcome:
    playout = play_out([Arrival(0.2, 1.0), Arrival(1.2 + gap_s, 1.0)])
    return Outcome(0, Status.OK, 0.0, 0.0, 2.2, playout)


def refused(after_s: float = 0.01, retry_after_s: float | None = 2.0) -> Outcome:
    return Outcome(0, Status.REFUSED, 1.0, 1.0, 1.0 + after_s, error="OVERLOADED", retry_after_s=retry_after_s)


FLAT, GROWING = [100] * 50, list(range(100, 150))


@pytest.mark.parametrize(
    ("seen", "sizes", "broken"),
    [
        ([heard(), refused()], FLAT, []),
        ([heard(), heard(0.1), refused()], FLAT, ["those_let_in_have_no_underrun"]),
        ([heard(), refused(), refused(retry_after_s=None)], FLAT, ["refusals_say_when_to_come_back"]),
        ([heard(), refused(), refused(0.06)], FLAT, ["refused_within_50_ms"]),
        ([heard(), refused()], GROWING, ["memory_is_flat"]),
        ([heard(), refused()], [100], ["memory_is_flat"]),
        ([refused()], FLAT, ["those_let_in_have_no_underrun"]),
        ([heard()], FLAT, ["refusals_say_when_to_come_back", "refused_within_50_ms"]),
    ],
)
def test_a_server_that_is_asked_too_much_keeps_its_promises(
    seen: list[Outcome], sizes: list[int], broken: list[str]
) -> None:
    assert failing(overload.claims(seen, sizes)) == broken


def test_a_report_says_which_chunks_came_late() -> None:
    assert overload.late_chunks([heard(), heard(0.1), heard(0.25), refused()]) == [(2, 2, pytest.approx(0.25))]
    args = Namespace(times=10, minutes=0.5, duration_s=2.0, slots=12)
    found = overload.outcome([heard(), heard(0.1), refused()], FLAT, 12, 120, args)
    assert found.numbers["late_chunks"] == [[2, 1, pytest.approx(0.1)]] and found.numbers["num_spoiled"] == 1


def test_memory_that_fills_at_the_start_is_no_growth() -> None:
    assert overload.growth([10] * 10 + [100] * 40) == 0.0
    assert overload.growth(GROWING) == pytest.approx(145 / 115 - 1, abs=0.03)


def test_the_extra_cost_is_of_pairs() -> None:
    mean, low, high = extra([1.1, 2.2, 4.4], [1.0, 2.0, 4.0])
    assert (mean, low, high) == pytest.approx((0.1, 0.1, 0.1))
    assert extra([1.0, 2.0], [2.0, 1.0])[0] == pytest.approx(0.0)


def info(name: str, service: str) -> ModelInfo:
    return ModelInfo(
        name, service, "0" * 64, "", is_default=True, sample_rate_hz=24_000, frame_rate_hz=50.0, num_codebooks=4
    )


WILD = WildMessages([info("own", "codec"), info("mulan", "embedding"), info("w2vbert", "semantic")])


def test_the_same_number_gives_the_same_request_and_each_method_has_many() -> None:
    methods = fuzz.methods()
    drawn = [fuzz.draw_request(WILD, 0, index) for index in range(40 * len(methods))]
    music = next(index for index, method in enumerate(methods) if method.name == "GenerateMusic")
    again = fuzz.draw_request(WILD, 0, music)
    assert (again.path, again.messages, again.cut_after_s) == (
        drawn[music].path, drawn[music].messages, drawn[music].cut_after_s,
    )  # fmt: skip
    assert fuzz.draw_request(WILD, 1, music).messages != drawn[music].messages
    for method in methods:
        of_it = {tuple(each.messages) for each in drawn if each.method is method}
        assert len(of_it) >= (1 if method.name == "ListModels" else 10), method.full_name


def test_what_is_drawn_is_damaged_sometimes_and_streams_are_of_all_lengths() -> None:
    drawn = [fuzz.draw_request(WILD, 0, index) for index in range(2_000)]
    streams = [each for each in drawn if each.method.client_streaming]
    assert {1, 2, 3, 4, 5} <= {len(each.messages) for each in streams}
    singles = Counter(len(each.messages) for each in drawn if not each.method.client_streaming)
    assert singles[1] > 0.9 * singles.total() and len(singles) > 1
    assert 0.05 < np.mean([each.cut_after_s is not None for each in drawn]) < 0.15


@pytest.mark.parametrize(
    ("code", "running", "crashed", "well", "broken"),
    [
        ("OK", 0, False, True, []),
        ("INTERNAL", 0, False, True, ["none_is_internal", "each_ends_deliberately"]),
        ("UNAVAILABLE", 0, False, True, ["each_ends_deliberately"]),
        ("HUNG", 0, False, True, ["no_hang", "each_ends_deliberately"]),
        ("OK", 1, False, True, ["no_hang"]),
        ("OK", 0, True, True, ["no_crash"]),
        ("OK", 0, False, False, ["no_crash"]),
    ],
)
def test_a_server_survives_only_if_it_answers_everything(
    code: str, running: int, crashed: bool, well: bool, broken: list[str]
) -> None:
    ended = [(fuzz.draw_request(WILD, 0, index), "OK", "") for index in range(len(fuzz.methods()))]
    ended.append((fuzz.draw_request(WILD, 0, 0), code, ""))
    assert failing(dict(fuzz.outcome(ended, running, crashed, well, ARGS).passed)) == broken


def test_a_cluster_knows_its_processes_by_what_they_say() -> None:
    made = cluster.Cluster((cluster.Replica("codec", 5), cluster.Replica("orchestrator", 6)), {}, [])
    found = cluster._RUNS.fullmatch("stretto: codec=5 runs as process 77")
    assert found is not None and found.groups() == ("codec", "5", "77")
    assert made.address == "ipv4:127.0.0.1:6" and [each.port for each in made.of("codec")] == [5]
