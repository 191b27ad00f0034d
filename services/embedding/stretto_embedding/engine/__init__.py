"""The engine of the embedding service."""

from stretto_embedding.engine.embedding_engine import EmbeddingEngine
from stretto_embedding.engine.limits import MAX_CANDIDATES, MAX_POINTS, MAX_TEXTS, Limits
from stretto_embedding.engine.values import EmbeddedAudio, EmbeddedTexts, RankedAudio, ScoredTag

__all__ = [
    "EmbeddingEngine",
    "EmbeddedTexts",
    "EmbeddedAudio",
    "RankedAudio",
    "ScoredTag",
    "Limits",
    "MAX_TEXTS",
    "MAX_CANDIDATES",
    "MAX_POINTS",
]
