"""Places of played notes on the beats' grids: the likeliest rhythm, not the nearest places.

Viterbi over onsets, in which every beat holds one grid. What a path costs, in nats: how far every onset is from its
place, and every interval between onsets from the written one, so that a slow drift within a beat costs little; that a
place of the grid is taken or passed over, so that a fine grid needs many notes; that the next beat has another grid;
and that notes of one place are apart in time, or notes of two places together. After a first pass, the shares of the
grids are learnt from the piece, and the second pass has the result.

Ideas: Takeda et al., "Hidden Markov model for automatic transcription of MIDI signals" (2002); Nakamura et al.,
"Rhythm transcription of MIDI performances based on hierarchical Bayesian modelling" (2017). Here the beats are given,
as a tracker or a person has heard them.

Legend: E events (notes that begin together), S states of an event, G grids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_transcriber.models.engraving.grids import GRIDS, TICKS_PER_BEAT, GridModel

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

TOGETHER_S = 0.012
"""Onsets this close are one event before anything else is asked."""
NUM_NEAR = 2
"""Places of each grid that an onset may belong to: the nearest."""
DEVIATION_QUANTILE = 0.25
"""Of deviations, what stands for the piece: low, as those of a wrong first reading are large."""
MAX_KEPT = 16
MAX_BEHIND = 14.0
"""States of an event that the next looks back at: so many at most, and only so many nats behind the best."""


@dataclass(frozen=True)
class TimingModel:
    """How far pianists are from the written places.

    Args:
        spread_s: Of an onset, in seconds; it adds to the next.
        spread_beats: Of an onset, in beats.
        interval_weight: How much the intervals count beside the places.
        chord_s: The mean time between onsets of one chord.
        apart_s: The least usual time between onsets of two places.
        adapt_beats: How many beats of a piece weigh as much as all that was learnt of the grids.
        rhythm_weight: How much the likelihood of rhythms counts beside that of timing.
        usual_deviation: The usual deviation from the places, in spreads; a piece's own scales its spread.
        adapt_spread: The least and the most that a piece's spread may be of the usual.
    """

    spread_s: float = 0.02
    spread_beats: float = 0.028
    interval_weight: float = 0.25
    chord_s: float = 0.056
    apart_s: float = 0.118
    adapt_beats: float = 25.0
    rhythm_weight: float = 0.75
    usual_deviation: float = 0.165
    adapt_spread: tuple[float, float] = (0.15, 2.5)


def quantise(onset_s: Array, place: Array, beat_period_s: Array, grids: GridModel, timing: TimingModel) -> Ints:
    """Places in ticks from the first beat, int64 [N], of notes in order of onset.

    Args:
        onset_s: float64 [N].
        place: float64 [N], the same on the beats, as played.
        beat_period_s: float64 [N], the length of the beat at each.
        grids: What is known of grids.
        timing: What is known of pianists.
    """
    if not len(onset_s):
        return np.zeros(0, np.int64)
    event = np.cumsum(np.diff(onset_s, prepend=onset_s[0]) > TOGETHER_S)
    first = np.flatnonzero(np.diff(event, prepend=-1))
    count = np.diff(np.append(first, len(onset_s)))
    mean_place = np.add.reduceat(place, first) / count
    mean_s = np.add.reduceat(onset_s, first) / count
    states = _States.around(mean_place)
    spread = timing.spread_beats + timing.spread_s / beat_period_s[first]
    rows, path = np.arange(len(mean_s)), np.zeros(len(mean_s), np.int64)
    for last in (False, True):
        difference = states.tick / TICKS_PER_BEAT - mean_place[:, None]
        local = _timing_cost(difference / spread[:, None])
        path = _viterbi(states, local, mean_s, mean_place, spread, grids, timing)
        if not last:
            beat, grid = states.beat[rows, path], states.grid[path]
            changes = np.flatnonzero(np.diff(beat, prepend=beat[0] - 1))
            grids = grids.adapted(np.bincount(grid[changes], minlength=len(GRIDS)).astype(float), timing.adapt_beats)
            usual = float(np.quantile(np.abs(difference[rows, path]) / spread, DEVIATION_QUANTILE))
            spread = spread * np.clip(usual / timing.usual_deviation, *timing.adapt_spread)
    return states.tick[rows, path][event]


@dataclass(frozen=True, eq=False)
class _States:
    """The places that each event may have: S is a grid and one of the places near.

    `tick` and `beat` are [E, S], `step` [E, S] the number of the place in its grid, `grid` [S].
    """

    tick: Ints
    beat: Ints
    step: Ints
    grid: Ints

    @staticmethod
    def around(place: Array) -> _States:
        ticks, steps = [], []
        for grid in GRIDS:
            # places of the beat before, this one and the next; the nearest few of them
            beat = np.floor(place).astype(np.int64)
            whole = np.concatenate([grid + TICKS_PER_BEAT * shift for shift in (-1, 0, 1)])
            phase = (place - beat) * TICKS_PER_BEAT
            lowest = np.searchsorted(whole, phase) - (NUM_NEAR + 1) // 2
            above = whole[np.clip(lowest + NUM_NEAR, 0, len(whole) - 1)]
            shift_up = (phase - whole[np.clip(lowest, 0, None)]) > (above - phase)
            index = np.clip((lowest + shift_up)[:, None] + np.arange(NUM_NEAR), 0, len(whole) - 1)
            ticks.append(whole[index] + beat[:, None] * TICKS_PER_BEAT)
            steps.append(index % len(grid))
        tick = np.concatenate(ticks, axis=1)
        return _States(
            tick, tick // TICKS_PER_BEAT, np.concatenate(steps, axis=1), np.repeat(np.arange(len(GRIDS)), NUM_NEAR)
        )


def _timing_cost(deviation: Array) -> Array:
    """Pseudo-Huber: quadratic near 0, then linear, as pianists are now and then far off."""
    cost: Array = np.sqrt(1.0 + deviation * deviation) - 1.0
    return cost


def _viterbi(
    states: _States,
    local: Array,
    onset_s: Array,
    place: Array,
    spread: Array,
    grids: GridModel,
    timing: TimingModel,
) -> Ints:
    """The state [E] of each event on the cheapest path."""
    num_events, num_states = states.tick.shape
    taken, before, left = _rhythm_costs(states, grids, timing.rhythm_weight)
    change = grids.change_cost[states.grid][:, states.grid] * timing.rhythm_weight
    other_grid = np.where(states.grid[:, None] == states.grid, 0.0, np.inf)
    back = np.zeros((num_events, num_states), np.int16)
    cost = local[0] + taken[0] + before[0]
    gap_s = np.diff(onset_s, prepend=onset_s[0])
    same_place = gap_s / timing.chord_s
    two_places = np.maximum(0.0, timing.apart_s - gap_s) / timing.chord_s
    for event in range(1, num_events):
        kept = np.flatnonzero(cost < cost.min() + MAX_BEHIND)
        if len(kept) > MAX_KEPT:
            kept = kept[np.argpartition(cost[kept], MAX_KEPT)[:MAX_KEPT]]
        step_ticks = states.tick[event] - states.tick[event - 1][kept, None]
        drift = ((place[event] - place[event - 1]) - step_ticks / TICKS_PER_BEAT) / spread[event]
        is_across = states.beat[event] != states.beat[event - 1][kept, None]
        after, rest = left[event - 1][:, kept, None]
        within = other_grid[kept] - (before[event - 1, kept, None] + after)
        total = np.where(is_across, rest + change[kept], within) + (two_places[event] + before[event] + taken[event])
        together = step_ticks == 0
        total = np.where(together, same_place[event] + np.where(is_across, 0.0, other_grid[kept]), total)
        total += timing.interval_weight * _timing_cost(drift) + cost[kept, None]
        total[step_ticks < 0] = np.inf
        best = total.argmin(axis=0)
        back[event] = kept[best]
        cost = total[best, np.arange(num_states)] + local[event]
    return _trace(back, int(cost.argmin()))


def _trace(back: NDArray[np.int16], last: int) -> Ints:
    path = np.zeros(len(back), np.int64)
    path[-1] = last
    for event in range(len(back) - 1, 0, -1):
        path[event - 1] = back[event, path[event]]
    return path


def _rhythm_costs(states: _States, grids: GridModel, weight: float) -> tuple[Array, Array, Array]:
    """Of each state: its place taken [E, S]; all places before it passed over [E, S]; [E, 2, S] its own, and all after.

    The third serves the next event: within the beat, places between the two are what lies before the next, less what
    lies before this and this; across beats, all after this.
    """
    taken, before = np.zeros(states.tick.shape), np.zeros(states.tick.shape)
    left = np.zeros((len(states.tick), 2, states.tick.shape[1]))
    for index, (begins, passed) in enumerate(grids.place_costs):
        columns = states.grid == index
        step = states.step[:, columns]
        taken[:, columns], before[:, columns] = begins[step], passed[step]
        left[:, 0, columns] = passed[step + 1] - passed[step]
        left[:, 1, columns] = passed[-1] - passed[step + 1]
    return taken * weight, before * weight, left * weight
