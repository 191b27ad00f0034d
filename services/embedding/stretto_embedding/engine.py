"""Texts and melodies in, states and chromagrams out. Knows nothing of protobuf and grpc.

Each encoder has a model thread and a batcher; the melody extractor has a thread of its own, so that a long melody does
not hold up a prompt.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stretto_shared.audio import Waveform
from stretto_shared.dsp.chroma import extract_chroma
from stretto_shared.engine.batcher import DynamicBatcher
from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import InvalidInput, NotFound, NotReady
from stretto_shared.features import Chromagram, ModelInfo, TextStates

from stretto_embedding.loading import TextEncoder

MAX_TEXTS = 64
MAX_TEXT_CHARACTERS = 2_000
MIN_MELODY_S = 0.1
MAX_MELODY_S = 60.0


class StageMeter(Protocol):
    """Who counts what this stage does."""

    def watch_waiting(self, count_waiting: Callable[[], int]) -> None:
        """Tell whom to ask how many texts and melodies wait; asked from any thread."""

    def observe_queue_wait(self, wait_s: float) -> None:
        """Tell how long one text or melody waited for its work to start."""


@dataclass(frozen=True)
class _QueuedText:
    ids: Sequence[int]
    queued_at_s: float


@dataclass(frozen=True, eq=False)
class _Served:
    encoder: TextEncoder
    batcher: DynamicBatcher[_QueuedText, TextStates]


class EmbeddingEngine:
    """Serves text encoders by name, and the melody extractor.

    Invariant: before `start` returns and after `stop` every call fails with NotReady; torch runs on model threads only.

    Args:
        loaders: Name to a function that loads the encoder; the first is the default one.
        max_batch_size: Texts in one visit to a model thread.
        max_wait_s: How long the first text waits for company.
        max_queued: Texts that may wait for one encoder, and melodies for the extractor.
        meter: Who counts what the engine does; None counts nothing.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], TextEncoder]],
        *,
        max_batch_size: int = 16,
        max_wait_s: float = 0.002,
        max_queued: int = 256,
        meter: StageMeter | None = None,
    ) -> None:
        self._meter = meter
        self._loaders = dict(loaders)
        self._max_batch_size = max_batch_size
        self._max_wait_s = max_wait_s
        self._max_queued = max_queued
        self._threads = {name: ModelThread(name, max_queued=max_queued) for name in loaders}
        self._melody_thread = ModelThread("melody", max_queued=max_queued)
        self._served: dict[str, _Served] = {}
        if meter is not None:
            meter.watch_waiting(self._count_waiting)

    async def start(self) -> None:
        """Load every encoder on its own thread."""
        names = list(self._loaders)
        encoders = await asyncio.gather(*(self._threads[name].run(self._loaders[name]) for name in names))
        for name, encoder in zip(names, encoders, strict=True):
            self._served[name] = _Served(encoder, self._batcher(name, encoder))

    async def stop(self) -> None:
        """Fail what waits and end the threads."""
        served, self._served = self._served, {}
        for each in served.values():
            await each.batcher.close()
        for thread in (*self._threads.values(), self._melody_thread):
            await thread.close()

    async def embed_text(self, model: str, texts: Sequence[str]) -> tuple[list[TextStates], ModelInfo]:
        """States of 1 to 64 texts in order, and the encoder that made them.

        Raises:
            InvalidInput: On too many, empty or too long texts.
            NotFound: If there is no such encoder.
        """
        served = self._find(model)
        if not 1 <= len(texts) <= MAX_TEXTS:
            raise InvalidInput("texts", f"expected 1 to {MAX_TEXTS} texts, got {len(texts)}. Split the request.")
        for index, text in enumerate(texts):
            if not 1 <= len(text) <= MAX_TEXT_CHARACTERS or not text.strip():
                raise InvalidInput(
                    f"texts[{index}]",
                    f"expected 1 to {MAX_TEXT_CHARACTERS} characters that are not all blank, got {len(text)}. "
                    "Describe the music in words.",
                )
        ids = await asyncio.to_thread(served.encoder.tokenize_all, list(texts))
        now_s = time.monotonic()
        tasks = [asyncio.create_task(served.batcher.submit(_QueuedText(each, now_s))) for each in ids]
        try:
            return list(await asyncio.gather(*tasks)), served.encoder.info
        finally:
            for task in tasks:
                task.cancel()

    async def embed_melody(self, waveform: Waveform) -> Chromagram:
        """The loudest pitch class over time of 0.1 s to 60 s of audio.

        Raises:
            InvalidInput: On any other duration.
        """
        if not MIN_MELODY_S <= waveform.duration_s <= MAX_MELODY_S:
            raise InvalidInput(
                "waveform",
                f"expected {MIN_MELODY_S:g} to {MAX_MELODY_S:g} s of melody, got {waveform.duration_s:.3f} s. Cut it.",
            )
        queued_at_s = time.monotonic()

        def work() -> Chromagram:
            self._observe_wait(queued_at_s)
            return extract_chroma(waveform)

        return await self._melody_thread.run(work)

    def list_models(self) -> list[ModelInfo]:
        """The encoders, sorted by name."""
        self._check_ready()
        return [self._served[name].encoder.info for name in sorted(self._served)]

    def _find(self, model: str) -> _Served:
        self._check_ready()
        name = model or next(iter(self._loaders))
        if name not in self._served:
            raise NotFound("model", f"expected one of {', '.join(sorted(self._served))}, got {model!r}. Choose one.")
        return self._served[name]

    def _check_ready(self) -> None:
        if not self._served:
            raise NotReady("The embedding service has not loaded its encoders, or is stopping. Retry shortly.")

    def _observe_wait(self, queued_at_s: float) -> None:
        if self._meter is not None:
            self._meter.observe_queue_wait(time.monotonic() - queued_at_s)

    def _count_waiting(self) -> int:
        num_texts = sum(served.batcher.num_queued for served in list(self._served.values()))
        return num_texts + self._melody_thread.num_queued

    def _batcher(self, name: str, encoder: TextEncoder) -> DynamicBatcher[_QueuedText, TextStates]:
        def run_batch(batch: Sequence[_QueuedText]) -> list[TextStates]:
            for text in batch:
                self._observe_wait(text.queued_at_s)
            return [encoder.encode_ids(text.ids) for text in batch]

        return DynamicBatcher(
            self._threads[name],
            run_batch,
            max_batch_size=self._max_batch_size,
            max_wait_s=self._max_wait_s,
            max_queued=self._max_queued,
        )
