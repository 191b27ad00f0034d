"""One joint encoder at work: texts in batches, recordings window by window, and what follows from their cosines.

A request with a recording waits for one window at a time, so that texts and other recordings take turns with it, and a
cancelled one leaves the model thread after the window that runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from stretto_shared.audio import Waveform
from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import InvalidInput, Overloaded
from stretto_shared.features import JointEmbedding, ModelInfo

from stretto_embedding.engine.limits import (
    MAX_CANDIDATES,
    MAX_POINTS,
    MAX_TAG_CHARACTERS,
    MAX_TAGS,
    Limits,
    check_count,
    check_recordings,
    check_text,
)
from stretto_embedding.engine.listening import cut_windows
from stretto_embedding.engine.text_queue import TextQueue
from stretto_embedding.engine.values import EmbeddedAudio, RankedAudio, ScoredTag
from stretto_embedding.loading import JointEncoder

MIN_RETRY_AFTER_S = 0.1
POINTS_PER_VISIT = 64
_Result = TypeVar("_Result")


class JointLane:
    """Serves one joint encoder on its model thread.

    Invariant: a text, a recording and a point give the same values alone and beside others; at most
    `limits.max_requests` requests other than plain texts are served at once, and one that was accepted is not refused
    later for want of room on the thread (`tests/services/embedding/test_joint_lane.py`).

    Args:
        encoder: The encoder.
        thread: Its thread, whose queue holds a batch of texts and a call of each request.
        limits: How much it takes at once.
        observe_wait: Told when a piece of work was queued, when it starts.
    """

    def __init__(
        self, encoder: JointEncoder, thread: ModelThread, limits: Limits, observe_wait: Callable[[float], None]
    ) -> None:
        self._encoder = encoder
        self._thread = thread
        self._limits = limits
        self._observe_wait = observe_wait
        self._texts = TextQueue(thread, encoder, self._embed_ids, limits, observe_wait)
        self._default_tags: list[JointEmbedding] | None = None
        self._default_tags_lock = asyncio.Lock()
        self._num_requests = 0

    @property
    def info(self) -> ModelInfo:
        """What the service says of the encoder."""
        return self._encoder.info

    @property
    def num_queued(self) -> int:
        """Texts that wait for a batch, and calls that wait for the thread."""
        return self._texts.num_queued + self._thread.num_queued

    async def close(self) -> None:
        """Fail the texts that wait."""
        await self._texts.close()

    async def embed_texts(self, texts: Sequence[str], fields: Sequence[str]) -> list[JointEmbedding]:
        """Each text as a point; `fields` is what a failure calls them."""
        return await self._texts.encode(texts, fields)

    async def embed_audio(self, waveform: Waveform) -> EmbeddedAudio:
        """A recording of 0.1 s to ten minutes: its windows, and their mean."""
        await check_recordings({"waveform": waveform})
        encoder = self._encoder
        with self._admitted():
            windows = await self._embed_windows(waveform)
            whole = await self._thread.run(partial(self._point, _mean(windows)))
        rate_hz = encoder.sample_rate_hz
        return EmbeddedAudio(
            whole, tuple(windows), encoder.window_samples / rate_hz, encoder.stride_samples / rate_hz, self.info
        )

    async def rank(self, query: str | Waveform, candidates: Sequence[Waveform]) -> list[RankedAudio]:
        """Recordings by their cosine to a text or another recording, best first."""
        check_count(len(candidates), "candidates", MAX_CANDIDATES)
        recordings = {f"candidates[{index}]": candidate for index, candidate in enumerate(candidates)}
        if isinstance(query, str):
            check_text(query, "text")
        else:
            recordings = {"reference": query} | recordings
        await check_recordings(recordings)
        with self._admitted():
            if isinstance(query, str):
                [wanted] = await self._texts.encode_in_turns([query], ["text"])
            else:
                wanted = await self._embed_whole(query)
            similarities = [wanted.similarity(await self._embed_whole(each)) for each in candidates]
        return [RankedAudio(index, similarities[index]) for index in _best_first(similarities)]

    async def tag(self, waveform: Waveform, tags: Sequence[str]) -> list[ScoredTag]:
        """Every tag with its cosine to a recording, best first; no tags takes the encoder's own."""
        if tags:
            check_count(len(tags), "tags", MAX_TAGS)
        for index, each in enumerate(tags):
            check_text(each, f"tags[{index}]", MAX_TAG_CHARACTERS)
        if not tags and not self._encoder.default_tags:
            raise InvalidInput(
                "tags", f"expected some, for encoder {self.info.name!r} has no list of its own. Send them."
            )
        await check_recordings({"waveform": waveform})
        with self._admitted():
            points = await self._embed_tags(tags)
            whole = await self._embed_whole(waveform)
        similarities = [whole.similarity(point) for point in points]
        shares = _softmax(np.array(similarities) / self._encoder.temperature)
        names = tags or self._encoder.default_tags
        return [
            ScoredTag(names[index], similarities[index], float(shares[index])) for index in _best_first(similarities)
        ]

    async def quantize(self, points: Sequence[JointEmbedding]) -> list[JointEmbedding]:
        """The same points with their codes."""
        check_count(len(points), "embeddings", MAX_POINTS)
        if self.info.num_codebooks == 0:
            raise InvalidInput("model", f"expected an encoder with a quantiser, and {self.info.name!r} has none.")
        for index, point in enumerate(points):
            self._check_point(point, f"embeddings[{index}]")
        coded: list[JointEmbedding] = []
        with self._admitted():
            for start in range(0, len(points), POINTS_PER_VISIT):
                part = points[start : start + POINTS_PER_VISIT]
                coded += await self._thread.run(partial(self._started, time.monotonic(), partial(self._code_all, part)))
        return coded

    def _check_point(self, point: JointEmbedding, field: str) -> None:
        if point.encoder_id != self.info.model_id:
            raise InvalidInput(
                f"{field}.encoder_id", f"expected a point of {self.info.model_id!r}, got one of {point.encoder_id!r}."
            )
        if point.values.shape[0] != self._encoder.dimension:
            raise InvalidInput(
                f"{field}.values", f"expected {self._encoder.dimension} floats, got {point.values.shape[0]}."
            )

    async def _embed_tags(self, tags: Sequence[str]) -> list[JointEmbedding]:
        """The tags as points; the encoder's own are embedded once, for they never change.

        Who asks for them first embeds them; the others wait, and the next one begins anew where the first gave up.
        """
        if tags:
            return await self._encode_tags(tags)
        async with self._default_tags_lock:
            if self._default_tags is None:
                self._default_tags = await self._encode_tags(self._encoder.default_tags)
            return self._default_tags

    async def _encode_tags(self, tags: Sequence[str]) -> list[JointEmbedding]:
        return await self._texts.encode_in_turns(tags, [f"tags[{index}]" for index in range(len(tags))])

    async def _embed_whole(self, waveform: Waveform) -> JointEmbedding:
        return self._bare(_mean(await self._embed_windows(waveform)))

    async def _embed_windows(self, waveform: Waveform) -> list[JointEmbedding]:
        encoder = self._encoder
        windows = cut_windows(waveform, encoder.sample_rate_hz, encoder.window_samples, encoder.stride_samples)
        work = partial(self._embed_next, windows)
        first = await self._thread.run(partial(self._started, time.monotonic(), work))
        assert first is not None  # 0.1 s are some samples at any rate
        embedded = [first]
        while (window := await self._thread.run(work)) is not None:
            embedded.append(window)
        return embedded

    def _embed_next(self, windows: Iterator[NDArray[np.float32]]) -> JointEmbedding | None:
        window = next(windows, None)
        return None if window is None else self._point(self._encoder.embed_window(window))

    def _embed_ids(self, ids: Sequence[int]) -> JointEmbedding:
        return self._point(self._encoder.embed_ids(ids))

    def _code_all(self, points: Sequence[JointEmbedding]) -> list[JointEmbedding]:
        return [self._point(point.values) for point in points]

    def _point(self, values: NDArray[np.float32]) -> JointEmbedding:
        """Values brought to unit length, with their codes."""
        bare = self._bare(values)
        return JointEmbedding(self.info.model_id, values, self._encoder.quantize(bare.values))

    def _bare(self, values: NDArray[np.float32]) -> JointEmbedding:
        """The encoder's values brought to unit length; it is broken if they have none, which is nobody's input."""
        try:
            return JointEmbedding(self.info.model_id, values)
        except InvalidInput as error:
            raise RuntimeError(f"encoder {self.info.model_id} gave values that are no point: {error}") from error

    def _started(self, queued_at_s: float, work: Callable[[], _Result]) -> _Result:
        """Do a request's first piece of work on the model thread, and report how long it waited for it."""
        self._observe_wait(queued_at_s)
        return work()

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        """Count a request for as long as it is served."""
        if self._num_requests >= self._limits.max_requests:
            raise Overloaded(
                f"Encoder {self.info.name!r} serves {self._num_requests} requests, which is its limit. Retry later.",
                retry_after_s=max(MIN_RETRY_AFTER_S, self._thread.estimated_wait_s),
            )
        self._num_requests += 1
        try:
            yield
        finally:
            self._num_requests -= 1


def _mean(windows: Sequence[JointEmbedding]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = np.mean([window.values for window in windows], axis=0, dtype=np.float32)
    return mean


def _best_first(similarities: Sequence[float]) -> list[int]:
    """Indices by falling similarity; of equals the earlier first."""
    return sorted(range(len(similarities)), key=lambda index: -similarities[index])


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max())
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares
