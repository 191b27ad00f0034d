"""A tiny random tokenizer, and a server that serves it over a real channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from stretto_semantic import loading
from stretto_semantic.loading import LoadedTokenizer, TokenizerArchitecture, make_loaded
from stretto_semantic.main import build
from stretto_semantic.settings import SemanticSettings
from stretto_shared import weights
from stretto_shared.dsp.window_grid import Silence, WindowGrid
from stretto_shared.grpc.channel import open_channel
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import ChannelSettings, GrpcSettings
from torch import Tensor, nn

GRIDS = {
    "first": WindowGrid(hop_length=40, window_frames=20, left_frames=5, right_frames=3, margin=10),
    "second": WindowGrid(hop_length=40, window_frames=16, left_frames=4, right_frames=4, is_padded=False),
}
NUM_IDS = 64
Serve = Callable[..., AbstractAsyncContextManager[Any]]


class TinyTokenizer(nn.Module):
    """A product of each frame with its neighbours: 8 kHz, 200 frames a second, 64 ids."""

    def __init__(self, grid: WindowGrid) -> None:
        super().__init__()
        self._grid = grid
        self.project = nn.Conv1d(1, NUM_IDS, 3 * grid.hop_length, stride=grid.hop_length, padding=grid.hop_length)

    sample_rate_hz, frame_rate_hz, cardinality = 8000, 200.0, NUM_IDS

    @property
    def grid(self) -> WindowGrid:
        return self._grid

    def scores(self, samples: Tensor, silences: Sequence[Silence]) -> Tensor:
        core = samples[:, self._grid.margin : samples.shape[1] - self._grid.margin]
        # row by row, so that every processor gives each window what it gives it alone
        return torch.cat([self.project(row[None, None]).transpose(1, 2) for row in core])


def make_tokenizer(name: str) -> TinyTokenizer:
    torch.manual_seed(sorted(GRIDS).index(name))
    return TinyTokenizer(GRIDS[name])


def _build(resolved: weights.ResolvedWeights) -> TinyTokenizer:
    tokenizer = TinyTokenizer(GRIDS[resolved.config["config"]["grid"]])
    tokenizer.load_state_dict(weights.load_tensors(resolved))
    return tokenizer


@pytest.fixture
def weights_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with tokenizers `first` and `second` of an architecture that is registered for the test."""
    monkeypatch.setitem(loading.TOKENIZERS, "Tiny", TokenizerArchitecture(_build))
    for name in GRIDS:
        weights.write(
            tmp_path / name,
            make_tokenizer(name).state_dict(),
            name=name,
            architecture="Tiny",
            config={"grid": name},
            licence="CC0-1.0",
            score="random",
            training={},
        )
    yield tmp_path


@pytest.fixture
def serve(weights_dir: Path) -> Serve:
    """`async with serve(models=..., max_requests=...) as channel`: the semantic service on port 0.

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
            {"semantic": lambda context: build(context, SemanticSettings(**options))},
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


@pytest.fixture
def make() -> Callable[[str], TinyTokenizer]:
    """`make(name)`: a tiny random tokenizer."""
    return make_tokenizer


@pytest.fixture
def load() -> Callable[..., LoadedTokenizer]:
    """`load(name, max_joined=...)`: a tiny random tokenizer as the engine takes it."""

    def loaded(name: str, **options: Any) -> LoadedTokenizer:
        return make_loaded(name, make_tokenizer(name), digest_sha256="0" * 64, **options)

    return loaded
