"""Which composer works for a cascade."""

from __future__ import annotations

from stretto_orchestrator.clients import Stages
from stretto_orchestrator.flows.cascades import MUSICLM, Cascade
from stretto_orchestrator.flows.composing import Composer
from stretto_orchestrator.flows.musicgen import MusicGen
from stretto_orchestrator.flows.musiclm import MusicLM


def composer_of(stages: Stages, cascade: Cascade) -> Composer:
    """The composer of the cascade's kind."""
    return MusicLM(stages, cascade) if cascade.kind == MUSICLM else MusicGen(stages, cascade)
