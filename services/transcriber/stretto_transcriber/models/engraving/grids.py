"""The grids that a beat may be divided into, and how likely each is.

A grid is the set of places in a beat at which notes may begin: halves, thirds, quarters, and also two divisions at
once, as when one hand plays triplets against the other's eighths. Places are counted in ticks, `TICKS_PER_BEAT` to a
beat, which all of them divide, so that nothing is ever rounded.

The tables are counts over the scores of ASAP's training compositions; `recipes/fit_engraving.py` makes them.

Legend: G grids.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

TICKS_PER_BEAT = 5040
DIVISIONS: tuple[tuple[int, ...], ...] = (
    (1,), (2,), (3,), (4,), (2, 3), (5,), (6,), (3, 4), (7,), (8,), (4, 6), (9,), (10,), (12,), (8, 6), (16,), (24,),
)  # fmt: skip
"""By number of places: a beat is of the first that has all its notes."""

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def grid_ticks(divisions: tuple[int, ...]) -> Ints:
    """The places of a grid, in ticks from the beat."""
    places = {TICKS_PER_BEAT * step // division for division in divisions for step in range(division)}
    return np.array(sorted(places), np.int64)


GRIDS: tuple[Ints, ...] = tuple(grid_ticks(divisions) for divisions in DIVISIONS)


def smallest_grid(ticks: Ints) -> int:
    """The index of the first grid that has all these places [N] in a beat; -1 where none has."""
    return next((index for index, grid in enumerate(GRIDS) if np.isin(ticks, grid).all()), -1)


@dataclass(frozen=True, eq=False)
class GridModel:
    """How likely grids and patterns are.

    Args:
        share: float64 [G], the share of beats, summing to 1.
        stay: How much of the next beat's chance is that it has the same grid.
        occupied: For each grid, the chance of every place that a note begins there.
    """

    share: Array
    stay: float
    occupied: tuple[Array, ...]

    def adapted(self, counts: Array, weight: float) -> GridModel:
        """The model of a piece of which `counts` [G] beats are known, where the old shares weigh `weight` beats."""
        share = (counts + weight * self.share) / (counts.sum() + weight)
        return GridModel(share, self.stay, self.occupied)

    @cached_property
    def change_cost(self) -> Array:
        """Of the next beat's grid after this one's: float64 [G, G], in nats."""
        chance = (1.0 - self.stay) * np.broadcast_to(self.share, (len(self.share),) * 2)
        cost: Array = -np.log(chance + self.stay * np.eye(len(self.share)))
        return cost

    @cached_property
    def place_costs(self) -> tuple[tuple[Array, Array], ...]:
        """For each grid, the costs of every place: that a note begins there, and that none does in all before it.

        The second has one more entry, for all of the beat.
        """
        costs = []
        for chance in self.occupied:
            costs.append((-np.log(chance), np.concatenate([[0.0], np.cumsum(-np.log1p(-chance))])))
        return tuple(costs)
