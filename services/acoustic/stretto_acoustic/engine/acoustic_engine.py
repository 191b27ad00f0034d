"""Conditions in, token frames out. Knows nothing of protobuf and grpc.

Each language model has a model thread and a token engine; requests to one never wait for another.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from stretto_shared.engine.meter import TokenMeter
from stretto_shared.engine.self_test import measure_step_s
from stretto_shared.engine.stage_engine import StageFrames, StageMeter
from stretto_shared.engine.step_times import StepTimes
from stretto_shared.engine.thread import ModelThread
from stretto_shared.engine.token_engine import TokenEngine, TokenEngineConfig
from stretto_shared.errors import NotFound, NotReady
from stretto_shared.features import ModelInfo
from stretto_shared.tokens import TokenMatrix

from stretto_acoustic.engine.requests import GenerateRequest, codec_id_of, token_request
from stretto_acoustic.engine.steppers import Stepper, make_stepper
from stretto_acoustic.loading import LoadedLM
from stretto_acoustic.models.musicgen import MusicGenCondition

NOISE_STAGE = "acoustic"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class _Served:
    loaded: LoadedLM
    tokens: TokenEngine[MusicGenCondition, Any]


class AcousticEngine:
    """Serves language models of codec tokens by name.

    Invariant: before `start` returns and after `stop` every call fails with NotReady; torch runs on model threads only.

    Args:
        loaders: Name to a function that loads the model; the first is the default one. There may be none.
        config: Limits of each model's token engine.
        meter: Who counts; None for nobody.
        token_meter: Gives, by model name, who counts what its token engine does; None for nobody.
        joins: Whether pieces share passes where the model's own layers allow it; False for one pass each.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], LoadedLM]],
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
        self._served: dict[str, _Served] = {}
        self._is_ready = False
        if meter is not None:
            meter.watch_waiting(self.count_waiting)

    async def start(self) -> None:
        """Load every model on its own thread, and try there how it may be stepped."""
        names = list(self._loaders)
        served = await asyncio.gather(*(self._threads[name].run(functools.partial(self._load, name)) for name in names))
        for name, (loaded, stepper, step_times) in zip(names, served, strict=True):
            tokens = TokenEngine(
                self._threads[name],
                stepper,
                stage=NOISE_STAGE,
                config=self._config,
                frame_rate_hz=loaded.config.frame_rate_hz,
                step_times=step_times,
                meter=None if self._token_meter is None else self._token_meter(name),
            )
            self._served[name] = _Served(loaded, tokens)
        self._is_ready = True

    def _load(self, name: str) -> tuple[LoadedLM, Stepper, StepTimes]:
        """On the model thread: load, try which rows may share a pass, and time a few passes."""
        loaded, config = self._loaders[name](), self._config
        stepper = make_stepper(loaded, config, joins=self._joins)
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
        """Return the models, sorted by name."""
        self._check_ready()
        return [self._served[name].loaded.info for name in sorted(self._served)]

    def num_running(self, model: str = "") -> int:
        """Count the pieces that a model generates now."""
        return self._find(model).tokens.num_running

    def num_waiting(self, model: str = "") -> int:
        """Count the pieces that wait for a slot of a model."""
        return self._find(model).tokens.num_waiting

    def count_waiting(self) -> int:
        """Count the pieces that wait for a slot of any model."""
        return sum(served.tokens.num_waiting for served in list(self._served.values()))

    def check_admission(self, request: GenerateRequest, *, is_conditional: bool) -> None:
        """Raise what `generate` would raise now for such a request; takes no place.

        Args:
            request: Without its text and melody, whose place in the cache is not counted.
            is_conditional: Whether it will have one of them.
        """
        served = self._find(request.model)
        tokens = token_request(request, served.loaded.config)
        if is_conditional:
            some_text = np.zeros((1, served.loaded.config.text_dim), dtype=np.float32)
            tokens = dataclasses.replace(tokens, condition=MusicGenCondition(some_text))
        served.tokens.check_admission(tokens)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[StageFrames, None]:
        """Stream the new frames of a piece; closing the stream frees its slot before the next step.

        Raises:
            InvalidInput: If the request does not fit the model.
            NotFound: If there is no such model.
            Overloaded: If too many pieces wait already, or a real-time one would make those that play run dry.
        """
        served = self._find(request.model)
        config = served.loaded.config
        tokens = token_request(request, config)
        codec_id = codec_id_of(request, config)
        arrived_s = started_s = time.perf_counter()

        def start() -> None:
            nonlocal started_s
            started_s = time.perf_counter()
            if self._meter is not None:
                self._meter.observe_queue_wait(started_s - arrived_s)

        num_new = 0
        async with aclosing(served.tokens.generate(tokens, on_start=start)) as blocks:
            async for block in blocks:
                is_first = num_new == 0
                num_new += block.codes.shape[1]
                yield StageFrames(
                    TokenMatrix(block.codes, config.frame_rate_hz, codec_id),
                    block.first_frame,
                    tokens.num_frames,
                    served.loaded.info if is_first else None,
                    tokens.sampling.as_options() if is_first else None,
                )
        if self._meter is not None:
            self._meter.observe_rtf((time.perf_counter() - started_s) * config.frame_rate_hz / num_new)

    def _find(self, model: str) -> _Served:
        self._check_ready()
        name = model or next(iter(self._loaders), "")
        if name not in self._served:
            known = ", ".join(sorted(self._served)) or "no model, since none of this server's generates by itself"
            raise NotFound("model", f"expected one of {known}, got {model!r}. Choose one.")
        return self._served[name]

    def _check_ready(self) -> None:
        if not self._is_ready:
            raise NotReady("The acoustic service has not loaded its models, or is stopping. Retry shortly.")
