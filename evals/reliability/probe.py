"""Ask servers for their health again and again, and say how long their answers took.

A process of its own, so that what it measures is the servers' doing and not that of whoever loads them.

Usage: `python evals/reliability/probe.py 127.0.0.1:50051 …`, until its input ends; then one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from stretto_shared.grpc.settling import settle

INTERVAL_S = 0.05
TIMEOUT_S = 2.0
LATE_S = 0.05


@dataclass
class Heard:
    """What was heard of one server's health.

    Args:
        answers_s: How long each answer took.
        num_silent: Probes of a connected server that it did not answer in `TIMEOUT_S`.
        num_absent: Probes that nobody was there to answer.
        late: When each answer that took `LATE_S` or more was asked for, on `time.monotonic`, and how long it took.
    """

    answers_s: list[float] = field(default_factory=list)
    num_silent: int = 0
    num_absent: int = 0
    late: list[tuple[float, float]] = field(default_factory=list)


async def probe(address: str, heard: Heard) -> None:
    """Ask one server every `INTERVAL_S`, until cancelled."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_reconnect_backoff_ms", 500)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            began_s = time.monotonic()
            try:
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
                heard.answers_s.append(time.monotonic() - began_s)
                if heard.answers_s[-1] >= LATE_S:
                    heard.late.append((began_s, heard.answers_s[-1]))
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    heard.num_silent += 1
                else:
                    heard.num_absent += 1
            await asyncio.sleep(INTERVAL_S)


async def probe_all(addresses: Sequence[str]) -> dict[str, Heard]:
    """Ask all of them until the input ends."""
    settle()  # answers are timed here, and this process's garbage collector is no part of them
    heard = {address: Heard() for address in addresses}
    tasks = [asyncio.create_task(probe(address, each)) for address, each in heard.items()]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return heard


@dataclass
class Health:
    """How long health took to answer, over all servers; filled in when the block of `probing` ends."""

    num_answers: int = 0
    num_silent: int = 0
    p50_s: float = 0.0
    p99_s: float = 0.0
    max_s: float = 0.0
    late: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """By address, when each answer of `LATE_S` or more was asked for, on `time.monotonic`, and how long it took."""


@asynccontextmanager
async def probing(addresses: Sequence[str]) -> AsyncIterator[Health]:
    """Probe these servers for as long as the block runs."""
    found = Health()
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, *addresses, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield found
    finally:
        out, _ = await process.communicate(b"")  # which ends its input
    by_address = {address: Heard(**each) for address, each in json.loads(out).items()}
    found.late = {address: [(at_s, taken_s) for at_s, taken_s in each.late] for address, each in by_address.items()}
    heard = list(by_address.values())
    answers_s = np.concatenate([each.answers_s for each in heard])
    found.num_answers, found.num_silent = len(answers_s), sum(each.num_silent for each in heard)
    found.p50_s, found.p99_s, found.max_s = (float(value) for value in np.quantile(answers_s, [0.5, 0.99, 1.0]))


def main() -> None:
    """Probe until the input ends, and print what was heard."""
    heard = asyncio.run(probe_all(sys.argv[1:]))
    print(json.dumps({address: vars(each) for address, each in heard.items()}))


if __name__ == "__main__":
    main()
