"""Whether a language model of tokens recites what it was trained on.

As MusicLM does (Agostinelli et al. 2023, https://arxiv.org/abs/2301.11325): the beginning of a training example is
the prompt, the model goes on greedily, and what it says is held against how the example goes on. Exactly: the share
of equal tokens. Approximately: how much both have in common as bags of tokens, whatever their order. Departure: bags
are compared by their overlap and not by transport between the tokens' centroids, so two tokens are equal or not. A
clip that goes on as its own beginning tells comes out though it was never heard, so the claim is on training clips
beside held-out ones.

Legend: T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from harness import MIN_CLAIM_VALUES
from numpy.typing import NDArray
from stretto_shared.metrics.bootstrap import Interval

Tokens = NDArray[np.int32]

EXACT_SHARES = (0.25, 0.5, 0.75, 1.0)
OVERLAPS = (0.5, 0.7, 0.85)
NUM_RESAMPLES = 10_000


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


def gap(trained: Sequence[Recital], held_out: Sequence[Recital], name: str) -> Interval:
    """How much more of training clips came out than of held-out ones, by the field `name`; each set is drawn anew."""
    own, control = (np.array([getattr(each, name) for each in recitals]) for recitals in (trained, held_out))
    random = np.random.default_rng(0)
    means = [
        values[random.integers(len(values), size=(NUM_RESAMPLES, len(values)))].mean(1) for values in (own, control)
    ]
    low, high = np.quantile(means[0] - means[1], (0.025, 0.975))
    return Interval(float(own.mean() - control.mean()), float(low), float(high), 0.95, min(len(own), len(control)))


def not_surely_more(interval: Interval) -> bool:
    """Whether a claim may say that a gap is none: its interval does not lie above 0, and it is of enough values."""
    return interval.num_values >= MIN_CLAIM_VALUES and interval.low <= 0
