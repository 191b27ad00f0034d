"""A process for each replica of each service behind doors of their own, for evals and tests that harm them.

It is `python -m stretto_client.up`, which starts again whatever is killed; its lines say which process is which. Knows
nothing of music: who calls and what is measured is the eval's.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from serving import status_bytes
from stretto_client import StrettoClient
from stretto_shared.errors import StrettoError

STAGES = ("embedding", "semantic", "acoustic", "codec", "transcriber", "harmony")
DOOR = "orchestrator"
READY_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 60.0
_RUNS = re.compile(r"stretto: (\w+)=(\d+) runs as process (\d+)")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Replica:
    """One process of a service, by its port; the process itself may be another after it was killed."""

    service: str
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Cluster:
    """Every replica, and the processes that they are now."""

    replicas: tuple[Replica, ...]
    process_ids: dict[int, int]
    """Process ids by port."""
    lines: list[str]
    """What the processes wrote so far; the last ones say why, where something failed."""

    def of(self, *services: str) -> tuple[Replica, ...]:
        """The replicas of these services, of all without a name."""
        return tuple(each for each in self.replicas if not services or each.service in services)

    @property
    def address(self) -> str:
        """All doors, for one channel."""
        return "ipv4:" + ",".join(each.address for each in self.of(DOOR))

    def send(self, replica: Replica, kind: signal.Signals) -> int:
        """Send a signal; returns the process that got it."""
        process_id = self.process_ids[replica.port]
        os.kill(process_id, kind)
        return process_id

    def memory_bytes(self, replica: Replica) -> int:
        """What the process has resident now."""
        return status_bytes(Path(f"/proc/{self.process_ids[replica.port]}/status").read_text(), "VmRSS")

    def cpu_s(self, replica: Replica) -> float:
        """Processor time of the process since it began."""
        return cpu_s_of(self.process_ids[replica.port])

    async def until_serving(self, replicas: Sequence[Replica] | None = None, *, not_by: Mapping[int, int] = {}) -> None:
        """Wait until these replicas, or all, are ready.

        Args:
            replicas: Which; None for all.
            not_by: By port, the process that is expected to have been replaced.
        """
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        for replica in replicas if replicas is not None else self.replicas:
            while not (self._is_another(replica, not_by) and await is_serving(replica)):
                if time.monotonic() > deadline_s:
                    raise SystemExit(f"{replica} was not ready within {READY_TIMEOUT_S:g} s: {self.lines[-5:]}")
                await asyncio.sleep(0.1)

    def _is_another(self, replica: Replica, not_by: Mapping[int, int]) -> bool:
        return self.process_ids.get(replica.port) not in (None, not_by.get(replica.port))


def cpu_s_of(process_id: int) -> float:
    """Processor time of a process since it began."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


async def is_serving(replica: Replica) -> bool:
    """Whether its health says so now."""
    try:
        async with StrettoClient(replica.address, tls=False, api_key="") as client:
            return await client.check_health(timeout_s=2.0)
    except StrettoError:
        return False


@asynccontextmanager
async def cluster(
    num_replicas: Mapping[str, int], settings: Mapping[str, object] | None = None
) -> AsyncIterator[Cluster]:
    """Start so many replicas of each service, with these environment variables on top of ours, and stop them all.

    Every service runs at least once.
    """
    names = [name for name in (DOOR, *STAGES) for _ in range(num_replicas.get(name, 1))]
    made = Cluster(tuple(map(Replica, names, free_ports(len(names)))), {}, [])
    addresses = {
        f"STRETTO_ORCHESTRATOR_{name.upper()}_ADDRESS": "ipv4:" + ",".join(each.address for each in made.of(name))
        for name in STAGES
    }
    variables = [f"{name}={value}" for name, value in (addresses | dict(settings or {})).items()]
    process = await asyncio.create_subprocess_exec(
        "env", *variables, sys.executable, "-m", "stretto_client.up",
        *(f"{each.service}={each.port}" for each in made.replicas),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    reading = asyncio.create_task(_follow(process.stderr, made))
    try:
        await made.until_serving()
        yield made
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            for process_id in (*made.process_ids.values(), process.pid):
                os.kill(process_id, signal.SIGKILL)
            raise SystemExit(f"The services did not stop within {STOP_TIMEOUT_S:g} s: {made.lines[-5:]}") from None
        finally:
            await reading


async def _follow(stream: asyncio.StreamReader, made: Cluster) -> None:
    """Note which process is which, and what the processes say."""
    async for line in stream:
        text = line.decode(errors="replace").rstrip()
        made.lines.append(text)
        if found := _RUNS.fullmatch(text):
            made.process_ids[int(found.group(2))] = int(found.group(3))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
