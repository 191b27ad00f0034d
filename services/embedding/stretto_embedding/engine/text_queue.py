"""Texts of one encoder on their way to its model thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from stretto_shared.engine.batcher import DynamicBatcher
from stretto_shared.engine.thread import ModelThread

from stretto_embedding.engine.limits import MAX_TEXTS, Limits
from stretto_embedding.loading import TextTokenizer, check_length

Result = TypeVar("Result")


@dataclass(frozen=True)
class _QueuedText:
    ids: Sequence[int]
    queued_at_s: float


class TextQueue(Generic[Result]):
    """Tokenizes texts beside the event loop and encodes them on the model thread, several in one visit.

    Invariant: a text's result does not depend on its neighbours, for `encode` gets one text at a time.

    Args:
        thread: Where `encode` runs.
        tokenizer: The encoder, as far as tokens go.
        encode: Token ids of one text to its result.
        limits: How many texts may visit the thread at once, and wait.
        observe_wait: Told when a text was queued, when its work starts.
    """

    def __init__(
        self,
        thread: ModelThread,
        tokenizer: TextTokenizer,
        encode: Callable[[Sequence[int]], Result],
        limits: Limits,
        observe_wait: Callable[[float], None],
    ) -> None:
        self._thread = thread
        self._tokenizer = tokenizer
        self._encode = encode
        self._observe_wait = observe_wait
        self._max_batch_size = limits.max_batch_size
        self._batcher = DynamicBatcher(
            thread,
            self._run_batch,
            max_batch_size=limits.max_batch_size,
            max_wait_s=limits.max_wait_s,
            max_queued=limits.max_queued,
        )

    @property
    def num_queued(self) -> int:
        """How many texts wait for a batch."""
        return self._batcher.num_queued

    async def encode(self, texts: Sequence[str], fields: Sequence[str]) -> list[Result]:
        """The result of each text, in order.

        Args:
            texts: Any number; no more than 64 wait at once.
            fields: What a failure calls each of them.

        Raises:
            InvalidInput: If a text has more tokens than the encoder hears.
            Overloaded: If there is no room for them in the queue.
        """
        rows = await asyncio.to_thread(self._tokenize, texts, fields)
        results: list[Result] = []
        for start in range(0, len(rows), MAX_TEXTS):
            results += await self._encode_rows(rows[start : start + MAX_TEXTS])
        return results

    async def encode_in_turns(self, texts: Sequence[str], fields: Sequence[str]) -> list[Result]:
        """As `encode`, in turns of the caller's own on the thread: for who was admitted, and may not be refused again.

        The caller holds at most one place in the thread's queue; others have their turns between these.

        Raises:
            InvalidInput: If a text has more tokens than the encoder hears.
        """
        rows = await asyncio.to_thread(self._tokenize, texts, fields)
        now_s = time.monotonic()
        queued = [_QueuedText(ids, now_s) for ids in rows]
        results: list[Result] = []
        for start in range(0, len(queued), self._max_batch_size):
            part = queued[start : start + self._max_batch_size]
            results += await self._thread.run(partial(self._run_batch, part))
        return results

    async def close(self) -> None:
        """Fail what waits."""
        await self._batcher.close()

    def _tokenize(self, texts: Sequence[str], fields: Sequence[str]) -> list[list[int]]:
        rows = [self._tokenizer.tokenize(text) for text in texts]
        for ids, field in zip(rows, fields, strict=True):
            check_length(self._tokenizer, ids, field)
        return rows

    async def _encode_rows(self, rows: Sequence[Sequence[int]]) -> list[Result]:
        now_s = time.monotonic()
        tasks = [asyncio.create_task(self._batcher.submit(_QueuedText(ids, now_s))) for ids in rows]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    def _run_batch(self, batch: Sequence[_QueuedText]) -> list[Result]:
        for text in batch:
            self._observe_wait(text.queued_at_s)
        return [self._encode(text.ids) for text in batch]
