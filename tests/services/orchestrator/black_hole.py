"""A program for `test_network_faults`: a replica whose packets are lost costs a pause, and is used again later.

Runs as root in a network namespace of its own, where dropping packets harms nobody else. Prints one line, and fails by
an assertion.
"""

import asyncio
import subprocess
from contextlib import AsyncExitStack

from fake_stages import ADD, House, host_of, serve
from stretto.orchestrator.v1 import orchestrator_pb2

METHOD = {"method": "/stretto.acoustic.v1.AcousticService/GenerateTokens"}
GUARD_S = 120.0


async def packets(action, port):
    """Begin (`-A`) or cease (`-D`) to drop every packet of connections to a port."""
    for end in ("--dport", "--sport"):
        command = ("iptables", action, "INPUT", "-p", "tcp", end, str(port), "-j", "DROP")
        await asyncio.to_thread(subprocess.run, command, check=True)


async def music(house, seed=7):
    """The bytes of one piece, and how often a stage was resumed for it."""
    request = orchestrator_pb2.GenerateMusicRequest(prompt="a slow waltz", duration_s=4.0, seed=seed)
    samples, num_resumes = b"", 0
    async for response in house.stub.GenerateMusic(request, timeout=GUARD_S):
        samples += response.chunk.waveform.samples
        num_resumes += response.receipt.resume_count
    return samples, num_resumes


def count(server, name):
    return server.metrics.registry.get_sample_value(name, METHOD) or 0


async def until(condition):
    async with asyncio.timeout(GUARD_S):
        while not condition():  # noqa: ASYNC110  any condition, not only ours
            await asyncio.sleep(0.01)


async def main():
    async with AsyncExitStack() as stack:
        house = House()
        stack.push_async_callback(house.stop)
        for name in ADD:
            await house.start_stage(name)
        house.servers["second"], second_port = await serve({"acoustic": host_of("acoustic", house.acoustic)})
        replicas = {house.ports["acoustic"]: house.servers["acoustic"], second_port: house.servers["second"]}
        address = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in replicas)
        await house.start_orchestrator(acoustic_address=address)
        whole, _ = await music(house)

        watched = house.acoustic.watched
        watched.gate, watched.num_sent = asyncio.Event(), 0
        making = asyncio.create_task(music(house))
        await until(lambda: watched.num_sent == 4)
        (lost,) = [port for port, server in replicas.items() if count(server, "stretto_rpc_in_flight")]
        await packets("-A", lost)
        gate, watched.gate = watched.gate, None
        gate.set()
        samples, num_resumes = await making
        assert samples == whole and num_resumes == 1, (len(samples), len(whole), num_resumes)

        begun = {port: count(server, "stretto_rpc_started_total") for port, server in replicas.items()}
        for _ in range(3):
            assert await music(house) == (whole, 0), "the other replica does all the work"
        assert count(replicas[lost], "stretto_rpc_started_total") == begun[lost]
        await packets("-D", lost)

        async def is_used_again():
            await music(house)
            return count(replicas[lost], "stretto_rpc_started_total") > begun[lost]

        async with asyncio.timeout(GUARD_S):
            while not await is_used_again():  # noqa: ASYNC110
                await asyncio.sleep(0.2)
    print("survived")  # noqa: T201  a program


if __name__ == "__main__":
    asyncio.run(main())
