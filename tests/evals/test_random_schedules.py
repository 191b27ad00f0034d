import asyncio
import dataclasses
import json

import numpy as np
import pytest
from random_schedules import (
    MAX_ARRIVALS,
    MAX_FRAMES,
    MAX_SLOTS,
    Schedule,
    Tally,
    alone,
    digest_of,
    draw_piece,
    draw_schedule,
    play,
)
from speed.schedules import LARGEST, SMALL, Played, claims, part_of, read_played, shared_by, small_model
from stretto_acoustic.engine import Stepper, make_stepper

PIECES = [draw_piece(index, SMALL) for index in range(200)]
SCHEDULES = [draw_schedule(index, 48) for index in range(300)]
ARRIVALS = [arrival for schedule in SCHEDULES for arrival in schedule.arrivals]


def test_pieces_are_of_every_kind_and_each_again_the_same() -> None:
    conditions = {(p.condition.text_states is None, p.condition.pitch_classes is None) for p in PIECES}
    assert len(conditions) == 4
    assert {p.sampling.guidance_scale for p in PIECES} >= {0.0, 1.0, 3.0}
    assert any(p.prompt.shape[1] for p in PIECES) and any(not p.prompt.shape[1] for p in PIECES)
    assert all(p.prompt.shape[1] < p.num_frames <= MAX_FRAMES for p in PIECES)
    again = draw_piece(7, SMALL)
    assert again.seed == PIECES[7].seed and again.sampling == PIECES[7].sampling
    assert np.array_equal(again.prompt, PIECES[7].prompt)
    assert len({p.seed for p in PIECES}) == len(PIECES)


def test_schedules_resume_leave_and_mix_paces_and_each_again_the_same() -> None:
    assert draw_schedule(5, 48) == SCHEDULES[5] and len(set(SCHEDULES)) == len(SCHEDULES)
    assert all(2 <= len(schedule.arrivals) <= MAX_ARRIVALS for schedule in SCHEDULES)
    assert {schedule.max_slots for schedule in SCHEDULES} == set(range(1, MAX_SLOTS + 1))
    assert {arrival.is_realtime for arrival in ARRIVALS} == {False, True}
    assert {arrival.priority for arrival in ARRIVALS} == set(range(10))
    assert {arrival.max_blocks for arrival in ARRIVALS} == {None, 0, 1, 2, 3}
    assert any(arrival.resume_share for arrival in ARRIVALS) and all(0 <= a.resume_share < 1 for a in ARRIVALS)
    assert {arrival.piece for arrival in ARRIVALS} == set(range(48))


def test_every_schedule_is_played_once_by_one_process() -> None:
    assert [*part_of(501, 0), *part_of(501, 1)] == list(range(501))


def test_digests_tell_values_and_shapes_apart() -> None:
    codes = [np.arange(6, dtype=np.int32).reshape(2, 3)]
    other = [np.arange(6, dtype=np.int32).reshape(3, 2)]
    assert digest_of(codes) == digest_of(codes) != digest_of(other)
    assert digest_of(codes) != digest_of([codes[0] + 1])


@pytest.fixture(scope="module")
def model() -> Stepper:
    return make_stepper(small_model("int8"), LARGEST, joins=True)


def test_a_piece_with_other_bytes_than_alone_is_counted(model: Stepper) -> None:
    pieces = PIECES[:6]
    solos = [asyncio.run(alone(model, piece)) for piece in pieces]
    arrivals = tuple(
        dataclasses.replace(ARRIVALS[0], piece=at, wait_s=0.0, resume_share=share, max_blocks=None, is_realtime=at == 2)
        for at, share in ((0, 0.0), (1, 0.5), (2, 0.0), (3, 0.0))
    )
    schedule = Schedule(arrivals, max_slots=3, block_frames=2, prefill_columns=4)
    tally = asyncio.run(play(model, schedule, pieces, solos, frame_rate_hz=0.01))
    counts = (tally.schedules, tally.requests, tally.realtime, tally.refused, tally.differing)
    assert counts == (1, 4, 1, 0, 0)
    assert tally.resumed == (solos[1].shape[1] > 1) and tally.frames >= sum(solo.shape[1] for solo in solos[:4]) // 2
    solos[2] = (solos[2] + 1) % SMALL.cardinality
    assert asyncio.run(play(model, schedule, pieces, solos, frame_rate_hz=0.01)).differing == 1
    solos[0] = solos[0][:, :0]
    assert asyncio.run(play(model, schedule, pieces, solos, frame_rate_hz=0.01)).differing == 2


WHOLE = Played(Tally(schedules=50, requests=200, frames=1000), ("small",), "ab")


def test_one_difference_a_missing_schedule_or_another_digest_breaks_a_claim() -> None:
    def failing(second: Played) -> list[str]:
        return [name for name, holds in claims({"int8": [WHOLE, second]}, 100).items() if not holds]

    assert failing(WHOLE) == []
    differing = "int8: no_request_differs_in_100_schedules"
    assert failing(dataclasses.replace(WHOLE, tally=dataclasses.replace(WHOLE.tally, differing=1))) == [differing]
    assert failing(dataclasses.replace(WHOLE, tally=dataclasses.replace(WHOLE.tally, schedules=49))) == [differing]
    assert failing(dataclasses.replace(WHOLE, digest="cd")) == ["int8: same_bytes_in_two_processes"]


def test_what_a_process_prints_is_what_it_found() -> None:
    assert read_played(json.dumps(dataclasses.asdict(WHOLE))) == WHOLE
    assert shared_by([WHOLE, WHOLE]) == "small"
    assert shared_by([WHOLE, dataclasses.replace(WHOLE, shares_passes=())]) == "small (1 of 2)"
