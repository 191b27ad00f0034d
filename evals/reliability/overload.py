"""Ten times as many listeners as a server has room for: are those whom it lets in kept whole, the others told at once?

The server is `stretto serve` in a process of its own. The admitted load is how many real-time listeners it lets in at
the first number of whom it refuses some (`evals/speed/realtime_streams.py`). Then ten times as many want to listen for
`--minutes`: each asks for a piece of `--duration-s`, plays it to its end and asks for the next one; who is refused
comes back after the time that the server named. No piece that was let in may have a gap, no refusal may take 50 ms, and
what the server has resident may not grow.

    python evals/reliability/overload.py [--minutes 5] [--times 10] [--duration-s 10] [--slots 12]

Cost: `--minutes` and a half; `--minutes 0.7` is the quick check, whose memory says nothing.
"""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, parser, publish
from serving import OwnServer, own_server
from speed.realtime_streams import MAX_REFUSAL_S, PROMPT, admitted_load
from stretto_client import Pace, StrettoClient
from stretto_client.bench.listener import Outcome as Heard
from stretto_client.bench.listener import Status, listen
from stretto_client.bench.load import Plan
from stretto_client.bench.summary import Spread
from stretto_shared.grpc.settling import settle

TIMEOUT_S = 120.0
MAX_CALLERS = 250
SAMPLE_S = 1.0
WARM_SHARE = 0.2  # of the run, in which caches and pools fill
MAX_GROWTH = 0.03
PROTOCOL = (
    "One server process; closed load of listeners at real-time pace, ten times the admitted load, who play each piece "
    "to its end before the next and come back when a refusal says. An underrun is any moment in which a player that "
    "began with the first chunk has nothing to play. Refusals are timed by the client. Memory: VmRSS each second; "
    "growth is the median of the last fifth of the run over that of the second fifth."
)


