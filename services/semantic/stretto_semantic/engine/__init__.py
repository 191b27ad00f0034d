"""Audio in, semantic tokens out; styles in, semantic tokens out. Knows nothing of protobuf and grpc."""

from stretto_semantic.engine.generating import Generating
from stretto_semantic.engine.semantic_engine import SemanticEngine
from stretto_semantic.engine.tokenizing import Meter, TokenizedWindow, Tokenizing

__all__ = ["Generating", "Meter", "SemanticEngine", "TokenizedWindow", "Tokenizing"]
