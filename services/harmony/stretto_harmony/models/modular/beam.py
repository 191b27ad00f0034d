"""Hypotheses of the joint search as columns of numbers, and the beams that keep the best of them.

A hypothesis is a chord that ends at some onset, its key, and the way there. Two that agree in their last
`hash_length` chords and keys are alike, and a beam keeps only the better one, so that it holds different readings of
a piece and not one reading cut differently. Which hypotheses a beam ends up with does not depend on the order in
which they come, but for equal scores, where the earlier stays.

Knows no modules and no probabilities. Legend: H hypotheses.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from stretto_harmony.scores.labels import NUM_CHORDS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NO_CHORD = -1
_PER_WORD = 3  # chords with their keys in one 64-bit word


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """Hypotheses that end at one onset, all [H] but `history`.

    Args:
        score: Log-probability.
        recent: What of it the sequence and key modules said of the last chord; taken back where the chord goes on.
        chord: The place among the 1,540; `NO_CHORD` before the first.
        key: The place among the 70.
        begin: The onset at which the chord begins.
        parent_key: The key of the chord before.
        parent_onset, parent_slot: The chord before: the onset where it ends and its place there; -1 before the first.
        source_onset, source_row: Where the states are that the chord is heard after: the block made at that onset, and
            the row in it.
        history: [H, L], the last chords with their keys as one number each; the last column is the last chord.
    """

    score: Floats
    recent: Floats
    chord: Ints
    key: Ints
    begin: Ints
    parent_key: Ints
    parent_onset: Ints
    parent_slot: Ints
    source_onset: Ints
    source_row: Ints
    history: Ints

    def __len__(self) -> int:
        return len(self.score)

    def rows(self, index: Ints) -> Hypotheses:
        """These hypotheses, in this order."""
        return Hypotheses(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def joined(parts: list[Hypotheses]) -> Hypotheses:
    """All hypotheses of `parts`, in order."""
    names = [field.name for field in fields(Hypotheses)]
    return Hypotheses(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def extended_history(history: Ints, key: Ints, chord: Ints) -> Ints:
    """Histories [H, L] with one more chord, and without their oldest."""
    if not history.shape[1]:
        return history
    return np.concatenate([history[:, 1:], (key * NUM_CHORDS + chord + 1)[:, None]], 1)


class Beam:
    """The best `size` different hypotheses among those that were added."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.kept: Hypotheses | None = None

    @property
    def threshold(self) -> float:
        """A hypothesis that is not better than this has no place."""
        if self.kept is None or len(self.kept) < self._size:
            return -np.inf
        return float(self.kept.score[-1])

    def add(self, candidates: Hypotheses) -> None:
        """Keep those of `candidates` that have a place, best first."""
        if not len(candidates):
            return
        together = candidates if self.kept is None else joined([self.kept, candidates])
        self.kept = together.rows(_best(together, self._size))


def _best(hypotheses: Hypotheses, size: int) -> Ints:
    """The places of the best of each kind, best first; of equals the one that comes first."""
    order = np.argsort(-hypotheses.score, kind="stable")
    history = hypotheses.history[order]
    if not history.shape[1]:
        return order[:size]
    words = []
    for first in range(0, history.shape[1], _PER_WORD):
        word = np.zeros(len(history), np.int64)
        for column in range(first, min(first + _PER_WORD, history.shape[1])):
            word = (word << 18) + history[:, column]
        words.append(word)
    by_kind = np.lexsort([np.arange(len(order)), *words])
    new = np.ones(len(order), bool)
    for word in words:
        sorted_word = word[by_kind]
        if word is words[0]:
            new[1:] = sorted_word[1:] != sorted_word[:-1]
        else:
            new[1:] |= sorted_word[1:] != sorted_word[:-1]
    kept = np.sort(by_kind[new])[:size]
    return np.asarray(order[kept])
