"""`Tokenizing`: tokenizers by name, one model thread each; audio of any length to tokens, window by window.

Legend: N windows, S samples, T frames.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_shared.audio import Waveform
from stretto_shared.dsp.audio_windows import AudioWindows, Window
from stretto_shared.engine.shared_windows import SharedWindows
from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import NotFound, NotReady, Overloaded
from stretto_shared.features import ModelInfo
from stretto_shared.nn.threads import use_threads
from stretto_shared.tokens import TokenMatrix

from stretto_semantic.loading import LoadedTokenizer

MIN_RETRY_AFTER_S = 0.1


@dataclass(frozen=True, eq=False)
class TokenizedWindow:
    """Tokens [1, T] of consecutive frames, where in the audio they begin, and the tokenizer that made them."""

    tokens: TokenMatrix
    first_frame_index: int
    model: ModelInfo


class Meter(Protocol):
    """Where the engine reports what only it knows; called from any thread."""

    def watch_waiting(self, count_waiting: Callable[[], int]) -> None:
        """Whom to ask how many requests wait for a model thread; asked from any thread."""

    def observe_queue_wait(self, wait_s: float) -> None:
        """How long the first window of a stream waited for its turn on the model thread."""

    def observe_rtf(self, real_time_factor: float) -> None:
        """How much work one second of audio took."""


def hear_tokens(tokenizer: LoadedTokenizer, windows: Sequence[Window]) -> list[NDArray[np.int32]]:
    """The tokens [T] of the frames that each of some windows of one length wants."""
    samples = torch.from_numpy(np.stack([window.samples for window in windows]))  # [N, S]
    ids = tokenizer.tokenize(samples, [window.silence for window in windows]).numpy().astype(np.int32)
    return [
        row[window.num_before : window.num_before + window.num_frames].copy()
        for window, row in zip(windows, ids, strict=True)
    ]


class Tokenizing:
    """Serves tokenizers by name.

    Invariant: the same audio gives the same tokens, however it is cut into messages and whatever streams run beside it,
    and torch runs on model threads only; `tests/services/semantic/test_tokenize_audio.py` and `test_shared_windows.py`
    hold it to that. Before `start` returns and after `stop` every call fails with NotReady.

    Args:
        loaders: Name to a function that loads the tokenizer; the first is the default one. There may be none.
        max_requests: Streams that one tokenizer serves at once.
        num_threads: CPU threads inside one operation; 0 leaves the choice to torch.
        meter: Gets the numbers that only the engine knows.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], LoadedTokenizer]],
        *,
        max_requests: int = 64,
        num_threads: int = 0,
        meter: Meter | None = None,
    ) -> None:
        self._loaders = dict(loaders)
        self._max_requests = max_requests
        self._num_threads = num_threads
        self._meter = meter
        # A stream waits for one call at a time, so an accepted one always finds room.
        self._threads = {name: ModelThread(name, max_queued=max_requests) for name in loaders}
        self._num_requests = dict.fromkeys(loaders, 0)
        self._passes: dict[str, SharedWindows[NDArray[np.int32]]] = {}
        self._tokenizers: dict[str, LoadedTokenizer] | None = None
        if meter is not None:
            meter.watch_waiting(self.count_waiting)

    async def start(self) -> None:
        """Load every tokenizer on its own thread.

        Raises:
            StrettoError: What the loading of one raised.
        """
        names = list(self._loaders)
        loaded = await asyncio.gather(*(self._threads[name].run(partial(self._load, name)) for name in names))
        self._passes = {name: self._passes_of(tokenizer) for name, tokenizer in zip(names, loaded, strict=True)}
        self._tokenizers = dict(zip(names, loaded, strict=True))

    async def stop(self) -> None:
        """Fail what waits and end the threads."""
        self._tokenizers = None
        await asyncio.gather(*(thread.close() for thread in self._threads.values()))

    def names(self) -> list[str]:
        """The tokenizers that this engine serves, also while they load."""
        return sorted(self._loaders)

    def list_models(self) -> list[ModelInfo]:
        """The tokenizers, sorted by name."""
        tokenizers = self._ready()
        return [tokenizers[name].info for name in sorted(tokenizers)]

    async def tokenize(self, model: str, audio: AsyncIterator[Waveform]) -> AsyncGenerator[TokenizedWindow, None]:
        """Tokens of consecutive audio, window by window, while more of it arrives.

        Takes the next message only when the audio at hand does not fill a window, so that a fast sender waits.

        Args:
            model: The tokenizer; empty takes the default one.
            audio: Messages of at least one sample, all of one rate and as many channels; at least one message.

        Raises:
            InvalidInput: If there is no audio, its rate or channels change, or it is too loud.
            NotFound: If there is no such tokenizer.
            Overloaded: If the tokenizer serves `max_requests` already.
        """
        tokenizer = self._find(model)
        with self._admitted(tokenizer):
            windows = AudioWindows(tokenizer.grid, tokenizer.sample_rate_hz)
            async for waveform in audio:
                await asyncio.to_thread(windows.add, waveform)
                async for tokenized in self._take_all(tokenizer, windows):
                    yield tokenized
            await asyncio.to_thread(windows.end)
            async for tokenized in self._take_all(tokenizer, windows):
                yield tokenized

    async def _take_all(
        self, tokenizer: LoadedTokenizer, windows: AudioWindows
    ) -> AsyncGenerator[TokenizedWindow, None]:
        """The tokens of every window that is whole."""
        passes, info = self._passes[tokenizer.info.name], tokenizer.info
        while (window := await asyncio.to_thread(windows.take)) is not None:
            is_first = window.first_frame == 0
            ids = await passes.hear(window, partial(self._observe_wait, time.perf_counter()) if is_first else None)
            tokens = TokenMatrix(ids[None], tokenizer.frame_rate_hz, info.model_id)
            yield TokenizedWindow(tokens, window.first_frame, info)

    def _passes_of(self, tokenizer: LoadedTokenizer) -> SharedWindows[NDArray[np.int32]]:
        thread, observe_pass = self._threads[tokenizer.info.name], partial(self._observe_pass, tokenizer.frame_rate_hz)
        return SharedWindows(thread, tokenizer.max_joined, partial(hear_tokens, tokenizer), observe_pass)

    def _observe_pass(self, frame_rate_hz: float, tokens: Sequence[NDArray[np.int32]], taken_s: float) -> None:
        """Report, for each window of a pass, the pass's time for a second of its audio."""
        if self._meter is not None:
            for _ in tokens:
                self._meter.observe_rtf(taken_s * frame_rate_hz / sum(own.size for own in tokens))

    def _observe_wait(self, queued_s: float) -> None:
        """Report the wait of a stream: that of its first window, which is counted even if nobody takes its tokens."""
        if self._meter is not None:
            self._meter.observe_queue_wait(time.perf_counter() - queued_s)

    def count_waiting(self) -> int:
        """Count the requests that wait for a model thread."""
        return sum(thread.num_queued for thread in self._threads.values())

    def _load(self, name: str) -> LoadedTokenizer:
        use_threads(self._num_threads)
        return self._loaders[name]()

    def _ready(self) -> dict[str, LoadedTokenizer]:
        if self._tokenizers is None:
            raise NotReady("The semantic service has not loaded its tokenizers, or is stopping. Retry shortly.")
        return self._tokenizers

    def _find(self, model: str) -> LoadedTokenizer:
        tokenizers = self._ready()
        if not tokenizers:
            raise NotFound("config.model", "this server has no tokenizer. Add one to STRETTO_SEMANTIC_MODELS.")
        name = model or next(iter(tokenizers))
        if name not in tokenizers:
            raise NotFound(
                "config.model", f"expected one of {', '.join(sorted(tokenizers))}, got {model!r}. Choose one."
            )
        return tokenizers[name]

    @contextmanager
    def _admitted(self, tokenizer: LoadedTokenizer) -> Iterator[None]:
        """Count a stream for as long as it is served."""
        name = tokenizer.info.name
        if self._num_requests[name] >= self._max_requests:
            raise Overloaded(
                f"Tokenizer {name!r} serves {self._num_requests[name]} streams, which is its limit. Retry later.",
                retry_after_s=max(MIN_RETRY_AFTER_S, self._threads[name].estimated_wait_s),
            )
        self._num_requests[name] += 1
        try:
            yield
        finally:
            self._num_requests[name] -= 1
