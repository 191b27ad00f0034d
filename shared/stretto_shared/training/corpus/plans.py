"""Plans: which lines of which source sound together in a clip, and what the arranger asks of their instruments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stretto_shared.training.corpus import accompaniment
from stretto_shared.training.corpus.scores import Chord, Notes, Piece, bass_line, skyline, sorted_notes, window

CHORALE_VOICES = ("soprano", "alto", "tenor", "bass")
VOICES = ("voice 1", "voice 2", "voice 3", "voice 4", "voice 5")
Casts = tuple[tuple[int, ...], ...]
CHORALE_CASTS: Casts = (
    (52, 52, 52, 52),
    (53, 53, 53, 53),
    (48, 48, 48, 48),
    (40, 40, 41, 42),
    (40, 41, 42, 42),
    (56, 56, 60, 57),
    (56, 60, 57, 58),
    (61, 61, 61, 61),
    (73, 68, 71, 70),
    (64, 65, 66, 67),
    (73, 73, 71, 71),
    (19, 19, 19, 19),
    (74, 74, 74, 74),
)
DUO_CASTS: Casts = (
    (40, 42),
    (40, 41),
    (41, 42),
    (73, 70),
    (73, 71),
    (68, 70),
    (56, 57),
    (60, 57),
    (64, 66),
    (74, 74),
    (52, 52),
    (53, 53),
    (24, 24),
)
TRIO_CASTS: Casts = (
    (40, 40, 42),
    (40, 41, 42),
    (73, 71, 70),
    (68, 71, 70),
    (56, 60, 57),
    (64, 65, 66),
    (52, 52, 52),
    (53, 53, 53),
    (48, 48, 48),
    (74, 74, 74),
    (19, 19, 19),
)
# String quartets above all, then what the chorales have.
QUARTET_CASTS: Casts = (*[(40, 40, 41, 42)] * 8, *CHORALE_CASTS)
QUINTET_CASTS: Casts = (
    (40, 40, 41, 41, 42),
    (40, 40, 41, 42, 42),
    (73, 68, 71, 60, 70),
    (56, 56, 60, 57, 58),
    (64, 65, 65, 66, 67),
    (52, 52, 52, 52, 52),
    (53, 53, 53, 53, 53),
    (48, 48, 48, 48, 48),
    (74, 74, 74, 74, 74),
    (19, 19, 19, 19, 19),
)


@dataclass(frozen=True)
class Plan:
    """A texture and the sources that can give it.

    Args:
        roles: The roles that sound, the principal one first.
        sources: (source, weight) pairs.
        casts: The General MIDI programs that may play it, one for each role; empty where the arranger casts freely.
    """

    name: str
    weight: float
    roles: tuple[str, ...]
    sources: tuple[tuple[str, float], ...]
    casts: Casts = ()


PLANS = (
    Plan("solo chords", 0.24, ("chords",), (("pianomidi", 0.4), ("pop909", 0.4), ("jsb", 0.2))),
    Plan("solo melody", 0.24, ("melody",), (("pop909", 0.45), ("schmubert", 0.2), ("jsb", 0.15), ("pianomidi", 0.2))),
    Plan("solo bass", 0.03, ("bass",), (("pop909", 0.5), ("schmubert", 0.5))),
    Plan("solo drums", 0.08, ("drums",), (("groove", 0.9), ("schmubert", 0.1))),
    Plan("melody and chords", 0.15, ("melody", "chords"), (("pop909", 0.75), ("jsb", 0.1), ("pianomidi", 0.15))),
    Plan("melody and bass", 0.03, ("melody", "bass"), (("pop909", 0.5), ("schmubert", 0.5))),
    Plan("bass and drums", 0.04, ("bass", "drums"), (("pop909", 0.5), ("schmubert", 0.5))),
    Plan("melody and drums", 0.02, ("melody", "drums"), (("pop909", 0.5), ("schmubert", 0.5))),
    Plan("chorale", 0.06, CHORALE_VOICES, (("jsb", 1.0),), CHORALE_CASTS),
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

RHYTHM_PLANS = (
    Plan("solo drums", 0.35, ("drums",), (("groove", 1.0),)),
    Plan("bass and drums", 0.2, ("bass", "drums"), (("pop909", 0.6), ("schmubert", 0.4))),
    Plan("melody and drums", 0.1, ("melody", "drums"), (("pop909", 0.6), ("schmubert", 0.4))),
    Plan("band without chords", 0.1, ("melody", "bass", "drums"), (("pop909", 0.5), ("schmubert", 0.5))),
    Plan("band", 0.25, ("melody", "chords", "bass", "drums"), (("pop909", 1.0),)),
)

_ENSEMBLES = (("music21 quartets", 0.4), ("music21 quintets", 0.25), ("music21 trios", 0.1))
ENSEMBLE_PLANS = (
    Plan(
        "solo melody",
        0.27,
        ("melody",),
        (("music21 tunes", 0.75), *[(name, weight / 3) for name, weight in _ENSEMBLES]),
    ),
    Plan("solo chords", 0.13, ("chords",), (*_ENSEMBLES, ("music21 keyboard", 0.25))),
    Plan("two voices", 0.07, VOICES[:2], (("music21 duos", 1.0),), DUO_CASTS),
    Plan("three voices", 0.13, VOICES[:3], (("music21 trios", 1.0),), TRIO_CASTS),
    Plan("four voices", 0.27, VOICES[:4], (("music21 quartets", 1.0),), QUARTET_CASTS),
    Plan("five voices", 0.13, VOICES, (("music21 quintets", 1.0),), QUINTET_CASTS),
)


@dataclass(frozen=True)
class Repertoire:
    """What a run of the renderer draws from. `stream` tells its random draws apart from those of the others.

    Args:
        family_weights: How often a family is cast; 1 where it is not named.
        first_shard: Where its shards begin, so that two repertoires can share a folder.
        tempo_range_bpm: Tempos are drawn from it, log-uniformly; without it they stay near each piece's own.
    """

    name: str
    plans: tuple[Plan, ...]
    family_weights: Mapping[str, float]
    stream: tuple[int, ...]
    first_shard: int
    tempo_range_bpm: tuple[float, float] | None = None

    @property
    def sources(self) -> frozenset[str]:
        """Every source that one of its plans may draw from."""
        return frozenset(name for plan in self.plans for name, _ in plan.sources)


BALANCED = Repertoire(
    "balanced",
    PLANS,
    {"piano": 1.8, "guitar": 1.4, "strings": 1.4, "accordion": 0.6, "plucked": 0.5, "harpsichord": 0.6},
    (),
    0,
)
# Mostly one instrument at a time, every family alike: what teaches a model how each sounds.
SOLO = Repertoire("solo", SOLO_PLANS, {"accordion": 0.6, "plucked": 0.6}, (1,), 1000)
# music21's corpus: chamber music, madrigals, folk tunes.
ENSEMBLE = Repertoire("ensemble", ENSEMBLE_PLANS, BALANCED.family_weights, (2,), 2000)
# Drums and bands at every tempo alike: what teaches a model what a number of beats a minute means.
RHYTHM = Repertoire("rhythm", RHYTHM_PLANS, BALANCED.family_weights, (3,), 3000, (60.0, 180.0))
REPERTOIRES = {repertoire.name: repertoire for repertoire in (BALANCED, SOLO, ENSEMBLE, RHYTHM)}


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
        own = tuple(cut.piece.parts)
        return sorted_notes(
            np.concatenate([cut.part(name) for name in (own if plan.name == "solo chords" else own[1:])])
        )
    raise ValueError(f"No notes for role {role!r} in a piece of {source!r}. Take a role of its plan.")


def _melody(cut: Cut) -> Notes:
    if cut.piece.source == "jsb":
        return cut.part("soprano")
    return skyline(cut.part("melody" if "melody" in cut.piece.parts else next(iter(cut.piece.parts))))


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
