"""Tiny random codecs of every architecture, and a server that serves them over a real channel."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from stretto.codec.v1 import codec_pb2_grpc
from stretto_codec.loading import ARCHITECTURES, LoadedCodec, make_loaded
from stretto_codec.main import build
from stretto_codec.models.encodec import GEOMETRIES
from stretto_codec.models.framecodec import FrameCodecConfig
from stretto_codec.models.soundstream import SoundStreamConfig
from stretto_codec.settings import CodecSettings
from stretto_shared import weights
from stretto_shared.grpc.channel import open_channel
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import ChannelSettings, GrpcSettings
from torch import nn

_TINY_ENCODEC = {"num_filters": 4, "hidden_size": 16, "cardinality": 32, "num_codebooks": 4}
TINY: dict[str, tuple[str, Any]] = {
    "framecodec": (
        "FrameCodec",
        FrameCodecConfig(
            n_fft=256,
            stft_hop=64,
            stride=4,
            dim=16,
            num_encoder_blocks=1,
            num_latent_blocks=1,
            num_decoder_blocks=2,
            code_dim=8,
            num_codebooks=4,
            cardinality=32,
        ),
    ),
    "soundstream": (
        "SoundStream",
        SoundStreamConfig(encoder_channels=4, decoder_channels=4, dim=16, num_codebooks=4, cardinality=32),
    ),
    **{name: ("Encodec", dataclasses.replace(config, **_TINY_ENCODEC)) for name, config in GEOMETRIES.items()},
}


def make_codec(name: str, seed: int = 0) -> nn.Module:
    """A tiny codec with random weights; a codebook that training would fill is random too."""
    architecture, config = TINY[name]
    torch.manual_seed(seed)
    module = ARCHITECTURES[architecture].module_class(config).eval()
    for key, tensor in module.state_dict().items():
        if key.endswith(".embed"):
            tensor.copy_(torch.randn(tensor.shape))
    return module


def write_codec(folder: Path, name: str, seed: int = 0) -> str:
    """The tiny codec as `default` weights in `folder`; returns its digest."""
    architecture, config = TINY[name]
    return weights.write(
        folder / name,
        make_codec(name, seed).state_dict(),
        name=name,
        architecture=architecture,
        config=dataclasses.asdict(config),
        licence="CC0-1.0",
        score="untrained",
        training={"seed": seed},
    )


@pytest.fixture(scope="session")
def weights_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every tiny codec as `default` weights."""
    folder = tmp_path_factory.mktemp("codec_weights")
    for name in TINY:
        write_codec(folder, name)
    return folder


Stub = codec_pb2_grpc.CodecServiceStub
Serve = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def serve(weights_dir: Path) -> Serve:
    """`async with serve(models=..., max_requests=...) as channel`: the codec service on port 0.

    `grpc` holds settings of the server itself.
    """

    @asynccontextmanager
    async def _serve(*, grpc: Mapping[str, Any] | None = None, **options: Any) -> AsyncIterator[Any]:
        options = {"models": ",".join(TINY), "weights_dir": weights_dir, "num_threads": 1} | options
        settings = GrpcSettings(**{"host": "127.0.0.1", "port": 0, "drain_s": 0.2, "log_level": "error"} | (grpc or {}))
        server = StrettoServer(settings, {"codec": lambda context: build(context, CodecSettings(**options))})
        port = await server.start()
        try:
            await server.wait_until_ready()
            async with open_channel(f"127.0.0.1:{port}", ChannelSettings(max_attempts=1)) as channel:
                yield channel
        finally:
            await server.stop()

    return _serve


@pytest.fixture
def make() -> Callable[[str], nn.Module]:
    """`make(name)`: a tiny random codec."""
    return make_codec


@pytest.fixture
def steady() -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """`steady(module, audio)`: which of the clip's codes [B, K, T] are no near tie, which is nearly all of them.

    They stay what they are when the latents move by a thousandth. A near tie is decided by rounding, that is, by the
    machine and the shape of a batch: no test may depend on it.
    """

    def find(module: Any, audio: torch.Tensor) -> torch.Tensor:
        codes, exact, generator = module.encode(audio), module.quantizer.encode, torch.Generator().manual_seed(0)

        def moved(latents: torch.Tensor) -> Any:
            return exact(latents + 1e-3 * latents.std() * torch.randn(latents.shape, generator=generator))

        module.quantizer.encode = moved
        found = torch.stack([module.encode(audio) == codes for _ in range(8)]).all(0)
        module.quantizer.encode = exact
        assert found.float().mean() > 0.9
        return found

    return find


@pytest.fixture
def load() -> Callable[..., LoadedCodec]:
    """`load(name, dtype=..., max_joined=...)`: a tiny random codec as the engine takes it."""

    def loaded(name: str, **options: Any) -> LoadedCodec:
        architecture, config = TINY[name]
        return make_loaded(
            name, make_codec(name), ARCHITECTURES[architecture], config, digest_sha256="0" * 64, **options
        )

    return loaded
