"""The arranger: from a random generator and the scores to an `Arrangement`, which is sound-ready and fully described.

Everything drawn is drawn from the generator that it is given, so an arrangement is a pure function of (scores, seed).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stretto_shared.training.corpus import moods
from stretto_shared.training.corpus.instruments import DRUM_KITS, INSTRUMENTS, Instrument
from stretto_shared.training.corpus.library import ScoreLibrary
from stretto_shared.training.corpus.plans import BALANCED, Cut, Plan, Repertoire, notes_for
from stretto_shared.training.corpus.records import CLIP_SAMPLES, SAMPLE_RATE_HZ, InstrumentUse
from stretto_shared.training.corpus.render import RenderPart
from stretto_shared.training.corpus.scores import DURATION, ONSET, PITCH, VELOCITY, Key, Notes, Piece, key_of

CLIP_S = CLIP_SAMPLES / SAMPLE_RATE_HZ
DYNAMICS = (("soft", 0.25, 52.0), ("medium", 0.5, 82.0), ("loud", 0.25, 108.0))
ROLE_GAINS = {"chords": 0.75, "bass": 0.95, "drums": 0.8, "alto": 0.85, "tenor": 0.85}
MAX_NOTES_PER_S = 32.0
MAX_REST_S = 2.5
MAX_DRAWS = 200


@dataclass(frozen=True, eq=False)
class Arrangement:
    """What a clip plays and everything true about it; `None` means unknown or unclear."""

    plan: str
    source: str
    piece: str
    parts: tuple[RenderPart, ...]
    instruments: tuple[InstrumentUse, ...]
    tempo_bpm: float
    tempo_word: str | None
    key: Key | None
    mood: str | None
    genre: str | None
    dynamics: str
    register: str | None
    start_beat: float


def arrange(library: ScoreLibrary, rng: np.random.Generator, repertoire: Repertoire = BALANCED) -> Arrangement:
    """Draw plans, pieces and cuts until one sounds throughout the clip, then orchestrate it.

    Raises:
        RuntimeError: If no draw fits, which a library of real scores does not reach.
    """
    for _ in range(MAX_DRAWS):
        plans = repertoire.plans
        plan = plans[int(rng.choice(len(plans), p=_normalised([plan.weight for plan in plans])))]
        sources = [(name, weight) for name, weight in plan.sources if name in library.pieces]
        if not sources:
            continue
        source = sources[int(rng.choice(len(sources), p=_normalised([weight for _, weight in sources])))][0]
        pieces = library.pieces[source]
        arrangement = _try_arrange(library, repertoire, plan, pieces[int(rng.integers(len(pieces)))], rng)
        if arrangement is not None:
            return arrangement
    raise RuntimeError(f"No arrangement found in {MAX_DRAWS} draws. Give the library longer or denser pieces.")


def _try_arrange(
    library: ScoreLibrary, repertoire: Repertoire, plan: Plan, piece: Piece, rng: np.random.Generator
) -> Arrangement | None:
    bpm = _draw_tempo(piece, rng, repertoire.tempo_range_bpm)
    num_beats = CLIP_S * bpm / 60.0
    starts = piece.bar_starts[piece.bar_starts + num_beats <= piece.bar_starts.max(initial=0.0) + 2.0]
    if len(starts) == 0:
        return None
    start = float(starts[int(rng.integers(len(starts)))])
    cut = Cut(piece, start, start + num_beats)
    dynamics, _, loudness = DYNAMICS[int(rng.choice(3, p=[weight for _, weight, _ in DYNAMICS]))]
    transpose = int(rng.integers(-5, 7))
    cast = _cast(plan, repertoire.family_weights, rng)
    drums_genre = None
    parts: list[RenderPart] = []
    uses: list[InstrumentUse] = []
    register = None
    for role, chosen in zip(plan.roles, cast, strict=True):
        if role == "drums" and "drums" not in piece.parts:
            notes, drums_genre = _borrowed_drums(library, num_beats, rng)
        else:
            notes = notes_for(cut, role, plan, sustained=isinstance(chosen, Instrument) and chosen.sustained, rng=rng)
        if not sounds_throughout(notes, bpm, principal=role == plan.roles[0]):
            return None
        if isinstance(chosen, Instrument):
            aim = str(rng.choice(["low", "middle", "high"], p=[0.2, 0.6, 0.2])) if len(plan.roles) == 1 else "middle"
            notes = fit_range(shift_pitch(notes, transpose), chosen, aim)
            if plan.name == "solo melody":
                register = register_word(notes)
        notes = _with_dynamics(notes, loudness)
        program, family = (chosen.program, chosen.family) if isinstance(chosen, Instrument) else (chosen, "drums")
        name = chosen.names[0] if isinstance(chosen, Instrument) else DRUM_KITS[chosen][0]
        parts.append(RenderPart(program, family == "drums", _in_seconds(notes, bpm), ROLE_GAINS.get(role, 1.0)))
        uses.append(InstrumentUse(role, program, family, name))
    density = sum(len(part.notes) for part in parts) / CLIP_S
    if density > MAX_NOTES_PER_S:
        return None
    key = key_of(piece, cut.start_beat, cut.end_beat, cut.pitched_parts()) if plan.name != "solo drums" else None
    key = key.transposed(transpose) if key else None
    word = moods.tempo_word(bpm, _onsets_per_s(parts))
    mood = moods.mood(key.mode if key else None, word, dynamics, drums_only=plan.name == "solo drums")
    genre = piece.genre if drums_genre is None or drums_genre == "pop" else None
    return Arrangement(
        plan.name,
        piece.source,
        piece.name,
        tuple(parts),
        tuple(uses),
        bpm,
        word,
        key,
        mood,
        genre,
        dynamics,
        register,
        start,
    )


def _normalised(weights: Sequence[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


def _draw_tempo(piece: Piece, rng: np.random.Generator, range_bpm: tuple[float, float] | None) -> float:
    if piece.tempo_is_free and range_bpm is None:
        range_bpm = (56.0, 116.0) if piece.source == "jsb" else (72.0, 165.0)
    if range_bpm is not None:
        low, high = range_bpm
        return float(round(np.exp(rng.uniform(np.log(low), np.log(high)))))
    return float(round(np.clip(piece.tempo_bpm * rng.uniform(0.78, 1.28), 50.0, 185.0)))


def _cast(plan: Plan, family_weights: Mapping[str, float], rng: np.random.Generator) -> list[Instrument | int]:
    """One instrument per role; a kit's program for drums. Two roles share a family only where the plan has casts."""
    by_program = {instrument.program: instrument for instrument in INSTRUMENTS}
    if plan.casts:
        return [by_program[program] for program in plan.casts[int(rng.integers(len(plan.casts)))]]
    taken: set[str] = set()
    cast: list[Instrument | int] = []
    for role in plan.roles:
        if role == "drums":
            cast.append(int(rng.choice(list(DRUM_KITS), p=[0.4, 0.12, 0.1, 0.1, 0.1, 0.08, 0.1])))
            continue
        if role == "bass":
            options = [instrument for instrument in INSTRUMENTS if instrument.family == "bass"]
        else:
            wanted = [i for i in INSTRUMENTS if (i.chordal if role == "chords" else i.melodic) and i.family != "bass"]
            families = [name for name in dict.fromkeys(i.family for i in wanted) if name not in taken]
            family = str(rng.choice(families, p=_normalised([family_weights.get(name, 1.0) for name in families])))
            taken.add(family)
            options = [instrument for instrument in wanted if instrument.family == family]
        cast.append(options[int(rng.integers(len(options)))])
    return cast


