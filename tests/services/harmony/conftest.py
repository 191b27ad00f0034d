"""A server that serves tiny analyzers over a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_analyzers
from stretto.harmony.v1 import harmony_pb2_grpc
from stretto_harmony import loading
from stretto_harmony.main import build
from stretto_harmony.settings import HarmonySettings
from stretto_shared.grpc.channel import open_channel
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import ChannelSettings, GrpcSettings

Serve = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def made() -> dict[str, tiny_analyzers.TinyAnalyzer]:
    """The analyzers that were loaded, by name."""
    return {}


@pytest.fixture
def weights_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Any) -> Path:
    """A folder with `first`, which has no modules, and `second`, of architectures registered for the test."""
    for word, modules in (("TinyAnalyzer", False), ("TinyModular", True)):
        builder = partial(tiny_analyzers.build, made=made, modules=modules)
        monkeypatch.setitem(loading.ARCHITECTURES, word, builder)  # type: ignore[arg-type]
    folder = tmp_path / "weights"
    tiny_analyzers.write_weights(folder, {"first": "TinyAnalyzer", "second": "TinyModular"})
    return folder


@pytest.fixture
def serve(weights_dir: Path) -> Serve:
    """`async with serve(models=..., max_requests=...) as stub`: the harmony service on port 0.

    `grpc` holds settings of the server itself, `span_exporter` gets its spans.
    """

    @asynccontextmanager
    async def _serve(
        *, grpc: Mapping[str, Any] | None = None, span_exporter: Any = None, **options: Any
    ) -> AsyncIterator[Any]:
        options = dict[str, Any](weights_dir=weights_dir, num_threads=1) | options
        settings = GrpcSettings(**{"host": "127.0.0.1", "port": 0, "drain_s": 0.2, "log_level": "error"} | (grpc or {}))
        server = StrettoServer(
            settings,
            {"harmony": lambda context: build(context, HarmonySettings(**options))},
            span_exporter=span_exporter,
        )
        port = await server.start()
        try:
            await server.wait_until_ready()
            async with open_channel(f"127.0.0.1:{port}", ChannelSettings(max_attempts=1)) as channel:
                yield harmony_pb2_grpc.HarmonyServiceStub(channel)
        finally:
            await server.stop()

    return _serve
