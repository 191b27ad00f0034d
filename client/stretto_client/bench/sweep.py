"""A run: warm-up, then one level after the other, each reduced to its numbers before the next begins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from stretto_shared.errors import StrettoError

from stretto_client.bench.listener import Outcome, Status, listen
from stretto_client.bench.load import Load, Plan
from stretto_client.bench.runner import LevelRun
from stretto_client.bench.summary import LevelSummary, summarise
from stretto_client.client import StrettoClient
from stretto_client.values import Receipt

WATCH_INTERVAL_S = 0.2

Watch = Callable[[Load, LevelRun], None]


@dataclass(frozen=True)
class Sweep:
    """What a run found.

    Args:
        levels: The levels in their order.
        warm_up: The receipt of the piece that warmed the server up: what served, in which version.
        byte_difference_count: Pieces whose bytes were not those of the first one with the same prompt and seed.
    """

    levels: tuple[LevelSummary, ...]
    warm_up: Receipt
    byte_difference_count: int


async def sweep(client: StrettoClient, plan: Plan, loads: Sequence[Load], watch: Watch | None = None) -> Sweep:
    """Run a plan at each load.

    Args:
        client: Of the server to load.
        plan: What to ask for.
        loads: The levels.
        watch: Called a few times a second with the level that runs, and when it ends.

    Raises:
        StrettoError: If the one piece that warms the server up does not come whole: there is nothing to measure.
    """
    warm_up = await _warm_up(client, plan)
    digests = {0: warm_up.output_sha256}
    byte_difference_count = 0
    levels: list[LevelSummary] = []
    for load in loads:
        level = LevelRun(client, plan, load)
        outcomes = await _watched(level, load, watch)
        byte_difference_count += _num_differing(outcomes, digests)
        levels.append(summarise(load, outcomes))
    return Sweep(tuple(levels), warm_up, byte_difference_count)


async def _warm_up(client: StrettoClient, plan: Plan) -> Receipt:
    loop = asyncio.get_running_loop()
    outcome, receipt = await listen(client, plan, 0, scheduled_s=loop.time(), now_s=loop.time)
    if outcome.status is not Status.OK or receipt is None:
        raise StrettoError(f"The first piece, before any load, failed: {outcome.message}", reason=outcome.error)
    return receipt


async def _watched(level: LevelRun, load: Load, watch: Watch | None) -> Sequence[Outcome]:
    if watch is None:
        return await level.run()

    async def look() -> None:
        while True:
            watch(load, level)
            await asyncio.sleep(WATCH_INTERVAL_S)

    looking = asyncio.create_task(look())
    try:
        outcomes = await level.run()
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
    watch(load, level)
    return outcomes


def _num_differing(outcomes: Sequence[Outcome], digests: dict[int, str]) -> int:
    """Whole pieces with other bytes than the first of their number, which `digests` remembers."""
    return sum(
        digests.setdefault(outcome.index, outcome.output_sha256) != outcome.output_sha256
        for outcome in outcomes
        if outcome.output_sha256
    )
