"""`CodecEngine`: codecs by name, one model thread each.

A stream decodes one chunk of the codec's fixed grid at a time, together with streams that wait at the same moment
(`shared_steps.py`), and a clip is encoded one window at a time, so that requests take turns on the thread, and a
cancelled one leaves it after the piece that runs. Every stream is served as if somebody listened to it from its first
audio on: who would run dry first goes first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from stretto_shared.audio import Waveform
from stretto_shared.engine.clock import PlayClock
from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import InvalidInput, NotFound, NotReady, Overloaded
from stretto_shared.features import ModelInfo
from stretto_shared.nn.threads import use_threads
from stretto_shared.tokens import MAX_CHUNK_SCALE, TokenMatrix

from stretto_codec.engine.encoding import Encoded, encode_work, join
from stretto_codec.engine.frames import Chunk, FrameBuffer
from stretto_codec.engine.shared_steps import SharedSteps
from stretto_codec.loading import LoadedCodec

MAX_ENCODE_S = 600.0
MIN_RETRY_AFTER_S = 0.1
FIRST_AUDIO_TARGET_S = 0.4
"""When a stream's first chunk is due: after those whose listeners would wait in silence."""
UNHEARD_UNDERRUN_S = 1.0
"""A stream whose listener would have stood still for so long has none who listens as it comes."""
PATIENCE_SHARE = 0.7
"""What a stream may wait for company, of the time between its chunks: it stays as fast as its tokens are."""
MAX_PATIENCE_S = 0.6
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class EncodedClip:
    """A clip's tokens, the codec that made them, and the clip's length at the codec's own rate."""

    tokens: TokenMatrix
    model: ModelInfo
    num_samples: int


@dataclass(frozen=True, eq=False)
class DecodedChunk:
    """One chunk of audio, where in the clip it begins, and the codec that made it."""

    waveform: Waveform
    first_sample_index: int
    model: ModelInfo


class Meter(Protocol):
    """Where the engine reports what only it knows; called from any thread."""

    def watch_waiting(self, count_waiting: Callable[[], int]) -> None:
        """Whom to ask how many requests wait for a model thread; asked from any thread."""

    def observe_queue_wait(self, wait_s: float) -> None:
        """How long a request waited for its first turn on the model thread."""

    def observe_first_audio(self, latency_s: float) -> None:
        """How long a stream took from the frames of its first chunk to its first audio."""

    def observe_rtf(self, real_time_factor: float) -> None:
        """How much work one second of audio took."""


