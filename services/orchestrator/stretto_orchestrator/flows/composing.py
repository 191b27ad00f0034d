"""What a flow asks of a cascade of either kind before music is made: a `Composer`, who makes a `Brief`.

A composer hears what the request holds (`musicgen` and `musiclm` are the two). Its brief then sets up the language
models for a piece, as often as there are candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stretto_shared.audio import Waveform
from stretto_shared.features import ModelInfo, SamplingOptions

from stretto_orchestrator.clients import BEST_EFFORT, Pacing
from stretto_orchestrator.flows.chain import TokenStage
from stretto_orchestrator.flows.story import PromptSpan


@dataclass(frozen=True)
class Piece:
    """What every language model is told of a piece; `duration_s` is that of the whole, a recording's end included."""

    duration_s: float
    seed: int
    sampling: SamplingOptions
    pacing: Pacing = BEST_EFFORT


class Brief(Protocol):
    """What the language models are told of a request."""

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """Who heard the request."""

    @property
    def heard_s(self) -> float:
        """Seconds of a recording that the music goes on from."""

    async def after(self, recording: Waveform, listeners: Mapping[str, ModelInfo]) -> Brief:
        """The brief of music that goes on from the end of a recording, encoded for those language models."""

    def token_stages(self, piece: Piece) -> tuple[TokenStage, ...]:
        """The language models, each told its part, in order."""


class Composer(Protocol):
    """One kind of cascade."""

    async def check_admission(self, piece: Piece, *, is_conditional: bool) -> None:
        """Raise what a real-time piece would be refused with now, as far as anybody can say before there is a brief."""

    async def read(self, prompt: str, melody: Waveform | None, story: Sequence[PromptSpan], duration_s: float) -> Brief:
        """Hear a prompt, which may be empty before a recording, a melody if there is one, and the story of a piece."""

    async def listeners(self) -> Mapping[str, ModelInfo]:
        """The language models that a recording is encoded for, by the names that they are asked for."""
