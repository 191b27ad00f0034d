"""`StageEngine`: the language models of a token cascade's stages by name, each with a model thread and a token engine.

What a window is told comes from whoever asks: at once where a stage has no source, as soon as its source is there where
it has one. Knows nothing of protobuf and grpc.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from stretto_shared.engine.config import TokenEngineConfig
from stretto_shared.engine.meter import TokenMeter
from stretto_shared.engine.program import StepModel, TokenBlock
from stretto_shared.engine.self_test import Trial, measure_step_s
from stretto_shared.engine.stage_requests import StagePiece, layout_of, num_given_codebooks
from stretto_shared.engine.step_times import StepTimes
from stretto_shared.engine.thread import ModelThread
from stretto_shared.engine.token_engine import TokenEngine
from stretto_shared.engine.windows import Window, WindowedEngine
from stretto_shared.errors import NotFound, NotReady
from stretto_shared.features import ModelInfo, SamplingOptions
from stretto_shared.nn.stage_lm.config import StageCondition, StageConfig
from stretto_shared.tokens import TokenMatrix

_ROWS_PER_PIECE = 2  # conditional and null
_log = structlog.get_logger(__name__)


class StageStepModel(StepModel[StageCondition, Any], Protocol):
    """The language model of a stage as this engine tries and drives it."""

    @property
    def min_rows(self) -> int:
        """Least number of rows of a pass; one of fewer is filled up."""

    def trials(self) -> list[Trial[StageCondition]]:
        """One request of each kind that the model takes, the plainest guided one first."""


@dataclass(frozen=True, eq=False)
class LoadedStage:
    """The language model of a stage, ready to run.

    Args:
        info: What the service says of it.
        config: Its sizes, and what it was trained on.
        make_stepper: Tries, on the model thread, how the model may be stepped with up to `max_rows` rows in a pass;
            without `joins` each piece has its own.
    """

    info: ModelInfo
    config: StageConfig
    make_stepper: Callable[[int, bool], StageStepModel]


class StageMeter(Protocol):
    """Who counts what a stage does."""

    def watch_waiting(self, count_waiting: Callable[[], int]) -> None:
        """Tell whom to ask how many requests wait for a slot; asked from any thread."""

    def observe_queue_wait(self, wait_s: float) -> None:
        """Tell how long one request waited for its slot."""

    def observe_rtf(self, real_time_factor: float) -> None:
        """Tell how much time in its slot one second of music took."""


@dataclass(frozen=True, eq=False)
class StageFrames:
    """Consecutive new frames; `model` and `sampling` come with the first of a stream only."""

    tokens: TokenMatrix
    first_frame: int
    num_total_frames: int
    model: ModelInfo | None
    sampling: SamplingOptions | None


@dataclass(frozen=True, eq=False)
class ServedStage:
    """One stage that runs."""

    info: ModelInfo
    config: StageConfig
    tokens: TokenEngine[StageCondition, Any]
    windowed: WindowedEngine[StageCondition, Any]


class StageEngine:
    """Serves stages by name.

    Invariant: before `start` returns and after `stop` every call fails with NotReady; torch runs on model threads only.

    Args:
        loaders: Name to a function that loads the stage; the first is the default one. There may be none.
        config: Limits of each stage's token engine, in frames.
        meter: Who counts; None for nobody.
        token_meter: Who counts what the token engine of a model does, by its name.
        joins: Whether pieces may share passes.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], LoadedStage]],
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
        self._threads = {name: ModelThread(name) for name in loaders}
        self._served: dict[str, ServedStage] = {}
        self._is_ready = False

    async def start(self) -> None:
        """Load every stage on its own thread, and try there how it may be stepped.

        Raises:
            StrettoError: What the loading of a stage raised.
        """
        names = list(self._loaders)
        loaded = await asyncio.gather(*(self._threads[name].run(functools.partial(self._load, name)) for name in names))
        self._served = {name: self._serve(name, *each) for name, each in zip(names, loaded, strict=True)}
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
        """The stages that this engine serves, also while they load."""
        return sorted(self._loaders)

    def list_models(self) -> list[ModelInfo]:
        """The stages, sorted by name."""
        self._check_ready()
        return [self._served[name].info for name in sorted(self._served)]

    def find(self, model: str) -> ServedStage:
        """The stage of a name; the default one where that is empty.

        Raises:
            NotFound: If there is none.
            NotReady: Before the stages are loaded, and after `stop`.
        """
        self._check_ready()
        name = model or next(iter(self._loaders), "")
        if name not in self._served:
            known = ", ".join(sorted(self._served)) or "no model, since this server has none"
            raise NotFound("model", f"expected one of {known}, got {model!r}. Choose one.")
        return self._served[name]

    def num_running(self, model: str = "") -> int:
        """Count the pieces of which a stage makes a window now."""
        return self.find(model).tokens.num_running

    def num_waiting(self, model: str = "") -> int:
        """Count the pieces that wait for a slot of a stage."""
        return self.find(model).tokens.num_waiting

    def num_idle(self, model: str = "") -> int:
        """Count the pieces that wait for their source or their reader, without a slot."""
        return self.find(model).tokens.num_idle

    def count_waiting(self) -> int:
        """Count the pieces that wait for a slot of any stage."""
        return sum(served.tokens.num_waiting for served in list(self._served.values()))

    async def stream(
        self,
        stage: ServedStage,
        piece: StagePiece,
        condition_of: Callable[[Window], Awaitable[StageCondition]],
        whole: Callable[[TokenBlock], NDArray[np.int32]],
    ) -> AsyncGenerator[StageFrames, None]:
        """Stream the new frames of a piece; closing the stream frees its slot before the next step.

        Args:
            stage: What makes it.
            piece: What was asked.
            condition_of: What the model is told of a window, when that is known.
            whole: The frames [G, n] that the stage gives of those [K, n] that it drew.

        Raises:
            Overloaded: If too many pieces wait already, or a real-time one would make those that play run dry.
        """
        ran_s, num_new, has_waited = 0.0, 0, False

        def note(wait_s: float, run_s: float) -> None:
            nonlocal ran_s, has_waited
            ran_s += run_s
            if self._meter is not None and not has_waited:
                self._meter.observe_queue_wait(wait_s)
            has_waited = True

        async with aclosing(stage.windowed.generate(piece.wanted, condition_of, on_window=note)) as blocks:
            async for block in blocks:
                is_first = num_new == 0
                num_new += block.codes.shape[1]
                yield StageFrames(
                    TokenMatrix(whole(block), stage.config.frame_rate_hz, piece.tokens_id),
                    block.first_frame,
                    piece.num_frames,
                    stage.info if is_first else None,
                    piece.wanted.sampling.as_options() if is_first else None,
                )
        if self._meter is not None:
            self._meter.observe_rtf(ran_s * stage.config.frame_rate_hz / num_new)

    def _load(self, name: str) -> tuple[LoadedStage, StageStepModel, StepTimes]:
        """On the model thread: load, try which rows may share a pass, and time a few passes."""
        loaded, config = self._loaders[name](), self._config
        max_rows = _ROWS_PER_PIECE * (config.max_slots + config.prefill_columns)
        stepper = loaded.make_stepper(max_rows, self._joins)
        measured_s = measure_step_s(
            stepper, stepper.trials()[0], max_states=config.max_slots, max_columns=config.prefill_columns
        )
        _log.info(
            "token_engine_tried",
            model=name,
            joins=stepper.is_row_invariant,
            min_rows=stepper.min_rows,
            step_ms={rows: round(1000 * taken_s, 2) for rows, taken_s in sorted(measured_s.items())},
        )
        return loaded, stepper, StepTimes(measured_s)

    def _serve(self, name: str, loaded: LoadedStage, stepper: StageStepModel, step_times: StepTimes) -> ServedStage:
        config, layout = loaded.config, layout_of(loaded.config)
        tokens = TokenEngine(
            self._threads[name],
            stepper,
            stage=noise_stage(config),
            config=layout.limits(self._config),
            frame_rate_hz=config.frame_rate_hz * config.num_codebooks,
            step_times=step_times,
            meter=None if self._token_meter is None else self._token_meter(name),
        )
        return ServedStage(loaded.info, config, tokens, WindowedEngine(tokens, layout))

    def _check_ready(self) -> None:
        if not self._is_ready:
            raise NotReady("The stages of this service are not loaded, or it is stopping. Retry shortly.")


def noise_stage(config: StageConfig) -> str:
    """What keeps a stage's noise apart from that of the cascade's others: its place, whatever name it is served by."""
    if not config.hears_source:
        return "semantic"
    return "fine" if num_given_codebooks(config) > config.num_codebooks else "coarse"
