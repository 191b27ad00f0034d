"""`engrave`: a performance with its beats becomes a score.

In this order: places of onsets on the beats' grids (`quantisation.py`), hands (`hands.py`), voices (`voices.py`),
written lengths (`values.py`), bars and what a beat is written as (`metre.py`), keys (`keys.py`), spelling
(`spelling.py`).

Notes of one pitch that fall on one place of a staff become one note, the longest: a trill that is faster than the grid
loses notes. Ornaments are written out, not as signs.

Legend: N notes, B beats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from stretto_shared.errors import InvalidInput
from stretto_shared.score import Score

from stretto_transcriber.models.engraving import tables
from stretto_transcriber.models.engraving.engraved import LOWER_STAFF, UPPER_STAFF, Bar, EngravedNote, EngravedScore
from stretto_transcriber.models.engraving.grids import TICKS_PER_BEAT, GridModel
from stretto_transcriber.models.engraving.hands import HandModel, split_hands
from stretto_transcriber.models.engraving.keys import KeyModel, key_signatures
from stretto_transcriber.models.engraving.metre import (
    UnitProfile,
    bar_lines,
    beat_features,
    beats_in_bars,
    check_bars,
    signature,
    unit_of_beat,
    usual_beats,
)
from stretto_transcriber.models.engraving.quantisation import TimingModel, quantise
from stretto_transcriber.models.engraving.spelling import spell
from stretto_transcriber.models.engraving.value_weights import VALUE_WEIGHTS
from stretto_transcriber.models.engraving.values import MAX_LENGTH_BEATS, written_lengths
from stretto_transcriber.models.engraving.voices import VoiceModel, separate_voices

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_BEATS = 2
MAX_BEYOND_BEATS = 64.0
"""How far notes may begin before the first beat or after the last."""
EMPTY_TEMPO_BPM = 120.0


def _default_grids() -> GridModel:
    return GridModel(np.array(tables.GRID_SHARES), tables.GRID_STAY, tuple(np.array(row) for row in tables.PLACES))


def _default_units() -> tuple[UnitProfile, ...]:
    return tuple(UnitProfile(*row) for row in tables.UNIT_PROFILES)


@dataclass(frozen=True, eq=False)
class EngravingModel:
    """All that the engraver knows of music."""

    grids: GridModel = field(default_factory=_default_grids)
    timing: TimingModel = field(default_factory=TimingModel)
    hands: HandModel = field(default_factory=HandModel)
    voices: VoiceModel = field(default_factory=VoiceModel)
    value_weights: Array = field(default_factory=lambda: np.array(VALUE_WEIGHTS))
    units: tuple[UnitProfile, ...] = field(default_factory=_default_units)
    keys: KeyModel = field(default_factory=KeyModel)


@dataclass(frozen=True, eq=False)
class PlacedNotes:
    """Notes in order of place, staff and pitch, as far as they are known; arrays [N]."""

    source: Ints
    tick: Ints
    held_until: Array
    pitch: Ints
    velocity: Ints
    staff: Ints

    def __getitem__(self, index: Ints) -> PlacedNotes:
        return PlacedNotes(
            self.source[index],
            self.tick[index],
            self.held_until[index],
            self.pitch[index],
            self.velocity[index],
            self.staff[index],
        )

    def __len__(self) -> int:
        return len(self.tick)


def engrave(performance: Score, model: EngravingModel | None = None) -> EngravedScore:
    """The score of a performance.

    Args:
        performance: Notes of one piano, with at least two beats; bars where the beats have places, otherwise where
            accents say.
        model: What is known of music; left out, what was counted and tuned on ASAP's training compositions.

    Raises:
        InvalidInput: With fewer than two beats, with drums, with notes more than 64 beats away from all beats, or with
            bars of more than 64 beats, or of more than 21 in three parts each.
    """
    model = model or EngravingModel()
    _check(performance)
    notes = placed_notes(performance, model)
    voice = voices_of(notes, model)
    length = _lengths(notes, voice, model)
    places = performance.beat_in_bar.astype(np.int64)
    if not len(places):
        places = beats_in_bars(_accents(notes, len(performance.beat_s)))
    bars = _bars(performance, places, notes, length, model)
    first = bars[0].first_beat
    beat = bars[0].beat
    bars = _in_keys(bars, notes, length, model)
    bar_of = np.searchsorted([bar.first_beat for bar in bars], notes.tick // TICKS_PER_BEAT, side="right") - 1
    fifths = spell(notes.pitch, np.array([bars[index].signature_fifths for index in bar_of], np.int64))
    tick = (notes.tick - first * TICKS_PER_BEAT).tolist()
    written = [
        EngravedNote(
            Fraction(start, TICKS_PER_BEAT) * beat, Fraction(ticks, TICKS_PER_BEAT) * beat, *rest
        )
        for start, ticks, *rest in zip(
            tick,
            length.tolist(),
            notes.pitch.tolist(),
            fifths.tolist(),
            notes.velocity.tolist(),
            notes.staff.tolist(),
            voice.tolist(),
            notes.source.tolist(),
        )
    ]  # fmt: skip
    written.sort(key=lambda note: (note.onset, note.staff, note.voice, note.pitch_midi))
    return EngravedScore(tuple(bars), tuple(written), _tempo_bpm(performance, beat))


def _check(performance: Score) -> None:
    if len(performance.beat_s) < MIN_BEATS:
        raise InvalidInput(
            "score.beat_s",
            f"expected at least {MIN_BEATS} beats, got {len(performance.beat_s)}. Track the beats first.",
        )
    for index in np.unique(performance.part_index):
        if performance.parts[index].is_drum:
            raise InvalidInput(f"score.parts[{index}]", "expected a piano, got drums. Leave the drums out.")
    check_bars(performance.beat_in_bar.astype(np.int64), Fraction(1))  # at least: no notes are placed for nothing


def placed_notes(performance: Score, model: EngravingModel) -> PlacedNotes:
    """Notes on their places and staves; of those of one pitch on one place of a staff, the longest."""
    beat_s = performance.beat_s
    place = places_of(performance.onset_s, beat_s)
    beyond = np.flatnonzero((place < -MAX_BEYOND_BEATS) | (place > len(beat_s) - 1 + MAX_BEYOND_BEATS))
    if beyond.size:
        raise InvalidInput(
            "score.beat_s",
            f"expected beats within {MAX_BEYOND_BEATS:g} of every note, got {beat_s[0]:g} to {beat_s[-1]:g} s and "
            f"a note at {performance.onset_s[beyond[0]]:g} s. Track the beats to the end of the music.",
        )
    interval = np.clip(np.floor(place).astype(np.int64), 0, len(beat_s) - 2)
    period_s = np.diff(beat_s)[interval]
    tick = quantise(performance.onset_s, place, period_s, model.grids, model.timing)
    held_until = np.minimum(places_of(performance.offset_s, beat_s), tick / TICKS_PER_BEAT + MAX_LENGTH_BEATS)
    held = np.maximum(held_until - place, 1e-3)
    pitch = performance.pitch_midi.astype(np.int64)
    order = np.lexsort((pitch, tick))
    staff = np.empty(len(tick), np.int64)
    staff[order] = split_hands(tick[order] / TICKS_PER_BEAT, pitch[order], model.hands)
    order = np.lexsort((-held, pitch, staff, tick))
    is_new = np.ones(len(order), np.bool_)
    same = (np.diff(tick[order]) == 0) & (np.diff(staff[order]) == 0) & (np.diff(pitch[order]) == 0)
    is_new[1:] = ~same
    kept = order[is_new]
    held_until = tick / TICKS_PER_BEAT + held
    return PlacedNotes(
        kept, tick[kept], held_until[kept], pitch[kept], performance.velocity[kept].astype(np.int64), staff[kept]
    )


def places_of(time_s: Array, beat_s: Array) -> Array:
    """Places in beats of times [N] on beats [B]: smooth within, so that a beat that slows down is not cut even.

    Beyond the ends, as fast as the nearest beat.
    """
    number = np.arange(len(beat_s), dtype=np.float64)
    before = (time_s - beat_s[0]) / (beat_s[1] - beat_s[0])
    after = number[-1] + (time_s - beat_s[-1]) / (beat_s[-1] - beat_s[-2])
    inside = PchipInterpolator(beat_s, number)(np.clip(time_s, beat_s[0], beat_s[-1]))
    places: Array = np.where(time_s < beat_s[0], before, np.where(time_s > beat_s[-1], after, inside))
    return places


def voices_of(notes: PlacedNotes, model: EngravingModel) -> Ints:
    """The voice of each note on its staff, int64 [N]."""
    voice = np.ones(len(notes), np.int64)
    for staff in (UPPER_STAFF, LOWER_STAFF):
        mine = np.flatnonzero(notes.staff == staff)
        part = notes[mine]
        voice[mine] = separate_voices(part.tick / TICKS_PER_BEAT, part.held_until, part.pitch, model.voices)
    return voice


def _lengths(notes: PlacedNotes, voice: Ints, model: EngravingModel) -> Ints:
    """Written lengths in ticks [N]; notes of a voice that begin together end together."""
    length = np.empty(len(notes), np.int64)
    for staff in (UPPER_STAFF, LOWER_STAFF):
        for number in (1, 2):
            mine = np.flatnonzero((notes.staff == staff) & (voice == number))
            if len(mine):
                tick, chord = np.unique(notes.tick[mine], return_inverse=True)
                held = (notes.held_until - notes.tick / TICKS_PER_BEAT)[mine]
                longest = np.zeros(len(tick))
                np.maximum.at(longest, chord, held)
                limit = int(tick[-1]) + MAX_LENGTH_BEATS * TICKS_PER_BEAT
                length[mine] = written_lengths(tick, longest, limit, model.value_weights)[chord]
    return length


def _accents(notes: PlacedNotes, num_beats: int) -> Array:
    """How much each beat is accented, float64 [B]: by how loud, how long and how low what begins there is."""
    accent = np.zeros(num_beats)
    beat, phase = notes.tick // TICKS_PER_BEAT, notes.tick % TICKS_PER_BEAT
    here = (phase == 0) & (beat >= 0) & (beat < num_beats)
    held = np.clip(notes.held_until - notes.tick / TICKS_PER_BEAT, 0.1, 8.0)
    weight = notes.velocity / 64.0 * (1.0 + np.log(held / 0.1)) * (1.0 + (notes.pitch < 52))
    np.add.at(accent, beat[here], weight[here])
    return np.sqrt(accent)


def _bars(
    performance: Score, places: Ints, notes: PlacedNotes, length: Ints, model: EngravingModel
) -> list[Bar]:  # fmt: skip
    first = int(notes.tick.min(initial=0)) // TICKS_PER_BEAT
    end = -int(-(notes.tick + length).max(initial=0) // TICKS_PER_BEAT)
    lines = bar_lines(len(performance.beat_s), places, first, end)
    usual = usual_beats(places)
    beat = unit_of_beat(usual, beat_features(notes.tick, performance.beat_s), model.units)
    check_bars(places, beat)
    bars = []
    for index, (start, stop) in enumerate(zip(lines, lines[1:])):
        num_beats = stop - start
        is_pickup = index == 0 and num_beats < usual
        counted = usual if is_pickup else num_beats
        bars.append(Bar((start - lines[0]) * beat, num_beats, beat, start, *signature(counted, beat)))
    return bars


def _in_keys(bars: list[Bar], notes: PlacedNotes, length: Ints, model: EngravingModel) -> list[Bar]:
    classes = np.zeros((len(bars), 12))
    bar_of = np.searchsorted([bar.first_beat for bar in bars], notes.tick // TICKS_PER_BEAT, side="right") - 1
    np.add.at(classes, (bar_of, notes.pitch % 12), np.minimum(length / TICKS_PER_BEAT, 4.0))
    sharps, is_minor = key_signatures(classes, model.keys)
    return [
        Bar(
            bar.onset, bar.num_beats, bar.beat, bar.first_beat, bar.numerator, bar.denominator, int(fifths), bool(minor)
        )
        for bar, fifths, minor in zip(bars, sharps, is_minor)
    ]


def _tempo_bpm(performance: Score, beat: Fraction) -> float:
    """Quarter notes a minute in the middle of the performance, within what a `Score` may say."""
    period_s = float(np.median(np.diff(performance.beat_s)))
    return float(np.clip(60.0 / period_s * float(beat), 10.0, 500.0))
