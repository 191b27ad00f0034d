"""What the tests of the orchestrator share; the stages that they work with are in `fake_stages`."""

import asyncio
from dataclasses import dataclass

import numpy as np
import pytest
from fake_stages import open_house
from stretto.orchestrator.v1 import orchestrator_pb2


@pytest.fixture
async def house():
    async with open_house() as opened:
        yield opened


@pytest.fixture
def house_with():
    return open_house


@dataclass
class Music:
    """What one call gave."""

    samples: np.ndarray
    chunks: list
    progress: list
    receipt: object


@pytest.fixture
def collect():
    async def collect_music(call) -> Music:
        chunks, progress, receipt = [], [], None
        async for response in call:
            assert receipt is None, "the receipt must be the last message"
            match response.WhichOneof("payload"):
                case "chunk":
                    chunks.append(response.chunk)
                case "progress":
                    progress.append(response.progress)
                case "receipt":
                    receipt = response.receipt
        expected = 0
        for chunk in chunks:
            assert chunk.first_sample_index == expected
            expected += len(chunk.waveform.samples) // (4 * chunk.waveform.channel_count)
        samples = np.frombuffer(b"".join(chunk.waveform.samples for chunk in chunks), "<f4")
        return Music(samples, chunks, progress, receipt)

    return collect_music


@pytest.fixture
def request_music():
    def make(**fields):
        values = {"prompt": "a slow waltz", "duration_s": 2.0, "seed": 7} | fields
        return orchestrator_pb2.GenerateMusicRequest(**values)

    return make


@pytest.fixture
def eventually():
    async def wait_for(condition, timeout_s=60.0):
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - what is waited for happens in a server
                await asyncio.sleep(0.01)

    return wait_for
