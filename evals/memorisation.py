"""Whether a language model of tokens recites what it was trained on.

As MusicLM does (Agostinelli et al. 2023, https://arxiv.org/abs/2301.11325): the beginning of a training example is the
prompt, the model goes on greedily, and what it says is held against how the example goes on. Exactly: the share of
equal tokens. Approximately: how much both have in common as bags of tokens, whatever their order. Departure: bags are
compared by their overlap and not by transport between the tokens' centroids, so two tokens are equal or not.

Legend: T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]

EXACT_SHARES = (0.25, 0.5, 0.75, 1.0)
OVERLAPS = (0.5, 0.7, 0.85)


@dataclass(frozen=True)
class Recital:
    """How much of an example's continuation came out: each 0 to 1."""

    equal: float
    longest_run: float
    overlap: float


def recital(said: Tokens, own: Tokens) -> Recital:
    """What a model said [T] against how the example goes on [T].

    Raises:
        ValueError: If the lengths differ, or there is nothing to compare.
    """
    if said.shape != own.shape or said.ndim != 1 or said.size == 0:
        raise ValueError(f"expected two equally long sequences, got {said.shape} and {own.shape}.")
    same = said == own
    size = int(max(said.max(), own.max())) + 1
    counts = np.minimum(np.bincount(said, minlength=size), np.bincount(own, minlength=size))
    return Recital(float(same.mean()), longest_run(same) / same.size, float(counts.sum() / same.size))


def longest_run(same: NDArray[np.bool_]) -> int:
    """The most true values in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], same.astype(np.int8), [0]))))
    return int((edges[1::2] - edges[::2]).max()) if edges.size else 0


def shares(recitals: Sequence[Recital]) -> Mapping[str, float]:
    """The share of examples that came out to some extent or more, and means."""
    equal, runs, overlaps = (
        np.array([getattr(each, name) for each in recitals]) for name in ("equal", "longest_run", "overlap")
    )
    found = {f"equal >= {bound:g}": float((equal >= bound).mean()) for bound in EXACT_SHARES}
    found |= {f"overlap >= {bound:g}": float((overlaps >= bound).mean()) for bound in OVERLAPS}
    return found | {"equal": float(equal.mean()), "longest run": float(runs.mean()), "overlap": float(overlaps.mean())}
