"""The key of every bar: Viterbi over the 24 major and minor keys.

A key's chance of a bar is that of its pitch classes, each weighing as long as it sounds, under the profile of music
written in that key signature, modulations and all (`tables.py`). So a change costs much: a signature changes where the
music settles elsewhere, not with every modulation. After Krumhansl (1990) and Temperley (2001), with counted profiles.

Legend: M bars.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_transcriber.models.engraving import tables

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

NUM_CLASSES = 12
MAX_SHARPS = 6
"""Of a signature: six sharps rather than six flats' enharmonic seven and more."""


@dataclass(frozen=True)
class KeyModel:
    """What keeps a key.

    Args:
        signature_change: Of another signature in the next bar, in nats.
        mode_change: Of the relative key in the next bar.
        bar_weight: How many notes' worth of evidence a full bar is.
    """

    signature_change: float = 20.0
    mode_change: float = 4.0
    bar_weight: float = 3.0


def key_signatures(classes: Array, model: KeyModel) -> tuple[Ints, NDArray[np.bool_]]:
    """Sharps (flats below 0) int64 [M] and whether minor bool [M], of bars with sounding lengths `classes` [M, 12]."""
    chance = np.array(
        [np.roll(profile, tonic) for profile in (tables.MAJOR, tables.MINOR) for tonic in range(NUM_CLASSES)]
    )
    total = classes.sum(axis=1, keepdims=True)
    evidence = classes / np.maximum(total, 1e-9) * model.bar_weight * np.minimum(total, 1.0)
    cost = -evidence @ np.log(chance).T
    tonic = np.tile(np.arange(NUM_CLASSES), 2)
    is_minor = np.repeat([False, True], NUM_CLASSES)
    sharps = (7 * (tonic + 3 * is_minor) + 5) % 12 - 5  # of the relative major on the line of fifths: -5 to 6
    change = np.where(sharps[:, None] == sharps, model.mode_change, model.signature_change)
    np.fill_diagonal(change, 0.0)
    path = _cheapest(cost, change)
    return sharps[path].astype(np.int64), is_minor[path]


def _cheapest(cost: Array, change: Array) -> Ints:
    back = np.zeros(cost.shape, np.int64)
    total = cost[0]
    for bar in range(1, len(cost)):
        through = total[:, None] + change
        back[bar] = through.argmin(axis=0)
        total = through.min(axis=0) + cost[bar]
    path = np.zeros(len(cost), np.int64)
    path[-1] = int(total.argmin())
    for bar in range(len(cost) - 1, 0, -1):
        path[bar - 1] = back[bar, path[bar]]
    return path
