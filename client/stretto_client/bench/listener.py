"""One listener: asks for one piece, hears it, and says what became of it. Never raises a `StrettoError`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum

from stretto_shared.errors import NotReady, Overloaded, StrettoError

from stretto_client.bench.load import Plan
from stretto_client.bench.playout import Arrival, Playout, play_out
from stretto_client.client import StrettoClient
from stretto_client.errors import DeadlineExceeded, Unreachable
from stretto_client.values import AudioChunk, Receipt

LENGTH_TOLERANCE_S = 0.01


class Status(StrEnum):
    """What became of a request.

    `REFUSED` is the server's own word, before any audio, that it has no room or is not ready: the listener was not let
    in, and nothing was promised. `LATE` missed its deadline. `FAILED` is everything else that is not `OK`. `UNSENT` is
    the tester's own limit: too many requests were on their way.
    """

    OK = "ok"
    REFUSED = "refused"
    LATE = "late"
    FAILED = "failed"
    UNSENT = "unsent"


@dataclass(frozen=True, eq=False)
class Outcome:
    """One request. Times are seconds since the level began.

    Args:
        index: Its number in the level, which decides prompt and seed.
        status: What became of it.
        scheduled_s: When it should have been sent; every latency counts from here.
        sent_s: When it was.
        ended_s: When its call ended.
        playout: What was heard; None if no audio came.
        error: The reason of the typed error, empty if there was none.
        message: What the error said.
        retry_after_s: When the server said to come back, where it did.
        output_sha256: The receipt's, of a whole piece.
    """

    index: int
    status: Status
    scheduled_s: float
    sent_s: float
    ended_s: float
    playout: Playout | None = None
    error: str = ""
    message: str = ""
    retry_after_s: float | None = None
    output_sha256: str = ""

    @property
    def latency_s(self) -> float:
        """Seconds until the call ended, well or not."""
        return self.ended_s - self.scheduled_s

    @property
    def is_continuous(self) -> bool:
        """Whether the whole piece was heard without an underrun."""
        return self.status is Status.OK and self.playout is not None and self.playout.underrun_count == 0


async def listen(
    client: StrettoClient, plan: Plan, index: int, *, scheduled_s: float, now_s: Callable[[], float]
) -> tuple[Outcome, Receipt | None]:
    """Ask for piece number `index` of the plan and hear it, within the plan's deadline."""
    sent_s = now_s()
    arrivals: list[Arrival] = []
    receipt: Receipt | None = None
    failure: StrettoError | None = None
    events = client.generate_music(
        plan.prompt_of(index),
        cascade=plan.cascade,
        duration_s=plan.duration_s,
        seed=plan.seed_of(index),
        pace=plan.pace,
        timeout_s=plan.timeout_s,
    )
    try:
        async with aclosing(events):
            async for event in events:
                match event:
                    case AudioChunk():
                        arrivals.append(Arrival(now_s(), event.waveform.duration_s))
                    case Receipt():
                        receipt = event
    except StrettoError as error:
        failure = error
    ended_s = now_s()
    failure = failure or _wrong(plan, arrivals, receipt)
    outcome = Outcome(
        index=index,
        status=Status.OK if failure is None else status_of(failure, has_audio=bool(arrivals)),
        scheduled_s=scheduled_s,
        sent_s=sent_s,
        ended_s=ended_s,
        playout=play_out(arrivals, buffer_s=plan.buffer_s, cut_at_s=None if failure is None else ended_s),
        error="" if failure is None else failure.reason,
        message="" if failure is None else failure.message,
        retry_after_s=failure.retry_after_s if isinstance(failure, Overloaded) else None,
        output_sha256="" if failure is not None or receipt is None else receipt.output_sha256,
    )
    return outcome, receipt


def status_of(error: StrettoError, *, has_audio: bool) -> Status:
    """What an error makes of a request."""
    match error:
        case DeadlineExceeded():
            return Status.LATE
        case Unreachable():
            return Status.FAILED
        case Overloaded() | NotReady() if not has_audio:
            return Status.REFUSED
        case _:
            return Status.FAILED


def _wrong(plan: Plan, arrivals: list[Arrival], receipt: Receipt | None) -> StrettoError | None:
    """What a call that ended well did not bring."""
    if receipt is None:
        return StrettoError("The server ended the music without a receipt.", reason="NO_RECEIPT")
    audio_s = sum(arrival.duration_s for arrival in arrivals)
    if abs(audio_s - plan.duration_s) > LENGTH_TOLERANCE_S:
        return StrettoError(
            f"The server sent {audio_s:.2f} s of audio where {plan.duration_s:.2f} s were asked for.",
            reason="WRONG_LENGTH",
        )
    return None
