"""`Fork`: one stream of audio, read once, for several stages that hear it at the same time.

A stage that is slow holds the source back, and with it the others, so that what waits is bounded. A stage that has left
holds nobody back. As long as `KeptAudio` has room for it, what was heard is kept, and a stage that was lost may hear it
again from the start.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator

import numpy as np
from stretto_shared.audio import Waveform

PIECE_S = 1.0  # of a message, for each stage: any rate fits in one
MAX_AHEAD = 4  # pieces that may wait for a stage


class KeptAudio:
    """How much audio the forks of all requests may keep, in bytes.

    Invariant: `num_bytes` never exceeds `max_bytes`, and is 0 once every request has ended.

    Args:
        max_bytes: Of all together; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.num_bytes = 0

    def take(self, num_bytes: int) -> bool:
        """Count so many more; False, and nothing counted, where there is no room for them."""
        if self.num_bytes + num_bytes > self._max_bytes:
            return False
        self.num_bytes += num_bytes
        return True

    def give_back(self, num_bytes: int) -> None:
        """Count so many less."""
        self.num_bytes -= num_bytes


class Branch:
    """What one stage hears: the audio in pieces, or the error that the source broke off with."""

    def __init__(self, fork: Fork) -> None:
        self._fork = fork
        self.index = 0
        self.has_left = False

    async def leave(self) -> None:
        """Nobody listens any more."""
        self.has_left = True
        await self._fork.move_on()

    @property
    def can_rewind(self) -> bool:
        """Whether all from the start is still kept."""
        return self._fork.is_kept

    def rewind(self) -> bool:
        """Hear all from the start again; False where that is no longer kept."""
        if self.can_rewind:
            self.index = 0
        return self.can_rewind

    def __aiter__(self) -> AsyncIterator[Waveform]:
        return self

    async def __anext__(self) -> Waveform:
        piece = await self._fork.piece(self.index)
        if piece is None:
            raise StopAsyncIteration
        self.index += 1
        await self._fork.move_on()
        return piece


class Fork:
    """The audio of one request.

    Invariant: every branch gives all samples in order, and no more than `MAX_AHEAD` pieces wait for any
    (`tests/services/orchestrator/test_forking.py`).

    Args:
        audio: The messages.
        num_branches: How many stages hear it.
        kept: Who has room for what was heard.
    """

    def __init__(self, audio: AsyncIterator[Waveform], num_branches: int, kept: KeptAudio) -> None:
        self._audio = audio
        self._digest = hashlib.sha256()
        self._kept = kept
        self._num_kept_bytes = 0
        self._pieces: list[Waveform] = []
        self._first = 0  # the place of the first of them in the recording
        self._is_ended = False
        self._error: Exception | None = None
        self._changed = asyncio.Condition()
        self.branches = tuple(Branch(self) for _ in range(num_branches))
        self.is_kept = True
        self.heard_s = 0.0

    @property
    def sha256(self) -> str:
        """Of all samples so far, as they travel: 32-bit little-endian floats, interleaved."""
        return self._digest.hexdigest()

    async def run(self) -> None:
        """Read all audio and hand it to every branch; what the source raises, every branch raises."""
        try:
            async for waveform in self._audio:
                await asyncio.to_thread(self._digest.update, np.ascontiguousarray(waveform.samples.T, "<f4").tobytes())
                for piece in _pieces(waveform):
                    await self._add(piece)
        except Exception as error:  # whoever reads a branch raises it
            self._error = error
        self._is_ended = True
        await self.move_on()

    async def piece(self, index: int) -> Waveform | None:
        """The piece at this place, once it has come; None after the last one."""
        async with self._changed:
            await self._changed.wait_for(lambda: index < self._num_pieces or self._is_ended)
            if index < self._num_pieces:
                return self._pieces[index - self._first]
        if self._error is not None:
            raise self._error
        return None

    async def move_on(self) -> None:
        """A branch, or the source, is at another place: whoever waits looks again."""
        async with self._changed:
            self._drop_heard()
            self._changed.notify_all()

    def close(self) -> None:
        """Keep nothing any more."""
        self.is_kept = False
        self._kept.give_back(self._num_kept_bytes)
        self._num_kept_bytes = 0

    @property
    def _num_pieces(self) -> int:
        return self._first + len(self._pieces)

    @property
    def _slowest(self) -> int:
        """How far the branch is that is least far; the end where none listens."""
        return min((branch.index for branch in self.branches if not branch.has_left), default=self._num_pieces)

    async def _add(self, piece: Waveform) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._num_pieces - self._slowest < MAX_AHEAD)
            self._pieces.append(piece)
            self.heard_s += piece.duration_s
            if self.is_kept and self._kept.take(piece.samples.nbytes):
                self._num_kept_bytes += piece.samples.nbytes
            else:
                self.close()
                self._drop_heard()
            self._changed.notify_all()

    def _drop_heard(self) -> None:
        """Forget what every branch has heard, unless it is kept."""
        if not self.is_kept:
            num_heard = self._slowest - self._first
            del self._pieces[:num_heard]
            self._first += num_heard


def _pieces(waveform: Waveform) -> Iterator[Waveform]:
    step = max(1, round(PIECE_S * waveform.sample_rate_hz))
    for start in range(0, waveform.num_samples, step):
        yield Waveform(waveform.samples[:, start : start + step], waveform.sample_rate_hz)
