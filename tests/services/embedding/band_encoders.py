"""A joint and a melody encoder small enough to compute by hand, and a server to test over a real channel."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest
import torch
from stretto.common.v1 import audio_pb2
from stretto.embedding.v1 import embedding_pb2_grpc
from stretto_embedding import main
from stretto_shared import weights
from stretto_shared.features import ModelInfo
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings

BANDS = ("low", "middle", "high", "top")
RATE_HZ = 8_000


@dataclass(eq=False)
class BandEncoder:
    """Hears a window as its shares of four bands, 1 kHz each, and a text as the names of bands in it."""

    info: ModelInfo
    sample_rate_hz: int = RATE_HZ
    window_samples: int = RATE_HZ
    stride_samples: int = RATE_HZ // 2
    dimension: int = 4
    temperature: float = 0.1
    default_tags: tuple[str, ...] = BANDS
    max_tokens: int = 6
    seen: list = field(default_factory=list)

    def tokenize(self, text):
        return [BANDS.index(word) if word in BANDS else len(BANDS) for word in text.split()]

    def embed_ids(self, ids):
        self.seen.append(list(ids))
        counts = np.bincount(np.array(ids), minlength=5)[:4] + 0.01
        return counts.astype(np.float32)

    def embed_window(self, samples):
        assert samples.ndim == 1 and samples.dtype == np.float32
        self.seen.append(samples.copy())
        power = np.abs(np.fft.rfft(samples, n=RATE_HZ)[1:]) ** 2
        return (power.reshape(4, -1).sum(1) + 1e-6).astype(np.float32)

    def quantize(self, values):
        assert abs(float(np.linalg.norm(values)) - 1) < 1e-5
        if not self.info.num_codebooks:
            return ()
        return int(np.argmax(values)), int(100 * values.max())


@dataclass(eq=False)
class LevelEncoder:
    """A melody encoder of one column a second: two codebooks, of the level's tenths and hundredths."""

    info: ModelInfo
    sample_rate_hz: int = RATE_HZ

    def encode(self, samples):
        seconds = np.pad(samples, (0, -len(samples) % RATE_HZ)).reshape(-1, RATE_HZ)
        level = np.abs(seconds).max(1)
        return np.stack([np.floor(10 * level), np.floor(100 * level) % 10]).astype(np.int64)


def band_info(name="bands", *, num_codebooks=2, **more):
    return ModelInfo(
        name, "embedding", "b" * 64, "Apache-2.0", sample_rate_hz=RATE_HZ, num_codebooks=num_codebooks, **more
    )


def band_encoder(name="bands", **more):
    return BandEncoder(band_info(name), **more)


def level_encoder(name="levels"):
    return LevelEncoder(ModelInfo(name, "embedding", "c" * 64, "Apache-2.0", frame_rate_hz=1.0, num_codebooks=2))


def tone(hz, duration_s=1.0, rate_hz=RATE_HZ, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(duration_s * rate_hz)) / rate_hz)).astype(np.float32)


def wire(samples, rate_hz=RATE_HZ):
    """A clip [S] or [C, S] as the message."""
    samples = np.atleast_2d(samples)
    return audio_pb2.Waveform(
        sample_rate_hz=rate_hz, channel_count=len(samples), samples=samples.T.astype("<f4").tobytes()
    )


class Service:
    """A server on a loop of its own, which blocking tests call."""

    def __init__(self, settings):
        self.loop = asyncio.new_event_loop()
        self.server = StrettoServer(
            GrpcSettings(port=0, drain_s=0.0, log_level="error"),
            {"embedding": lambda context: main.build(context, settings)},
        )
        self.channel = self.loop.run_until_complete(self._start())
        self.stub = embedding_pb2_grpc.EmbeddingServiceStub(self.channel)

    async def _start(self):
        port = await self.server.start()
        await self.server.wait_until_ready()
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}")

    def call(self, method, request, **options):
        async def unary():
            return await getattr(self.stub, method)(request, **options)

        return self.loop.run_until_complete(unary())

    def together(self, method, requests):
        async def all_of_them():
            return await asyncio.gather(*(getattr(self.stub, method)(request) for request in requests))

        return self.loop.run_until_complete(all_of_them())

    def fails(self, method, request, **options):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            self.call(method, request, **options)
        return caught.value

    def close(self):
        self.loop.run_until_complete(self.channel.close())
        self.loop.run_until_complete(self.server.stop())
        self.loop.close()


def write_checkpoint(folder, name, architecture):
    weights.write(
        folder / name,
        {"nothing": torch.zeros(1)},
        name=name,
        architecture=architecture,
        config={},
        licence="Apache-2.0",
        score="",
        training={},
    )
