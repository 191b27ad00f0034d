"""Spans that may be chords: between onsets at which the chord transition module would have one begin.

A chord may begin at an onset with a probability of at least `min_chord_change`; where it is above
`max_no_chord_change` one must. Each span between two such onsets, with none between at which one must, is a
candidate, up to `max_chord_length`. Its log-probability is of no change at the onsets within and of a change at its
end. Knows no chords.

Legend: N notes, O onsets, S spans.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_harmony.models.modular.config import SearchConfig

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_TINY = 1e-9


@dataclass(frozen=True, eq=False)
class SpanTable:
    """Candidate spans in order of their begins, then of their ends; all [S].

    Args:
        begin, end: Onsets, counted from 0; `end` may be the number of onsets, the end of the piece.
        log_prob: Of no change within and of a change at the end.
        rejoin: What is to be added where the chord of the span before goes on: the change at `begin` is taken back.
    """

    begin: Ints
    end: Ints
    log_prob: Floats
    rejoin: Floats


def onset_changes(note_probabilities: NDArray[np.float32], first: Ints) -> Floats:
    """The probability [O] of a change at each onset, which the first of its notes tells."""
    return note_probabilities[first].astype(np.float64)


def candidate_spans(change: Floats, onset: Floats, end: float, config: SearchConfig) -> SpanTable:
    """All candidate spans that the first onset can lead to.

    Args:
        change: The probability [O] of a change at each onset; that of the first is not read.
        onset: Whole notes [O], ascending.
        end: Where the piece ends.
        config: Its first three fields are used.
    """
    count = len(onset)
    log_change = np.log(np.clip(change, _TINY, 1.0))
    log_stay = np.log(np.clip(1.0 - change, _TINY, 1.0))
    stays = np.concatenate([[0.0], np.cumsum(log_stay)])  # [O + 1]
    may = np.append(change >= config.min_chord_change, True)
    must = change > config.max_no_chord_change
    times = np.append(onset, end)
    reachable = np.zeros(count + 1, bool)
    reachable[0] = True
    rows: list[tuple[int, int, float]] = []
    for begin in range(count):
        if not reachable[begin]:
            continue
        for last in _ends(begin, may, must, times, config.max_chord_length):
            within = stays[last] - stays[begin + 1]
            rows.append((begin, last, within + (log_change[last] if last < count else 0.0)))
            reachable[last] = True
    table = np.array(rows, np.float64).reshape(-1, 3)
    begins = table[:, 0].astype(np.int64)
    return SpanTable(begins, table[:, 1].astype(np.int64), table[:, 2], log_stay[begins] - log_change[begins])


def _ends(begin: int, may: NDArray[np.bool_], must: NDArray[np.bool_], times: Floats, longest: float) -> list[int]:
    """Where a span from `begin` may end: to the first onset at which it must, or as far as it may last.

    Where it may end nowhere in that length, it ends at the last onset within it, so that there is a way on.
    """
    count = len(must)
    ends: list[int] = []
    for last in range(begin + 1, count + 1):
        if times[last] - times[begin] > longest + 1e-9:
            return ends or [max(begin + 1, last - 1)]
        if may[last]:
            ends.append(last)
        if last < count and must[last]:
            return ends
    return ends
