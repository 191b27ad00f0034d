"""Do listeners of the default cascade hear music without a gap, and are those that would spoil it turned away at once?

The server is `stretto serve` in a process of its own, with `--slots` slots or as many as by default, asked through the
door at real-time pace, as `stretto bench --pace realtime` does. A player starts with the first chunk and plays by the
clock; whenever it has nothing to play, that is an underrun.

1. 8 listeners at once.
2. Four more, and four more, each level at once and anew, until the server refuses some: those that it let in are the
   admitted load.
3. Twice as many as that, evenly within `--spread-s` seconds; 0 lets all come at the same moment.

    python evals/speed/realtime_streams.py [--duration-s 30] [--slots 12] [--spread-s 1]

Cost: a minute on a quiet machine, which alone gives valid numbers; `--duration-s 8` is the quick check, whose
pieces may be over before anybody has to be refused: the server works ahead.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, parser, publish
from serving import own_server
from stretto_client import AudioChunk, Pace, StrettoClient
from stretto_client.bench.listener import Outcome as Heard
from stretto_client.bench.listener import Status, listen
from stretto_client.bench.load import ClosedLoad, Plan
from stretto_client.bench.summary import LevelSummary, Spread, summarise
from stretto_shared.errors import Overloaded

PROMPT = "a calm piano piece with soft strings"
NUM_STREAMS = 8
MAX_STREAMS = 120  # twice of it still fits one connection's calls
MAX_REFUSAL_S = 0.05
LONGEST_S = 30.0
REST_S = 0.5  # time for the server to see that those who left have left
TIMEOUT_S = 120.0

PROTOCOL = (
    "One server process, warm; GenerateMusic at real-time pace. A player starts at the first chunk, without a buffer, "
    "and plays one second a second; whenever it has nothing to play before the end, that is an underrun. Admitted "
    "load: how many are let in at the first number of listeners, raised by four, of whom some are refused. Refusals "
    "are timed by the client, from the call to the error. Claims are on every stream, not on means."
)


async def level(client: StrettoClient, plan: Plan, num_streams: int, spread_s: float = 0.0) -> list[Heard]:
    """So many listeners, who come evenly within `spread_s`; over when the last of them has played to the end.

    Until then the server keeps their places, also of pieces that were sent faster than they play.
    """
    loop = asyncio.get_running_loop()
    begun_s = loop.time()

    def now_s() -> float:
        return loop.time() - begun_s

    async def come(index: int) -> Heard:
        await asyncio.sleep(index * spread_s / num_streams)
        outcome, _ = await listen(client, plan, index, scheduled_s=now_s(), now_s=now_s)
        return outcome

    heard = list(await asyncio.gather(*(come(index) for index in range(num_streams))))
    ends_s = [each.playout.played_out_s for each in heard if each.playout is not None]
    await asyncio.sleep(max(0.0, max(ends_s, default=0.0) - now_s()))
    return heard


async def is_let_in(client: StrettoClient, plan: Plan, seed: int, decided: asyncio.Event, leave: asyncio.Event) -> bool:
    """Ask for one piece; whether its first audio came. Then listen on until all are told to leave."""
    events = client.generate_music(
        PROMPT, duration_s=plan.duration_s, seed=seed, pace=plan.pace, timeout_s=plan.timeout_s
    )
    try:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, AudioChunk):
                    decided.set()
                if leave.is_set():
                    break
        return True
    except Overloaded:
        return False
    finally:
        decided.set()


async def num_let_in(client: StrettoClient, plan: Plan, num_streams: int) -> int:
    """How many of so many listeners, who come at the same moment, hear their first audio."""
    leave, decided = asyncio.Event(), [asyncio.Event() for _ in range(num_streams)]
    asked = [asyncio.create_task(is_let_in(client, plan, seed, decided[seed], leave)) for seed in range(num_streams)]
    await asyncio.gather(*(each.wait() for each in decided))
    leave.set()
    return sum(await asyncio.gather(*asked))


async def admitted_load(client: StrettoClient, plan: Plan) -> int:
    """How many are let in at the first number of listeners of whom the server refuses some.

    Their pieces are the longest there are, so that none ends before the others are decided upon.
    """
    plan = replace(plan, duration_s=LONGEST_S)
    for num_streams in range(NUM_STREAMS, MAX_STREAMS, 4):
        num_admitted = await num_let_in(client, plan, num_streams)
        await asyncio.sleep(REST_S)
        if num_admitted < num_streams:
            return num_admitted
    raise SystemExit(f"The server refused nobody up to {MAX_STREAMS} listeners. Set fewer --slots.")


def refusals_s(heard: Sequence[Heard]) -> Spread | None:
    """How long those who were turned away waited for the answer."""
    return Spread.of(each.latency_s for each in heard if each.status is Status.REFUSED)


def claims(eight: Sequence[Heard], twice: Sequence[Heard], num_admitted: int) -> dict[str, bool]:
    """Each claim of the eval, and whether it holds."""
    let_in = [each for each in twice if each.status is not Status.REFUSED]
    refused = [each for each in twice if each.status is Status.REFUSED]
    waited = refusals_s(twice)
    return {
        f"{NUM_STREAMS}_streams_without_an_underrun": len(eight) == NUM_STREAMS and all(e.is_continuous for e in eight),
        f"admits_{NUM_STREAMS}_streams_or_more": num_admitted >= NUM_STREAMS,
        "twice_the_admitted_load: those_let_in_have_no_underrun": bool(let_in) and all(e.is_continuous for e in let_in),
        "twice_the_admitted_load: the_others_are_told_when_to_come_back": bool(refused)
        and all(each.retry_after_s is not None for each in refused),
        "twice_the_admitted_load: refused_within_50_ms": waited is not None and waited.max <= MAX_REFUSAL_S,
    }


def row(name: str, heard: Sequence[Heard], found: LevelSummary) -> tuple[object, ...]:
    """A line of the table."""
    waited = refusals_s(heard)
    first = found.audio_ttfp_s
    return (
        name,
        len(heard),
        found.ok_count,
        found.refused_count,
        found.failed_count + found.deadline_miss_count,
        found.audio_underrun_count,
        found.audio_underrun_s,
        "" if first is None else f"{first.p50:.3f} / {first.p95:.3f}",
        "" if waited is None else f"{1e3 * waited.p95:.1f} / {1e3 * waited.max:.1f}",
    )


async def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--duration-s", type=float, default=LONGEST_S, help="seconds of music of each piece")
    options.add_argument("--slots", type=int, help="of the server's language model; its default if not given")
    options.add_argument("--spread-s", type=float, default=1.0, help="seconds in which twice the admitted load comes")
    args = options.parse_args()
    settings = {"STRETTO_ACOUSTIC_MAX_SLOTS": args.slots} if args.slots else {}
    settings |= {"OMP_NUM_THREADS": args.threads} if args.threads else {}
    plan = Plan((PROMPT,), duration_s=args.duration_s, timeout_s=TIMEOUT_S, pace=Pace.REALTIME)
    async with own_server(settings) as server:
        await level(server.client, plan, 2)
        eight = await level(server.client, plan, NUM_STREAMS)
        num_admitted = await admitted_load(server.client, plan)
        print(f"admitted: {num_admitted}", flush=True)
        twice = await level(server.client, plan, 2 * num_admitted, args.spread_s)
    levels = {f"{NUM_STREAMS} at once": eight, "twice the admitted load": twice}
    found = {name: summarise(ClosedLoad(len(heard)), heard) for name, heard in levels.items()}
    head = (
        "listeners", "asked", "whole", "refused", "failed", "underruns", "underrun s", "first audio s, p50 / p95",
        "refused after ms, p95 / max",
    )  # fmt: skip
    waited = refusals_s(twice)
    slots = f"{args.slots} slots" if args.slots else "as many slots as by default"
    publish(
        Outcome(
            "realtime_streams",
            PROTOCOL,
            f"{args.duration_s:g} s a piece, {slots}, the default cascade at default settings otherwise; "
            f"admitted load {num_admitted}, twice of it within {args.spread_s:g} s",
            [Table("Real-time streams", [head, *(row(name, levels[name], each) for name, each in found.items())])],
            {
                "admitted_load": num_admitted,
                "refused_after_s": None if waited is None else asdict(waited),
                "levels": {name: asdict(each) for name, each in found.items()},
            },
            claims(eight, twice, num_admitted),
        ),
        args,
    )


if __name__ == "__main__":
    asyncio.run(main())
