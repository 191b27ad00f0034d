"""Streams that play go on playing whatever comes beside them: the step loop on a clock that only its model moves.

Passes and openings take as long as the test says, so nothing here depends on the machine. An opening (a T5 text
projected, a melody's prefix read) is one call of the model, however long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stretto_shared.engine import step_loop
from stretto_shared.engine.clock import PlayClock
from stretto_shared.engine.config import TokenEngineConfig
from stretto_shared.engine.meter import SilentMeter
from stretto_shared.engine.program import Program, StateCost, TokenBlock, TokenRequest
from stretto_shared.engine.sampling import Sampling
from stretto_shared.engine.scheduler import Scheduler
from stretto_shared.engine.slots import SlotPool, Stream
from stretto_shared.engine.step_loop import StepLoop
from stretto_shared.engine.step_times import StepTimes
from torch import Tensor

FRAME_RATE_HZ = 50.0
NUM_FRAMES = 1_000
NONE = np.zeros((1, 0), dtype=np.int32)


@dataclass(eq=False)
class World:
    """The model and the time that it takes: `step_s` and `row_s` for a pass, `open_s` for an opening."""

    step_s: float = 0.006
    row_s: float = 0.0005
    open_s: float = 0.0
    now_s: float = 1000.0
    num_opened: int = 0
    busy_s: float = 0.0

    cardinality = 4
    special_token = 4
    delays = (0,)
    is_row_invariant = True

    def pass_s(self, num_rows: int) -> float:
        return self.step_s + self.row_s * num_rows

    def cost(self, condition: int, *, num_steps: int, guidance_scale: float) -> StateCost:
        return StateCost(2, 1)

    def open(self, condition: int, *, num_steps: int, guidance_scale: float) -> int:
        self.now_s += self.open_s
        self.num_opened += 1
        return condition

    def step(
        self, states: Sequence[int], columns: Sequence[NDArray[np.int64]], wants_logits: Sequence[bool]
    ) -> list[Tensor | None]:
        taken_s = self.pass_s(2 * sum(each.shape[1] for each in columns))
        self.now_s += taken_s
        self.busy_s += taken_s
        return [torch.zeros(1, 4) if wants else None for wants in wants_logits]


class Show:
    """The engine without threads: what the event loop does between two turns, on the world's clock."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> None:
        self.world = world
        self.config = TokenEngineConfig(**({"max_slots": 12} | limits))
        self.pool: SlotPool[int, int] = SlotPool(self.config.max_slots, 1 << 30)
        measured_s = {rows: world.pass_s(rows) for rows in (2, 8, 16, 24, 64)}
        self.scheduler = Scheduler(self.config, StepTimes(measured_s), joins=world.is_row_invariant)
        self.loop: StepLoop[int, int] = StepLoop(
            world, self.config, self.scheduler, StepTimes(measured_s), SilentMeter()
        )
        self.blocks: dict[int, list[float]] = {}
        monkeypatch.setattr(step_loop, "time", SimpleNamespace(perf_counter=lambda: world.now_s))

    def come(self, *, realtime: bool = False, known: int = 0, priority: int = 0) -> Stream[int, int]:
        codes = np.zeros((1, known), dtype=np.int32)
        request = TokenRequest(
            0, NUM_FRAMES, NONE, codes, Sampling(temperature=0.0), 0, is_realtime=realtime, priority=priority
        )
        program = Program(request, delays=(0,), special_token=4, stage=0)
        stream: Stream[int, int] = Stream(request, program, StateCost(2, 1), PlayClock(FRAME_RATE_HZ), self.world.now_s)
        self.pool.enqueue(stream)
        return stream

    def play(self, *, until_s: float = math.inf, until: Callable[[], bool] = lambda: False) -> None:
        """Take turns until the world's clock says so, nobody is left, or a condition holds."""
        while self.world.now_s < until_s and not until():
            self.pool.fill(self.world.now_s)
            if not self.pool.running:
                return
            awake, rest_s = self.scheduler.awake(self.pool.running, self.world.now_s)
            if not awake:
                self.world.now_s += rest_s + 1e-6
                continue
            for stream, item in self.loop.take_turn(awake, lambda: False):
                if isinstance(item, TokenBlock):
                    self.blocks.setdefault(id(stream), []).append(self.world.now_s)
                else:
                    assert item is None, item
                    self.pool.discard(stream)


def underrun_s(stream: Stream[int, int]) -> float:
    assert stream.clock is not None
    return stream.clock.underrun_s


def ahead_s(world: World, stream: Stream[int, int]) -> float:
    assert stream.clock is not None
    return stream.clock.ahead_s(world.now_s)


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Show]:
    return lambda world, **limits: Show(world, monkeypatch, **limits)


@pytest.mark.parametrize("open_s", [0.01, 0.1, 0.2, 0.4])
def test_best_effort_newcomers_are_opened_between_frames_and_never_at_a_listeners_cost(
    show: Callable[..., Show], open_s: float
) -> None:
    world = World(step_s=0.01)
    stage = show(world)
    live = [stage.come(realtime=True) for _ in range(4)]
    stage.play(until_s=world.now_s + 1.2)
    assert max(ahead_s(world, stream) for stream in live) < 1.5, "they have no more in hand than openings may take"
    world.open_s = open_s
    for _ in range(8):
        stage.come()
    stage.play(until=lambda: world.num_opened == 12, until_s=world.now_s + 60)
    assert world.num_opened == 12, "none is put off for good"
    assert [underrun_s(stream) for stream in live] == [0.0] * 4


