"""MuLan: text and music in one space; `joint.py` says what it is."""

from stretto_embedding.models.mulan.config import AST_BASE, MuLanConfig
from stretto_embedding.models.mulan.joint import MuLan, build_mulan
from stretto_embedding.models.mulan.tags import DEFAULT_TAGS, INSTRUMENT_TAGS, MODE_TAGS, TEMPO_TAGS

__all__ = [
    "AST_BASE",
    "DEFAULT_TAGS",
    "INSTRUMENT_TAGS",
    "MODE_TAGS",
    "TEMPO_TAGS",
    "MuLan",
    "MuLanConfig",
    "build_mulan",
]
