"""`ServedModels`: language models of tokens by name, each with a model thread and a token engine.

What a kind of model is told, and what it gives, is a subclass's affair. Knows nothing of protobuf and grpc.
"""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import structlog

from stretto_shared.engine.config import TokenEngineConfig
from stretto_shared.engine.meter import StageMeter, TokenMeter
from stretto_shared.engine.program import StepModel
from stretto_shared.engine.self_test import Trial, measure_step_s
from stretto_shared.engine.step_times import StepTimes
from stretto_shared.engine.thread import LONG_NICENESS, ModelThread
from stretto_shared.engine.token_engine import TokenEngine
from stretto_shared.errors import NotFound, NotReady
from stretto_shared.features import ModelInfo
from stretto_shared.nn.heap import giving_memory_back

ROWS_PER_PIECE = 2  # conditional and null
Condition = TypeVar("Condition")
_log = structlog.get_logger(__name__)


class TokenModel(StepModel[Condition, Any], Protocol[Condition]):
    """A language model as a service tries and drives it."""

    @property
    def min_rows(self) -> int:
        """Least number of rows of a pass; one of fewer is filled up."""

    def trials(self) -> list[Trial[Condition]]:
        """One request of each kind that the model takes, the plainest guided one first."""


class Served(Protocol):
    """One model that runs."""

    @property
    def info(self) -> ModelInfo:
        """What the service says of it."""

    @property
    def tokens(self) -> TokenEngine[Any, Any]:
        """What steps it."""


LoadedT = TypeVar("LoadedT")
ServedT = TypeVar("ServedT", bound=Served)


@dataclass(frozen=True, eq=False)
class Tried(Generic[LoadedT]):
    """A model after its loading: as it may be stepped, and how long its passes take."""

    name: str
    loaded: LoadedT
    model: TokenModel[Any]
    step_times: StepTimes


class ServedModels(ABC, Generic[LoadedT, ServedT]):
    """Loads, starts, finds, counts and stops models of one kind; requests to one never wait for another.

    Invariant: before `start` returns and after `stop` every call fails with NotReady; torch runs on model threads only.

    Args:
        loaders: Name to a function that loads the model; the first is the default one. There may be none.
        config: Limits of each model's token engine, in frames.
        meter: Who counts; None for nobody.
        token_meter: Gives, by model name, who counts what its token engine does; None for nobody.
        joins: Whether pieces share passes where the model's own layers allow it; False for one pass each.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], LoadedT]],
        *,
        config: TokenEngineConfig | None = None,
        meter: StageMeter | None = None,
        token_meter: Callable[[str], TokenMeter] | None = None,
        joins: bool = True,
    ) -> None:
        self._loaders = dict(loaders)
        self._config = config or TokenEngineConfig()
        self._meter = meter
        self._token_meter = token_meter
        self._joins = joins
        self._threads = {name: ModelThread(name, niceness=LONG_NICENESS) for name in loaders}
        self._served: dict[str, ServedT] = {}
        self._is_ready = False

    @abstractmethod
    def _make_model(self, loaded: LoadedT) -> TokenModel[Any]:
        """Try, on the model thread, how a model may be stepped."""

    @abstractmethod
    def _serve(self, tried: Tried[LoadedT]) -> ServedT:
        """Put a model behind its token engine."""

    async def start(self) -> None:
        """Load every model on its own thread, and try there how it may be stepped.

        Raises:
            StrettoError: What the loading of a model raised.
        """
        names = list(self._loaders)
        tried = await asyncio.gather(*(self._threads[name].run(functools.partial(self._load, name)) for name in names))
        self._served = {each.name: self._serve(each) for each in tried}
        self._is_ready = True

    async def stop(self) -> None:
        """Fail what runs and waits, and end the threads."""
        self._is_ready = False
        served, self._served = self._served, {}
        for each in served.values():
            await each.tokens.close()
        for thread in self._threads.values():
            await thread.close()

    def names(self) -> list[str]:
        """The models that this engine serves, also while they load."""
        return sorted(self._loaders)

    def list_models(self) -> list[ModelInfo]:
        """The models, sorted by name."""
        self._check_ready()
        return [self._served[name].info for name in sorted(self._served)]

    def find(self, model: str) -> ServedT:
        """The model of a name; the default one where that is empty.

        Raises:
            NotFound: If there is none.
            NotReady: Before the models are loaded, and after `stop`.
        """
        self._check_ready()
        name = model or next(iter(self._loaders), "")
        if name not in self._served:
            known = ", ".join(sorted(self._served)) or "no model, since this server has none for this method"
            raise NotFound("model", f"expected one of {known}, got {model!r}. Choose one.")
        return self._served[name]

    def num_running(self, model: str = "") -> int:
        """Count the pieces that hold a slot of a model."""
        return self.find(model).tokens.num_running

    def num_waiting(self, model: str = "") -> int:
        """Count the pieces that wait for a slot of a model."""
        return self.find(model).tokens.num_waiting

    def num_idle(self, model: str = "") -> int:
        """Count the pieces that wait for their source or their reader, without a slot."""
        return self.find(model).tokens.num_idle

    def count_waiting(self) -> int:
        """Count the pieces that wait for a slot of any model."""
        return sum(served.tokens.num_waiting for served in list(self._served.values()))

    def _token_engine(
        self, tried: Tried[LoadedT], *, noise: str, limits: TokenEngineConfig, frame_rate_hz: float
    ) -> TokenEngine[Any, Any]:
        """What steps a model; `noise` keeps its draws apart from those of a cascade's other stages."""
        return TokenEngine(
            self._threads[tried.name],
            tried.model,
            stage=noise,
            config=limits,
            frame_rate_hz=frame_rate_hz,
            step_times=tried.step_times,
            meter=None if self._token_meter is None else self._token_meter(tried.name),
        )

    def _load(self, name: str) -> Tried[LoadedT]:
        """On the model thread: load, try which rows may share a pass, and time a few passes."""
        config = self._config
        with giving_memory_back():
            loaded = self._loaders[name]()
            model = self._make_model(loaded)
            measured_s = measure_step_s(
                model, model.trials()[0], max_states=config.max_slots, max_columns=config.prefill_columns
            )
        _log.info(
            "token_engine_tried",
            model=name,
            joins=model.is_row_invariant,
            min_rows=model.min_rows,
            step_ms={rows: round(1000 * taken_s, 2) for rows, taken_s in sorted(measured_s.items())},
        )
        return Tried(name, loaded, model, StepTimes(measured_s))

    def _check_ready(self) -> None:
        if not self._is_ready:
            raise NotReady("The models of this service are not loaded, or it is stopping. Retry shortly.")
