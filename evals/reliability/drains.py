"""Does a replica that is told to stop lose anything, and does health answer at once throughout?

Two replicas of every service, two doors among them, each a process of its own. All kinds of calls are made without a
pause, `--at-once` at the same time, while every replica in turn is sent SIGTERM and started again, `--limit` rounds of
them. Each answer is compared with that of the same call before.

    python evals/reliability/drains.py [--limit 1] [--at-once 6]

Cost: about three minutes a round; `--services acoustic` is a quick look at one.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import time
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, parser, publish
from reliability.calls import CALLS
from reliability.cluster import DOOR, STAGES, Cluster, Replica, cluster
from reliability.probe import LATE_S, Health, probing
from stretto_client import StrettoClient
from stretto_shared.errors import StrettoError

REST_S = 1.0
PROTOCOL = (
    "Two processes of every service, the door included; closed load of every kind of call in turn. SIGTERM to each "
    "process in turn, the next one when it serves again. Health: Check of each process every 50 ms, from a process of "
    "its own; only answers count, for a process that is being replaced is not there to answer."
)


@dataclass
class Tally:
    """What the calls came to."""

    num_calls: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    num_differences: int = 0


async def call_on(client: StrettoClient, whole: Mapping[str, str], first: int, tally: Tally) -> None:
    """One call after the other, of every kind in turn, until cancelled."""
    kinds = list(CALLS)
    for index in itertools.count(first):
        kind = kinds[index % len(kinds)]
        tally.num_calls[kind] += 1
        try:
            tally.num_differences += await CALLS[kind](client) != whole[kind]
        except StrettoError as error:
            tally.failures[f"{kind}: {error.reason}: {error.message}"] += 1


@dataclass(frozen=True)
class Drain:
    """When a replica was told to stop, when another process took its place, and when that served; `time.monotonic`."""

    replica: Replica
    began_s: float
    replaced_s: float
    back_s: float

    def state_at(self, at_s: float) -> str:
        """What the replica was doing then, between the first and the last of these times."""
        return "draining" if at_s < self.replaced_s else "starting"


async def drain(made: Cluster, replica: Replica) -> Drain:
    """Tell one replica to stop, and wait until another process serves in its place."""
    began_s, process_id = time.monotonic(), made.send(replica, signal.SIGTERM)
    while made.process_ids[replica.port] == process_id:  # noqa: ASYNC110  the cluster tells nobody
        await asyncio.sleep(0.02)
    replaced_s = time.monotonic()
    await made.until_serving([replica], not_by={replica.port: process_id})
    return Drain(replica, began_s, replaced_s, time.monotonic())


def late_answers(health: Health, replicas: Sequence[Replica], drains: Sequence[Drain]) -> list[tuple[object, ...]]:
    """Who answered late, in which state, beside whom in which state: how often, and the longest answer."""
    waits_s: defaultdict[tuple[str, str, str], list[float]] = defaultdict(list)
    for replica in replicas:
        for at_s, taken_s in health.late.get(replica.address, ()):
            now = {each.replica: each.state_at(at_s) for each in drains if each.began_s <= at_s < each.back_s}
            own = now.pop(replica, "serving")
            beside = ", ".join(f"{other.service} {state}" for other, state in now.items())
            waits_s[replica.service, own, beside].append(taken_s)
    rows = [(*key, len(of_it), max(of_it)) for key, of_it in waits_s.items()]
    return sorted(rows, key=lambda row: -row[-1])


async def finish(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel what is left over."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def outcome(
    tally: Tally, health: Health, replicas: Sequence[Replica], drains: Sequence[Drain], args: Namespace
) -> Outcome:
    """The report."""
    late = late_answers(health, replicas, drains)
    for failure, count in tally.failures.most_common(8):
        print(f"{count} x {failure}", file=sys.stderr)
    rows = [
        ("calls", "failed", "byte differences", "drained", "health p50, s", "p99, s", "longest, s"),
        (
            tally.num_calls.total(), tally.failures.total(), tally.num_differences, len(drains),
            health.p50_s, health.p99_s, health.max_s,
        ),
    ]  # fmt: skip
    return Outcome(
        name="drains",
        protocol=PROTOCOL,
        data=f"calls: {', '.join(CALLS)}",
        tables=[
            Table(f"SIGTERM to every process in turn, {args.at_once} calls at once", rows),
            Table(
                f"Health that took {LATE_S:g} s or more",
                [("service", "which was", "beside", "times", "longest, s"), *late],
            ),
        ],
        numbers={
            "num_calls": dict(tally.num_calls),
            "num_failed": tally.failures.total(),
            "num_byte_differences": tally.num_differences,
            "num_drained": len(drains),
            "health": {name: value for name, value in vars(health).items() if name != "late"},
            "late_health": [list(each) for each in late],
        },
        passed={
            "no_call_failed": not tally.failures,
            "no_byte_differs": tally.num_differences == 0,
            "health_answers_in_50_ms_throughout": health.max_s < LATE_S and health.num_silent == 0,
        },
    )


async def measure(args: Namespace) -> Outcome:
    """Call, and drain one after the other."""
    tally, drains = Tally(), list[Drain]()
    async with (
        cluster(dict.fromkeys((DOOR, *STAGES), 2), {"STRETTO_GRPC_LOG_LEVEL": "error"}) as made,
        StrettoClient(made.address, tls=False) as client,
    ):
        whole = {kind: await call(client) for kind, call in CALLS.items()}
        print("the calls undisturbed are done", file=sys.stderr)
        async with probing([each.address for each in made.replicas]) as health:
            calling = [asyncio.create_task(call_on(client, whole, each, tally)) for each in range(args.at_once)]
            try:
                for replica in made.of(*args.services) * (args.limit or 1):
                    drains.append(await drain(made, replica))
                    taken_s = drains[-1].back_s - drains[-1].began_s
                    print(f"{replica.service} drained and back in {taken_s:.1f} s", file=sys.stderr)
                    await asyncio.sleep(REST_S)
            finally:
                await finish(calling)
    return outcome(tally, health, made.replicas, drains, args)


def main() -> None:
    """Parse, measure, publish."""
    made = parser(__doc__)
    made.add_argument("--at-once", type=int, default=6, help="calls at the same time")
    made.add_argument("--services", nargs="+", default=[DOOR, *STAGES], help="whose replicas are drained")
    args = made.parse_args()
    publish(asyncio.run(measure(args)), args)


if __name__ == "__main__":
    main()
