"""The real thing: `stretto serve` in a process of its own, with the committed checkpoints."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_server import START_TIMEOUT_S, STRETTO, Door, free_port, stop, tune, wait_until_healthy
from stretto_client import write_audio

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def door() -> Iterator[Door]:
    """The all-in-one server, for all tests of the session."""
    port, metrics_port = free_port(), free_port()
    environment = (
        os.environ
        | {"STRETTO_GRPC_LOG_LEVEL": "warning", "STRETTO_GRPC_DRAIN_S": "5"}
        | {"STRETTO_GRPC_METRICS_PORT": str(metrics_port)}
    )
    process = subprocess.Popen([*STRETTO, "serve", "--port", str(port)], env=environment)
    try:
        asyncio.run(wait_until_healthy(f"127.0.0.1:{port}", process))
        yield Door(f"127.0.0.1:{port}", process, metrics_port)
        assert process.poll() is None, "the server died during the tests"
        assert stop(process) == 0
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a program in a folder of its own and gives back what it said. It must succeed unless told otherwise.

    With `status` None any exit status will do.
    """

    def call(*command: object, status: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "200"} | environment,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
        )
        assert status is None or done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return call


@pytest.fixture(scope="session")
def melody_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of a plain tune: two notes and a rest of a second, twice."""
    path = tmp_path_factory.mktemp("audio") / "melody.wav"
    rests = (("rest", 0.0),) * 2
    write_audio(path, tune(("C", 261.6), ("E", 329.6), *rests, ("G", 392.0), ("C", 523.3), *rests))
    return path
