"""Does any request, however wrong, crash a server, hang, or end as INTERNAL?

`--limit` requests to all methods of all services of one all-in-one server, through the door's port, `--at-once` at the
same time: drawn by `wild_messages` from the descriptors of the wire, some of them cut short by their caller. Each has a
deadline, so that music that was asked for is not waited for. `--only N` sends request N alone and prints what came.

    python evals/reliability/fuzz.py [--limit 10000] [--at-once 8] [--seed 0] [--only N]

Cost: about ten minutes.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

sys.path.append(str(Path(__file__).resolve().parents[1]))
from harness import Outcome, Table, parser, publish
from reliability.wild_messages import WildMessages
from serving import OwnServer, own_server
from stretto_client import StrettoClient
from stretto_shared.grpc.channel import SERVICES
from stretto_shared.grpc.streams import exchange

NUM_REQUESTS = 10_000
DEADLINE_S = 5.0
GRACE_S = 10.0  # after its deadline a call that has not ended hangs
CUT_SHORT = 0.1
SETTLE_S = 60.0
DELIBERATE = frozenset(
    {
        "OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED",
        "DEADLINE_EXCEEDED", "CUT_SHORT",
    }
)  # fmt: skip
"""How a request may end on a server that is well and knows the method."""

PROTOCOL = (
    "Each request is drawn by its number and the seed. Of the requests 45 % are as a caller would send them, 35 % have "
    "a twentieth of their fields at an edge or missing, 20 % two fifths, and some of these damaged bytes; a tenth of "
    f"the calls is cancelled within 0.1 s; deadline {DEADLINE_S:g} s. Hangs: calls that outlast their deadline by "
    f"{GRACE_S:g} s, and calls that the server still counts as running {SETTLE_S:g} s after the last one."
)


def methods() -> list[MethodDescriptor]:
    """Every method of every service of the wire."""
    return [method for service in SERVICES for method in service.methods]


@dataclass(frozen=True)
class Wild:
    """One request."""

    index: int
    method: MethodDescriptor
    messages: Sequence[bytes]
    cut_after_s: float | None

    @property
    def path(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


def draw_request(made: WildMessages, seed: int, index: int) -> Wild:
    """Request number `index`, the same whatever else is drawn."""
    draw = random.Random(f"{seed}/{index}")
    known = methods()
    method = known[index % len(known)]
    messages = made.requests(method, draw)
    return Wild(index, method, messages, draw.random() * 0.1 if draw.random() < CUT_SHORT else None)


async def send(channel: grpc.aio.Channel, wild: Wild) -> tuple[str, str]:
    """How it ended: the code, or `CUT_SHORT`, `HUNG`; and what was said."""

    async def sent() -> AsyncIterator[bytes]:
        for message in wild.messages:
            yield message

    call: Any = channel.stream_stream(wild.path)(timeout=DEADLINE_S)

    async def read() -> None:
        async with aclosing(exchange(call, sent())) as replies:
            async for _ in replies:
                pass

    wait_s = DEADLINE_S + GRACE_S if wild.cut_after_s is None else wild.cut_after_s
    reading = asyncio.create_task(read())
    done, _ = await asyncio.wait([reading], timeout=wait_s)
    if not done:
        call.cancel()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        return ("HUNG" if wild.cut_after_s is None else "CUT_SHORT"), ""
    try:
        reading.result()
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


async def send_all(
    address: str, made: WildMessages, seed: int, indices: Sequence[int], num_at_once: int
) -> list[tuple[Wild, str, str]]:
    """Each request with how it ended; so many at the same time."""
    places = asyncio.Semaphore(num_at_once)
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:

        async def one(index: int) -> tuple[Wild, str, str]:
            async with places:
                wild = draw_request(made, seed, index)
                return wild, *await send(channel, wild)

        return list(await asyncio.gather(*(one(index) for index in indices)))


async def is_well(client: StrettoClient) -> bool:
    """Whether the server answers health, lists its models and makes music."""
    listed = await client.list_models(timeout_s=30.0)
    events = [event async for event in client.generate_music("a flute", duration_s=0.5, timeout_s=60.0)]
    return bool(events) and bool(listed.models) and await client.check_health()


async def num_left_running(server: OwnServer) -> float:
    """Calls that the server still works on, when it has had time to notice that nobody waits."""
    end_s = time.monotonic() + SETTLE_S
    while True:
        count = await asyncio.to_thread(server.metric, "stretto_rpc_in_flight")
        if not count or time.monotonic() > end_s:
            return count
        await asyncio.sleep(0.5)


def outcome(
    ended: Sequence[tuple[Wild, str, str]], num_running: float, crashed: bool, well: bool, args: Namespace
) -> Outcome:
    """The report."""
    codes = Counter(code for _, code, _ in ended)
    for wild, code, said in [each for each in ended if each[1] not in DELIBERATE][:10]:
        print(f"request {wild.index} {wild.path}: {code} {said}", file=sys.stderr)
    per_method = [("method", "requests", "OK", "refused by type", "other")]
    for method in methods():
        of_it = Counter(code for wild, code, _ in ended if wild.method is method)
        num_ok, num_other = of_it["OK"], sum(count for code, count in of_it.items() if code not in DELIBERATE)
        per_method.append(
            (method.full_name, of_it.total(), num_ok, of_it.total() - num_ok - num_other, num_other)  # type: ignore[arg-type]
        )
    num_hung = codes["HUNG"] + int(num_running)
    return Outcome(
        name="fuzz",
        protocol=PROTOCOL,
        data=f"{len(methods())} methods; seed {args.seed}",
        tables=[Table(f"{len(ended)} requests, {args.at_once} at once", per_method)],
        numbers={"num_requests": len(ended), "codes": dict(codes), "num_hung": num_hung, "crashed": crashed},
        passed={
            "no_crash": not crashed and well,
            "no_hang": num_hung == 0,
            "none_is_internal": codes["INTERNAL"] + codes["UNKNOWN"] == 0,
            "each_ends_deliberately": set(codes) <= DELIBERATE,
            "every_method_was_also_served": all(row[2] for row in per_method[1:]),
        },
    )


async def measure(args: Namespace) -> Outcome:
    """Send all, and see whether the server is as well as before."""
    indices = range(args.limit or NUM_REQUESTS) if args.only is None else [args.only]
    async with own_server(metrics=True) as server:
        made = WildMessages((await server.client.list_models(timeout_s=60.0)).models)
        ended = await send_all(server.address, made, args.seed, indices, args.at_once)
        if args.only is not None:
            print(ended[0][0].path, ended[0][0].messages, ended[0][1:], file=sys.stderr)
        num_running = await num_left_running(server)
        well = await is_well(server.client)
        return outcome(ended, num_running, server.has_ended, well, args)


def main() -> None:
    """Parse, measure, publish."""
    made = parser(__doc__)
    made.add_argument("--at-once", type=int, default=8, help="requests at the same time")
    made.add_argument("--seed", type=int, default=0, help="of all requests")
    made.add_argument("--only", type=int, help="the number of one request")
    args = made.parse_args()
    publish(asyncio.run(measure(args)), args)


if __name__ == "__main__":
    main()
