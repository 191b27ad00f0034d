"""A door that is lost while its music plays costs a pause: another one goes on, and nothing is heard twice."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
import pytest
from stretto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from stretto_client import AudioChunk, Progress, Receipt, StrettoClient, Unreachable
from stretto_shared.audio import Waveform
from stretto_shared.errors import Conflict, NotReady, Overloaded
from stretto_shared.grpc import convert
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings

RATE_HZ, TOTAL = 8_000, 8_000
Response = orchestrator_pb2.GenerateMusicResponse
SAMPLES = np.sin(np.arange(TOTAL)).astype(np.float32)


class Door(orchestrator_pb2_grpc.OrchestratorServiceServicer):  # type: ignore[misc]
    """Sends the music in chunks of its own size; may end as it is told after some of them."""

    def __init__(self, chunk: int, *, gain: float = 1.0) -> None:
        self.chunk, self.samples = chunk, SAMPLES * np.float32(gain)
        self.after: dict[int, Callable[[], Any]] = {}
        self.num_calls = 0
        self.seeds: list[int] = []

    async def GenerateMusic(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.num_calls += 1
        self.seeds.append(request.seed)
        yield Response(progress=orchestrator_pb2.Progress(stage="acoustic"))
        for index, start in enumerate(range(0, TOTAL, self.chunk)):
            if index in self.after:
                await self.after.pop(index)()
            waveform = convert.waveform_to_proto(Waveform(self.samples[start : start + self.chunk], RATE_HZ))
            yield Response(chunk=orchestrator_pb2.AudioChunk(waveform=waveform, first_sample_index=start))
        digest = hashlib.sha256(self.samples.astype("<f4").tobytes()).hexdigest()
        yield Response(receipt=orchestrator_pb2.Receipt(output_sha256=digest, seed=request.seed))

    def build(self, context: HostContext) -> ServiceHost:
        async def nothing() -> None:
            return None

        name = "stretto.orchestrator.v1.OrchestratorService"
        add = orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server
        return ServiceHost("orchestrator", name, lambda server: add(self, server), nothing, nothing)


@asynccontextmanager
async def opened(*doors: Door) -> AsyncIterator[tuple[StrettoClient, list[StrettoServer]]]:
    async with AsyncExitStack() as stack:
        servers, ports = [], []
        for door in doors:
            settings = GrpcSettings(port=0, log_level="error", drain_s=0.0)
            servers.append(StrettoServer(settings, {"orchestrator": door.build}))
            stack.push_async_callback(servers[-1].stop)
            ports.append(await servers[-1].start())
            await servers[-1].wait_until_ready()
        address = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        client = await stack.enter_async_context(StrettoClient(address, tls=False))
        yield client, servers


async def heard(client: StrettoClient) -> tuple[np.ndarray, int, int]:
    """All samples, checked to be without a gap, and how many progress messages and receipts came."""
    parts: list[np.ndarray] = []
    num_progress = num_receipts = 0
    async for event in client.generate_music("a waltz", seed=5, timeout_s=120.0):
        match event:
            case AudioChunk():
                assert event.first_sample_index == sum(part.shape[1] for part in parts)
                parts.append(event.waveform.samples)
            case Progress():
                num_progress += 1
            case Receipt():
                num_receipts += 1
    return np.concatenate(parts, axis=1)[0], num_progress, num_receipts


def losing(servers: list[StrettoServer], index: int) -> Callable[[], Any]:
    async def lose() -> None:
        stopping = asyncio.create_task(servers[index].stop())  # which cancels this very call
        await asyncio.Event().wait()
        await stopping

    return lose


async def both_lose(doors: tuple[Door, Door], servers: list[StrettoServer], index: int) -> None:
    """Whichever door is asked first is lost before its chunk of that number."""
    for place, door in enumerate(doors):

        async def lose(place: int = place) -> None:
            for other in doors:
                other.after.clear()
            await losing(servers, place)()

        door.after[index] = lose


@pytest.mark.parametrize("index", [0, 1, 3])
async def test_another_door_goes_on_and_nothing_is_heard_twice(index: int) -> None:
    doors = (Door(1_000), Door(1_500))
    async with opened(*doors) as (client, servers):
        await both_lose(doors, servers, index)
        samples, num_progress, num_receipts = await heard(client)
    np.testing.assert_array_equal(samples, SAMPLES)
    assert (num_progress, num_receipts) == (1, 1)
    assert [door.num_calls for door in doors] == [1, 1] and doors[0].seeds == doors[1].seeds == [5]


async def test_another_music_is_told_from_what_came_before() -> None:
    doors = (Door(1_000), Door(1_000, gain=0.5))
    async with opened(*doors) as (client, servers):
        await both_lose(doors, servers, 3)
        with pytest.raises(Conflict, match="does not go on"):
            await heard(client)


async def test_what_the_door_itself_says_ends_the_piece() -> None:
    for error in (NotReady("A stage is gone."), Overloaded("Full.", retry_after_s=1.0)):
        door = Door(1_000)

        async def refuse(error: Exception = error) -> None:
            raise error

        door.after[2] = refuse
        async with opened(door) as (client, _):
            with pytest.raises(type(error), match=str(error)):
                await heard(client)
        assert door.num_calls == 1


async def test_a_door_that_stays_away_is_unreachable_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stretto_client.outliving.FIRST_WAIT_S", 0.001)
    door = Door(1_000)
    async with opened(door) as (client, servers):
        door.after[2] = losing(servers, 0)
        with pytest.raises(Unreachable):
            await heard(client)


async def test_a_server_that_was_never_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stretto_client.outliving.FIRST_WAIT_S", 1_000.0)
    async with StrettoClient("127.0.0.1:1", tls=False) as client:
        with pytest.raises(Unreachable):
            await heard(client)
