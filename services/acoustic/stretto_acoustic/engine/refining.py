"""`Refining`: the stages that make acoustic tokens from those of the stage before, while these come.

A coarse stage reads semantic tokens, a fine stage the coarsest codebooks. A window is made as soon as its source is
there. What the sender has beyond that is not taken, so that it waits; what the reader does not take ends the making
with the window that runs. Knows nothing of protobuf and grpc.

Legend: G codebooks that a stage gives, J codebooks of the source, n frames.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray
from stretto_shared.engine.program import TokenBlock
from stretto_shared.engine.stage_engine import StageEngine, StageFrames
from stretto_shared.engine.stage_requests import (
    StagePiece,
    StageRequest,
    check_tokens,
    continues_source,
    fields_below,
)
from stretto_shared.engine.windows import Window
from stretto_shared.errors import InvalidInput
from stretto_shared.nn.stage_lm.config import StageCondition, StageConfig
from stretto_shared.tokens import TokenMatrix


class SourceFrames:
    """The frames of the stage before, taken from their sender when a window needs them and dropped behind it.

    Args:
        runs: Consecutive frames of any number, from the first of the piece.
        config: Of the stage that reads them.
        num_needed: Frames that the whole piece needs.
    """

    def __init__(self, runs: AsyncIterator[TokenMatrix], config: StageConfig, num_needed: int) -> None:
        self._runs = runs
        self._config = config
        self._num_needed = num_needed
        self._codes = np.zeros((config.num_source_codebooks, 0), dtype=np.int32)  # from frame `_start` on
        self._start = 0

    async def take(self, start: int, stop: int) -> NDArray[np.int32]:
        """Frames [J, stop - start), once they are there; those before `start` are not asked for again.

        Raises:
            InvalidInput: If the source ends before, or is not what the stage was trained on.
        """
        self._drop_before(start)
        while self._start + self._codes.shape[1] < stop:
            run = await anext(self._runs, None)
            if run is None:
                raise InvalidInput(
                    "source",
                    f"expected {self._num_needed} frames for duration_s, got {self._start + self._codes.shape[1]} and "
                    "the end. Send all of them, or ask for a shorter piece.",
                )
            self._check(run)
            self._codes = np.concatenate([self._codes, run.codes], axis=1)
            self._drop_before(start)
        return self.at(start, stop)

    def at(self, start: int, stop: int) -> NDArray[np.int32]:
        """Frames [J, stop - start) of what was taken last."""
        return self._codes[:, start - self._start : stop - self._start]

    def _drop_before(self, start: int) -> None:
        num_dropped = min(start - self._start, self._codes.shape[1])
        self._codes = self._codes[:, num_dropped:].copy()
        self._start += num_dropped

    def _check(self, run: TokenMatrix) -> None:
        check_tokens(
            run,
            "source",
            made_by=self._config.source_tokens,
            num_codebooks=self._config.num_source_codebooks,
            frame_rate_hz=self._config.source_frame_rate_hz,
            cardinality=self._config.source_cardinality,
        )
        if run.num_frames == 0:
            raise InvalidInput("source.codes", "expected at least one frame a message, got none. Leave it out.")


class Refining(StageEngine):
    """Serves the stages that refine, by name."""

    async def refine(
        self, request: StageRequest, source: AsyncIterator[TokenMatrix]
    ) -> AsyncGenerator[StageFrames, None]:
        """Stream the new frames [G, n] of a piece; closing the stream frees its slot before the next step.

        Args:
            request: The piece, without a melody, which no stage that refines hears.
            source: Consecutive frames of the stage before; stays its owner's to close.

        Raises:
            InvalidInput: If the request or the source do not fit the model, or the source ends too soon.
            NotFound: If there is no such model.
            Overloaded: If too many pieces wait already, or a real-time one would make those that play run dry.
        """
        with fields_below("config"):
            stage = self.find(request.model)
            config, piece = stage.config, StagePiece(request, stage.config)
            stage.windowed.check_fits(piece.wanted)
        frames = SourceFrames(source, config, piece.num_source_frames)

        async def condition_of(window: Window) -> StageCondition:
            return piece.condition(window, await frames.take(*piece.source_range(window)))

        def whole(block: TokenBlock) -> NDArray[np.int32]:
            if not continues_source(config):
                return block.codes
            read = frames.at(block.first_frame, block.first_frame + block.codes.shape[1])
            return np.concatenate([read, block.codes])

        async with aclosing(self.stream(stage, piece, condition_of, whole)) as stream:
            async for new in stream:
                yield new
