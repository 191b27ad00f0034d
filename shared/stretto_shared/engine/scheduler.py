"""`Scheduler`: who reads how many columns in the next pass, and whom to refuse. Knows no thread, no tensor, no queue.

A real-time stream is *due* while it is less than `realtime_lead_s` ahead of its listener. Due streams come first, the
one that would starve first before the others; what is left goes to best-effort streams by fair shares, then to the
real-time streams that are ahead already. In a joined pass more rows make all of them slower, so others join only while
the pass stays short enough, by the measured step times, for every due stream's next frame to come in time.

One frame of K tokens is one step, and one step plays `1 / frame_rate_hz` seconds: so a set of real-time streams can be
kept up when one step for all of them takes less than that.

A real-time stream that is `realtime_max_lead_s` ahead rests. All that rest go on together, so that they share passes:
when the first of them has come down by `realtime_lead_s`, or when others run anyhow and they have come down at all.

Making a stream's state (projecting a text, reading a melody's prefix) is one call of the model that nothing can cut
short. A newcomer's is put off while it would make a listener wait, by what such calls took before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stretto_shared.engine.config import TokenEngineConfig
from stretto_shared.engine.slots import Stream
from stretto_shared.engine.step_times import StepTimes

AnyStream = Stream[Any, Any]
_FORGETTING = 0.1


@dataclass(frozen=True, eq=False)
class Turn:
    """One stream's part of the next pass."""

    stream: AnyStream
    num_columns: int

    @property
    def num_rows(self) -> int:
        return self.num_columns * self.stream.num_rows


