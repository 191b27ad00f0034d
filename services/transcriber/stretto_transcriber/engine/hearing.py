"""`Hearing`: models of one kind by name, one model thread each; audio of any length to frames, window by window.

Legend: N windows, S samples, T frames, P numbers that a model gives of each frame.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from stretto_shared.audio import Waveform
from stretto_shared.dsp.audio_windows import AudioWindows, Window
from stretto_shared.engine.shared_windows import SharedWindows
from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import InvalidInput, NotFound, NotReady, Overloaded
from stretto_shared.features import ModelInfo
from stretto_shared.nn.threads import use_threads

from stretto_transcriber.loading import LoadedListener

MIN_RETRY_AFTER_S = 0.1
L = TypeVar("L", bound=LoadedListener)


class Meter(Protocol):
    """Where the engine reports what only it knows; called from any thread."""

    def observe_queue_wait(self, wait_s: float) -> None:
        """How long a request waited for its first turn on the model thread."""

    def observe_rtf(self, real_time_factor: float) -> None:
        """How much work one second of audio took."""

    def observe_pass(self, num_windows: int) -> None:
        """How many windows shared a pass."""

    def count_audio(self, audio_s: float) -> None:
        """So much more audio was heard."""


class MeasuredAudio:
    """One stream's audio on its way in, and how long it has been so far.

    Args:
        audio: The messages.
        max_s: How long it may be in all.
    """

    def __init__(self, audio: AsyncIterator[Waveform], max_s: float) -> None:
        self._audio = audio
        self._max_s = max_s
        self._num_samples, self._rate_hz = 0, 1

    @property
    def duration_s(self) -> float:
        return self._num_samples / self._rate_hz

    async def messages(self) -> AsyncGenerator[Waveform, None]:
        """The messages as they came.

        Raises:
            InvalidInput: If they are longer than `max_s` in all.
        """
        async for waveform in self._audio:
            self._num_samples += waveform.num_samples
            self._rate_hz = waveform.sample_rate_hz  # of all messages: another rate is refused where they are joined
            if self.duration_s > self._max_s:
                raise InvalidInput(
                    "waveform",
                    f"expected at most {self._max_s:g} s in all, got {self.duration_s:.1f} s. Send it in parts.",
                )
            yield waveform


def hear_frames(loaded: LoadedListener, windows: Sequence[Window]) -> list[NDArray[np.float32]]:
    """What is heard in the frames [T, P] that each of some windows wants."""
    heard = loaded.hear(np.stack([window.samples for window in windows]))  # [N, S] to [N, T, P]
    return [row[: window.num_frames].copy() for window, row in zip(windows, heard, strict=True)]


class Hearing(Generic[L]):
    """Serves models of one kind by name.

    Invariant: the same audio gives the same frames, however it is cut into messages and whatever streams run beside it,
    and torch runs on model threads only; `tests/services/transcriber/test_transcribe_audio.py` and
    `test_shared_windows.py` hold it to that. Before `start` returns and after `stop` every call fails with NotReady.

    Args:
        loaders: Name to a function that loads the model; the first is the default one. There may be none.
        purpose: What the models do, in error messages.
        max_requests: Streams that one model serves at once.
        num_threads: CPU threads inside one operation; 0 leaves the choice to torch.
        meter: Gets the numbers that only the engine knows.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], L]],
        *,
        purpose: str,
        max_requests: int = 32,
        num_threads: int = 0,
        meter: Meter | None = None,
    ) -> None:
        self._loaders = dict(loaders)
        self._purpose = purpose
        self._max_requests = max_requests
        self._num_threads = num_threads
        self._meter = meter
        # A stream waits for one call at a time, so an accepted one always finds room.
        self._threads = {name: ModelThread(name, max_queued=max_requests) for name in loaders}
        self._num_requests = dict.fromkeys(loaders, 0)
        self._passes: dict[str, SharedWindows[NDArray[np.float32]]] = {}
        self._models: dict[str, L] | None = None

    async def start(self) -> None:
        """Load every model on its own thread.

        Raises:
            StrettoError: What the loading of one raised.
        """
        names = list(self._loaders)
        loaded = await asyncio.gather(*(self._threads[name].run(partial(self._load, name)) for name in names))
        self._passes = {name: self._passes_of(model) for name, model in zip(names, loaded, strict=True)}
        self._models = dict(zip(names, loaded, strict=True))

    async def stop(self) -> None:
        """Fail what waits and end the threads."""
        self._models = None
        await asyncio.gather(*(thread.close() for thread in self._threads.values()))

    def names(self) -> list[str]:
        """The models that this engine serves, also while they load."""
        return sorted(self._loaders)

    def list_models(self) -> list[ModelInfo]:
        """The models, sorted by name."""
        models = self._ready()
        return [models[name].info for name in sorted(models)]

    def count_waiting(self) -> int:
        """Count the requests that wait for a model thread."""
        return sum(thread.num_queued for thread in self._threads.values())

    def find(self, model: str) -> L:
        """The model of that name; empty takes the default one.

        Raises:
            NotFound: If there is no such model.
        """
        models = self._ready()
        if not models:
            raise NotFound(
                "config.model",
                f"this server has no model that {self._purpose}. Add one to STRETTO_TRANSCRIBER_MODELS.",
            )
        name = model or next(iter(models))
        if name not in models:
            raise NotFound(
                "config.model",
                f"expected one that {self._purpose}: {', '.join(sorted(models))}; got {model!r}. Choose one.",
            )
        return models[name]

    @contextmanager
    def admitted(self, loaded: L) -> Iterator[None]:
        """Count a stream for as long as it is served.

        Raises:
            Overloaded: If the model serves `max_requests` already.
        """
        name = loaded.info.name
        if self._num_requests[name] >= self._max_requests:
            raise Overloaded(
                f"Model {name!r} serves {self._num_requests[name]} streams, which is its limit. Retry later.",
                retry_after_s=max(MIN_RETRY_AFTER_S, self._threads[name].estimated_wait_s),
            )
        self._num_requests[name] += 1
        try:
            yield
        finally:
            self._num_requests[name] -= 1

    async def frames(self, loaded: L, audio: AsyncIterator[Waveform]) -> AsyncGenerator[NDArray[np.float32], None]:
        """What is heard of consecutive audio [T, P], window by window, while more of it arrives.

        Takes the next message only when the audio at hand does not fill a window, so that a fast sender waits.

        Args:
            loaded: The model.
            audio: Messages of at least one sample, all of one rate and as many channels; at least one message.

        Raises:
            InvalidInput: If there is no audio, its rate or channels change, or it is too loud.
        """
        windows = AudioWindows(loaded.grid, loaded.sample_rate_hz)
        async for waveform in audio:
            await asyncio.to_thread(windows.add, waveform)
            async for frames in self._take_all(loaded, windows):
                yield frames
        await asyncio.to_thread(windows.end)
        async for frames in self._take_all(loaded, windows):
            yield frames

    async def _take_all(self, loaded: L, windows: AudioWindows) -> AsyncGenerator[NDArray[np.float32], None]:
        """The frames of every window that is whole."""
        passes, frame_s = self._passes[loaded.info.name], loaded.window_s / loaded.grid.window_frames
        while (window := await asyncio.to_thread(windows.take)) is not None:
            is_first = window.first_frame == 0
            queued_s = time.perf_counter()
            frames = await passes.hear(window, partial(self._observe_wait, queued_s) if is_first else None)
            if self._meter is not None:
                self._meter.count_audio(len(frames) * frame_s)
            yield frames

    def _passes_of(self, loaded: L) -> SharedWindows[NDArray[np.float32]]:
        thread, observe_pass = self._threads[loaded.info.name], partial(self._observe_pass, loaded.window_s)
        return SharedWindows(thread, loaded.max_joined, partial(hear_frames, loaded), observe_pass)

    def _observe_wait(self, queued_s: float) -> None:
        if self._meter is not None:
            self._meter.observe_queue_wait(time.perf_counter() - queued_s)

    def _observe_pass(self, window_s: float, frames: Sequence[NDArray[np.float32]], taken_s: float) -> None:
        if self._meter is not None and frames:
            self._meter.observe_pass(len(frames))
            for _ in frames:
                self._meter.observe_rtf(taken_s / (len(frames) * window_s))

    def _load(self, name: str) -> L:
        use_threads(self._num_threads)
        return self._loaders[name]()

    def _ready(self) -> dict[str, L]:
        if self._models is None:
            raise NotReady("The transcriber service has not loaded its models, or is stopping. Retry shortly.")
        return self._models
