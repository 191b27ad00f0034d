"""Excerpts of music with known beats, arranged anew: other speeds, keys, instruments, drums, rooms and noise.

Everything is drawn from the generator that the caller gives, so a shard is the same whenever it is made.
Legend: N notes, B beats, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from beat_scores import Music
from numpy.typing import NDArray
from scipy.signal import fftconvolve
from stretto_shared.training.corpus.render import RenderPart, Synthesizer

PRE_ROLL_S = 2.0
CHORD_S = 0.03  # notes this close together are one onset

_PIANOS = (0, 0, 0, 1, 2, 3, 4, 5)
_KEYBOARDS = (6, 7, 8, 11, 12, 19, 24, 46)
_MELODIES = (0, 4, 11, 24, 40, 41, 52, 56, 65, 66, 68, 71, 73, 75, 79, 80, 81)
_CHORDS = (0, 0, 1, 4, 5, 16, 24, 25, 26, 27, 48, 49, 88, 89)
_BASSES = (32, 33, 34, 35, 38, 39, 43)
_KICK, _SNARE, _CLAP, _HAT, _OPEN_HAT, _RIDE, _CRASH = 36, 38, 39, 42, 46, 51, 49


@dataclass(frozen=True, eq=False)
class Excerpt:
    """Audio [S] and what is to be heard in it; all times from its start.

    Args:
        audio: float32 mono.
        beat_s: float64 [B].
        beat_in_bar: int64 [B], 1 on a downbeat, 0 where nobody knows.
        onset_s: float64 [N], of chords, not of their notes.
    """

    audio: NDArray[np.float32]
    beat_s: NDArray[np.float64]
    beat_in_bar: NDArray[np.int64]
    onset_s: NDArray[np.float64]


def can_start(music: Music, start_s: float, length_s: float) -> bool:
    """Whether so long a stretch has beats from end to end, all sure and all of known place, and enough notes."""
    if start_s < music.beat_s[0] - 1.0 or start_s + length_s > music.beat_s[-1] + 1.0:
        return False
    within = (music.beat_s >= start_s) & (music.beat_s < start_s + length_s)
    notes = sum(int(np.sum((p.notes[:, 0] >= start_s) & (p.notes[:, 0] < start_s + length_s))) for p in music.parts)
    return bool(within.sum() >= 8 and music.is_sure[within].all() and notes >= length_s)


def draw_excerpt(
    music: Music, synthesizer: Synthesizer, length_s: float, sample_rate_hz: int, random: np.random.Generator
) -> Excerpt | None:
    """A stretch of the music, played anew; None if eight tries find none that will do."""
    low, high = (0.85, 1.2) if music.source == "asap" else (0.72, 1.4)
    stretch = float(np.exp(random.uniform(np.log(low), np.log(high))))
    span_s = length_s / stretch
    latest_s = music.beat_s[-1] + 1.0 - span_s
    for _ in range(8):
        start_s = float(random.uniform(music.beat_s[0] - 1.0, max(music.beat_s[0] - 0.9, latest_s)))
        if can_start(music, start_s, span_s):
            break
    else:
        return None
    parts = arrange(music, random)
    audio = play(parts, synthesizer, start_s, stretch, length_s, sample_rate_hz)
    return Excerpt(in_a_room(audio, sample_rate_hz, random), *truth(music, parts, start_s, stretch, length_s))


def truth(
    music: Music, parts: list[RenderPart], start_s: float, stretch: float, length_s: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Beats, their places and the onsets of an excerpt."""
    beat_s = (music.beat_s - start_s) * stretch
    inside = (beat_s >= 0) & (beat_s < length_s)
    onset_s = (np.sort(np.concatenate([part.notes[:, 0] for part in parts])) - start_s) * stretch
    onset_s = first_of_chords(onset_s[(onset_s >= 0) & (onset_s < length_s)])
    return beat_s[inside], music.beat_in_bar[inside], onset_s