class Scheduler:
    """Plans passes by play-out deadline and estimates waits.

    Args:
        config: Limits.
        step_times: What passes take.
        joins: Whether several streams, and several columns, may share a pass.
    """

    def __init__(self, config: TokenEngineConfig, step_times: StepTimes, *, joins: bool) -> None:
        self._config = config
        self._times = step_times
        self._joins = joins
        self._opening_s = 0.0

    def plan(self, streams: Sequence[AnyStream], now_s: float) -> list[Turn]:
        """Choose the streams of the next pass, at least one, and how many columns each reads."""
        realtime = sorted((s for s in streams if s.is_realtime), key=self._deadline_s)
        round_s = self._round_s(realtime)
        due = [s for s in realtime if self._slack_s(s, now_s, round_s) < self._config.realtime_lead_s]
        fair = sorted((s for s in streams if not s.is_realtime), key=lambda s: s.share_used)
        order = [*due, *fair, *(s for s in realtime if s not in due)]
        if not self._joins:
            return [Turn(order[0], 1)]
        longest_s = min((self._longest_pass_s(s, now_s) for s in due), default=math.inf)
        chosen = due[:]
        num_rows = sum(s.num_rows for s in chosen)
        for stream in order[len(due) :]:
            if not chosen or self._times.predict_s(num_rows + stream.num_rows) <= longest_s:
                chosen.append(stream)
                num_rows += stream.num_rows
        # who reads what is known comes to its next frame in fewer passes by reading more, not by shorter ones
        drawing = [s for s in due if s.program.num_readable_columns == 1]
        longest_s = min((self._longest_pass_s(s, now_s) for s in drawing), default=math.inf)
        return self._with_known_columns(chosen, num_rows, longest_s)

    def awake(self, streams: Sequence[AnyStream], now_s: float) -> tuple[list[AnyStream], float]:
        """Who is to run now; if nobody, in how many seconds somebody is."""
        limit_s = self._config.realtime_max_lead_s
        leads_s = [self._lead_s(stream, now_s) for stream in streams]
        rest_s = min(leads_s, default=math.inf) - (limit_s - self._config.realtime_lead_s)
        if rest_s > 0 and math.isfinite(limit_s):
            return [], rest_s
        return [stream for stream, lead_s in zip(streams, leads_s, strict=True) if lead_s < limit_s], 0.0

    def openable(self, streams: Sequence[AnyStream], now_s: float) -> list[AnyStream]:
        """Leave out the newcomers whose state cannot be made now without letting a listener run dry.

        They wait until every real-time stream has the time of an opening in hand, or `realtime_lead_s`, which is all
        that it gets; a real-time newcomer never longer than `max_realtime_wait_s`.
        """
        playing = [s for s in streams if s.state is not None and s.is_realtime]
        round_s = self._round_s(playing)
        in_hand_s = min(self._opening_s + round_s, self._config.realtime_lead_s)
        if all(self._slack_s(stream, now_s, round_s) >= in_hand_s for stream in playing):
            return list(streams)
        latest_s = now_s - self._config.max_realtime_wait_s
        return [s for s in streams if s.state is not None or (s.is_realtime and s.started_s < latest_s)]

    def observe_opening(self, elapsed_s: float) -> None:
        """Learn what making a state takes: more at once, less little by little."""
        self._opening_s = max(elapsed_s, self._opening_s + _FORGETTING * (elapsed_s - self._opening_s))

    def charge(self, turn: Turn) -> None:
        """Write down a turn that a best-effort stream had."""
        turn.stream.share_used += turn.num_columns / (1 + turn.stream.request.priority)

    def must_deliver(self, stream: AnyStream, now_s: float) -> bool:
        """Whether a real-time stream should hand out what it has: its listener is about to run dry, or it will rest."""
        if not stream.is_realtime or stream.clock is None or not stream.clock.has_started:
            return False
        is_about_to_rest = self._deadline_s(stream) - now_s >= self._config.realtime_max_lead_s
        return is_about_to_rest or stream.clock.ahead_s(now_s) < self._config.realtime_lead_s / 2

    def would_underrun(self, stream: AnyStream, others: Sequence[AnyStream]) -> bool:
        """Whether `stream` beside the other real-time streams would make them run dry; not asked of the first one."""
        realtime = [s for s in others if s.is_realtime and not s.is_cancelled]
        if not stream.is_realtime or not realtime or stream.clock is None:
            return False
        return self._round_s([*realtime, stream]) * stream.clock.frame_rate_hz > self._config.realtime_utilisation

    def estimate_end_s(self, running: Sequence[AnyStream], num_ends: int = 1) -> float:
        """Seconds until `num_ends` pieces will have ended, later requests too, if all that run go on as they do."""
        step_s = self._round_s(running) or self._times.predict_s(1)
        left = sorted(s.program.num_steps_left + s.request.num_later_frames for s in running) or [1]
        rounds, at = divmod(num_ends - 1, len(left))
        return max(step_s, (left[at] + rounds * left[-1]) * step_s)

    def _with_known_columns(self, chosen: Sequence[AnyStream], num_rows: int, longest_s: float) -> list[Turn]:
        """Give those who have known columns to read several at a time, as far as the pass stays short enough."""
        left = self._config.prefill_columns
        turns = []
        for stream in chosen:
            more = min(stream.program.num_readable_columns - 1, left)
            while more and self._times.predict_s(num_rows + more * stream.num_rows) > longest_s:
                more //= 2
            left -= more
            num_rows += more * stream.num_rows
            turns.append(Turn(stream, 1 + more))
        return turns

    def _round_s(self, streams: Sequence[AnyStream]) -> float:
        """Seconds of one step for each of `streams`: one pass where they join, one pass each where not."""
        if self._joins:
            return self._times.predict_s(sum(s.num_rows for s in streams)) if streams else 0.0
        return sum(self._times.predict_s(s.num_rows) for s in streams)

    def _lead_s(self, stream: AnyStream, now_s: float) -> float:
        """Seconds of audio that a listener was handed ahead of time; less than any before the first, or without one."""
        if not stream.is_realtime or stream.clock is None or not stream.clock.has_started:
            return -math.inf
        return stream.clock.ahead_s(now_s)

    def _deadline_s(self, stream: AnyStream) -> float:
        """When a listener will need the next frame that is not complete yet."""
        clock = stream.clock
        if clock is None or not clock.has_started:
            return stream.started_s + self._config.first_frames_target_s
        return clock.runs_out_s + stream.program.num_frames_ready / clock.frame_rate_hz

    def _num_passes_to_frame(self, stream: AnyStream) -> int:
        known = stream.program.num_readable_columns - 1
        saved = known - math.ceil(known / (1 + self._config.prefill_columns)) if self._joins else 0
        return max(1, stream.program.num_steps_to_frame - saved)

    def _slack_s(self, stream: AnyStream, now_s: float, round_s: float) -> float:
        return self._deadline_s(stream) - now_s - self._num_passes_to_frame(stream) * round_s

    def _longest_pass_s(self, stream: AnyStream, now_s: float) -> float:
        """How long a pass may take so that this stream's next frame still comes in time, with one pass in hand."""
        return max(0.0, self._deadline_s(stream) - now_s) / (1 + self._num_passes_to_frame(stream))
