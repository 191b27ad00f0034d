"""The numbers of one level. Names are close to vLLM-Omni's; every one is defined here.

- **Continuity** is the share of streams without an underrun among all that were not refused: one that was let in and
  failed, missed its deadline or ended short was not heard without an interruption.
- **First audio** counts from the scheduled arrival, over every stream that brought audio.
- **Real-time factor** is seconds from the scheduled arrival to the end of the call for each second of music, over whole
  pieces; below 1 is faster than playing.
- **Throughput** is seconds of audio, of broken streams too, for each second from the level's begin to its last end.
- **Gaps** are those between one chunk and the next of the same stream, over all streams together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stretto_client.bench.listener import Outcome, Status
from stretto_client.bench.load import ClosedLoad, Load, OpenLoad


@dataclass(frozen=True)
class Spread:
    """Percentiles of some values, linear between neighbours, and the largest one."""

    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """The spread of values; None if there are none."""
        numbers = np.fromiter(values, dtype=np.float64)
        if numbers.size == 0:
            return None
        return cls(*(float(value) for value in np.percentile(numbers, (50, 95, 99, 100))))


@dataclass(frozen=True)
class ErrorSummary:
    """Requests that ended with one reason: how many, how soon they were told, and when they were told to come back."""

    reason: str
    status: str
    count: int
    latency_s: Spread
    retry_after_s: Spread | None
    message: str


@dataclass(frozen=True)
class LevelSummary:
    """One level in numbers; the module says what each means. None stands for a value of nothing.

    `client_lag_s` is by how much the tester itself sent too late. If it is not far below the other times, the tester
    was too slow for its load, and they say more about it than about the server.
    """

    concurrency: int | None
    rate_hz: float | None
    request_count: int
    ok_count: int
    refused_count: int
    deadline_miss_count: int
    failed_count: int
    unsent_count: int
    audio_continuity_ok: float | None
    audio_underrun_count: int
    audio_underrun_s: float
    audio_underrun_max_s: float
    audio_ttfp_s: Spread | None
    audio_chunk_gap_s: Spread | None
    audio_rtf: Spread | None
    audio_s: float
    wall_s: float
    audio_s_per_s: float
    mean_in_flight: float
    peak_in_flight: int
    client_lag_s: Spread | None
    errors: tuple[ErrorSummary, ...]


def summarise(load: Load, outcomes: Sequence[Outcome]) -> LevelSummary:
    """The numbers of a level, from what became of its requests."""
    counts = Counter(outcome.status for outcome in outcomes)
    sent = [outcome for outcome in outcomes if outcome.status is not Status.UNSENT]
    let_in = [outcome for outcome in sent if outcome.status is not Status.REFUSED]
    heard = [(outcome, outcome.playout) for outcome in outcomes if outcome.playout is not None]
    wall_s = max((outcome.ended_s for outcome in outcomes), default=0.0)
    audio_s = sum(playout.audio_s for _, playout in heard)
    return LevelSummary(
        concurrency=load.concurrency if isinstance(load, ClosedLoad) else None,
        rate_hz=load.rate_hz if isinstance(load, OpenLoad) else None,
        request_count=len(outcomes),
        ok_count=counts[Status.OK],
        refused_count=counts[Status.REFUSED],
        deadline_miss_count=counts[Status.LATE],
        failed_count=counts[Status.FAILED],
        unsent_count=counts[Status.UNSENT],
        audio_continuity_ok=sum(each.is_continuous for each in let_in) / len(let_in) if let_in else None,
        audio_underrun_count=sum(playout.underrun_count for _, playout in heard),
        audio_underrun_s=sum(playout.underrun_s for _, playout in heard),
        audio_underrun_max_s=max((playout.underrun_s for _, playout in heard), default=0.0),
        audio_ttfp_s=Spread.of(playout.first_audio_s - outcome.scheduled_s for outcome, playout in heard),
        audio_chunk_gap_s=Spread.of(gap_s for _, playout in heard for gap_s in playout.gaps_s),
        audio_rtf=Spread.of(
            outcome.latency_s / playout.audio_s for outcome, playout in heard if outcome.status is Status.OK
        ),
        audio_s=audio_s,
        wall_s=wall_s,
        audio_s_per_s=audio_s / wall_s if wall_s else 0.0,
        mean_in_flight=sum(each.ended_s - each.sent_s for each in sent) / wall_s if wall_s else 0.0,
        peak_in_flight=_peak_in_flight(sent),
        client_lag_s=Spread.of(each.sent_s - each.scheduled_s for each in sent),
        errors=tuple(_errors(outcomes)),
    )


def _errors(outcomes: Sequence[Outcome]) -> Iterable[ErrorSummary]:
    """One row for each kind of end but the good one, the most frequent first."""
    kinds = Counter((outcome.status, outcome.error) for outcome in outcomes if outcome.status is not Status.OK)
    for (status, reason), count in kinds.most_common():
        same = [outcome for outcome in outcomes if (outcome.status, outcome.error) == (status, reason)]
        latency_s = Spread.of(outcome.latency_s for outcome in same)
        assert latency_s is not None
        yield ErrorSummary(
            reason=reason,
            status=status.value,
            count=count,
            latency_s=latency_s,
            retry_after_s=Spread.of(each.retry_after_s for each in same if each.retry_after_s is not None),
            message=same[0].message,
        )


def _peak_in_flight(sent: Sequence[Outcome]) -> int:
    """The most calls that were open at one moment; one that ends as another is sent does not overlap it."""
    changes = sorted([(each.sent_s, 1) for each in sent] + [(each.ended_s, -1) for each in sent])
    steps = np.array([step for _, step in changes], dtype=np.int64)
    return int(np.cumsum(steps).max(initial=0))