@pytest.mark.parametrize("open_s", [0.01, 0.1])
def test_real_time_newcomers_start_soon_and_not_at_the_cost_of_those_who_play(
    show: Callable[..., Show], open_s: float
) -> None:
    world = World()
    stage = show(world)
    live = [stage.come(realtime=True) for _ in range(4)]
    stage.play(until_s=world.now_s + 3)
    world.open_s = open_s
    newcomers = [stage.come(realtime=True) for _ in range(3)]
    stage.play(until_s=world.now_s + 6)
    assert [underrun_s(stream) for stream in live] == [0.0] * 4
    for stream in newcomers:
        first_s = stage.blocks[id(stream)][0]
        assert first_s - stream.arrived_s < stage.config.max_realtime_wait_s + stage.config.first_frames_target_s


def test_long_resumes_beside_listeners_are_read_in_pieces_and_get_on(show: Callable[..., Show]) -> None:
    world = World()
    stage = show(world, prefill_columns=64)
    live = [stage.come(realtime=True) for _ in range(4)]
    stage.play(until_s=world.now_s + 3)
    resumed = [stage.come(known=900) for _ in range(4)]
    stage.play(until=lambda: all(id(stream) in stage.blocks for stream in resumed), until_s=world.now_s + 60)
    assert all(id(stream) in stage.blocks for stream in resumed)
    assert [underrun_s(stream) for stream in live] == [0.0] * 4


def test_a_resumed_real_time_stream_catches_up_before_its_listener_and_beside_the_others(
    show: Callable[..., Show],
) -> None:
    world = World()
    stage = show(world)
    live = [stage.come(realtime=True) for _ in range(3)]
    stage.play(until_s=world.now_s + 3)
    resumed = stage.come(realtime=True, known=500)
    stage.play(until_s=world.now_s + 6)
    assert [underrun_s(stream) for stream in live] == [0.0] * 3
    assert stage.blocks[id(resumed)][0] - resumed.arrived_s < 2.0 and underrun_s(resumed) == 0.0


def test_an_opening_longer_than_any_lead_is_made_all_the_same(show: Callable[..., Show]) -> None:
    world = World(step_s=0.015)  # 17 ms for both, so that their lead grows by 3 s in all
    stage = show(world)
    live = [stage.come(realtime=True) for _ in range(2)]
    stage.play(until_s=world.now_s + 1)
    world.open_s = 5.0
    for _ in range(2):
        stage.come()
    stage.play(until=lambda: world.num_opened == 4, until_s=world.now_s + 60)
    assert world.num_opened == 4 and all(stream in stage.pool.running for stream in live)


@pytest.mark.parametrize("joins", [True, False])
def test_a_stream_that_no_machine_could_keep_up_with_keeps_no_real_time_newcomer_out(
    show: Callable[..., Show], joins: bool
) -> None:
    world = World(step_s=0.05)
    world.is_row_invariant = joins
    stage = show(world)
    hopeless = stage.come(realtime=True)
    stage.play(until_s=world.now_s + 3)
    assert underrun_s(hopeless) > 0
    newcomer = stage.come(realtime=True)
    stage.play(until=lambda: id(newcomer) in stage.blocks, until_s=world.now_s + 10)
    assert id(newcomer) in stage.blocks


def test_best_effort_pieces_share_by_priority_what_listeners_leave(show: Callable[..., Show]) -> None:
    world = World()
    world.is_row_invariant = False  # so that they take turns
    stage = show(world)
    live = [stage.come(realtime=True)]
    stage.play(until_s=world.now_s + 3)
    usual, urgent = stage.come(), stage.come(priority=2)
    stage.play(until_s=world.now_s + 8)
    done = [NUM_FRAMES - stream.program.num_steps_left for stream in (usual, urgent)]
    assert [underrun_s(stream) for stream in live] == [0.0] and min(done) > 0
    assert done[1] == pytest.approx(3 * done[0], abs=6)


def test_listeners_who_are_far_ahead_leave_the_machine_to_others_and_share_their_passes(
    show: Callable[..., Show],
) -> None:
    world = World(step_s=0.004, row_s=0.0001)
    stage = show(world, realtime_max_lead_s=3.0)
    live = [stage.come(realtime=True) for _ in range(12)]
    stage.play(until_s=world.now_s + 3)
    world.busy_s = 0.0
    stage.play(until_s=world.now_s + 10)
    assert [underrun_s(stream) for stream in live] == [0.0] * 12
    assert all(1.9 < ahead_s(world, stream) < 3.3 for stream in live)
    joint_s = 10 * FRAME_RATE_HZ * world.pass_s(24)
    assert world.busy_s < 1.1 * joint_s, "no stream is stepped alone, which would take seven times as long"


def test_a_listener_who_begins_beside_those_who_rest_wakes_none_who_is_far_enough_ahead(
    show: Callable[..., Show],
) -> None:
    world = World()
    stage = show(world, realtime_max_lead_s=3.0)
    live = [stage.come(realtime=True) for _ in range(4)]
    stage.play(until_s=world.now_s + 1.5)
    newcomer = stage.come(realtime=True)
    stage.play(until=lambda: id(newcomer) in stage.blocks)
    assert newcomer.clock is not None and newcomer.clock.has_started
    assert max(ahead_s(world, stream) for stream in live) < 3.3
