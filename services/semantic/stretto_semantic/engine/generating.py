"""`Generating`: the language models of semantic tokens, the first stage of a cascade. Styles in, token frames out.

Knows nothing of protobuf and grpc.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from stretto_shared.engine.stage_engine import StageEngine, StageFrames
from stretto_shared.engine.stage_requests import StagePiece, StageRequest
from stretto_shared.engine.windows import Window
from stretto_shared.nn.stage_lm.config import StageCondition


class Generating(StageEngine):
    """Serves the language models of semantic tokens by name."""

    async def generate(self, request: StageRequest) -> AsyncGenerator[StageFrames, None]:
        """Stream the new frames of a piece; closing the stream frees its slot before the next step.

        Raises:
            InvalidInput: If the request does not fit the model.
            NotFound: If there is no such model.
            Overloaded: If too many pieces wait already, or a real-time one would make those that play run dry.
        """
        stage = self.find(request.model)
        piece = StagePiece(request, stage.config)

        async def condition_of(window: Window) -> StageCondition:
            return piece.condition(window)

        async with aclosing(self.stream(stage, piece, condition_of, lambda block: block.codes)) as stream:
            async for frames in stream:
                yield frames