async def want_to_listen(
    client: StrettoClient, plan: Plan, index: int, num_callers: int, until_s: float, heard: list[Heard]
) -> None:
    """One listener: piece after piece until the time is over."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(plan.duration_s * index / num_callers)
    while (asked_s := loop.time()) < until_s:
        outcome, _ = await listen(client, plan, index, scheduled_s=asked_s, now_s=loop.time)
        heard.append(outcome)
        rest_s = outcome.retry_after_s or 1.0
        if outcome.status is Status.OK:
            rest_s = asked_s + plan.duration_s - loop.time()  # it plays on
        await asyncio.sleep(max(0.0, min(rest_s, until_s - loop.time())))
        index += num_callers


async def watch_memory(server: OwnServer, sizes: list[int]) -> None:
    """Note what the server has resident, until cancelled."""
    while True:
        sizes.append(server.memory_bytes("VmRSS"))
        await asyncio.sleep(SAMPLE_S)


def growth(sizes: Sequence[int]) -> float:
    """How much larger the last fifth is than the second one, in parts of that."""
    if len(sizes) < 5:
        return float("nan")
    fifths = np.array_split(np.asarray(sizes, np.float64), 5)
    return float(np.median(fifths[-1]) / np.median(fifths[1]) - 1)


def claims(heard: Sequence[Heard], sizes: Sequence[int]) -> dict[str, bool]:
    """Each claim of the eval, and whether it holds."""
    let_in = [each for each in heard if each.status is not Status.REFUSED]
    refused = [each for each in heard if each.status is Status.REFUSED]
    return {
        "those_let_in_have_no_underrun": bool(let_in) and all(each.is_continuous for each in let_in),
        "refusals_say_when_to_come_back": bool(refused) and all(each.retry_after_s is not None for each in refused),
        "refused_within_50_ms": bool(refused) and max(each.latency_s for each in refused) <= MAX_REFUSAL_S,
        "memory_is_flat": growth(sizes) <= MAX_GROWTH,
    }


def late_chunks(let_in: Sequence[Heard]) -> list[tuple[object, ...]]:
    """Which chunks listeners waited for, by their number in the piece: how often, and the longest silence."""
    silences_s: defaultdict[int, list[float]] = defaultdict(list)
    for each in let_in:
        if each.playout is not None:
            for index in np.flatnonzero(each.playout.silences_s):
                silences_s[int(index)].append(float(each.playout.silences_s[index]))
    return [(index + 1, len(of_it), max(of_it)) for index, of_it in sorted(silences_s.items())]


def outcome(
    heard: Sequence[Heard], sizes: Sequence[int], num_admitted: int, num_callers: int, args: Namespace
) -> Outcome:
    """The report."""
    refused = [each for each in heard if each.status is Status.REFUSED]
    let_in = [each for each in heard if each.status is not Status.REFUSED]
    spoiled = [each for each in let_in if not each.is_continuous]
    waits = Spread.of(each.latency_s for each in refused)
    firsts = Spread.of(each.playout.first_audio_s - each.sent_s for each in let_in if each.playout is not None)
    late = late_chunks(let_in)
    for each in [*spoiled[:5], *(each for each in refused if each.latency_s > MAX_REFUSAL_S)][:10]:
        after_s = each.scheduled_s - heard[0].scheduled_s
        print(
            f"{after_s:.1f} s: {each.status} after {each.latency_s:.3f} s {each.message}", each.playout, file=sys.stderr
        )
    rows = [
        (
            "callers", "asked", "let in", "spoiled", "first audio s, p50 / max", "refused",
            "refused after ms, p50 / p99 / max", "MB, begin", "end",
        ),
        (
            num_callers, len(heard), len(let_in), len(spoiled),
            "" if firsts is None else f"{firsts.p50:.3f} / {firsts.max:.3f}", len(refused),
            "" if waits is None else " / ".join(f"{1e3 * each:.1f}" for each in (waits.p50, waits.p99, waits.max)),
            round(sizes[len(sizes) // 5] / 1e6), round(sizes[-1] / 1e6),
        ),
    ]  # fmt: skip
    return Outcome(
        name="overload",
        protocol=PROTOCOL,
        data=f"{args.duration_s:g} s a piece, {args.slots} slots; admitted load {num_admitted}",
        tables=[
            Table(f"{args.times} times the admitted load for {args.minutes:g} minutes", rows),
            Table("Chunks that came late", [("chunk of its piece", "times", "longest silence, s"), *late]),
        ],
        numbers={
            "admitted_load": num_admitted,
            "num_callers": num_callers,
            "num_asked": len(heard),
            "num_let_in": len(let_in),
            "num_spoiled": len(spoiled),
            "num_refused": len(refused),
            "first_audio_s": None if firsts is None else asdict(firsts),
            "late_chunks": [list(each) for each in late],
            "refused_after_s": None if waits is None else asdict(waits),
            "memory_growth": growth(sizes),
            "memory_mb": [round(size / 1e6, 1) for size in sizes[:: max(1, len(sizes) // 60)]],
        },
        passed=claims(heard, sizes),
    )


async def measure(args: Namespace) -> Outcome:
    """Find the admitted load, and let ten times as many come."""
    plan = Plan((PROMPT,), duration_s=args.duration_s, timeout_s=TIMEOUT_S, pace=Pace.REALTIME)
    heard: list[Heard] = []
    sizes: list[int] = []
    async with own_server({"STRETTO_ACOUSTIC_MAX_SLOTS": args.slots, "STRETTO_GRPC_LOG_LEVEL": "error"}) as server:
        num_admitted = await admitted_load(server.client, plan)
        num_callers = min(MAX_CALLERS, args.times * num_admitted)
        print(f"admitted: {num_admitted}; {num_callers} come", file=sys.stderr)
        watching = asyncio.create_task(watch_memory(server, sizes))
        settle()  # refusals are timed here, and this process's garbage collector is no part of them
        until_s = asyncio.get_running_loop().time() + 60.0 * args.minutes
        await asyncio.gather(
            *(want_to_listen(server.client, plan, each, num_callers, until_s, heard) for each in range(num_callers))
        )
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return outcome(heard, sizes, num_admitted, num_callers, args)


def main() -> None:
    """Parse, measure, publish."""
    made = parser(__doc__)
    made.add_argument("--minutes", type=float, default=5.0, help="how long they come")
    made.add_argument("--times", type=int, default=10, help="the admitted load")
    made.add_argument("--duration-s", type=float, default=10.0, help="seconds of music of each piece")
    made.add_argument("--slots", type=int, default=12, help="of the server's language model")
    args = made.parse_args()
    publish(asyncio.run(measure(args)), args)


if __name__ == "__main__":
    main()
