"""How soon and how fast the cascade `musiclm` makes music, and what it gains by not waiting for each stage.

The server is `stretto serve` in a process of its own, with a second cascade of the same models whose `streams` is
false: there each stage waits until the one before has made all. After one warm-up request of each, both take turns:
time to the first audio chunk as the client sees it, and seconds of work for a second of music.

    python evals/speed/musiclm.py [--duration-s 10] [--limit 5]

Cost at a real-time factor of 0.8: 100 s of music in five rounds, so a minute and a half on a quiet machine, which alone
gives valid numbers. `--quick` makes one round of 3 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Row, Table, parser, publish
from serving import own_server
from stretto_client import AudioChunk, StrettoClient
from timing import Spread, spread

PROMPT = "a calm piano piece with soft strings"
STREAMING, WAITING = "musiclm", "musiclm-waiting"
STAGES = ("mulan", "musiclm_semantic", "musiclm_coarse", "framecodec")
DEFAULT_ROUNDS, QUICK_ROUNDS, QUICK_DURATION_S = 5, 1, 3.0
MAX_FIRST_AUDIO_S, MAX_REAL_TIME_FACTOR = 1.5, 0.8

PROTOCOL = (
    "One server process, warm, one request at a time over gRPC on the loopback; both cascades in turn, one seed a "
    "round. Medians over the rounds with 95 % bootstrap intervals; the ratio is of the same round. RTF is wall time of "
    "the whole call over seconds of music. Claims are on medians, sooner by streaming on the ratio's interval."
)


@dataclass(frozen=True)
class Run:
    """One request: seconds to its first audio, seconds to its end, and seconds of music."""

    first_s: float
    total_s: float
    music_s: float


def settings(num_threads: int) -> dict[str, object]:
    """What the server is told: the second cascade, and the threads of torch."""
    waiting = {WAITING: {"kind": STREAMING, "streams": False}}
    return {"OMP_NUM_THREADS": num_threads, "STRETTO_ORCHESTRATOR_EXTRA_CASCADES": json.dumps(waiting)}


async def measure(client: StrettoClient, cascade: str, seed: int, duration_s: float) -> Run:
    """One request.

    Raises:
        RuntimeError: If no audio came.
    """
    start = time.perf_counter()
    first_s, music_s = None, 0.0
    async for event in client.generate_music(
        PROMPT, cascade=cascade, duration_s=duration_s, seed=seed, timeout_s=900.0
    ):
        if isinstance(event, AudioChunk):
            first_s = time.perf_counter() - start if first_s is None else first_s
            music_s += event.waveform.duration_s
    if first_s is None:
        raise RuntimeError(f"no audio from {cascade}")
    return Run(first_s, time.perf_counter() - start, music_s)


async def rounds(
    client: StrettoClient, num_rounds: int, duration_s: float, warm_up_s: float = 1.0
) -> dict[str, list[Run]]:
    """Runs of each cascade; each round has a seed of its own and runs both, the first to run in turn."""
    runs: dict[str, list[Run]] = {STREAMING: [], WAITING: []}
    for cascade in runs:
        await measure(client, cascade, 0, warm_up_s)
    for seed in range(1, num_rounds + 1):
        for cascade in (STREAMING, WAITING) if seed % 2 else (WAITING, STREAMING):
            runs[cascade].append(await measure(client, cascade, seed, duration_s))
    return runs


def outcome(runs: Mapping[str, Sequence[Run]], data: str, models: Sequence[str]) -> Outcome:
    """What the runs say."""
    first = {cascade: spread([run.first_s for run in own]) for cascade, own in runs.items()}
    rtf = {cascade: spread([run.total_s / run.music_s for run in own]) for cascade, own in runs.items()}
    sooner = spread(
        np.array([run.first_s for run in runs[WAITING]]) / np.array([run.first_s for run in runs[STREAMING]])
    )
    names = {STREAMING: "each stage on what is there", WAITING: "each stage after the one before"}
    rows: list[Row] = [("", "first audio s", "RTF")]
    for number, (one, other) in enumerate(zip(runs[STREAMING], runs[WAITING], strict=True), 1):
        for cascade, run in ((STREAMING, one), (WAITING, other)):
            rows.append((f"round {number}, {names[cascade]}", run.first_s, run.total_s / run.music_s))
    rows += [(f"median, {names[cascade]}", first[cascade], rtf[cascade]) for cascade in runs]
    rows.append(("first audio, waiting / streaming", sooner, ""))
    return Outcome(
        "musiclm_speed",
        PROTOCOL,
        data,
        [Table("Speed", rows)],
        {
            "models": list(models),
            "first_audio_s": {cascade: each.numbers() for cascade, each in first.items()},
            "real_time_factor": {cascade: each.numbers() for cascade, each in rtf.items()},
            "waiting_over_streaming": sooner.numbers(),
        },
        claims(first[STREAMING], rtf[STREAMING], sooner),
    )


def claims(first: Spread, rtf: Spread, sooner: Spread) -> dict[str, bool]:
    """Each claim, and whether it holds."""
    return {
        "first_audio_within_1.5_s": first.median <= MAX_FIRST_AUDIO_S,
        "real_time_factor_at_most_0.8": rtf.median <= MAX_REAL_TIME_FACTOR,
        "sooner_by_streaming": sooner.surely_above(1.0),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, with the rounds and the seconds that apply."""
    options = parser(__doc__)
    options.add_argument("--duration-s", type=float, default=10.0, help="seconds of music a request")
    options.add_argument("--quick", action="store_true", help="one short round")
    args = options.parse_args(arguments)
    args.rounds = args.limit or (QUICK_ROUNDS if args.quick else DEFAULT_ROUNDS)
    args.duration_s = QUICK_DURATION_S if args.quick else args.duration_s
    return args


async def main() -> None:
    """Command line."""
    args = parse()
    num_threads = args.threads or torch.get_num_threads()
    async with own_server(settings(num_threads)) as server:
        models = [model.model_id for model in (await server.client.list_models()).models if model.name in STAGES]
        runs = await rounds(server.client, args.rounds, args.duration_s)
    data = f"{args.rounds} requests of {args.duration_s:g} s of each; {', '.join(models)}; {num_threads} torch threads"
    publish(outcome(runs, data, models), args)


if __name__ == "__main__":
    asyncio.run(main())
