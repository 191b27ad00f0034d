"""What the system tests share: the repository's root, how to run its command, how to start and stop a real server."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from stretto_client import StrettoClient, StrettoError, Waveform

ROOT = Path(__file__).resolve().parents[2]
STRETTO = (sys.executable, "-c", "from stretto_client.cli.main import main; main()")
START_TIMEOUT_S = 600.0  # a guard against hanging: on a starved machine torch alone takes minutes to import
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Door:
    """A server and its process."""

    address: str
    process: subprocess.Popen[bytes]
    metrics_port: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def wait_until_healthy(address: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the server's own health says so; fail if its process ends or takes too long."""
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_s:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            async with StrettoClient(address) as client:
                models = await client.list_models(timeout_s=5.0)
            if models.models and not models.unreachable_services:
                return
        except StrettoError:
            pass
        await asyncio.sleep(0.3)
    raise AssertionError(f"no healthy server at {address} after {START_TIMEOUT_S} s")


def stop(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM; the exit status, or a failure if the process does not end."""
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=STOP_TIMEOUT_S)


def tune(*notes: tuple[str, float], sample_rate_hz: int = 24_000, note_s: float = 0.5) -> Waveform:
    times_s = np.arange(int(note_s * sample_rate_hz)) / sample_rate_hz
    envelope = np.exp(-3 * times_s)
    harmonics = [
        sum(np.sin(2 * np.pi * frequency_hz * k * times_s) / k**2 for k in (1, 2, 3)) for _, frequency_hz in notes
    ]
    return Waveform(0.4 * np.concatenate([tone * envelope for tone in harmonics]), sample_rate_hz)


def readme_blocks(language: str) -> list[str]:
    """The fenced blocks of README.md in one language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