def first_of_chords(onset_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Onsets that rise, each at least `CHORD_S` after the one before that was kept."""
    kept: list[float] = []
    for time_s in onset_s:
        if not kept or time_s - kept[-1] >= CHORD_S:
            kept.append(float(time_s))
    return np.array(kept)


def play(
    parts: list[RenderPart],
    synthesizer: Synthesizer,
    start_s: float,
    stretch: float,
    length_s: float,
    sample_rate_hz: int,
) -> NDArray[np.float32]:
    """Render a stretch at another speed, with what sounds on from just before it."""
    moved = []
    for part in parts:
        notes = part.notes.copy()
        notes[:, 0] = (notes[:, 0] - start_s) * stretch + PRE_ROLL_S
        notes[:, 1] *= stretch
        heard = (notes[:, 0] >= 0) & (notes[:, 0] < length_s + PRE_ROLL_S)
        moved.append(RenderPart(part.program, part.is_drum, notes[heard], part.gain))
    audio = synthesizer.render(moved, round((length_s + PRE_ROLL_S) * sample_rate_hz))
    return audio[round(PRE_ROLL_S * sample_rate_hz) :]


def arrange(music: Music, random: np.random.Generator) -> list[RenderPart]:
    """Who plays: ASAP a piano or another keyboard, Groove its kit, POP909 a band."""
    if music.source == "groove":
        return [RenderPart(int(random.choice((0, 0, 8, 16, 24, 25, 32))), True, music.parts[0].notes)]
    key = int(random.integers(-5, 6))
    if music.source == "asap":
        programs = _PIANOS if random.random() < 0.85 else _KEYBOARDS
        return [RenderPart(int(random.choice(programs)), False, transposed(music.parts[0].notes, key))]
    band = []
    for part in music.parts:
        programs = _CHORDS if part.role == "piano" else _MELODIES
        gain = float(random.uniform(0.5, 1.2))
        if part.role == "bridge" and random.random() < 0.3:
            continue
        band.append(RenderPart(int(random.choice(programs)), False, transposed(part.notes, key), gain))
    if random.random() < 0.5:
        bass = transposed(bass_line(music), key)
        band.append(RenderPart(int(random.choice(_BASSES)), False, bass, float(random.uniform(0.7, 1.2))))
    if random.random() < 0.65:
        band.append(RenderPart(0, True, drum_part(music, random), float(random.uniform(0.4, 1.2))))
    return band


def transposed(notes: NDArray[np.float64], key: int) -> NDArray[np.float64]:
    """The notes moved by semitones; those that leave MIDI's range stay."""
    moved = notes.copy()
    moved[:, 2] += key
    return np.where(((moved[:, 2] >= 0) & (moved[:, 2] <= 127))[:, None], moved, notes)


def bass_line(music: Music) -> NDArray[np.float64]:
    """The lowest note of the chords that start at each beat, an octave lower where that is playable."""
    chords = next((part.notes for part in music.parts if part.role == "piano"), music.parts[0].notes)
    rows = []
    for beat_s, next_s in zip(music.beat_s, music.beat_s[1:]):
        near = chords[np.abs(chords[:, 0] - beat_s) < 0.06]
        if len(near):
            pitch = near[:, 2].min()
            rows.append([beat_s, 0.9 * (next_s - beat_s), pitch - 12 if pitch >= 48 else pitch, 90.0])
    return np.array(rows).reshape(-1, 4)


def drum_part(music: Music, random: np.random.Generator) -> NDArray[np.float64]:
    """A pattern of one bar, drawn once and varied a little, on the beats of the music."""
    hats = int(random.choice((1, 2, 2, 2, 4)))
    cymbal = int(random.choice((_HAT, _HAT, _RIDE)))
    backbeat = int(random.choice((_SNARE, _SNARE, _CLAP)))
    half_time = random.random() < 0.15
    four_on_the_floor = random.random() < 0.2
    kicks = random.random(16) < 0.15  # on eighths besides the plain ones
    swing = float(random.choice((0.5, 0.5, 0.5, 0.62)))
    jitter_s = float(random.uniform(0.0, 0.008))
    rows: list[tuple[float, float, float, float]] = []

    def hit(beat: int, place: float, pitch: int, velocity: float) -> None:
        time_s = music.beat_s[beat] + place * (music.beat_s[beat + 1] - music.beat_s[beat])
        loudness = float(np.clip(velocity + random.normal(0, 6), 20, 127))
        rows.append((max(0.0, time_s + random.normal(0, jitter_s)), 0.1, pitch, loudness))

    for beat in range(len(music.beat_s) - 1):
        place = int(music.beat_in_bar[beat])
        if place == 0:
            continue
        for step in range(hats):
            at = step / hats if hats != 2 else (0.0, swing)[step]
            hit(beat, at, _OPEN_HAT if random.random() < 0.04 else cymbal, 80 if step == 0 else 60)
        is_back = place == 3 if half_time else place % 2 == 0
        if four_on_the_floor or place == 1 or (place == 3 and not half_time and random.random() < 0.8):
            hit(beat, 0.0, _KICK, 105)
        if is_back:
            hit(beat, 0.0, backbeat, 100)
        if kicks[(2 * place - 1) % 16]:
            hit(beat, swing, _KICK, 90)
        if place == 1 and random.random() < 0.12:
            hit(beat, 0.0, _CRASH, 95)
    return np.array(sorted(rows)).reshape(-1, 4)


def in_a_room(audio: NDArray[np.float32], sample_rate_hz: int, random: np.random.Generator) -> NDArray[np.float32]:
    """The audio at another level, perhaps in a room, perhaps with noise."""
    if random.random() < 0.5:
        seconds = float(random.uniform(0.15, 0.9))
        time_s = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
        tail = random.normal(size=len(time_s)) * np.exp(-6.9 * time_s / seconds)
        tail *= float(random.uniform(0.1, 0.5)) / np.sqrt(np.sum(tail**2))
        tail[0] = 1.0
        audio = fftconvolve(audio, tail.astype(np.float32))[: len(audio)]
    level = float(np.sqrt(np.mean(audio**2))) + 1e-9
    audio = audio * (10 ** (random.uniform(-32, -14) / 20) / level)
    if random.random() < 0.5:
        noise = np.cumsum(random.normal(size=len(audio))) if random.random() < 0.3 else random.normal(size=len(audio))
        noise -= noise.mean()
        wanted = np.sqrt(np.mean(audio**2)) * 10 ** (random.uniform(-55, -25) / 20)
        audio = audio + noise * (wanted / np.sqrt(np.mean(noise**2)))
    limited: NDArray[np.float32] = np.clip(audio, -1, 1).astype(np.float32)
    return limited
