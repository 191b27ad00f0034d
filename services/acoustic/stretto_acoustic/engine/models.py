"""`AcousticModels`: the language models that generate and the stages that refine, as one service serves them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from stretto_shared.engine.stage_engine import StageFrames
from stretto_shared.engine.stage_requests import StageRequest
from stretto_shared.errors import InvalidInput
from stretto_shared.features import ModelInfo
from stretto_shared.tokens import TokenMatrix

from stretto_acoustic.engine.acoustic_engine import AcousticEngine
from stretto_acoustic.engine.refining import Refining
from stretto_acoustic.engine.requests import GenerateRequest


class AcousticModels:
    """Both kinds of model, each called by the method that it has.

    Args:
        generating: Language models that make whole tokens by themselves.
        refining: Stages of a cascade, which need a source. No name is in both.
    """

    def __init__(self, generating: AcousticEngine, refining: Refining) -> None:
        self._generating = generating
        self._refining = refining

    async def start(self) -> None:
        """Load every model on its own thread."""
        await asyncio.gather(self._generating.start(), self._refining.start())

    async def stop(self) -> None:
        """Fail what runs and waits, and end the threads."""
        await self._generating.stop()
        await self._refining.stop()

    def list_models(self) -> list[ModelInfo]:
        """The models of both kinds, sorted by name."""
        models = [*self._generating.list_models(), *self._refining.list_models()]
        return sorted(models, key=lambda info: info.name)

    def check_admission(self, request: GenerateRequest, *, is_conditional: bool) -> None:
        """Raise what `generate` would raise now for such a request."""
        self._check_generates(request.model)
        self._generating.check_admission(request, is_conditional=is_conditional)

    def generate(self, request: GenerateRequest) -> AsyncGenerator[StageFrames, None]:
        """What `AcousticEngine.generate` does.

        Raises:
            InvalidInput: If the model is a stage.
        """
        self._check_generates(request.model)
        return self._generating.generate(request)

    def refine(self, request: StageRequest, source: AsyncIterator[TokenMatrix]) -> AsyncGenerator[StageFrames, None]:
        """What `Refining.refine` does.

        Raises:
            InvalidInput: If no model is named, or one that generates by itself.
        """
        stages = ", ".join(self._refining.names()) or "none, since this server has none"
        if not request.model:
            raise InvalidInput("config.model", f"is required. Name a stage that refines: {stages}.")
        if request.model in self._generating.names():
            raise InvalidInput(
                "config.model",
                f"expected a stage that refines ({stages}), got {request.model!r}, which generates by itself. "
                "Call GenerateTokens for it.",
            )
        return self._refining.refine(request, source)

    def _check_generates(self, model: str) -> None:
        if model in self._refining.names():
            raise InvalidInput(
                "model",
                f"expected a model that generates by itself ({', '.join(self._generating.names()) or 'none here'}), "
                f"got {model!r}, a stage that refines the tokens of another. Call RefineTokens for it.",
            )
