"""Typed clients of the stages: domain values in, domain values out; the only part that knows their protos.

A stage's deliberate errors come out as they were raised there; other failed calls stay `AioRpcError`, which the shell
passes on (deadline, cancellation) or answers as INTERNAL. Closing an iterator cancels its call.
"""

from __future__ import annotations

from dataclasses import dataclass

from stretto_orchestrator.clients.acoustic import AcousticClient, RefineRequest, TokenRequest
from stretto_orchestrator.clients.calling import remaining_s, shut, unreachable
from stretto_orchestrator.clients.codec import CodecClient, DecodedAudio, EncodedAudio
from stretto_orchestrator.clients.embedding import EmbeddingClient, RankedCandidate
from stretto_orchestrator.clients.harmony import AnalyzedMeasures, HarmonyClient
from stretto_orchestrator.clients.semantic import SemanticClient, SemanticRequest
from stretto_orchestrator.clients.tokens import BEST_EFFORT, GeneratedTokens, Pacing
from stretto_orchestrator.clients.transcriber import HeardBeats, HeardNotes, NoteEnds, TranscriberClient


@dataclass(frozen=True)
class Stages:
    """One client for each service behind the door."""

    embedding: EmbeddingClient
    semantic: SemanticClient
    acoustic: AcousticClient
    codec: CodecClient
    transcriber: TranscriberClient
    harmony: HarmonyClient


__all__ = [
    "AcousticClient",
    "AnalyzedMeasures",
    "BEST_EFFORT",
    "CodecClient",
    "DecodedAudio",
    "EmbeddingClient",
    "EncodedAudio",
    "GeneratedTokens",
    "HarmonyClient",
    "HeardBeats",
    "HeardNotes",
    "NoteEnds",
    "Pacing",
    "RankedCandidate",
    "RefineRequest",
    "SemanticClient",
    "SemanticRequest",
    "Stages",
    "TokenRequest",
    "TranscriberClient",
    "remaining_s",
    "shut",
    "unreachable",
]
