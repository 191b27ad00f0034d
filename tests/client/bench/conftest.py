"""A door whose streams come as a test says, on a real port in a thread of its own."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from google.protobuf import duration_pb2
from stretto.common.v1 import model_pb2
from stretto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from stretto_client.cli import main as cli
from stretto_shared.audio import Waveform
from stretto_shared.grpc import convert
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings

SAMPLE_RATE_HZ = 8_000
PATIENCE_S = 60.0  # a guard against hanging, for starved machines


@dataclass(frozen=True)
class Script:
    """One stream. `chunks` are seconds to wait and seconds of audio to send then; None sends all of it at once."""

    chunks: tuple[tuple[float, float], ...] | None = None
    error: Exception | None = None
    refuse_when_full: Exception | None = None
    breaks: bool = False
    waits_for: Callable[[Stage], bool] = lambda stage: True
    salt: str = ""


@dataclass
class Stage:
    """What the door does with call number n, and what it has seen. Written by one side, read by the other."""

    script_of: Callable[[int], Script] = lambda number: Script()
    num_places: int = 1_000
    requests: list[Any] = field(default_factory=list)
    num_running: int = 0
    peak_running: int = 0
    num_refused: int = 0
    is_released: bool = False
    address: str = ""


class PacedOrchestrator(orchestrator_pb2_grpc.OrchestratorServiceServicer):  # type: ignore[misc]
    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def GenerateMusic(self, request: Any, context: Any) -> Any:
        stage = self._stage
        script = stage.script_of(len(stage.requests))
        stage.requests.append(request)
        if script.error is not None:
            raise script.error
        if script.refuse_when_full is not None and stage.num_running >= stage.num_places:
            stage.num_refused += 1
            raise script.refuse_when_full
        stage.num_running += 1
        stage.peak_running = max(stage.peak_running, stage.num_running)
        try:
            while not script.waits_for(stage):  # noqa: ASYNC110  any condition that a test thinks of
                await asyncio.sleep(0.01)
            first = 0
            for wait_s, audio_s in script.chunks or ((0.0, request.duration_s),):
                await asyncio.sleep(wait_s)
                waveform = Waveform(np.zeros(round(audio_s * SAMPLE_RATE_HZ), np.float32), SAMPLE_RATE_HZ)
                chunk = orchestrator_pb2.AudioChunk(
                    waveform=convert.waveform_to_proto(waveform), first_sample_index=first
                )
                first += waveform.num_samples
                yield orchestrator_pb2.GenerateMusicResponse(chunk=chunk)
            if script.breaks:
                raise RuntimeError("in the middle")
        finally:
            stage.num_running -= 1
        digest = hashlib.sha256(f"{request.prompt} {request.seed} {script.salt}".encode()).hexdigest()
        yield orchestrator_pb2.GenerateMusicResponse(
            receipt=orchestrator_pb2.Receipt(
                cascade=request.cascade or "musicgen",
                prompt=request.prompt,
                seed=request.seed,
                duration_s=request.duration_s,
                models=[model_pb2.ModelInfo(name="musicgen", service="acoustic", digest_sha256="ab" * 32)],
                stretto_version="0.1.0",
                output_sha256=digest,
                first_audio_latency=duration_pb2.Duration(nanos=1),
                total_latency=duration_pb2.Duration(seconds=1),
            )
        )


async def _nothing() -> None:
    return None


@pytest.fixture(scope="module")
def paced_server() -> Iterator[Stage]:
    """The server; `stage` hands it out fresh to each test."""
    stage = Stage()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    started: asyncio.Queue[int] = asyncio.Queue()

    def build(context: HostContext) -> ServiceHost:
        add = orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server
        name = "stretto.orchestrator.v1.OrchestratorService"
        servicer = PacedOrchestrator(stage)
        return ServiceHost("orchestrator", name, lambda server: add(servicer, server), _nothing, _nothing)

    async def serve() -> None:
        server = StrettoServer(GrpcSettings(port=0, log_level="error", drain_s=0.1), {"orchestrator": build})
        await started.put(await server.start())
        await stop.wait()
        await server.stop()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    port = asyncio.run_coroutine_threadsafe(started.get(), loop).result(timeout=PATIENCE_S)
    stage.address = f"127.0.0.1:{port}"
    yield stage
    loop.call_soon_threadsafe(stop.set)
    thread.join(timeout=PATIENCE_S)
    assert not thread.is_alive()


@pytest.fixture
def stage(paced_server: Stage) -> Stage:
    """The server's stage as new: every stream comes whole and at once."""
    fresh = Stage(address=paced_server.address)
    paced_server.__dict__.update(fresh.__dict__)
    return paced_server


@pytest.fixture
def script() -> type[Script]:
    return Script


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `stretto bench` in this process; returns its exit status, stdout and stderr."""
    monkeypatch.setenv("STRETTO_ADDRESS", stage.address)
    monkeypatch.setenv("COLUMNS", "250")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stretto", "bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call
