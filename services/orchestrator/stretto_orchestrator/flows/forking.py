"""`Fork`: one stream of audio, read once, for several stages that hear it at the same time.

A stage that is slow holds the source back, and with it the others, so that what waits is bounded. A stage that has left
holds nobody back.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator

import numpy as np
from stretto_shared.audio import Waveform

PIECE_S = 1.0  # of a message, for each stage: any rate fits in one
MAX_AHEAD = 4  # pieces that may wait for a stage


class Branch:
    """What one stage hears: the audio in pieces, or the error that the source broke off with."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Waveform | Exception | None] = asyncio.Queue(MAX_AHEAD)
        self._has_left = False

    async def give(self, item: Waveform | Exception | None) -> None:
        """Wait for room, and hand it over."""
        if not self._has_left:
            await self._waiting.put(item)

    def leave(self) -> None:
        """Nobody listens any more."""
        self._has_left = True
        while not self._waiting.empty():  # who waits for room goes on
            self._waiting.get_nowait()

    def __aiter__(self) -> AsyncIterator[Waveform]:
        return self

    async def __anext__(self) -> Waveform:
        item = await self._waiting.get()
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, Exception):
            raise item
        return item


class Fork:
    """The audio of one request.

    Invariant: every branch gives all samples in order, and no more than `MAX_AHEAD` pieces wait for any
    (`tests/services/orchestrator/test_forking.py`).

    Args:
        audio: The messages.
        num_branches: How many stages hear it.
    """

    def __init__(self, audio: AsyncIterator[Waveform], num_branches: int) -> None:
        self._audio = audio
        self._digest = hashlib.sha256()
        self.branches = tuple(Branch() for _ in range(num_branches))
        self.heard_s = 0.0

    @property
    def sha256(self) -> str:
        """Of all samples so far, as they travel: 32-bit little-endian floats, interleaved."""
        return self._digest.hexdigest()

    async def run(self) -> None:
        """Read all audio and hand it to every branch; what the source raises, every branch raises."""
        end: Exception | None = None
        try:
            async for waveform in self._audio:
                await asyncio.to_thread(self._digest.update, np.ascontiguousarray(waveform.samples.T, "<f4").tobytes())
                for piece in _pieces(waveform):
                    await asyncio.gather(*(branch.give(piece) for branch in self.branches))
                    self.heard_s += piece.duration_s
        except Exception as error:  # whoever reads a branch raises it
            end = error
        await asyncio.gather(*(branch.give(end) for branch in self.branches))


def _pieces(waveform: Waveform) -> Iterator[Waveform]:
    step = max(1, round(PIECE_S * waveform.sample_rate_hz))
    for start in range(0, waveform.num_samples, step):
        yield Waveform(waveform.samples[:, start : start + step], waveform.sample_rate_hz)
