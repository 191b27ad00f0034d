"""What does it cost to run every service in a process of its own, and how much of a core does the door take?

Two servers of the same settings side by side, one all-in-one and one of a process for each service, take turns: each
makes the same pieces of the default cascade, `--at-once` at a time, in `--limit` rounds. The times of a round are
compared in pairs. The door's processor time is divided by the seconds of music that went through it.

    python evals/reliability/cost.py [--limit 12] [--at-once 2] [--duration-s 10]

Cost: about two minutes on a quiet machine, which alone gives valid numbers.
"""

from __future__ import annotations

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, parser, publish
from reliability.cluster import DOOR, Cluster, Replica, cluster, cpu_s_of
from reliability.kills import PROMPTS, Request, make_all
from serving import OwnServer, own_server
from stretto_client import StrettoClient
from timing import spread

NUM_ROUNDS = 12
PIECES_A_ROUND = 4
MAX_COST = 0.05
MAX_DOOR_CORES = 0.05
QUIET: Mapping[str, object] = {"STRETTO_GRPC_LOG_LEVEL": "error"}
PROTOCOL = (
    f"{PIECES_A_ROUND} pieces of musicgen a round, first on the one server, then on the other, which changes with each "
    "round; one round of each is not counted. Cost: the mean of the rounds' log ratios of wall times, and of processor "
    "times of all server processes, with 95 % intervals. Door: its processor time over the seconds of music of all "
    "counted rounds, as parts of a core for one real-time stream."
)


@dataclass
class Rounds:
    """Of one server, what each round took.

    Args:
        client: Connected to its door.
        cpu_s: Asks for the processor time of all its processes so far.
        wall_s: Filled in.
        used_s: Processor time, filled in.
    """

    client: StrettoClient
    cpu_s: Callable[[], float]
    wall_s: list[float] = field(default_factory=list)
    used_s: list[float] = field(default_factory=list)

    async def run(self, num_at_once: int, duration_s: float) -> None:
        """Make the pieces of one round."""
        wanted = [Request(prompt, "musicgen", seed) for seed, prompt in enumerate(PROMPTS[:PIECES_A_ROUND])]
        began_s, used_s = time.perf_counter(), self.cpu_s()
        pieces = await make_all(self.client, wanted, num_at_once, {"musicgen": duration_s})
        self.wall_s.append(time.perf_counter() - began_s)
        self.used_s.append(self.cpu_s() - used_s)
        if any(piece.error for piece in pieces):
            raise SystemExit(f"a piece failed: {[piece.error for piece in pieces]}")


def apart_cpu_s(made: Cluster) -> float:
    """Processor time of every process of a cluster."""
    return sum(made.cpu_s(each) for each in made.replicas)


def extra(apart: list[float], together: list[float]) -> tuple[float, float, float]:
    """How much more the first are than the second, pair by pair: the mean, and its 95 % interval, in parts."""
    logs = np.log(np.asarray(apart) / np.asarray(together))
    picks = np.random.default_rng(0).integers(len(logs), size=(2000, len(logs)))
    low, high = np.quantile(logs[picks].mean(axis=1), [0.025, 0.975])
    return float(np.expm1(logs.mean())), float(np.expm1(low)), float(np.expm1(high))


def outcome(together: Rounds, apart: Rounds, door_cores: float, args: Namespace) -> Outcome:
    """The report; the first round of each warms up."""
    wall, used = extra(apart.wall_s[1:], together.wall_s[1:]), extra(apart.used_s[1:], together.used_s[1:])
    rows = [
        ("", "a round, s", "processor, s"),
        ("all in one process", str(spread(together.wall_s[1:])), str(spread(together.used_s[1:]))),
        ("a process for each", str(spread(apart.wall_s[1:])), str(spread(apart.used_s[1:]))),
        ("extra", *(f"{100 * mean:+.1f} % [{100 * low:+.1f}, {100 * high:+.1f}]" for mean, low, high in (wall, used))),
    ]
    return Outcome(
        name="process_cost",
        protocol=PROTOCOL,
        data=f"{args.duration_s:g} s a piece, {args.at_once} at once, {len(apart.wall_s) - 1} rounds",
        tables=[Table(f"Separate processes; the door takes {100 * door_cores:.2f} % of a core for a stream", rows)],
        numbers={"extra_wall": wall, "extra_processor": used, "door_cores_per_stream": door_cores},
        passed={
            "separate_processes_cost_less_than_5_percent": wall[0] < MAX_COST,
            "the_door_takes_less_than_5_percent_of_a_core_for_a_stream": door_cores < MAX_DOOR_CORES,
        },
    )


async def take_turns(together: Rounds, apart: Rounds, made: Cluster, args: Namespace) -> float:
    """Run all rounds; gives the cores that the door takes for a real-time stream."""
    door: Replica = made.of(DOOR)[0]
    door_s, num_rounds = 0.0, args.limit or NUM_ROUNDS
    for index in range(num_rounds + 1):
        order = (together, apart) if index % 2 else (apart, together)
        for each in order:
            before_s = made.cpu_s(door)
            await each.run(args.at_once, args.duration_s)
            if each is apart and index:
                door_s += made.cpu_s(door) - before_s
    return door_s / (num_rounds * PIECES_A_ROUND * args.duration_s)


async def measure(args: Namespace) -> Outcome:
    """Start both, and let them take turns."""
    async with own_server(QUIET) as one, cluster({}, QUIET) as made, StrettoClient(made.address, tls=False) as client:
        together, apart = Rounds(one.client, lambda: own_cpu_s(one)), Rounds(client, lambda: apart_cpu_s(made))
        door_cores = await take_turns(together, apart, made, args)
    return outcome(together, apart, door_cores, args)


def own_cpu_s(server: OwnServer) -> float:
    """Processor time of an all-in-one server."""
    return cpu_s_of(server.process_id)


def main() -> None:
    """Parse, measure, publish."""
    made = parser(__doc__)
    made.add_argument("--at-once", type=int, default=2, help="pieces at the same time")
    made.add_argument("--duration-s", type=float, default=10.0, help="seconds of music of each piece")
    args = made.parse_args()
    publish(asyncio.run(measure(args)), args)


if __name__ == "__main__":
    main()
