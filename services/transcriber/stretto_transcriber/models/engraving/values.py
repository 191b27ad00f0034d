"""Written lengths of notes from how long they were held.

Pianists release keys early and late, and the pedal hides it, so a note's written length is first of all the time to the
next note of its voice. It is shorter only where the note was released long before; then it is the length of those that
end on a place of the beat's grid that is the nearest to how long notes of that length are usually held.

Legend: C chords of one voice, in order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_transcriber.models.engraving.grids import TICKS_PER_BEAT

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ValueModel:
    """How notes are held.

    Args:
        fill: The least share of the time to the next note that a note which fills it is held.
        fill_short: The same where the next note comes within half a beat.
        held_share: The usual share of its written length that a note is held which does not fill.
        longest_fill: Beats; beyond, a note does not fill unless it was held.
    """

    fill: float = 0.6
    fill_short: float = 0.3
    held_share: float = 0.85
    fill_long: float = 0.7


PARTS_OF_BEAT = (8, 6, 4, 3, 2)
"""Into which a beat is divided for the end of a note that does not fill, the finest first."""


def written_lengths(tick: Ints, held: Array, limit_ticks: int, model: ValueModel) -> Ints:
    """Lengths in ticks, int64 [C], of the chords of one voice.

    Args:
        tick: int64 [C], where they begin, rising.
        held: float64 [C], how long they were held, in beats.
        limit_ticks: The last chord ends by then at the latest.
        model: What is usual.
    """
    room = np.diff(np.append(tick, limit_ticks))
    lengths = np.empty(len(tick), np.int64)
    for index, (start, free, length) in enumerate(zip(tick.tolist(), room.tolist(), held.tolist())):
        is_last = index == len(tick) - 1
        lengths[index] = _length(start, free, length, is_last, model)
    return lengths


def _length(start: int, free: int, held: float, is_last: bool, model: ValueModel) -> int:
    share = held * TICKS_PER_BEAT / free
    if free <= TICKS_PER_BEAT // 2:
        least = model.fill_short
    elif free <= TICKS_PER_BEAT:
        least = model.fill
    else:
        least = model.fill_long
    if not is_last and share >= least:
        return free
    wanted = math.log(max(held, 1e-3) / model.held_share)
    return min(_candidates(start, free), key=lambda length: abs(math.log(length / TICKS_PER_BEAT) - wanted))


def _candidates(start: int, free: int) -> list[int]:
    """Lengths up to `free` that end on a beat, on half of one, or where the note's own division of the beat says."""
    phase = start % TICKS_PER_BEAT
    found = {free}
    for parts in PARTS_OF_BEAT:
        unit = TICKS_PER_BEAT // parts
        if phase % unit == 0:
            found.update(length for length in (unit, 2 * unit, 3 * unit) if length <= free)
    if phase:
        found.add(min(free, TICKS_PER_BEAT - phase))
    first_beat = TICKS_PER_BEAT - phase if phase else TICKS_PER_BEAT
    found.update(range(first_beat, min(free, 16 * TICKS_PER_BEAT) + 1, TICKS_PER_BEAT))
    return sorted(found)
