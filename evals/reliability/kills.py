"""Does a killed replica cost a pause, and never a piece or a byte?

Two replicas of every stage and of the door, each a process of its own. `--limit` pieces are asked for, `--at-once` of
them at the same time, while every `--every-s` seconds one replica, drawn by chance, is killed by SIGKILL and started
again. Each piece is compared with the same request made before anything was killed.

    python evals/reliability/kills.py [--limit 200] [--at-once 4] [--every-s 3]

Cost: about two minutes with the defaults.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, parser, publish
from reliability.cluster import DOOR, STAGES, Cluster, cluster
from stretto_client import AudioChunk, Receipt, StrettoClient
from stretto_shared.errors import StrettoError

NUM_PIECES = 200
TIMEOUT_S = 120.0
PROMPTS = ("a calm piano piece", "a fast string quartet", "a jazz trio with saxophone", "a slow church organ")
CASCADES = ("musicgen", "musiclm")
DURATION_S = {"musicgen": 20.0, "musiclm": 4.0}
KILLED = (DOOR, *(stage for stage in STAGES if stage not in ("transcriber", "harmony")))  # these make no music
PROTOCOL = (
    "Two processes of every stage and of the door; closed load. A request is a prompt, a seed and a cascade; its bytes "
    "are those of the undisturbed run of the same request. Pause: the longest wait for the next audio of a piece "
    "that a door resumed, less the median longest wait of the same request's pieces undisturbed."
)


@dataclass(frozen=True)
class Request:
    """What is asked for; equal requests have equal bytes."""

    prompt: str
    cascade: str
    seed: int


@dataclass(frozen=True)
class Piece:
    """What one request gave.

    Args:
        request: What was asked for.
        sha256: Of all samples; empty if it failed.
        longest_wait_s: Between two chunks of audio, or before the first.
        num_resumes: As the receipt says.
        error: Why it failed; empty if it did not.
    """

    request: Request
    sha256: str
    longest_wait_s: float
    num_resumes: int
    error: str = ""


def requests() -> list[Request]:
    """The requests, which are asked for in turn."""
    return [Request(prompt, cascade, seed) for seed, prompt in enumerate(PROMPTS) for cascade in CASCADES]


async def make(client: StrettoClient, request: Request, durations_s: dict[str, float]) -> Piece:
    """Ask for one piece, and listen to its end."""
    digest, longest_s, num_resumes = hashlib.sha256(), 0.0, 0
    last_s = time.monotonic()
    try:
        async for event in client.generate_music(
            request.prompt,
            cascade=request.cascade,
            seed=request.seed,
            duration_s=durations_s[request.cascade],
            timeout_s=TIMEOUT_S,
        ):
            if isinstance(event, AudioChunk):
                now_s = time.monotonic()
                longest_s, last_s = max(longest_s, now_s - last_s), now_s
                digest.update(np.ascontiguousarray(event.waveform.samples.T, "<f4").tobytes())
            elif isinstance(event, Receipt):
                num_resumes = event.resume_count
    except StrettoError as error:
        return Piece(request, "", longest_s, num_resumes, f"{error.reason}: {error.message}")
    return Piece(request, digest.hexdigest(), longest_s, num_resumes)


async def make_all(
    client: StrettoClient, wanted: Sequence[Request], num_at_once: int, durations_s: dict[str, float] = DURATION_S
) -> list[Piece]:
    """So many at once, the next as soon as one is done; in the order of `wanted`."""
    places = asyncio.Semaphore(num_at_once)

    async def one(request: Request) -> Piece:
        async with places:
            return await make(client, request, durations_s)

    return list(await asyncio.gather(*(one(request) for request in wanted)))


async def kill_now_and_then(made: Cluster, every_s: float, killed: Counter[str], draw: random.Random) -> None:
    """Kill one replica after the other, each of a stage whose replicas are all up, until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        replica = draw.choice(made.of(*KILLED))
        await made.until_serving(made.of(replica.service))
        made.send(replica, signal.SIGKILL)
        killed[replica.service] += 1
        print(f"killed one of {replica.service}", file=sys.stderr)


