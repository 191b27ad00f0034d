"""One clip: a pure function of (scores, split, seed, index)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stretto_shared.training.corpus import captions
from stretto_shared.training.corpus.library import ScoreLibrary
from stretto_shared.training.corpus.orchestration import Arrangement, arrange
from stretto_shared.training.corpus.plans import BALANCED, REPERTOIRES, Repertoire
from stretto_shared.training.corpus.records import CLIP_SAMPLES, SAMPLE_RATE_HZ, SPLITS, ClipRecord
from stretto_shared.training.corpus.render import RenderPart, Synthesizer
from stretto_shared.training.corpus.room import Room, apply_room, draw_room

MAX_ATTEMPTS = 20
SOUNDFONT_WEIGHTS = {"musescore-general": 0.45, "fluidr3": 0.45, "timgm6mb": 0.1}


@dataclass(frozen=True, eq=False)
class Clip:
    """Audio, int16 [S] at 24 kHz, and what is true of it."""

    samples: NDArray[np.int16]
    record: ClipRecord


def make_clip(
    library: ScoreLibrary,
    synthesizers: Mapping[str, Synthesizer],
    split: str,
    seed: int,
    index: int,
    repertoire: Repertoire = BALANCED,
) -> Clip:
    """Draw, arrange, render and caption clip `index`; a clip that comes out silent is drawn again."""
    for attempt in range(MAX_ATTEMPTS):
        rng, arrangement = draw_arrangement(library, split, seed, index, attempt, repertoire)
        names = sorted(synthesizers)
        weights = np.array([SOUNDFONT_WEIGHTS.get(name, 1.0) for name in names])
        soundfont = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        room = draw_room(rng)
        synthesizer = synthesizers[soundfont]
        parts = [_playable(part, synthesizer) for part in arrangement.parts]
        audio = apply_room(synthesizer.render(parts, CLIP_SAMPLES), room, arrangement.dynamics, SAMPLE_RATE_HZ)
        if audio is not None:
            samples = np.rint(audio * 32767.0).astype(np.int16)
            record = describe(arrangement, parts, room, soundfont, split, clip_id(seed, repertoire, split, index))
            return Clip(samples, captions.with_captions(record, seed))
    raise RuntimeError(f"Clip {index} of {split} stays silent in {MAX_ATTEMPTS} draws. Check the SoundFonts.")


def draw_arrangement(
    library: ScoreLibrary, split: str, seed: int, index: int, attempt: int, repertoire: Repertoire
) -> tuple[np.random.Generator, Arrangement]:
    """What a clip plays, and the generator after that draw."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index, attempt, *repertoire.stream])
    return rng, arrange(library, rng, repertoire)


def clip_id(seed: int, repertoire: Repertoire, split: str, index: int) -> str:
    """The name of a clip: v{seed}-{repertoire, unless balanced}-{split}-{index}."""
    return "-".join([f"v{seed}", *([] if repertoire is BALANCED else [repertoire.name]), split, f"{index:06d}"])


def describe_again(library: ScoreLibrary, record: ClipRecord, seed: int) -> ClipRecord:
    """The record of a rendered clip by the present rules for keys, tempo words, moods and captions.

    Raises:
        ValueError: If the arranger no longer draws what the clip plays.
    """
    arrangement = arrangement_of(library, record, seed)
    key = arrangement.key
    current = replace(
        record,
        tempo_word=arrangement.tempo_word,
        key_tonic=key.tonic_name if key else None,
        key_mode=key.mode if key else None,
        mood=arrangement.mood,
        genre=arrangement.genre,
        register=arrangement.register,
    )
    return captions.with_captions(current, seed)


def arrangement_of(library: ScoreLibrary, record: ClipRecord, seed: int) -> Arrangement:
    """What a rendered clip plays, note for note.

    Raises:
        ValueError: If the arranger no longer draws it.
    """
    *prefix, split, index = record.clip_id.split("-")
    repertoire = REPERTOIRES[prefix[1]] if len(prefix) > 1 else BALANCED
    for attempt in range(MAX_ATTEMPTS):
        _, arrangement = draw_arrangement(library, split, seed, int(index), attempt, repertoire)
        same = (arrangement.piece, arrangement.tempo_bpm, arrangement.plan) == (
            record.piece,
            record.tempo_bpm,
            record.texture,
        )
        if same and [use.name for use in arrangement.instruments] == [use.name for use in record.instruments]:
            return arrangement
    raise ValueError(f"Clip {record.clip_id} is not what the arranger draws now. Render the corpus again.")


def describe(
    arrangement: Arrangement, parts: list[RenderPart], room: Room, soundfont: str, split: str, clip_id: str
) -> ClipRecord:
    """The record of a clip, still without captions."""
    key = arrangement.key
    uses = tuple(replace(use, program=part.program) for use, part in zip(arrangement.instruments, parts, strict=True))
    return ClipRecord(
        clip_id,
        split,
        arrangement.source,
        arrangement.piece,
        start_s=round(arrangement.start_beat * 60.0 / arrangement.tempo_bpm, 3),
        instruments=uses,
        tempo_bpm=arrangement.tempo_bpm,
        tempo_word=arrangement.tempo_word,
        key_tonic=key.tonic_name if key else None,
        key_mode=key.mode if key else None,
        mood=arrangement.mood,
        texture=arrangement.plan,
        genre=arrangement.genre,
        dynamics=arrangement.dynamics,
        register=arrangement.register,
        room=room.name,
        soundfont=soundfont,
    )


def _playable(part: RenderPart, synthesizer: Synthesizer) -> RenderPart:
    """The part on the standard kit where the SoundFont lacks the one asked for."""
    return replace(part, program=0) if part.is_drum and not synthesizer.has_kit(part.program) else part
