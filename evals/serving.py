"""`stretto serve` in a process of its own, for evals that measure a server: its client, and what memory it took."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
import time
import urllib.request
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from stretto_client import StrettoClient
from stretto_shared.errors import StrettoError

READY_TIMEOUT_S = 240.0
_RESET_PEAK = "5"  # what /proc/PID/clear_refs takes to let VmHWM begin anew; proc(5)


@dataclass(frozen=True)
class OwnServer:
    """A server that this process started.

    Args:
        address: Where it listens.
        process_id: Of the one process that all its services run in.
        client: Connected to it.
        metrics_port: Of its page for Prometheus; 0 where it has none.
        process: The process itself.
    """

    address: str
    process_id: int
    client: StrettoClient
    metrics_port: int
    process: Process

    @property
    def has_ended(self) -> bool:
        """Whether the server is gone."""
        return self.process.returncode is not None

    def metric(self, name: str) -> float:
        """The sum of all samples of that name on the page for Prometheus, gRPC's own methods left out."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        page = urllib.request.urlopen(url, timeout=30).read().decode()
        lines = [line for line in page.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        lines = [line for line in lines if 'method="/grpc.' not in line]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def memory_bytes(self, field: str = "VmHWM") -> int:
        """`VmHWM`, the most memory that it ever had resident, or `VmRSS`, what it has now."""
        return status_bytes(Path(f"/proc/{self.process_id}/status").read_text(), field)

    def reset_peak(self) -> None:
        """Let `VmHWM` begin anew at what is resident now."""
        Path(f"/proc/{self.process_id}/clear_refs").write_text(_RESET_PEAK)


def status_bytes(status: str, field: str) -> int:
    """Bytes that a line of `/proc/PID/status` states in kB.

    Raises:
        ValueError: If there is no such line.
    """
    for line in status.splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            number, unit = rest.split()
            if unit != "kB":
                raise ValueError(f"{field}: expected kB, got {unit!r}.")
            return 1024 * int(number)
    raise ValueError(f"expected a line {field!r}, got none. Linux alone has it.")


@asynccontextmanager
async def own_server(
    settings: Mapping[str, object] | None = None, *, metrics: bool = False, services: str = ""
) -> AsyncIterator[OwnServer]:
    """Start a server with these environment variables on top of ours, and stop it at the end.

    Args:
        settings: Of the environment.
        metrics: Whether it serves its metrics.
        services: Names with commas; empty for every installed one.
    """
    port, metrics_port = free_port(), free_port() if metrics else 0
    settings = {"STRETTO_GRPC_METRICS_PORT": metrics_port, **(settings or {})}
    command = Path(sys.executable).with_name("stretto")
    program = str(command if command.exists() else shutil.which("stretto"))
    chosen = ["--services", services] if services else []
    variables = [f"{name}={value}" for name, value in settings.items()]
    process = await asyncio.create_subprocess_exec(
        "env", *variables, program, "serve", "--port", str(port), *chosen, stdout=DEVNULL, stderr=DEVNULL
    )
    try:
        async with StrettoClient(f"127.0.0.1:{port}") as client:
            await until_ready(client, process)
            yield OwnServer(client.address, process.pid, client, metrics_port, process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serving(address: str, num_threads: int) -> AsyncIterator[StrettoClient]:
    """A client of the server at `address`, or of an all-in-one server in a process of its own."""
    if address:
        async with StrettoClient(address) as client:
            yield client
        return
    async with own_server({"OMP_NUM_THREADS": num_threads}) as server:
        yield server.client


async def until_ready(client: StrettoClient, process: Process) -> None:
    """Wait until every service of the server is ready."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.returncode is not None:
            raise SystemExit(f"stretto serve ended with {process.returncode}. Run it by hand to see why.")
        try:
            if await client.check_health(timeout_s=2.0):
                return
        except StrettoError:  # not listening yet
            pass
        await asyncio.sleep(0.5)
    raise SystemExit(f"stretto serve was not ready within {READY_TIMEOUT_S:g} s.")
