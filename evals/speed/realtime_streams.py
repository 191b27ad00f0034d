"""Do listeners of the default cascade hear music without a gap, and are those that would spoil it turned away at once?

The server is `stretto serve` in a process of its own, with `--slots` slots. Each listener asks for tokens in real time
and has them decoded while they come, as the door does; its player starts with the first chunk and plays by the clock,
and whenever it has nothing to play, that is an underrun. Text states are made before, once.

1. 8 listeners at once.
2. One more and one more, each as soon as the one before hears its first audio, until the server refuses one: the
   admitted load.
3. Twice as many as that, all at the same moment.

    python evals/speed/realtime_streams.py [--duration-s 15] [--slots 32]

Cost: two minutes on a quiet machine, which alone gives valid numbers; `--duration-s 3` is the quick check.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, parser, publish
from serving import own_server
from stretto.acoustic.v1 import acoustic_pb2, acoustic_pb2_grpc
from stretto_client import StrettoClient
from stretto_client.bench.listener import Outcome as Heard
from stretto_client.bench.listener import Status, status_of
from stretto_client.bench.load import ClosedLoad
from stretto_client.bench.playout import Arrival, play_out
from stretto_client.bench.summary import LevelSummary, Spread, summarise
from stretto_client.calls import stream
from stretto_shared.errors import Overloaded, StrettoError
from stretto_shared.features import TextStates
from stretto_shared.grpc import convert
from stretto_shared.grpc.channel import open_channel
from stretto_shared.grpc.settings import ChannelSettings
from stretto_shared.tokens import TokenMatrix

PROMPT = "a calm piano piece with soft strings"
NUM_STREAMS = 8
MAX_STREAMS = 120  # twice of it still fits one connection's calls
MAX_REFUSAL_S = 0.05
LONGEST_S = 30.0
TIMEOUT_S = 120.0

PROTOCOL = (
    "One server process, warm. Real-time requests to AcousticService (pace real-time), each decoded by CodecService "
    "while it comes. A player starts at the first chunk, without a buffer, and plays one second a second; whenever it "
    "has nothing to play before the end, that is an underrun. Admitted load: listeners that play when the first one is "
    "refused. Refusals are timed by the client, from the call to the error. Claims are on every stream, not on means."
)


@dataclass(frozen=True, eq=False)
class Stages:
    """What a listener calls: tokens from one service, audio from the other, on one connection each.

    Args:
        client: For the codec.
        acoustic: Stub of the acoustic service.
        text: States of the prompt.
        duration_s: Of every piece.
    """

    client: StrettoClient
    acoustic: Any
    text: TextStates
    duration_s: float

    def tokens(self, seed: int) -> AsyncGenerator[Any, None]:
        """A real-time piece, message by message."""
        request = acoustic_pb2.GenerateTokensRequest(
            text=convert.text_states_to_proto(self.text),
            duration_s=self.duration_s,
            seed=seed,
            pace=acoustic_pb2.PACE_REALTIME,
        )
        return stream(self.acoustic.GenerateTokens(request, timeout=TIMEOUT_S))


async def listen(stages: Stages, seed: int, begun_s: float, has_audio: asyncio.Event | None = None) -> Heard:
    """One listener: what it heard, or how it was turned away. Times count from `begun_s`."""
    sent_s = time.perf_counter() - begun_s
    arrivals: list[Arrival] = []
    failure: StrettoError | None = None
    try:
        async with aclosing(stages.tokens(seed)) as messages:
            first = await anext(messages)

            async def parts() -> AsyncGenerator[TokenMatrix, None]:
                yield convert.tokens_from_proto(first.tokens)
                async for message in messages:
                    yield convert.tokens_from_proto(message.tokens)

            async with aclosing(stages.client.decode_tokens(parts(), timeout_s=TIMEOUT_S)) as chunks:
                async for chunk in chunks:
                    arrivals.append(Arrival(time.perf_counter() - begun_s, chunk.waveform.duration_s))
                    if has_audio is not None:
                        has_audio.set()
    except StrettoError as error:
        failure = error
    ended_s = time.perf_counter() - begun_s
    missing_s = stages.duration_s - sum(arrival.duration_s for arrival in arrivals)
    if failure is None and missing_s > 0.01:
        failure = StrettoError(f"{missing_s:.2f} s of audio never came.", reason="WRONG_LENGTH")
    return Heard(
        index=seed,
        status=Status.OK if failure is None else status_of(failure, has_audio=bool(arrivals)),
        scheduled_s=sent_s,
        sent_s=sent_s,
        ended_s=ended_s,
        playout=play_out(arrivals, cut_at_s=None if failure is None else ended_s),
        error="" if failure is None else failure.reason,
        message="" if failure is None else failure.message,
        retry_after_s=failure.retry_after_s if isinstance(failure, Overloaded) else None,
    )


async def level(stages: Stages, num_streams: int) -> list[Heard]:
    """So many listeners, all at the same moment."""
    begun_s = time.perf_counter()
    return list(await asyncio.gather(*(listen(stages, seed, begun_s) for seed in range(num_streams))))


async def admitted_load(stages: Stages) -> int:
    """How many listeners play when one more is refused for the first time; then all are sent away.

    Their pieces are the longest there are, so that none ends while the next ones come.
    """
    stages = replace(stages, duration_s=LONGEST_S)
    begun_s = time.perf_counter()
    playing: list[asyncio.Task[Heard]] = []
    try:
        for seed in range(MAX_STREAMS):
            has_audio = asyncio.Event()
            task = asyncio.create_task(listen(stages, seed, begun_s, has_audio))
            heard = asyncio.create_task(has_audio.wait())
            await asyncio.wait([task, heard], return_when=asyncio.FIRST_COMPLETED)
            heard.cancel()
            if task.done() and task.result().status is Status.REFUSED:
                return sum(not other.done() for other in playing)
            playing.append(task)
        raise SystemExit(f"The server refused nobody up to {MAX_STREAMS} listeners. Set fewer --slots.")
    finally:
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)


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
    options.add_argument("--duration-s", type=float, default=15.0, help="seconds of music of each piece")
    options.add_argument("--slots", type=int, default=32, help="of the server's language model")
    args = options.parse_args()
    settings = {"STRETTO_ACOUSTIC_MAX_SLOTS": args.slots} | ({"OMP_NUM_THREADS": args.threads} if args.threads else {})
    async with own_server(settings) as server, open_channel(server.address, ChannelSettings()) as channel:
        text = (await server.client.embed_text([PROMPT])).states[0]
        stages = Stages(server.client, acoustic_pb2_grpc.AcousticServiceStub(channel), text, args.duration_s)
        await level(stages, 2)
        eight = await level(stages, NUM_STREAMS)
        num_admitted = await admitted_load(stages)
        print(f"admitted: {num_admitted}", flush=True)
        twice = await level(stages, 2 * num_admitted)
    levels = {f"{NUM_STREAMS} at once": eight, "twice the admitted load": twice}
    found = {name: summarise(ClosedLoad(len(heard)), heard) for name, heard in levels.items()}
    head = (
        "listeners", "asked", "whole", "refused", "failed", "underruns", "underrun s", "first audio s, p50 / p95",
        "refused after ms, p95 / max",
    )  # fmt: skip
    waited = refusals_s(twice)
    publish(
        Outcome(
            "realtime_streams",
            PROTOCOL,
            f"{args.duration_s:g} s a piece, {args.slots} slots, the default cascade at default settings otherwise; "
            f"admitted load {num_admitted}",
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
