"""`Analyzers`: analyzers by name, one model thread each, and who is served by them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

import torch
from stretto_shared.engine.thread import ModelThread
from stretto_shared.errors import NotFound, NotReady, Overloaded
from stretto_shared.features import ModelInfo
from stretto_shared.nn.threads import use_threads

from stretto_harmony.loading import LoadedAnalyzer
from stretto_harmony.models.analyzer import HarmonyModules

MIN_RETRY_AFTER_S = 0.1
T = TypeVar("T")


class Meter(Protocol):
    """Where the engine reports what only it knows; called from any thread."""

    def observe_queue_wait(self, wait_s: float) -> None:
        """How long a request waited for its first turn on the model thread."""

    def observe_window(self, model: str, num_measures: int, taken_s: float) -> None:
        """A window of so many measures took so long."""


class Analyzers:
    """Serves analyzers by name.

    Invariant: torch runs on model threads only, and requests take turns there; a model serves at most `max_requests` at
    once (`tests/services/harmony/test_harmony_service.py`). Before `start` returns and after `stop` every call fails
    with NotReady.

    Args:
        loaders: Name to a function that loads the analyzer; the first is the default one. There may be none.
        max_requests: Requests that one analyzer serves at once.
        num_threads: CPU threads inside one operation; 0 leaves the choice to torch.
        meter: Gets the numbers that only the engine knows.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], LoadedAnalyzer]],
        *,
        max_requests: int = 32,
        num_threads: int = 1,
        meter: Meter | None = None,
    ) -> None:
        self._loaders = dict(loaders)
        self._max_requests = max_requests
        self._num_threads = num_threads
        self._threads = {name: ModelThread(name, max_queued=max_requests) for name in loaders}
        self._num_served: Counter[str] = Counter()
        self._models: dict[str, LoadedAnalyzer] | None = None
        self.meter = meter

    async def start(self) -> None:
        """Load every analyzer on its own thread.

        Raises:
            StrettoError: What the loading of one raised.
        """
        loads = [self._threads[name].run(partial(self._load, name)) for name in self._loaders]
        self._models = dict(zip(self._loaders, await asyncio.gather(*loads), strict=True))

    async def stop(self) -> None:
        """Fail what waits, and end the threads."""
        self._models = None
        await asyncio.gather(*(thread.close() for thread in self._threads.values()))

    def list_models(self) -> list[ModelInfo]:
        """The analyzers, sorted by name."""
        return sorted((loaded.info for loaded in self.ready().values()), key=lambda info: info.name)

    def count_waiting(self) -> int:
        """Count the requests that wait for a turn on a model thread."""
        return sum(thread.num_queued for thread in self._threads.values())

    def ready(self) -> dict[str, LoadedAnalyzer]:
        """The analyzers by name.

        Raises:
            NotReady: If they are not loaded.
        """
        if self._models is None:
            raise NotReady("The harmony service has not loaded its models, or is stopping. Retry shortly.")
        return self._models

    def find(self, model: str) -> LoadedAnalyzer:
        """The analyzer of that name; empty takes the default one.

        Raises:
            NotFound: If there is no such analyzer.
        """
        return _chosen(self.ready(), model, "that analyses harmony")

    def find_modules(self, model: str) -> tuple[LoadedAnalyzer, HarmonyModules]:
        """The analyzer of that name and its modules; empty takes the first one that has such.

        Raises:
            NotFound: If there is no such analyzer.
        """
        having = {name: loaded for name, loaded in self.ready().items() if loaded.built.modules is not None}
        loaded = _chosen(having, model, "whose modules can be called")
        assert loaded.built.modules is not None
        return loaded, loaded.built.modules

    @contextmanager
    def admitted(self, loaded: LoadedAnalyzer) -> Iterator[None]:
        """Count a request for as long as it is served.

        Raises:
            Overloaded: If the analyzer serves `max_requests` already.
        """
        name = loaded.info.name
        if self._num_served[name] >= self._max_requests:
            raise Overloaded(
                f"Analyzer {name!r} serves {self._num_served[name]} requests, which is its limit. Retry later.",
                retry_after_s=max(MIN_RETRY_AFTER_S, self._threads[name].estimated_wait_s),
            )
        self._num_served[name] += 1
        try:
            yield
        finally:
            self._num_served[name] -= 1

    async def run(self, loaded: LoadedAnalyzer, work: Callable[[], T], *, is_first: bool = True) -> T:
        """Do one piece of work on the analyzer's thread, when its turn comes."""
        queued_s = time.perf_counter()

        def timed() -> T:
            if is_first and self.meter is not None:
                self.meter.observe_queue_wait(time.perf_counter() - queued_s)
            with torch.inference_mode():
                return work()

        return await self._threads[loaded.info.name].run(timed)

    def _load(self, name: str) -> LoadedAnalyzer:
        use_threads(self._num_threads)
        return self._loaders[name]()


def _chosen(models: Mapping[str, LoadedAnalyzer], model: str, purpose: str) -> LoadedAnalyzer:
    if not models:
        raise NotFound("model", f"this server has no model {purpose}. Add one to STRETTO_HARMONY_MODELS.")
    name = model or next(iter(models))
    if name not in models:
        raise NotFound("model", f"expected one {purpose}: {', '.join(sorted(models))}; got {model!r}. Choose one.")
    return models[name]
