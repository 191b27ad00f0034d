"""Performance to score: notes with beats in, notation out."""

from stretto_transcriber.models.engraving.engrave import EngravingModel, engrave
from stretto_transcriber.models.engraving.engraved import Bar, EngravedNote, EngravedScore
from stretto_transcriber.models.engraving.musicxml import to_musicxml
from stretto_transcriber.models.engraving.playback import to_score

__all__ = ["engrave", "to_musicxml", "to_score", "EngravedScore", "EngravedNote", "Bar", "EngravingModel"]
