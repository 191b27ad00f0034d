"""Which hand plays a note: a line between the hands, drawn through the piece.

Viterbi over the places at which notes begin, where the state is the pitch of the line. Notes below it are the left
hand's. A place of the line costs what two hands would: how far the notes of the last and the next moments are from the
middle of their hand, and how wide each hand is open; moving the line costs, and so does a line far from middle C.

Crossed hands are beyond it.

Legend: E places, P pitches of the line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_transcriber.models.engraving.engraved import LOWER_STAFF, UPPER_STAFF

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

LINES = np.arange(36, 90)
MIDDLE_C = 60


@dataclass(frozen=True)
class HandModel:
    """What hands like.

    Args:
        window_beats: How long before and after a place notes count for it.
        spread: Standard deviation of a hand's notes in semitones.
        reach: Semitones that a hand spans without effort.
        reach_cost: Of each semitone beyond, in nats.
        move_cost: Of each semitone that the line moves.
        home_spread: Standard deviation of the line around its home, in semitones.
        home: The line's home.
    """

    window_beats: float = 1.0
    spread: float = 5.0
    reach: float = 8.4
    reach_cost: float = 0.7
    move_cost: float = 0.19
    home_spread: float = 9.0
    home: float = 60.0


def split_hands(beat: Array, pitch_midi: Ints, model: HandModel) -> Ints:
    """The staff, int64 [N], of notes at places `beat` float64 [N], in order."""
    if not len(beat):
        return np.zeros(0, np.int64)
    first = np.flatnonzero(np.diff(beat, prepend=-np.inf) > 0)
    place = np.cumsum(np.diff(beat, prepend=-np.inf) > 0) - 1
    low = np.searchsorted(beat, beat[first] - model.window_beats)
    high = np.searchsorted(beat, beat[first] + model.window_beats, side="right")
    last = np.append(first[1:], len(beat))
    cost = _hand_cost(pitch_midi, low, high, model) + _reach_cost(pitch_midi, first, last, model)
    cost += 0.5 * ((LINES - model.home) / model.home_spread) ** 2
    line = LINES[_smoothest(cost, model.move_cost)]
    return np.where(pitch_midi < line[place], LOWER_STAFF, UPPER_STAFF)


def _hand_cost(pitch: Ints, low: Ints, high: Ints, model: HandModel) -> Array:
    """How far the notes in each window are from the middle of their hand: [E, P], mean per note, in nats."""
    values = pitch.astype(float)
    below = pitch[:, None] < LINES
    sums = []
    for weight in (np.ones(len(pitch)), values, values**2):
        whole = np.concatenate([[0.0], np.cumsum(weight)])
        left = np.concatenate([np.zeros((1, len(LINES))), np.cumsum(weight[:, None] * below, axis=0)])
        part = left[high] - left[low]
        sums.append((part, (whole[high] - whole[low])[:, None] - part))
    total = np.zeros((len(low), len(LINES)))
    for hand in (0, 1):
        count, first, second = (each[hand] for each in sums)
        total += second - first**2 / np.maximum(count, 1.0)
    count = (high - low)[:, None]
    cost: Array = np.maximum(total, 0.0) / (2 * model.spread**2) / np.sqrt(count)
    return cost


def _reach_cost(pitch: Ints, first: Ints, last: Ints, model: HandModel) -> Array:
    """What chords that are wider than a hand cost: [E, P]."""
    cost = np.zeros((len(first), len(LINES)))
    for event in np.flatnonzero(last - first > 1):
        chord = np.sort(pitch[first[event] : last[event]])
        split = np.searchsorted(chord, LINES)
        left = np.where(split > 0, chord[np.maximum(split, 1) - 1] - chord[0], 0)
        right = np.where(split < len(chord), chord[-1] - chord[np.minimum(split, len(chord) - 1)], 0)
        cost[event] = np.maximum(left - model.reach, 0) + np.maximum(right - model.reach, 0)
    return cost * model.reach_cost


def _smoothest(cost: Array, move_cost: float) -> Ints:
    """The cheapest row of states [E], where each step between neighbouring states costs `move_cost`."""
    num_events, num_lines = cost.shape
    move = move_cost * np.abs(np.arange(num_lines)[:, None] - np.arange(num_lines))
    back = np.zeros((num_events, num_lines), np.int64)
    total = cost[0]
    for event in range(1, num_events):
        through = total[:, None] + move
        back[event] = through.argmin(axis=0)
        total = through.min(axis=0) + cost[event]
    path = np.zeros(num_events, np.int64)
    path[-1] = int(total.argmin())
    for event in range(num_events - 1, 0, -1):
        path[event - 1] = back[event, path[event]]
    return path
