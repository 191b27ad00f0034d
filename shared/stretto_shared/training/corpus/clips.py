"""One clip: a pure function of (scores, split, seed, index)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stretto_shared.training.corpus import captions
from stretto_shared.training.corpus.library import ScoreLibrary
from stretto_shared.training.corpus.orchestration import Arrangement, arrange
from stretto_shared.training.corpus.records import CLIP_SAMPLES, SAMPLE_RATE_HZ, SPLITS, ClipRecord
from stretto_shared.training.corpus.render import RenderPart, Synthesizer
from stretto_shared.training.corpus.room import Room, apply_room, draw_room

SOUNDFONT_WEIGHTS = {"musescore-general": 0.45, "fluidr3": 0.45, "timgm6mb": 0.1}


@dataclass(frozen=True, eq=False)
class Clip:
    """Audio, int16 [S] at 24 kHz, and what is true of it."""

    samples: NDArray[np.int16]
    record: ClipRecord


def make_clip(
    library: ScoreLibrary, synthesizers: Mapping[str, Synthesizer], split: str, seed: int, index: int
) -> Clip:
    """Draw, arrange, render and caption clip `index`; a clip that comes out silent is drawn again."""
    for attempt in range(20):
        rng = np.random.default_rng([seed, SPLITS.index(split), index, attempt])
        arrangement = arrange(library, rng)
        names = sorted(synthesizers)
        weights = np.array([SOUNDFONT_WEIGHTS.get(name, 1.0) for name in names])
        soundfont = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        room = draw_room(rng)
        synthesizer = synthesizers[soundfont]
        parts = [_playable(part, synthesizer) for part in arrangement.parts]
        audio = apply_room(synthesizer.render(parts, CLIP_SAMPLES), room, arrangement.dynamics, SAMPLE_RATE_HZ)
        if audio is not None:
            samples = np.rint(audio * 32767.0).astype(np.int16)
            record = describe(arrangement, parts, room, soundfont, split, f"v{seed}-{split}-{index:06d}")
            return Clip(samples, captions.with_captions(record, seed))
    raise RuntimeError(f"Clip {index} of {split} stays silent in 20 draws. Check the SoundFonts.")


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