def pauses_s(quiet: Sequence[Piece], harmed: Sequence[Piece], *, resumed_only: bool = True) -> list[float]:
    """What each resumed piece, or each, was held up over the median of the same request undisturbed."""
    usual: dict[Request, list[float]] = {}
    for piece in quiet:
        usual.setdefault(piece.request, []).append(piece.longest_wait_s)
    return [
        piece.longest_wait_s - float(np.median(usual[piece.request]))
        for piece in harmed
        if not piece.error and (piece.num_resumes or not resumed_only)
    ]


def num_differences(quiet: Sequence[Piece], harmed: Sequence[Piece]) -> int:
    """How many pieces that did not fail differ from what the same request gave undisturbed."""
    known = {piece.request: piece.sha256 for piece in quiet}
    return sum(piece.sha256 != known[piece.request] for piece in harmed if not piece.error)


def outcome(quiet: Sequence[Piece], harmed: Sequence[Piece], killed: Counter[str], args: Namespace) -> Outcome:
    """The report."""
    failed = [piece for piece in harmed if piece.error]
    resumed = [piece for piece in harmed if piece.num_resumes]
    held_up = pauses_s(quiet, harmed)
    p50, p95 = np.quantile(held_up, [0.5, 0.95]) if held_up else (float("nan"), float("nan"))
    rows = [
        ("pieces", "failed", "byte differences", "kills", "resumed pieces", "resumes", "pause p50, s", "p95, s"),
        (
            len(harmed), len(failed), num_differences(quiet, harmed), killed.total(), len(resumed),
            sum(piece.num_resumes for piece in harmed), float(p50), float(p95),
        ),
    ]  # fmt: skip
    if failed:
        print("failed:", Counter(piece.error for piece in failed).most_common(5), file=sys.stderr)
    return Outcome(
        name="kills",
        protocol=PROTOCOL,
        data=f"{len(requests())} requests: {', '.join(PROMPTS)}; {DURATION_S} s",
        tables=[Table(f"A replica killed every {args.every_s:g} s, {args.at_once} pieces at once", rows)],
        numbers={
            "num_pieces": len(harmed),
            "num_failed": len(failed),
            "num_byte_differences": num_differences(quiet, harmed),
            "kills": dict(killed),
            "num_resumed_pieces": len(resumed),
            "num_resumes": sum(piece.num_resumes for piece in harmed),
            "pause_p50_s": p50,
            "pause_p95_s": p95,
            "pause_max_s": max(pauses_s(quiet, harmed, resumed_only=False), default=float("nan")),
        },
        passed={
            "no_request_failed": not failed and not any(piece.error for piece in quiet),
            "no_byte_differs": num_differences(quiet, harmed) == 0,
            "some_piece_was_resumed": bool(resumed),
        },
    )


async def measure(args: Namespace) -> Outcome:
    """Make the pieces undisturbed, and again while replicas are killed."""
    wanted = requests()
    num_pieces = args.limit or NUM_PIECES
    killed: Counter[str] = Counter()
    async with (
        cluster(dict.fromkeys(KILLED, 2), {"STRETTO_GRPC_LOG_LEVEL": "error"}) as made,
        StrettoClient(made.address) as client,
    ):
        quiet = await make_all(client, wanted * 2, args.at_once)
        print(f"{len(quiet)} pieces undisturbed are done", file=sys.stderr)
        killing = asyncio.create_task(kill_now_and_then(made, args.every_s, killed, random.Random(args.seed)))
        harmed = await make_all(client, [wanted[i % len(wanted)] for i in range(num_pieces)], args.at_once)
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
    return outcome(quiet, harmed, killed, args)


def main() -> None:
    """Parse, measure, publish."""
    made = parser(__doc__)
    made.add_argument("--at-once", type=int, default=4, help="pieces at the same time")
    made.add_argument("--every-s", type=float, default=3.0, help="seconds between two kills")
    made.add_argument("--seed", type=int, default=0, help="of the draw of what is killed")
    args = made.parse_args()
    publish(asyncio.run(measure(args)), args)


if __name__ == "__main__":
    main()
