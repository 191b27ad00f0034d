"""Which of several settings makes clips most like real ones: paired Frechet distances and a rule of choice.

Nothing of this knows a model or a judge: a clip is its embeddings, [patches, D].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from stretto_shared.metrics.frechet import Gaussian, fit_gaussian, fit_projection, frechet_distance

Embeddings = NDArray[np.float64]

NUM_RESAMPLES = 500


@dataclass(frozen=True, eq=False)
class Distance:
    """The distance of N clips, and those of bootstrap resamples of them."""

    value: float
    resampled: NDArray[np.float64]
    is_difference: bool = False

    def __sub__(self, other: Distance) -> Distance:
        """How much farther than another set of as many clips, resample by resample."""
        return Distance(self.value - other.value, self.resampled - other.resampled, is_difference=True)

    @property
    def interval(self) -> tuple[float, float]:
        """The basic 95 % interval: recentred, since clips drawn twice raise the distance."""
        low, high = np.quantile(self.resampled, [0.025, 0.975])
        centre = float(np.mean(self.resampled))
        least = self.value - (centre - float(low))
        return least if self.is_difference else max(0.0, least), self.value + (float(high) - centre)


class Distances:
    """Frechet distances to a reference, on the reference's leading principal axes.

    Invariant: resamples of equally many clips draw the same numbers, so that differences of two rows are paired.

    Args:
        reference: The embeddings of the reference's clips.
        num_dims: Axes to keep.
    """

    def __init__(self, reference: Sequence[Embeddings], num_dims: int) -> None:
        rows = np.concatenate(reference)
        self._projection = fit_projection(rows, num_dims)
        self._reference: Gaussian = fit_gaussian(self._projection(rows))

    @property
    def explained(self) -> float:
        """Share of the reference's variance on the axes."""
        return self._projection.explained

    def of(self, clips: Sequence[Embeddings], *, num_resamples: int = NUM_RESAMPLES) -> Distance:
        """The distance of some clips, each with at least one patch."""
        rows = [np.atleast_2d(clip) for clip in clips]
        projected = np.split(self._projection(np.concatenate(rows)), np.cumsum([len(row) for row in rows])[:-1])
        random = np.random.default_rng(0)
        picks = random.integers(len(clips), size=(num_resamples, len(clips)))
        resampled = np.array([self._from([projected[i] for i in pick]) for pick in picks])
        return Distance(self._from(projected), resampled)

    def _from(self, projected: Sequence[Embeddings]) -> float:
        return frechet_distance(self._reference, fit_gaussian(np.concatenate(projected)))


def choose(distances: Mapping[str, Distance], families: Mapping[str, float]) -> tuple[str, list[str]]:
    """The chosen setting, and all that are within one standard error of the paired difference to the nearest one.

    Of these, the one with the most families right; of equals, the nearest.
    """
    nearest = min(distances, key=lambda name: distances[name].value)
    tied = [
        name
        for name, distance in distances.items()
        if distance.value - distances[nearest].value <= np.std(distance.resampled - distances[nearest].resampled)
    ]
    return max(tied, key=lambda name: (families[name], -distances[name].value)), tied


def hits_and_chance(named: Sequence[str], asked: Sequence[frozenset[str]]) -> tuple[list[float], float]:
    """Of each clip whether the named family was asked for, and how often it is one that another clip asks for."""
    hits = [float(name in own) for name, own in zip(named, asked, strict=True)]
    others = [name in other for i, name in enumerate(named) for j, other in enumerate(asked) if i != j]
    return hits, float(np.mean(others)) if others else float("nan")