class CodecEngine:
    """Serves codecs by name.

    Invariant: the same tokens give the same samples, however they are cut into messages and whatever streams run beside
    them, and torch runs on model threads only; `tests/services/codec/test_codec_service.py` and `test_shared_steps.py`
    hold it to that. Before `start` returns and after
    `stop` every call fails with NotReady.

    Args:
        loaders: Name to a function that loads the codec; the first is the default one.
        max_requests: Requests that one codec serves at once.
        num_threads: CPU threads inside one operation; 0 leaves the choice to torch.
        meter: Gets the numbers that only the engine knows.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], LoadedCodec]],
        *,
        max_requests: int = 64,
        num_threads: int = 0,
        meter: Meter | None = None,
    ) -> None:
        self._loaders = dict(loaders)
        self._max_requests = max_requests
        self._num_threads = num_threads
        self._meter = meter
        # A request waits for one call at a time, so an accepted one always finds room.
        self._threads = {name: ModelThread(name, max_queued=max_requests) for name in loaders}
        self._num_requests = dict.fromkeys(loaders, 0)
        self._num_streams = dict.fromkeys(loaders, 0)
        self._codecs: dict[str, LoadedCodec] = {}
        self._steps: dict[str, SharedSteps] = {}
        if meter is not None:
            meter.watch_waiting(self._count_waiting)

    async def start(self) -> None:
        """Load every codec on its own thread.

        Raises:
            StrettoError: What the loading of a codec raised.
        """
        names = list(self._loaders)
        codecs = await asyncio.gather(*(self._threads[name].run(partial(self._load, name)) for name in names))
        self._codecs = dict(zip(names, codecs, strict=True))
        observe_rtf = None if self._meter is None else self._meter.observe_rtf
        self._steps = {
            name: SharedSteps(
                self._codecs[name], self._threads[name], observe_rtf, partial(self._num_streams.__getitem__, name)
            )
            for name in names
        }

    async def stop(self) -> None:
        """Fail what waits and end the threads."""
        self._codecs = {}
        await asyncio.gather(*(thread.close() for thread in self._threads.values()))

    def list_models(self) -> list[ModelInfo]:
        """The codecs, sorted by name."""
        self._check_ready()
        return [self._codecs[name].info for name in sorted(self._codecs)]

    async def encode(self, model: str, waveform: Waveform, num_codebooks: int = 0) -> EncodedClip:
        """Encode a clip of up to ten minutes, converted to the codec's rate and channels.

        Args:
            model: The codec; empty takes the default one.
            waveform: At least one sample.
            num_codebooks: Codebooks to keep, coarsest first; 0 keeps all.

        Raises:
            InvalidInput: On a clip or a count outside its range, or a clip too loud for a codec that normalises.
            NotFound: If there is no such codec.
            Overloaded: If the codec serves `max_requests` already.
        """
        arrived_s = time.perf_counter()
        codec = self._find(model, "model")
        if not 0 <= num_codebooks <= codec.config.num_codebooks:
            raise InvalidInput(
                "codebook_count",
                f"expected 1 to {codec.config.num_codebooks}, or 0 for all, for codec {codec.info.name!r}, "
                f"got {num_codebooks}.",
            )
        if waveform.num_samples == 0 or waveform.duration_s > MAX_ENCODE_S:
            raise InvalidInput(
                "waveform",
                f"expected more than 0 and at most {MAX_ENCODE_S:g} s of audio, got {waveform.duration_s:g} s. "
                "Send a longer clip in parts.",
            )
        thread = self._thread(codec)
        with self._admitted(codec):
            first = partial(_encode_works, codec, waveform)
            works, num_samples = await thread.run(partial(self._started, arrived_s, first))
            parts = [await thread.run(work) for work in works]
            return await thread.run(partial(_to_clip, codec, parts, num_codebooks, num_samples))

    async def decode(self, model: str, tokens: AsyncIterator[TokenMatrix]) -> AsyncGenerator[DecodedChunk, None]:
        """Decode consecutive runs of frames, chunk by chunk, while more of them arrive.

        Takes the next run only when the frames at hand do not fill a chunk, so that a fast sender waits.

        Args:
            model: The codec; empty takes the default one.
            tokens: Runs of at least one frame, all with as many codebooks; at least one run.

        Raises:
            InvalidInput: If the tokens are not of this codec.
            Conflict: If the number of codebooks changes.
            NotFound: If there is no such codec.
            Overloaded: If the codec serves `max_requests` already.
        """
        arrived_s = time.perf_counter()
        codec = self._find(model, "config.model")
        thread = self._thread(codec)
        with self._admitted(codec), self._streaming(codec) as steps:
            clip = await thread.run(partial(self._started, arrived_s, codec.open_decoder), is_next=True)
            next_sample, num_frames, began_s = 0, 0, 0.0
            clock, came_s = PlayClock(codec.config.sample_rate_hz), time.perf_counter()
            async for chunk in _chunks(codec, tokens):
                if chunk is not None:
                    num_frames += chunk.codes.shape[1]
                    began_s = began_s if chunk.index else time.perf_counter()
                due_s = clock.runs_out_s if clock.has_started else began_s + FIRST_AUDIO_TARGET_S
                came_s, before_s = time.perf_counter(), came_s
                patience_s = self._patience_s(codec, clock, came_s - before_s)
                if chunk is None:
                    is_under_way = num_frames >= codec.grid.size(0)
                    waveform = await steps.finish(clip, is_under_way=is_under_way, due_s=due_s)
                else:
                    waveform = await steps.step(clip, chunk, due_s=due_s, patience_s=patience_s)
                if waveform is None:
                    continue
                clock.deliver(time.perf_counter(), waveform.num_samples)
                if next_sample == 0 and self._meter is not None:
                    self._meter.observe_first_audio(time.perf_counter() - began_s)
                yield DecodedChunk(waveform, next_sample, codec.info)
                next_sample += waveform.num_samples

    def _patience_s(self, codec: LoadedCodec, clock: PlayClock, apart_s: float) -> float:
        """How long a chunk may wait for company that comes so long after the one before it.

        None of a stream that a listener may hear as it comes, or that is alone. One that has stood still for longer
        than any that is paced in real time is made as fast as its tokens come, which is slowly: so it has the time.
        """
        if self._num_streams[codec.info.name] < 2 or clock.underrun_s < UNHEARD_UNDERRUN_S:
            return 0.0
        return min(MAX_PATIENCE_S, PATIENCE_SHARE * apart_s)

    def _started(self, arrived_s: float, work: Callable[[], T]) -> T:
        """Do a request's first piece of work on the model thread and report how long it waited for it."""
        if self._meter is not None:
            self._meter.observe_queue_wait(time.perf_counter() - arrived_s)
        return work()

    def _count_waiting(self) -> int:
        return sum(thread.num_queued for thread in self._threads.values())

    def _load(self, name: str) -> LoadedCodec:
        use_threads(self._num_threads)
        return self._loaders[name]()

    def _find(self, model: str, field: str) -> LoadedCodec:
        self._check_ready()
        name = model or next(iter(self._loaders))
        if name not in self._codecs:
            raise NotFound(field, f"expected one of {', '.join(sorted(self._codecs))}, got {model!r}. Choose one.")
        return self._codecs[name]

    def _check_ready(self) -> None:
        if not self._codecs:
            raise NotReady("The codec service has not loaded its codecs, or is stopping. Retry shortly.")

    def _thread(self, codec: LoadedCodec) -> ModelThread:
        return self._threads[codec.info.name]

    @contextmanager
    def _admitted(self, codec: LoadedCodec) -> Iterator[None]:
        """Count a request for as long as it is served."""
        name = codec.info.name
        if self._num_requests[name] >= self._max_requests:
            raise Overloaded(
                f"Codec {name!r} serves {self._num_requests[name]} requests, which is its limit. Retry later.",
                retry_after_s=max(MIN_RETRY_AFTER_S, self._thread(codec).estimated_wait_s),
            )
        self._num_requests[name] += 1
        try:
            yield
        finally:
            self._num_requests[name] -= 1

    @contextmanager
    def _streaming(self, codec: LoadedCodec) -> Iterator[SharedSteps]:
        """Count a stream for as long as it may want chunks."""
        name = codec.info.name
        steps = self._steps[name]
        self._num_streams[name] += 1
        try:
            yield steps
        finally:
            self._num_streams[name] -= 1
            steps.look_who_is_here()


