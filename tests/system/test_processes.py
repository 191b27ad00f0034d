"""A process for each service, behind one door: `make up` gives the same bytes as all-in-one, and stops cleanly."""

import asyncio
import hashlib
import os
import socket
import subprocess
import sys
from typing import Any

import numpy as np
from real_server import free_port, stop, tune, wait_until_healthy
from stretto_client import AudioChunk, StrettoClient

STAGES = ("codec", "embedding", "acoustic")


async def everything(address: str) -> list[str]:
    """Digests of what each kind of call gives."""
    recording = tune(("A", 440.0), ("C", 523.3))
    async with StrettoClient(address) as client:
        events = [event async for event in client.generate_music("a slow cello", duration_s=1.0, seed=4)]
        music = [event.waveform.samples for event in events if isinstance(event, AudioChunk)]
        encoded = await client.encode_audio(recording)
        decoded = [chunk.waveform.samples async for chunk in client.decode_tokens(encoded.tokens)]
        states = (await client.embed_text(["a slow cello"])).states[0]
    parts = [np.concatenate(music, axis=1), encoded.tokens.codes, np.concatenate(decoded, axis=1), states.pooled]
    return [hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in parts]


async def test_a_process_for_each_service_gives_the_same_bytes_behind_one_door(door: Any) -> None:
    ports = {name: free_port() for name in ("orchestrator", *STAGES)}
    addresses = {f"STRETTO_ORCHESTRATOR_{name.upper()}_ADDRESS": f"127.0.0.1:{ports[name]}" for name in STAGES}
    process = subprocess.Popen(
        [sys.executable, "-m", "stretto_client.up", *(f"{name}={port}" for name, port in ports.items())],
        env=os.environ | addresses | {"STRETTO_GRPC_LOG_LEVEL": "warning", "STRETTO_GRPC_DRAIN_S": "5"},
    )
    try:
        address = f"127.0.0.1:{ports['orchestrator']}"
        await wait_until_healthy(address, process)
        assert await everything(address) == await everything(door.address)
        assert await asyncio.to_thread(stop, process) == 0
    finally:
        process.kill()
        process.wait()
    for port in ports.values():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"something still listens on {port}"
