"""A server that serves tiny random models over a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_listeners
from stretto_shared.grpc.channel import open_channel
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import ChannelSettings, GrpcSettings
from stretto_transcriber import loading
from stretto_transcriber.main import build
from stretto_transcriber.settings import TranscriberSettings

Serve = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def weights_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `first` and `second`, which hear notes, and `beats`, of architectures registered for the test."""
    monkeypatch.setitem(loading.NOTE_ARCHITECTURES, "TinyNotes", tiny_listeners.build_notes)  # type: ignore[arg-type]
    monkeypatch.setitem(loading.BEAT_ARCHITECTURES, "TinyBeats", tiny_listeners.build_beats)  # type: ignore[arg-type]
    folder = tmp_path / "weights"
    tiny_listeners.write_weights(folder, {"first": "TinyNotes", "second": "TinyNotes", "beats": "TinyBeats"})
    return folder


@pytest.fixture
def serve(weights_dir: Path) -> Serve:
    """`async with serve(models=..., max_requests=...) as channel`: the transcriber on port 0.

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
            {"transcriber": lambda context: build(context, TranscriberSettings(**options))},
            span_exporter=span_exporter,
        )
        port = await server.start()
        try:
            await server.wait_until_ready()
            async with open_channel(f"127.0.0.1:{port}", ChannelSettings(max_attempts=1)) as channel:
                yield channel
        finally:
            await server.stop()

    return _serve
