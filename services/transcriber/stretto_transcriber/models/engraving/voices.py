"""Up to two voices on a staff, from how long the notes were held.

Notes that begin together are parted by pitch: the upper into voice 1, the lower into voice 2, or all into one. A beam
of hypotheses goes through the staff. What one costs, in nats: a voice cut short that was held on; a voice silent before
its next note; notes of one chord held for different lengths; leaps within a voice; voices that cross; and any use of
the second voice, so that it appears where the first cannot say it all. After Chew and Wu, "Separating voices in
polyphonic music: a contig mapping approach" (2004), in that voices are parted where the most sound at once, and
Temperley's preference rules (2001).

Legend: E places at which notes of the staff begin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

BEAM_WIDTH = 8
NEVER = -1e9


@dataclass(frozen=True)
class VoiceModel:
    """What each fault of a hypothesis costs.

    Args:
        cut: Of a voice cut short, times the log of how often its written length was held.
        free_overlap: How much longer than written a note may be held, as a share, for nothing: legato and pedal.
        silence: Of a voice silent before a note, times the log of 1 and the beats of silence.
        uneven: Of notes of one chord, times the deviation of the logs of how long they were held.
        leap: Of an octave within a voice.
        cross: Of a lower voice above the upper one.
        second: Of each note in the second voice.
    """

    cut: float = 1.5
    free_overlap: float = 0.35
    silence: float = 0.5
    uneven: float = 2.0
    leap: float = 0.5
    cross: float = 2.0
    second: float = 0.7
    enter: float = 1.0


@dataclass(frozen=True)
class _Voice:
    """The last chord of a voice: where it began, until where it was held, its mean pitch."""

    onset: float = NEVER
    held: float = NEVER
    pitch: float = 0.0


@dataclass(frozen=True)
class _Chord:
    onset: float
    held: float
    pitch: float
    uneven: float
    count: int


_Hypothesis = tuple[float, tuple[_Voice, _Voice], tuple["_Hypothesis", int] | None]


def separate_voices(beat: Array, held_until: Array, pitch_midi: Ints, model: VoiceModel) -> Ints:
    """The voice, int64 [N], of the notes of one staff in order of place.

    Args:
        beat: float64 [N], where they begin, as written, in beats.
        held_until: float64 [N], where they ended, as played, in beats.
        pitch_midi: int64 [N].
        model: What is preferred.
    """
    voice = np.ones(len(beat), np.int64)
    if not len(beat):
        return voice
    events = np.split(np.arange(len(beat)), np.flatnonzero(np.diff(beat) > 0) + 1)
    ordered = [event[np.argsort(-pitch_midi[event], kind="stable")] for event in events]
    beam: list[_Hypothesis] = [(0.0, (_Voice(), _Voice()), None)]
    for event in ordered:
        parts = _partings(beat[event], held_until[event], pitch_midi[event])
        grown = [
            _extend(hypothesis, index, upper, lower, model)
            for hypothesis in beam
            for index, (upper, lower) in enumerate(parts)
        ]
        grown.sort(key=lambda each: each[0])
        beam = grown[:BEAM_WIDTH]
    link = beam[0][2]
    for event in reversed(ordered):
        assert link is not None
        before, index = link
        voice[event[_num_upper(index, len(event)) :]] = 2
        link = before[2]
    return voice


def _num_upper(index: int, num_notes: int) -> int:
    """How many of an event's notes are voice 1's in parting `index`: all, all but the lowest, ..., none."""
    return num_notes - index


def _partings(beat: Array, held: Array, pitch: Ints) -> list[tuple[_Chord | None, _Chord | None]]:
    lengths = np.log(np.maximum(held - beat, 1e-3))
    return [
        (
            _chord(beat[:split], held[:split], pitch[:split], lengths[:split]),
            _chord(beat[split:], held[split:], pitch[split:], lengths[split:]),
        )
        for split in range(len(beat), -1, -1)
    ]


def _chord(beat: Array, held: Array, pitch: Ints, lengths: Array) -> _Chord | None:
    if not len(beat):
        return None
    return _Chord(
        float(beat[0]), float(np.median(held)), float(pitch.mean()), float(lengths.std()) * len(beat), len(beat)
    )


def _extend(
    hypothesis: _Hypothesis, index: int, upper: _Chord | None, lower: _Chord | None, model: VoiceModel
) -> _Hypothesis:
    cost, (first, second), _ = hypothesis
    onset = upper.onset if upper else lower.onset if lower else 0.0
    if upper:
        cost += _join_cost(first, upper, model, 1.0)
        if not lower and second.held > onset and second.pitch > upper.pitch:
            cost += model.cross
    if lower:
        cost += _join_cost(second, lower, model, 0.0) + model.second * lower.count
        if second.held < onset - 0.5:
            cost += model.enter
        above = upper.pitch if upper else first.pitch if first.held > onset else math.inf
        if lower.pitch > above:
            cost += model.cross
    voices = (
        _Voice(upper.onset, upper.held, upper.pitch) if upper else first,
        _Voice(lower.onset, lower.held, lower.pitch) if lower else second,
    )
    return cost, voices, (hypothesis, index)


def _join_cost(voice: _Voice, chord: _Chord, model: VoiceModel, silence: float) -> float:
    """What it costs that a chord follows in a voice; `silence` weighs the cost of the pause before it."""
    cost = model.uneven * chord.uneven
    if voice.onset == NEVER:
        return cost
    written = chord.onset - voice.onset
    held = (voice.held - voice.onset) / written
    if held > 1.0 + model.free_overlap:
        cost += model.cut * math.log(held / (1.0 + model.free_overlap))
    cost += silence * model.silence * math.log1p(max(0.0, chord.onset - voice.held))
    return cost + model.leap * abs(chord.pitch - voice.pitch) / 12.0
