"""`SemanticEngine`: what the service does, as one; each kind of model has a file of its own."""

from __future__ import annotations

from stretto_shared.errors import NotReady
from stretto_shared.features import ModelInfo

from stretto_semantic.engine.tokenizing import Tokenizing


class SemanticEngine:
    """Starts, stops and lists the tokenizers together with whatever else the service serves."""

    def __init__(self, tokenizing: Tokenizing) -> None:
        self.tokenizing = tokenizing
        self._is_ready = False

    async def start(self) -> None:
        """Load every model on its own thread.

        Raises:
            StrettoError: What the loading of a model raised.
        """
        await self.tokenizing.start()
        self._is_ready = True

    async def stop(self) -> None:
        """Fail what runs and waits, and end the threads."""
        self._is_ready = False
        await self.tokenizing.stop()

    def list_models(self) -> list[ModelInfo]:
        """The models, sorted by name."""
        if not self._is_ready:
            raise NotReady("The semantic service has not loaded its models, or is stopping. Retry shortly.")
        return sorted(self.tokenizing.list_models(), key=lambda info: info.name)
