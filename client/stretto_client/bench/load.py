"""What is asked of the server, and how the requests come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from stretto_shared.errors import InvalidInput

from stretto_client.values import Pace

MAX_IN_FLIGHT = 250  # one connection carries 256 calls (STRETTO_GRPC_MAX_CONCURRENT_STREAMS); more would wait unseen
MAX_RATE_HZ = 1_000.0
MAX_REQUESTS = 10_000
MAX_RUN_S = 3_600.0
MAX_BUFFER_S = 60.0
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class ClosedLoad:
    """A fixed number of listeners, each of whom asks for the next piece after the last one.

    Raises:
        InvalidInput: If it is not between 1 and `MAX_IN_FLIGHT`.
    """

    concurrency: int

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= MAX_IN_FLIGHT:
            raise InvalidInput(
                "--concurrency",
                f"expected 1 to {MAX_IN_FLIGHT} listeners, got {self.concurrency}. For more, run the command twice at "
                "once.",
            )

    def __str__(self) -> str:
        return f"{self.concurrency} at once"


@dataclass(frozen=True)
class OpenLoad:
    """Requests that come as a Poisson process and wait for nobody, `rate_hz` of them a second on average.

    Raises:
        InvalidInput: If the rate is not above 0 and at most `MAX_RATE_HZ`.
    """

    rate_hz: float

    def __post_init__(self) -> None:
        if not 0 < self.rate_hz <= MAX_RATE_HZ:  # not a number is neither
            raise InvalidInput(
                "--rate", f"expected above 0 and at most {MAX_RATE_HZ:g} requests a second, got {self.rate_hz:g}."
            )

    def __str__(self) -> str:
        return f"{self.rate_hz:g} a second"


Load = ClosedLoad | OpenLoad


@dataclass(frozen=True)
class Plan:
    """What every level of a run has in common.

    Request number n of a level asks for prompt n modulo their number, with seed `first_seed` + n: each level asks for
    the same pieces. A level starts no request after `max_requests` of them or after `run_s`, whichever comes first, and
    each call ends within `timeout_s`; so a level lasts at most `run_s + timeout_s`.

    Args:
        prompts: Texts to ask for, one after the other.
        cascade: Empty takes the server's default.
        duration_s: Seconds of music of each piece.
        first_seed: Seed of the first piece, and of the arrivals.
        timeout_s: Deadline of each call.
        max_requests: Requests of one level, at most.
        run_s: Seconds in which a level may start requests.
        buffer_s: Seconds that a listener waits after the first audio before it plays.
        realtime: Whether a listener of a closed load hears a piece to its end before it asks for the next one.
        pace: What each request asks the server for.

    Raises:
        InvalidInput: If a value is out of its range, or there is no prompt.
    """

    prompts: tuple[str, ...]
    cascade: str = ""
    duration_s: float = 10.0
    first_seed: int = 0
    timeout_s: float = 60.0
    max_requests: int = 32
    run_s: float = 60.0
    buffer_s: float = 0.0
    realtime: bool = False
    pace: Pace = Pace.BEST_EFFORT

    def __post_init__(self) -> None:
        if not self.prompts or not all(self.prompts):
            raise InvalidInput("PROMPTS", "expected what the music should be, got nothing. Say it in a few words.")
        _check("--duration-s", self.duration_s, 0.1, 30.0)
        _check("--timeout-s", self.timeout_s, 0.001, MAX_RUN_S)
        _check("--requests", self.max_requests, 1, MAX_REQUESTS)
        _check("--run-s", self.run_s, 0.001, MAX_RUN_S)
        _check("--buffer-s", self.buffer_s, 0.0, MAX_BUFFER_S)
        if not 0 <= self.first_seed <= 2**64 - MAX_REQUESTS:
            raise InvalidInput("--seed", f"expected 0 to {2**64 - MAX_REQUESTS}, got {self.first_seed}.")

    def prompt_of(self, index: int) -> str:
        """The text of request number `index` of a level."""
        return self.prompts[index % len(self.prompts)]

    def seed_of(self, index: int) -> int:
        """The seed of request number `index` of a level."""
        return self.first_seed + index


def parse_loads(concurrency: str, rate: str) -> tuple[Load, ...]:
    """The levels of a run, from numbers with commas: first those of listeners, then those of rates.

    Raises:
        InvalidInput: If a word is not a number of its kind, or there is no level.
    """
    loads: list[Load] = [
        ClosedLoad(_number("--concurrency", word, int, "whole numbers with commas, as in 1,2,4,8"))
        for word in _words(concurrency)
    ]
    loads += [OpenLoad(_number("--rate", word, float, "numbers with commas, as in 0.5,1,2")) for word in _words(rate)]
    if not loads:
        raise InvalidInput("--concurrency", "expected at least one level here or in --rate, got none.")
    return tuple(loads)


def check_requests(plan: Plan, loads: Sequence[Load]) -> None:
    """Refuse a plan that has no request for some listener, whose level would be a lighter one than its name says.

    Raises:
        InvalidInput: If a level has more listeners than the plan has requests.
    """
    most = max((load.concurrency for load in loads if isinstance(load, ClosedLoad)), default=1)
    if plan.max_requests < most:
        raise InvalidInput(
            "--requests", f"expected at least one for each of {most} listeners, got {plan.max_requests}. Ask for more."
        )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")] if text.strip() else []


def _number(option: str, word: str, kind: type[Number], expected: str) -> Number:
    try:
        return kind(word)
    except ValueError:
        raise InvalidInput(option, f"expected {expected}, got {word!r}.") from None


def _check(option: str, value: float, low: float, high: float) -> None:
    if not (low <= value <= high and math.isfinite(value)):
        raise InvalidInput(option, f"expected {low:g} to {high:g}, got {value:g}.")
