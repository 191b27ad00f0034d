"""`StageEngine`: the language models of a token cascade's stages by name, window by window.

What a window is told comes from whoever asks: at once where a stage has no source, as soon as its source is there where
it has one. Knows nothing of protobuf and grpc.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stretto_shared.engine.program import TokenBlock
from stretto_shared.engine.served_models import ROWS_PER_PIECE, ServedModels, TokenModel, Tried
from stretto_shared.engine.stage_requests import StagePiece, layout_of, num_given_codebooks
from stretto_shared.engine.token_engine import TokenEngine
from stretto_shared.engine.windows import Window, WindowedEngine
from stretto_shared.features import ModelInfo, SamplingOptions
from stretto_shared.nn.stage_lm.config import StageCondition, StageConfig
from stretto_shared.tokens import TokenMatrix


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
    make_stepper: Callable[[int, bool], TokenModel[StageCondition]]


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


class StageEngine(ServedModels[LoadedStage, ServedStage]):
    """Serves stages by name."""

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

    def _make_model(self, loaded: LoadedStage) -> TokenModel[StageCondition]:
        max_rows = ROWS_PER_PIECE * (self._config.max_slots + self._config.prefill_columns)
        return loaded.make_stepper(max_rows, self._joins)

    def _serve(self, tried: Tried[LoadedStage]) -> ServedStage:
        config = tried.loaded.config
        layout = layout_of(config)
        tokens = self._token_engine(
            tried,
            noise=noise_stage(config),
            limits=layout.limits(self._config),
            frame_rate_hz=config.frame_rate_hz * config.num_codebooks,
        )
        return ServedStage(tried.loaded.info, config, tokens, WindowedEngine(tokens, layout))


def noise_stage(config: StageConfig) -> str:
    """What keeps a stage's noise apart from that of the cascade's others: its place, whatever name it is served by."""
    if not config.hears_source:
        return "semantic"
    return "fine" if num_given_codebooks(config) > config.num_codebooks else "coarse"
