"""Two channels from a codec that knows one: a stereo language model speaks for both, row by row in turn.

The published stereo checkpoints of MusicGen interleave the codebooks of a mono codec as L0, R0, L1, R1, and so on: even
rows are left, odd ones right, as in audiocraft and `transformers`. The codec takes each side as a clip of its own, in
two streams that are resumed apart, so that each side has the bytes of an unbroken run. A language model says itself
that it is stereo, in its `ModelInfo`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from functools import partial

import numpy as np
from numpy.typing import NDArray
from stretto_shared.audio import Waveform
from stretto_shared.errors import Conflict, InvalidInput
from stretto_shared.features import ModelInfo
from stretto_shared.tokens import TokenMatrix

from stretto_orchestrator.clients import CodecClient, DecodedAudio, EncodedAudio
from stretto_orchestrator.flows.resuming import Resumes, TokenLog, resumed_audio


async def encode_stereo(
    codec: CodecClient, name: str, recording: Waveform, *, num_codebooks: int, field: str
) -> EncodedAudio:
    """A recording as `num_codebooks` rows, interleaved of both sides; mono sounds on both."""
    sides = [
        await codec.encode(
            name, Waveform(samples, recording.sample_rate_hz), num_codebooks=num_codebooks // 2, field=field
        )
        for samples in recording.samples
    ]
    left, right = sides[0], sides[-1]
    _check_same(left.model, right.model)
    codes = np.stack([left.tokens.codes, right.tokens.codes], axis=1).reshape(num_codebooks, -1)  # [K, 2, T] to [2K, T]
    return EncodedAudio(
        TokenMatrix(codes, left.tokens.frame_rate_hz, left.tokens.codec_id), left.model, left.num_samples
    )


def resumed_stereo(codec: CodecClient, log: TokenLog, resumes: Resumes) -> AsyncGenerator[DecodedAudio, None]:
    """All audio of the log's tokens as `resumed_audio` gives it, in two channels.

    Raises:
        InvalidInput: If the codec that should give one of two channels gives two.
        Conflict: If another codec answers for one side than for the other.
    """
    left, right = (resumed_audio(partial(_decode_side, codec, side), log, resumes) for side in (0, 1))
    return _interleaved(left, right)


async def _decode_side(
    codec: CodecClient, side: int, tokens: AsyncGenerator[TokenMatrix, None]
) -> AsyncGenerator[DecodedAudio, None]:
    async with aclosing(tokens), aclosing(codec.decode(_rows_of(side, tokens))) as audio:
        async for part in audio:
            yield part


async def _rows_of(side: int, tokens: AsyncGenerator[TokenMatrix, None]) -> AsyncGenerator[TokenMatrix, None]:
    async for part in tokens:
        yield TokenMatrix(part.codes[side::2], part.frame_rate_hz, part.codec_id)


class _Side:
    """One channel as it comes, and what of it waits for the other."""

    def __init__(self, audio: AsyncGenerator[DecodedAudio, None]) -> None:
        self._audio = audio
        self.samples: NDArray[np.float32] = np.zeros(0, np.float32)
        self.sample_rate_hz = 0
        self.model: ModelInfo | None = None

    async def fill(self) -> None:
        """Wait for more if nothing waits; at the end there is none."""
        part = None if self.samples.size else await anext(self._audio, None)
        if part is None:
            return
        if part.waveform.num_channels != 1:
            description = "its stages do not go together: a stereo language model needs a mono codec. Choose another."
            raise InvalidInput("cascade", description)
        self.samples, self.sample_rate_hz = part.waveform.samples[0], part.waveform.sample_rate_hz
        self.model = self.model or part.model

    def take(self, num_samples: int) -> NDArray[np.float32]:
        taken, self.samples = self.samples[:num_samples], self.samples[num_samples:]
        return taken


async def _interleaved(
    left: AsyncGenerator[DecodedAudio, None], right: AsyncGenerator[DecodedAudio, None]
) -> AsyncGenerator[DecodedAudio, None]:
    """Both sides as one clip, as far as both have come; a side that was resumed may come in other pieces."""
    async with aclosing(left), aclosing(right):
        sides, num_sent = (_Side(left), _Side(right)), 0
        while True:
            await _together(*(side.fill() for side in sides))
            num_samples = min(side.samples.size for side in sides)
            if num_samples == 0:
                break
            if num_sent == 0:
                _check_same(sides[0].model, sides[1].model)
            both = Waveform(np.stack([side.take(num_samples) for side in sides]), sides[0].sample_rate_hz)
            yield DecodedAudio(both, num_sent, sides[0].model if num_sent == 0 else None)
            num_sent += num_samples
    if any(side.samples.size for side in sides):
        raise RuntimeError("The codec made two channels of different lengths from equally many tokens.")


async def _together(*works: Coroutine[None, None, None]) -> None:
    """Wait for all; when one fails, the others have stopped before its error is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _check_same(left: ModelInfo | None, right: ModelInfo | None) -> None:
    if left is not None and right is not None and left.model_id != right.model_id:
        raise Conflict(
            f"{left.model_id} answered for the left channel and {right.model_id} for the right one, so they do not "
            "belong together. Send the request again.",
            reason="MODEL_CHANGED",
        )