def _borrowed_drums(library: ScoreLibrary, num_beats: float, rng: np.random.Generator) -> tuple[Notes, str | None]:
    """Four bars or more of a drummer of the same split, looped over the clip, and their style."""
    kits = library.pieces["groove"]
    piece = kits[int(rng.integers(len(kits)))]
    bars = int(min(4, len(piece.bar_starts) - 1))
    start = float(piece.bar_starts[int(rng.integers(max(1, len(piece.bar_starts) - bars)))])
    loop = Cut(piece, start, start + 4.0 * bars).part("drums")
    copies = [loop + np.array([4.0 * bars * turn, 0, 0, 0]) for turn in range(int(num_beats // (4 * bars)) + 1)]
    notes = np.concatenate(copies)
    return notes[notes[:, ONSET] < num_beats], piece.genre


def sounds_throughout(notes: Notes, bpm: float, *, principal: bool) -> bool:
    """Whether a part has enough notes, starts soon and leaves no long rest."""
    if len(notes) < (8 if principal else 4):
        return False
    onset_s = notes[:, ONSET] * 60.0 / bpm
    end_s = np.maximum.accumulate((notes[:, ONSET] + notes[:, DURATION]) * 60.0 / bpm)
    rests = np.append(onset_s[1:], CLIP_S) - end_s
    limit = MAX_REST_S if principal else 2.0 * MAX_REST_S
    return bool(onset_s[0] < (0.6 if principal else 3.0) and rests.max() < limit)


def shift_pitch(notes: Notes, semitones: int) -> Notes:
    """The notes, moved up by semitones."""
    shifted: Notes = notes + np.array([0.0, 0.0, float(semitones), 0.0])
    return shifted


def fit_range(notes: Notes, instrument: Instrument, aim: str) -> Notes:
    """Move a part by whole octaves into the instrument's range, low, middle or high in it, and fold what sticks out."""
    span = instrument.high - instrument.low
    target = instrument.low + span * {"low": 0.3, "middle": 0.52, "high": 0.72}[aim]
    octaves = np.round((target - np.median(notes[:, PITCH])) / 12.0)
    fitted = shift_pitch(notes, int(12 * octaves))
    pitches = fitted[:, PITCH]
    pitches += 12.0 * np.ceil(np.maximum(instrument.low - pitches, 0.0) / 12.0)
    pitches -= 12.0 * np.ceil(np.maximum(pitches - instrument.high, 0.0) / 12.0)
    return _without_collisions(fitted)


def _without_collisions(notes: Notes) -> Notes:
    """Drop doubled notes and end every note before the same pitch begins again."""
    ordered = notes[np.lexsort((notes[:, ONSET], notes[:, PITCH]))].copy()
    same = np.append(ordered[1:, PITCH] == ordered[:-1, PITCH], False)
    gap = np.append(ordered[1:, ONSET] - ordered[:-1, ONSET], np.inf)
    ordered[:, DURATION] = np.where(same, np.minimum(ordered[:, DURATION], 0.98 * gap), ordered[:, DURATION])
    kept = ordered[~(same & (gap < 0.05))]
    return kept[np.lexsort((kept[:, PITCH], kept[:, ONSET]))]


def register_word(notes: Notes) -> str | None:
    """`low` or `high` for a line far from the middle of the keyboard."""
    centre = float(np.median(notes[:, PITCH]))
    return "low" if centre < 51 else "high" if centre > 79 else None


def _with_dynamics(notes: Notes, loudness: float) -> Notes:
    changed = notes.copy()
    changed[:, VELOCITY] = np.clip(loudness + 0.6 * (notes[:, VELOCITY] - notes[:, VELOCITY].mean()), 20.0, 127.0)
    return changed


def _in_seconds(notes: Notes, bpm: float) -> Notes:
    scale = 60.0 / bpm
    scaled: Notes = notes * np.array([scale, scale, 1.0, 1.0])
    return scaled


def _onsets_per_s(parts: Sequence[RenderPart]) -> float:
    """Distinct onsets per second of the busiest part."""
    return max(len(np.unique(np.round(part.notes[:, ONSET] / 0.06))) for part in parts) / CLIP_S
