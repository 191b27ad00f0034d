"""`Delivery`: what one caller gets, as it gets it: the events on their way out, and the receipt of them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
from stretto_shared.audio import Waveform
from stretto_shared.features import ModelInfo, SamplingOptions

from stretto_orchestrator.clients import Pacing
from stretto_orchestrator.flows.events import AudioChunk, CascadeObserver, Progress, Receipt
from stretto_orchestrator.flows.listening import Listener
from stretto_orchestrator.flows.starting import Starts
from stretto_orchestrator.flows.story import PromptSpan


class Delivery:
    """One request from its beginning to its receipt.

    Args:
        observer: Who counts.
        cascade: The cascade's name.
        pacing: How the piece is paced.
        starts: When a piece for a listener begins.
    """

    def __init__(self, observer: CascadeObserver, *, cascade: str, pacing: Pacing, starts: Starts) -> None:
        self._observer = observer
        self._cascade = cascade
        self._starts = starts if pacing.is_realtime else None
        self._listener = Listener(observer.meter_of(cascade), is_realtime=pacing.is_realtime)
        self._began_s = time.monotonic()
        self._digest = hashlib.sha256()

    async def of(
        self, made: AsyncGenerator[Progress | AudioChunk, None]
    ) -> AsyncGenerator[Progress | AudioChunk, None]:
        """The events, heard and digested on their way out; closes them."""
        events = made if self._starts is None else self._starts.held(made)
        with self._listener as listener:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, AudioChunk):
                        listener.hear(event.waveform)
                        self._digest.update(_wire_bytes(event.waveform))
                    with listener.reading():
                        yield event

    def receipt(
        self,
        *,
        prompt: str,
        seed: int,
        duration_s: float,
        sampling: SamplingOptions,
        models: tuple[ModelInfo, ...],
        source: Waveform | None,
        num_resumes: int,
        story: tuple[PromptSpan, ...] = (),
        num_candidates: int = 1,
        similarity: float = 0.0,
    ) -> Receipt:
        """What made the music; tells the observer that it is finished. `source` is the melody or the recording."""
        total_s = time.monotonic() - self._began_s
        self._observer.observe_music(total_s / duration_s)
        return Receipt(
            cascade=self._cascade,
            prompt=prompt,
            seed=seed,
            duration_s=duration_s,
            sampling=sampling,
            models=models,
            input_sha256="" if source is None else hashlib.sha256(_wire_bytes(source)).hexdigest(),
            output_sha256=self._digest.hexdigest(),
            first_audio_latency_s=self._listener.first_audio_s,
            total_latency_s=total_s,
            num_resumes=num_resumes,
            story=story,
            num_candidates=num_candidates,
            similarity=similarity,
        )


def _wire_bytes(waveform: Waveform) -> bytes:
    """The samples as they travel: 32-bit little-endian floats, interleaved."""
    return np.ascontiguousarray(waveform.samples.T, dtype="<f4").tobytes()
