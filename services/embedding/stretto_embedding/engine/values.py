"""What the engine answers: frozen values, no protobuf."""

from __future__ import annotations

from dataclasses import dataclass

from stretto_shared.features import Chromagram, JointEmbedding, ModelInfo, TextStates
from stretto_shared.tokens import TokenMatrix


@dataclass(frozen=True, eq=False)
class EmbeddedTexts:
    """Texts in order, as states of a text encoder or as points of a joint one; the other tuple is empty."""

    model: ModelInfo
    states: tuple[TextStates, ...] = ()
    embeddings: tuple[JointEmbedding, ...] = ()


@dataclass(frozen=True, eq=False)
class EmbeddedAudio:
    """A recording: the mean of its windows, the windows in order of time, and how they were cut."""

    embedding: JointEmbedding
    windows: tuple[JointEmbedding, ...]
    window_s: float
    stride_s: float
    model: ModelInfo


@dataclass(frozen=True)
class RankedAudio:
    """A candidate's index and its cosine to the query."""

    candidate_index: int
    similarity: float


@dataclass(frozen=True)
class ScoredTag:
    """A tag, its cosine to the recording, and its share among all tags that were tried."""

    tag: str
    similarity: float
    probability: float


@dataclass(frozen=True, eq=False)
class Melody:
    """A melody as its pitch classes, or as the codes of a melody encoder, which is named then."""

    chromagram: Chromagram | None = None
    codes: TokenMatrix | None = None
    model: ModelInfo | None = None
