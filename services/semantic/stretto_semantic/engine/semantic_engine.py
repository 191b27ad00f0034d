"""`SemanticEngine`: what the service does, as one; each kind of model has a file of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from stretto_shared.audio import Waveform
from stretto_shared.engine.stage_engine import StageFrames
from stretto_shared.engine.stage_requests import StageRequest
from stretto_shared.errors import InvalidInput, NotReady
from stretto_shared.features import ModelInfo

from stretto_semantic.engine.generating import Generating
from stretto_semantic.engine.tokenizing import TokenizedWindow, Tokenizing


class SemanticEngine:
    """Starts, stops and lists the tokenizers and the language models, each called by the method that it has.

    Args:
        tokenizing: The tokenizers.
        generating: The language models. No name is in both.
    """

    def __init__(self, tokenizing: Tokenizing, generating: Generating) -> None:
        self._tokenizing = tokenizing
        self._generating = generating
        self._is_ready = False

    async def start(self) -> None:
        """Load every model on its own thread.

        Raises:
            StrettoError: What the loading of a model raised.
        """
        await asyncio.gather(self._tokenizing.start(), self._generating.start())
        self._is_ready = True

    async def stop(self) -> None:
        """Fail what runs and waits, and end the threads."""
        self._is_ready = False
        await self._tokenizing.stop()
        await self._generating.stop()

    def list_models(self) -> list[ModelInfo]:
        """The models, sorted by name."""
        if not self._is_ready:
            raise NotReady("The semantic service has not loaded its models, or is stopping. Retry shortly.")
        models = [*self._tokenizing.list_models(), *self._generating.list_models()]
        return sorted(models, key=lambda info: info.name)

    def tokenize(self, model: str, audio: AsyncIterator[Waveform]) -> AsyncGenerator[TokenizedWindow, None]:
        """What `Tokenizing.tokenize` does.

        Raises:
            InvalidInput: If the model is a language model.
        """
        if model in self._generating.names():
            raise InvalidInput(
                "config.model", f"expected a tokenizer, got {model!r}, a language model. Call GenerateTokens for it."
            )
        return self._tokenizing.tokenize(model, audio)

    def generate(self, request: StageRequest) -> AsyncGenerator[StageFrames, None]:
        """What `Generating.generate` does.

        Raises:
            InvalidInput: If the model is a tokenizer.
        """
        if request.model in self._tokenizing.names():
            raise InvalidInput(
                "model", f"expected a language model, got {request.model!r}, a tokenizer. Call TokenizeAudio for it."
            )
        return self._generating.generate(request)
