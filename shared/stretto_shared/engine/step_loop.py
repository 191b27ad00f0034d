"""`StepLoop`: what the model thread does in one turn: plan a pass, run it, draw, and collect what is to be handed out.

A turn ends as soon as there is news for somebody, when the event loop has news (a request came, left, or read on), or
after a quarter of a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from torch import Tensor

from stretto_shared.engine.config import TokenEngineConfig
from stretto_shared.engine.meter import TokenMeter
from stretto_shared.engine.native_sampling import OnKernel
from stretto_shared.engine.program import Draw, StepModel, TokenBlock, draw_all
from stretto_shared.engine.scheduler import Scheduler, Turn
from stretto_shared.engine.slots import Stream
from stretto_shared.engine.step_times import StepTimes
from stretto_shared.nn.lowbit import NativeKernel

Condition = TypeVar("Condition")
State = TypeVar("State")
Event = tuple[Stream[Condition, State], TokenBlock | Exception | None]

_MAX_TURN_S = 0.25


class StepLoop(Generic[Condition, State]):
    """Runs passes on the model thread. A stream that fails fails alone: a failed pass is run again one by one."""

    def __init__(
        self,
        model: StepModel[Condition, State],
        config: TokenEngineConfig,
        scheduler: Scheduler,
        step_times: StepTimes,
        meter: TokenMeter,
    ) -> None:
        self._model = model
        self._kernel = model.kernel if isinstance(model, OnKernel) else None
        self._config = config
        self._scheduler = scheduler
        self._times = step_times
        self._meter = meter

    def take_turn(
        self, streams: Sequence[Stream[Condition, State]], has_news: Callable[[], bool]
    ) -> list[Event[Condition, State]]:
        """Step `streams` until there is something to hand out, to hear, or time is up."""
        end_s = time.perf_counter() + _MAX_TURN_S
        events: list[Event[Condition, State]] = []
        alive = list(streams)
        while alive and not events and time.perf_counter() < end_s:
            if any(stream.is_cancelled for stream in alive):
                break
            now_s = time.perf_counter()
            self._run_pass(self._scheduler.plan(self._scheduler.openable(alive, now_s), now_s), events)
            if has_news():
                break
        return events

    def _run_pass(self, turns: list[Turn], events: list[Event[Condition, State]]) -> None:
        turns = self._opened(turns, events)
        if not turns:
            return
        start_s = time.perf_counter()
        try:
            logits = self._read(turns)
        except Exception as error:  # whoever caused it fails alone; states advance only in a pass that works
            if len(turns) > 1:
                for turn in turns:
                    self._run_pass([turn], events)
            else:
                _fail(turns[0].stream, error, events)
            return
        faults = _draw(turns, logits, self._kernel)
        num_rows = sum(turn.num_rows for turn in turns)
        elapsed_s = time.perf_counter() - start_s  # a device is waited for when its tokens are read
        self._times.observe(num_rows, elapsed_s)
        self._meter.observe_step(elapsed_s, num_rows)
        for turn, fault in zip(turns, faults, strict=True):
            try:
                if fault is not None:
                    raise fault
                self._scheduler.charge(turn)
                self._hand_out(turn.stream, events)
            except Exception as error:
                _fail(turn.stream, error, events)

    def _opened(self, turns: list[Turn], events: list[Event[Condition, State]]) -> list[Turn]:
        """Keep the turns whose stream has a state; open one more, at most, so that nobody waits for many openings."""
        ready, closed = [t for t in turns if t.stream.state is not None], [t for t in turns if t.stream.state is None]
        for turn in closed[:1]:
            stream, start_s = turn.stream, time.perf_counter()
            try:
                stream.state = self._model.open(
                    stream.request.condition,
                    num_steps=stream.program.num_steps,
                    guidance_scale=stream.request.sampling.guidance_scale,
                )
                self._scheduler.observe_opening(time.perf_counter() - start_s)
                ready.append(turn)
            except Exception as error:
                _fail(stream, error, events)
        return ready

    def _read(self, turns: Sequence[Turn]) -> list[Tensor | None]:
        programs = [turn.stream.program for turn in turns]
        states: list[Any] = [turn.stream.state for turn in turns]  # open, all of them
        return self._model.step(
            states,
            [program.next_columns(turn.num_columns) for program, turn in zip(programs, turns)],
            [program.wants_logits_after(turn.num_columns) for program, turn in zip(programs, turns)],
        )

    def _hand_out(self, stream: Stream[Condition, State], events: list[Event[Condition, State]]) -> None:
        program, now_s = stream.program, time.perf_counter()
        is_over = program.num_steps_left == 0
        num_left = program.num_steps_left + stream.request.num_later_frames
        wanted = min(self._config.block_size(stream.num_blocks), max(self._config.first_block_frames, num_left))
        if is_over or self._scheduler.must_deliver(stream, now_s):
            wanted = 1
        if program.num_frames_ready >= wanted:
            block = program.take_frames()
            self._count(stream, block, now_s)
            events.append((stream, block))
        if is_over:
            stream.drop_state()
            events.append((stream, None))

    def _count(self, stream: Stream[Condition, State], block: TokenBlock, now_s: float) -> None:
        if stream.last_block_s is None:
            self._meter.observe_first_frames(now_s - stream.arrived_s)
        self._meter.observe_chunk(
            block.codes.size, None if stream.last_block_s is None else now_s - stream.last_block_s
        )
        stream.last_block_s = now_s
        stream.num_blocks += 1
        if stream.clock is not None:
            stream.clock.deliver(now_s, block.codes.shape[1], is_readers_fault=stream.was_paused)
        stream.was_paused = False


def _draw(
    turns: Sequence[Turn], logits: Sequence[Tensor | None], kernel: NativeKernel | None
) -> list[Exception | None]:
    """Draw for all at once, or one by one where that fails; what each raised for whom nothing can be drawn."""
    draws = [turn.stream.program.read(row, turn.num_columns) for turn, row in zip(turns, logits, strict=True)]
    try:
        draw_all([draw for draw in draws if draw is not None], kernel)
    except Exception:
        return [_draw_alone(draw, kernel) for draw in draws]
    return [None] * len(turns)


def _draw_alone(draw: Draw | None, kernel: NativeKernel | None) -> Exception | None:
    try:
        draw_all([draw] if draw is not None else [], kernel)
    except Exception as error:
        return error
    return None


def _fail(stream: Stream[Condition, State], error: Exception, events: list[Event[Condition, State]]) -> None:
    stream.drop_state()
    events.append((stream, error))