async def _chunks(codec: LoadedCodec, tokens: AsyncIterator[TokenMatrix]) -> AsyncGenerator[Chunk | None, None]:
    """Each chunk as soon as its frames are there, and None at the end."""
    frames = FrameBuffer(codec.info, codec.config.cardinality, codec.grid, tokens_id=codec.tokens_id)
    async for run in tokens:
        frames.add(run)
        while (chunk := frames.take(at_end=False)) is not None:
            yield chunk
    while (chunk := frames.take(at_end=True)) is not None:
        yield chunk
    yield None


def _encode_works(codec: LoadedCodec, waveform: Waveform) -> tuple[list[Callable[[], Encoded]], int]:
    """What the model thread has to do for a clip, and the clip's samples at the codec's own rate."""
    config = codec.config
    samples = _with_channels(waveform.samples, config.num_channels)
    if waveform.sample_rate_hz != config.sample_rate_hz:
        samples = soxr.resample(samples.T, waveform.sample_rate_hz, config.sample_rate_hz).T
    if samples.shape[1] == 0:
        raise InvalidInput("waveform", f"expected at least one sample at {config.sample_rate_hz} Hz. Send more audio.")
    return list(encode_work(codec, torch.tensor(samples, dtype=torch.float32)[None])), int(samples.shape[1])


def _to_clip(codec: LoadedCodec, parts: list[Encoded], num_codebooks: int, num_samples: int) -> EncodedClip:
    codes, scales = join(parts)
    if not bool((scales <= MAX_CHUNK_SCALE).all()):
        raise InvalidInput(
            "waveform",
            f"expected a root mean square of at most {MAX_CHUNK_SCALE:g} times full scale for codec "
            f"{codec.info.name!r}, got {float(scales.max()):g}. Scale the samples to [-1, 1].",
        )
    kept = codes[0, : num_codebooks or codec.config.num_codebooks].numpy().astype(np.int32)
    tokens = TokenMatrix(kept, codec.config.frame_rate_hz, codec.tokens_id, tuple(scales[0].tolist()))
    return EncodedClip(tokens, codec.info, num_samples)


def _with_channels(samples: NDArray[np.float32], num_channels: int) -> NDArray[np.float32]:
    """[C, S] to [num_channels, S]: the mean of the channels, or the one channel twice."""
    if samples.shape[0] == num_channels:
        return samples
    if num_channels == 1:
        mono: NDArray[np.float32] = np.mean(samples, axis=0, keepdims=True, dtype=np.float32)
        return mono
    return np.repeat(samples, num_channels, axis=0)
