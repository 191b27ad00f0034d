"""Real processes, harmed: killed, paused and drained ones cost a pause and never a byte; nothing wild breaks one.

The short forms of `evals/reliability`, which say how large the pause is and do this two hundred times.
"""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from real_server import ROOT
from stretto_client import AudioChunk, Receipt, StrettoClient

sys.path.append(str(ROOT / "evals"))  # programs beside the packages, which import each other by their place
from reliability.calls import CALLS, digest
from reliability.cluster import Cluster, Replica, cluster
from reliability.drains import Tally, call_on
from reliability.fuzz import DELIBERATE, is_well, methods, send_all
from reliability.wild_messages import WildMessages

GUARD_S = 300.0
TWICE = {"orchestrator": 2, "acoustic": 2, "codec": 2}
SETTINGS = {
    "STRETTO_GRPC_LOG_LEVEL": "error",
    "STRETTO_CHANNEL_KEEPALIVE_TIME_S": 1,
    "STRETTO_CHANNEL_KEEPALIVE_TIMEOUT_S": 2,
    "STRETTO_ORCHESTRATOR_MAX_RESUMES": 12,  # a starved machine may be slow to start a process again
    "STRETTO_GRPC_DRAIN_S": 60,
}


@pytest.fixture
async def made() -> AsyncIterator[Cluster]:
    async with cluster(TWICE, SETTINGS) as opened:
        yield opened


async def long_piece(client: StrettoClient, begun: asyncio.Event | None = None) -> tuple[str, int]:
    """The digest of a piece that takes seconds, and how often a stage was resumed for it."""
    arrays, num_resumes = [], 0
    async for event in client.generate_music("a slow cello", cascade="musiclm", duration_s=12.0, timeout_s=GUARD_S):
        if isinstance(event, AudioChunk):
            arrays.append(event.waveform.samples.T)
            if begun is not None:
                begun.set()
        elif isinstance(event, Receipt):
            num_resumes = event.resume_count
    return digest(arrays), num_resumes


async def harmed(made: Cluster, client: StrettoClient, kind: signal.Signals) -> tuple[str, int]:
    """The same while both replicas of acoustic, of which one makes it, get a signal at the first audio."""
    begun = asyncio.Event()
    making = asyncio.create_task(long_piece(client, begun))
    await begun.wait()
    replicas = made.of("acoustic")
    before = {replica.port: made.send(replica, kind) for replica in replicas}
    if kind is signal.SIGSTOP:
        await asyncio.sleep(5.0)  # until keepalive has found out
        for replica in replicas:
            made.send(replica, signal.SIGCONT)
    else:
        await made.until_serving(replicas, not_by=before)
    return await making


async def drain_both(made: Cluster, replicas: tuple[Replica, ...]) -> None:
    for replica in replicas:
        process_id = made.send(replica, signal.SIGTERM)
        await made.until_serving([replica], not_by={replica.port: process_id})


async def test_replicas_that_are_killed_paused_and_drained_cost_no_byte_and_no_call(made: Cluster) -> None:
    async with StrettoClient(made.address, tls=False) as client:
        whole, _ = await long_piece(client)
        for kind in (signal.SIGKILL, signal.SIGSTOP):
            samples, num_resumes = await harmed(made, client, kind)
            assert samples == whole and num_resumes >= 1, (kind, num_resumes)
        expected = {kind: await call(client) for kind, call in CALLS.items()}
        tally = Tally()
        calling = [asyncio.create_task(call_on(client, expected, each, tally)) for each in range(2)]
        await drain_both(made, made.of("orchestrator", "codec"))
        for task in calling:
            task.cancel()
        await asyncio.gather(*calling, return_exceptions=True)
        assert tally.num_calls.total() > 0 and not tally.failures and tally.num_differences == 0, tally
    assert not [line for line in made.lines if "Traceback" in line]


async def test_wild_requests_end_deliberately_and_leave_the_server_well(door: Any) -> None:
    async with StrettoClient(door.address, tls=False) as client:
        wild = WildMessages((await client.list_models(timeout_s=60.0)).models)
        ended = await send_all(door.address, wild, 2, range(10 * len(methods())), 4)
        odd = [(request.index, request.path, code, said) for request, code, said in ended if code not in DELIBERATE]
        assert odd == []
        codes = Counter(code for _, code, _ in ended)
        assert codes["OK"] > len(methods()) and codes["INVALID_ARGUMENT"] > len(methods()), codes
        assert await is_well(client)
    assert door.process.poll() is None
