"""A process for each service, behind one door: the same bytes as all-in-one, a metrics page each, and a clean stop."""

import asyncio
import hashlib
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from typing import Any

import numpy as np
from real_server import free_port, stop, tune, wait_until_healthy
from stretto_client import AudioChunk, StrettoClient

STAGES = ("codec", "embedding", "acoustic", "semantic", "transcriber", "harmony")


async def everything(address: str) -> list[str]:
    """Digests of what each kind of call gives."""
    recording = tune(("A", 440.0), ("C", 523.3))
    async with StrettoClient(address) as client:
        events = [event async for event in client.generate_music("a slow cello", duration_s=1.0, seed=4)]
        music = [event.waveform.samples for event in events if isinstance(event, AudioChunk)]
        encoded = await client.encode_audio(recording)
        decoded = [chunk.waveform.samples async for chunk in client.decode_tokens(encoded.tokens)]
        states = (await client.embed_text(["a slow cello"])).states[0]
        meaning = [chunk.tokens.codes async for chunk in client.tokenize_audio(recording)]
        notes = [chunk.notes async for chunk in client.transcribe_audio(recording)]
        beats = await client.track_beats(recording)
    heard = [np.concatenate([getattr(part, name) for part in notes]) for name in ("onset_s", "pitch_midi")]
    parts = [np.concatenate(music, axis=1), encoded.tokens.codes, np.concatenate(decoded, axis=1), states.pooled]
    parts += [np.concatenate(meaning, axis=1), *heard, beats.beat_s, beats.onset_s]
    return [hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in parts]


def free_ports(count: int) -> int:
    """The first of some consecutive ports that nobody listens on."""
    while True:
        first = free_port()
        if all(is_closed(port) for port in range(first, first + count)):
            return first


def is_closed(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def methods_counted(ports: Iterable[int]) -> list[set[str]]:
    """The services whose calls each metrics page counts."""
    pages = [urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20).read().decode() for port in ports]
    return [set(re.findall(r'stretto_rpc_started_total{method="/stretto\.(\w+)\.', page)) for page in pages]


async def test_a_process_for_each_service_gives_the_same_bytes_behind_one_door(door: Any) -> None:
    ports = {name: free_port() for name in ("orchestrator", *STAGES)}
    metrics_port = free_ports(len(ports))
    addresses = {f"STRETTO_ORCHESTRATOR_{name.upper()}_ADDRESS": f"127.0.0.1:{ports[name]}" for name in STAGES}
    process = subprocess.Popen(
        [sys.executable, "-m", "stretto_client.up", *(f"{name}={port}" for name, port in ports.items())],
        env=os.environ
        | addresses
        | {"STRETTO_GRPC_LOG_LEVEL": "warning", "STRETTO_GRPC_DRAIN_S": "5"}
        | {"STRETTO_GRPC_METRICS_PORT": str(metrics_port)},
    )
    try:
        address = f"127.0.0.1:{ports['orchestrator']}"
        await wait_until_healthy(address, process)
        assert await everything(address) == await everything(door.address)
        pages = await asyncio.to_thread(methods_counted, range(metrics_port, metrics_port + len(ports)))
        assert pages[1:] == [{name} for name in STAGES]
        assert pages[0] == {"orchestrator", "codec", "embedding", "semantic", "transcriber"}, (
            "the door also passes these on"
        )
        assert await asyncio.to_thread(stop, process) == 0
    finally:
        process.kill()
        process.wait()
    for port in ports.values():
        assert is_closed(port), f"something still listens on {port}"
