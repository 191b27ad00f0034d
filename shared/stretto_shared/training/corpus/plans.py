"""Plans: which lines of which source sound together in a clip, and what the arranger asks of their instruments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stretto_shared.training.corpus import accompaniment
from stretto_shared.training.corpus.scores import Chord, Notes, Piece, bass_line, skyline, sorted_notes, window

CHORALE_VOICES = ("soprano", "alto", "tenor", "bass")


@dataclass(frozen=True)
class Plan:
    """A texture and the sources that can give it.

    Args:
        roles: The roles that sound, the principal one first.
        sources: (source, weight) pairs.
    """

    name: str
    weight: float
    roles: tuple[str, ...]
    sources: tuple[tuple[str, float], ...]


PLANS = (
    Plan("solo chords", 0.24, ("chords",), (("pianomidi", 0.4), ("pop909", 0.4), ("jsb", 0.2))),
    Plan("solo melody", 0.24, ("melody",), (("pop909", 0.45), ("schmubert", 0.2), ("jsb", 0.15), ("pianomidi", 0.2))),
    Plan("solo bass", 0.03, ("bass",), (("pop909", 0.5), ("schmubert", 0.5))),
    Plan("solo drums", 0.08, ("drums",), (("groove", 0.9), ("schmubert", 0.1))),
    Plan("melody and chords", 0.15, ("melody", "chords"), (("pop909", 0.75), ("jsb", 0.1), ("pianomidi", 0.15))),
    Plan("melody and bass", 0.03, ("melody", "bass"), (("pop909", 0.5), ("schmubert", 0.5))),
    Plan("bass and drums", 0.04, ("bass", "drums"), (("pop909", 0.5), ("schmubert", 0.5))),
    Plan("melody and drums", 0.02, ("melody", "drums"), (("pop909", 0.5), ("schmubert", 0.5))),
    Plan("chorale", 0.06, CHORALE_VOICES, (("jsb", 1.0),)),
    Plan("trio", 0.04, ("melody", "chords", "bass"), (("pop909", 1.0),)),
    Plan("band without chords", 0.03, ("melody", "bass", "drums"), (("schmubert", 0.7), ("pop909", 0.3))),
    Plan("band", 0.07, ("melody", "chords", "bass", "drums"), (("pop909", 1.0),)),
)


SOLO_PLANS = (
    Plan("solo chords", 0.26, ("chords",), (("pianomidi", 0.4), ("pop909", 0.4), ("jsb", 0.2))),
    Plan("solo melody", 0.5, ("melody",), (("pop909", 0.5), ("schmubert", 0.25), ("jsb", 0.1), ("pianomidi", 0.15))),
    Plan("solo bass", 0.05, ("bass",), (("pop909", 0.5), ("schmubert", 0.5))),
    Plan("solo drums", 0.07, ("drums",), (("groove", 1.0),)),
    Plan("melody and chords", 0.12, ("melody", "chords"), (("pop909", 0.9), ("jsb", 0.1))),
)


@dataclass(frozen=True)
class Repertoire:
    """What a run of the renderer draws from. `stream` tells its random draws apart from those of the others.

    Args:
        family_weights: How often a family is cast; 1 where it is not named.
        first_shard: Where its shards begin, so that two repertoires can share a folder.
    """

    name: str
    plans: tuple[Plan, ...]
    family_weights: Mapping[str, float]
    stream: tuple[int, ...]
    first_shard: int


BALANCED = Repertoire(
    "balanced",
    PLANS,
    {"piano": 1.8, "guitar": 1.4, "strings": 1.4, "accordion": 0.6, "plucked": 0.5, "harpsichord": 0.6},
    (),
    0,
)
# Mostly one instrument at a time, every family alike: what teaches a model how each sounds.
SOLO = Repertoire("solo", SOLO_PLANS, {"accordion": 0.6, "plucked": 0.6}, (1,), 1000)
REPERTOIRES = {repertoire.name: repertoire for repertoire in (BALANCED, SOLO)}


@dataclass(frozen=True)
class Cut:
    """A stretch of a piece, in beats."""

    piece: Piece
    start_beat: float
    end_beat: float

    def part(self, role: str) -> Notes:
        """The notes of one of the piece's own parts, from beat 0."""
        return window(self.piece.parts[role], self.start_beat, self.end_beat)

    def pitched_parts(self) -> list[Notes]:
        return [self.part(role) for role in self.piece.parts if role != "drums"]

    def chords(self) -> list[Chord]:
        """The chords that sound in the cut, clipped to it, from beat 0."""
        length = self.end_beat - self.start_beat
        moved = (
            Chord(max(0.0, c.start_beat - self.start_beat), min(length, c.end_beat - self.start_beat), c.pitch_classes)
            for c in self.piece.chords
        )
        return [chord for chord in moved if chord.end_beat - chord.start_beat > 0.25]


def notes_for(cut: Cut, role: str, plan: Plan, *, sustained: bool, rng: np.random.Generator) -> Notes:
    """The notes that a role plays in the cut; `drums` of sources without drums come from elsewhere."""
    source = cut.piece.source
    if role in cut.piece.parts and role not in ("melody", "bass"):
        return cut.part(role)
    if role == "melody":
        return _melody(cut)
    if role == "bass":
        return _bass(cut, rng)
    if role == "chords":
        if source == "pop909":
            return _pop_chords(cut, plan, sustained=sustained, rng=rng)
        whole = plan.name == "solo chords"
        roles = {
            "jsb": CHORALE_VOICES if whole else CHORALE_VOICES[1:],
            "pianomidi": ("right", "left") if whole else ("left",),
        }
        return sorted_notes(np.concatenate([cut.part(name) for name in roles[source]]))
    raise ValueError(f"No notes for role {role!r} in a piece of {source!r}. Take a role of its plan.")


def _melody(cut: Cut) -> Notes:
    if cut.piece.source == "jsb":
        return cut.part("soprano")
    return skyline(cut.part("right" if cut.piece.source == "pianomidi" else "melody"))


def _bass(cut: Cut, rng: np.random.Generator) -> Notes:
    if cut.piece.source != "pop909":
        return cut.part("bass")
    return bass_line(cut.part("piano"), below=55.0) if rng.random() < 0.5 else accompaniment.roots(cut.chords(), rng)


def _pop_chords(cut: Cut, plan: Plan, *, sustained: bool, rng: np.random.Generator) -> Notes:
    if plan.name == "solo chords" and not sustained:
        return sorted_notes(np.concatenate([cut.part("piano"), cut.part("melody")][: 1 + int(rng.random() < 0.7)]))
    if not sustained and rng.random() < 0.45:
        return cut.part("piano")
    style = "held" if sustained else str(rng.choice(accompaniment.STYLES))
    chords = accompaniment.accompany(cut.chords(), style, float(rng.uniform(56, 66)), rng)
    if plan.name == "solo chords":
        return sorted_notes(np.concatenate([chords, cut.part("melody")]))
    return chords
