"""Written lengths of notes from how long they were held.

Pianists release keys early and late, and the pedal hides it, so how long a key was held says little on its own. Every
chord has a choice of lengths: up to the next chord of its voice, and shorter ones that end where its division of the
beat or a beat does. The likeliest is written, by a conditional logit (McFadden, 1974) over what `choices` notices of
each; `recipes/fit_note_values.py` fits its weights to ASAP's training performances and DCML's editions of the pieces.

Legend: C chords of one voice, in order; K choices; F features.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stretto_transcriber.models.engraving.grids import TICKS_PER_BEAT

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

PARTS_OF_BEAT = (8, 6, 4, 3, 2)
"""Into which a beat is divided for the end of a note that does not fill, the finest first."""
MAX_LENGTH_BEATS = 16
FEATURES = (
    "fills", "fills a long time", "fills a short time", "fills but was let go", "held shorter", "held longer",
    "shorter, squared", "longer, squared", "ends on a beat", "ends the beat", "is a beat", "is dotted", "is long",
    "is short", "is as the time before", "is a third", "overlaps as it fills",
)  # fmt: skip


def written_lengths(tick: Ints, held: Array, limit_ticks: int, weights: Array) -> Ints:
    """Lengths in ticks, int64 [C], of the chords of one voice.

    Args:
        tick: int64 [C], where they begin, rising.
        held: float64 [C], how long they were held, in beats.
        limit_ticks: The last chord ends by then at the latest.
        weights: float64 [F].
    """
    room = np.diff(np.append(tick, limit_ticks)).tolist()
    lengths = np.empty(len(tick), np.int64)
    before = 0
    for index, (start, free, length) in enumerate(zip(tick.tolist(), room, held.tolist())):
        is_last = index == len(tick) - 1
        candidates, features = choices(start, free, length, before, is_last)
        lengths[index] = candidates[int((features @ weights).argmax())]
        before = free
    return lengths


def choices(start: int, free: int, held: float, before: int, is_last: bool) -> tuple[list[int], Array]:
    """The lengths in ticks that a chord may have [K], and what there is to notice of each: float64 [K, F].

    Args:
        start: Where it begins, in ticks.
        free: Ticks to the next chord of the voice.
        held: Beats that it was held.
        before: Ticks from the chord before to this one, 0 if none.
        is_last: Whether there is no next chord.
    """
    found = _candidates(start, free, is_last)
    phase = start % TICKS_PER_BEAT
    rows = []
    for length in found:
        beats = length / TICKS_PER_BEAT
        ratio = math.log(max(held, 0.01) / beats)
        shorter, longer = min(max(0.0, -ratio), 3.0), min(max(0.0, ratio), 3.0)
        fills = length == free and not is_last
        part = round(24 * beats) % 24 if beats < 8 else 0
        rows.append(
            (
                fills,
                fills * max(0.0, math.log2(beats)),
                fills * max(0.0, -math.log2(beats)),
                fills * shorter,
                shorter,
                longer,
                shorter**2,
                longer**2,
                (start + length) % TICKS_PER_BEAT == 0,
                length == TICKS_PER_BEAT - phase,
                length == TICKS_PER_BEAT,
                part in (18, 9) or (part == 12 and beats > 1),
                max(0.0, math.log2(beats)),
                max(0.0, -math.log2(beats)),
                length == before,
                part % 8 == 0 and part != 0,
                fills * longer,
            )
        )
    return found, np.array(rows, np.float64)


def _candidates(start: int, free: int, is_last: bool) -> list[int]:
    phase = start % TICKS_PER_BEAT
    found = set() if is_last else {free}
    for parts in PARTS_OF_BEAT:
        unit = TICKS_PER_BEAT // parts
        if phase % unit == 0:
            found.update(length for length in (unit, 2 * unit, 3 * unit) if length <= free)
    first_beat = TICKS_PER_BEAT - phase
    found.update(range(first_beat, min(free, MAX_LENGTH_BEATS * TICKS_PER_BEAT) + 1, TICKS_PER_BEAT))
    return sorted(found)
