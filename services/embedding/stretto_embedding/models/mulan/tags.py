"""Tags, as phrases that captions have, and of them the encoder's own: what it tries when nobody says what to try."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# By the families of the corpus, whose records say what truly sounds.
INSTRUMENT_TAGS: Mapping[str, str] = MappingProxyType(
    {
        "piano": "piano",
        "electric piano": "electric piano",
        "harpsichord": "harpsichord",
        "mallets": "mallet percussion",
        "organ": "organ",
        "accordion": "accordion",
        "guitar": "guitar",
        "bass": "bass guitar",
        "strings": "strings",
        "harp": "harp",
        "choir": "choir",
        "brass": "brass",
        "saxophone": "saxophone",
        "woodwind": "woodwind",
        "flute": "flute",
        "synth lead": "synth lead",
        "synth pad": "synth pad",
        "plucked": "plucked strings",
        "drums": "drums",
    }
)
TEMPO_TAGS: Mapping[str, str] = MappingProxyType(
    {
        "very slow": "very slow tempo",
        "slow": "slow tempo",
        "moderate": "moderate tempo",
        "fast": "fast tempo",
        "very fast": "very fast tempo",
    }
)
MODE_TAGS: Mapping[str, str] = MappingProxyType({"major": "in a major key", "minor": "in a minor key"})

# Instruments only: tags of tempo and mode are at chance (`weights/mulan/CARD.md`).
DEFAULT_TAGS: tuple[str, ...] = tuple(INSTRUMENT_TAGS.values())
