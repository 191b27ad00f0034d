"""Audio in, semantic tokens out; styles in, semantic tokens out. Knows nothing of protobuf and grpc."""

from __future__ import annotations

from stretto_shared.errors import NotReady
from stretto_shared.features import ModelInfo


class SemanticEngine:
    """Serves tokenizers and language models by name."""

    def __init__(self) -> None:
        self._is_ready = False

    async def start(self) -> None:
        """Load every model on its own thread."""
        self._is_ready = True

    async def stop(self) -> None:
        """Fail what runs and waits, and end the threads."""
        self._is_ready = False

    def list_models(self) -> list[ModelInfo]:
        """The models, sorted by name."""
        if not self._is_ready:
            raise NotReady("The semantic service has not loaded its models, or is stopping. Retry shortly.")
        return []
