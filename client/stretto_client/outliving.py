"""Music outlives the door that it comes through: when the connection is lost, the same request is asked for again.

Same request and seed, same bytes, so that what was heard already is left out of the second answer; the receipt's digest
of all samples says whether the two fit together. Another door may answer, where the address names several. What the
stages behind a door go through is the door's to mend; a refusal, a failure and a passed deadline are told at once, and
so is a server that was never there.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
from stretto_shared.audio import Waveform
from stretto_shared.errors import Conflict, NotReady

from stretto_client.calls import stream
from stretto_client.convert import event_from_proto
from stretto_client.errors import DeadlineExceeded, Unreachable
from stretto_client.values import AudioChunk, MusicEvent, Progress, Receipt

MAX_LOSSES = 4
FIRST_WAIT_S = 0.2  # doubles with each loss


async def outlived_music(
    method: Callable[..., Any], request: Any, timeout_s: float
) -> AsyncGenerator[MusicEvent, None]:
    """Every event of a piece once, however often the door is lost after its first one.

    Args:
        method: Of the stub.
        request: What is asked for; it holds the seed.
        timeout_s: For the whole piece.

    Raises:
        StrettoError: For every failure of the call.
        Conflict: If what came after a loss does not go on what came before, as with a model that was replaced.
    """
    heard = _Heard()
    ends_s = time.monotonic() + timeout_s
    num_losses = 0
    while True:
        try:
            remaining_s = max(0.001, ends_s - time.monotonic())
            async with aclosing(stream(method(request, timeout=remaining_s))) as messages:
                async for message in messages:
                    event = heard.news(event_from_proto(message))
                    if event is not None:
                        yield event
            return
        except NotReady as error:
            is_lost = isinstance(error, Unreachable) or num_losses > 0
            if not is_lost or not heard.has_begun or num_losses == MAX_LOSSES:
                raise
            wait_s = FIRST_WAIT_S * 2**num_losses
            num_losses += 1
            if time.monotonic() + wait_s >= ends_s:
                raise DeadlineExceeded("The call took longer than its timeout. Allow more seconds.") from error
            await asyncio.sleep(wait_s)
            heard.begin_again()


class _Heard:
    """What has come of a piece, so that of a further answer only what is new is told."""

    def __init__(self) -> None:
        self.has_begun = False
        self._num_samples = 0
        self._digest = hashlib.sha256()
        self._is_behind = False
        self._was_lost = False

    def begin_again(self) -> None:
        """A further answer begins, which repeats what was heard."""
        self._is_behind = self._was_lost = True

    def news(self, event: MusicEvent) -> MusicEvent | None:
        """What of this event is new; None for nothing."""
        self.has_begun = True
        match event:
            case AudioChunk():
                return self._new_audio(event)
            case Receipt():
                self._check(event)
                return event
            case Progress():
                return None if self._is_behind else event
        return event

    def _new_audio(self, chunk: AudioChunk) -> AudioChunk | None:
        num_known = self._num_samples - chunk.first_sample_index
        samples = chunk.waveform.samples[:, max(0, num_known) :]
        if not samples.shape[1]:
            return None
        self._is_behind = False
        self._num_samples += samples.shape[1]
        self._digest.update(np.ascontiguousarray(samples.T, "<f4").tobytes())
        if num_known <= 0:
            return chunk
        waveform = Waveform(samples, chunk.waveform.sample_rate_hz)
        return replace(chunk, waveform=waveform, first_sample_index=chunk.first_sample_index + num_known)

    def _check(self, receipt: Receipt) -> None:
        if self._was_lost and self._digest.hexdigest() != receipt.output_sha256:
            raise Conflict(
                "The connection was lost, and the music that came after does not go on what came before: a model may "
                "have been replaced. Send the request again.",
                reason="MODEL_CHANGED",
            )
