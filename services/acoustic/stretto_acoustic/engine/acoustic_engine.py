"""`AcousticEngine`: the language models that generate by themselves. Conditions in, token frames out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
from stretto_shared.engine.served_models import ServedModels, Tried
from stretto_shared.engine.stage_engine import StageFrames
from stretto_shared.engine.token_engine import TokenEngine
from stretto_shared.features import ModelInfo
from stretto_shared.tokens import TokenMatrix

from stretto_acoustic.engine.requests import GenerateRequest, codec_id_of, token_request
from stretto_acoustic.engine.steppers import Stepper, make_stepper
from stretto_acoustic.loading import LoadedLM
from stretto_acoustic.models.musicgen import MusicGenCondition, MusicGenConfig

NOISE_STAGE = "acoustic"


@dataclass(frozen=True, eq=False)
class ServedLM:
    """One language model that runs."""

    info: ModelInfo
    config: MusicGenConfig
    tokens: TokenEngine[MusicGenCondition, Any]


class AcousticEngine(ServedModels[LoadedLM, ServedLM]):
    """Serves language models of codec tokens by name."""

    def check_admission(self, request: GenerateRequest, *, is_conditional: bool) -> None:
        """Raise what `generate` would raise now for such a request; takes no place.

        Args:
            request: Without its text and melody, whose place in the cache is not counted.
            is_conditional: Whether it will have one of them.
        """
        served = self.find(request.model)
        tokens = token_request(request, served.config)
        if is_conditional:
            some_text = np.zeros((1, served.config.text_dim), dtype=np.float32)
            tokens = dataclasses.replace(tokens, condition=MusicGenCondition(some_text))
        served.tokens.check_admission(tokens)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[StageFrames, None]:
        """Stream the new frames of a piece; closing the stream frees its slot before the next step.

        Raises:
            InvalidInput: If the request does not fit the model.
            NotFound: If there is no such model.
            Overloaded: If too many pieces wait already, or a real-time one would make those that play run dry.
        """
        served = self.find(request.model)
        config = served.config
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
                    served.info if is_first else None,
                    tokens.sampling.as_options() if is_first else None,
                )
        if self._meter is not None:
            self._meter.observe_rtf((time.perf_counter() - started_s) * config.frame_rate_hz / num_new)

    def _make_model(self, loaded: LoadedLM) -> Stepper:
        return make_stepper(loaded, self._config, joins=self._joins)

    def _serve(self, tried: Tried[LoadedLM]) -> ServedLM:
        config = tried.loaded.config
        tokens = self._token_engine(tried, noise=NOISE_STAGE, limits=self._config, frame_rate_hz=config.frame_rate_hz)
        return ServedLM(tried.loaded.info, config, tokens)
