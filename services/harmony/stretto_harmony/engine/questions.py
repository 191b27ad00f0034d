"""`Questions`: single questions to the modules of an analyzer, as the paper's modularity intends.

Legend: 1,540 chords, 70 keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import numpy as np
from stretto_shared.errors import InvalidInput
from stretto_shared.features import ModelInfo

from stretto_harmony.engine.analyzers import Analyzers
from stretto_harmony.models.analyzer import Floats, HarmonyModules, Span
from stretto_harmony.scores.labels import NUM_KEYS, ChordType, HarmonyLabel, Key, chord_of_index, key_of_index
from stretto_harmony.scores.score import TICKS_PER_WHOLE, Score

MAX_NOTES = 20_000
MAX_SPANS = 1_000
SPANS_AT_ONCE = 32
MAX_SPAN_TICKS = 200 * TICKS_PER_WHOLE
MAX_LABELS = 1_000
MAX_CANDIDATES = 100
DEFAULT_CANDIDATES = 5
T = TypeVar("T")
V = TypeVar("V")


@dataclass(frozen=True)
class Candidate(Generic[V]):
    """A chord as root, type and inversion, or a key, and how probable it is."""

    value: V
    probability: float


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What a module said, and whose it is."""

    value: T
    model: ModelInfo


Chord = tuple[int, ChordType, int]


class Questions:
    """Asks modules on their analyzer's thread, in turn with all other work of it.

    Invariant: a question is checked before it waits (`tests/services/harmony/test_harmony_modules.py`).

    Args:
        analyzers: Whose modules are asked.
    """

    def __init__(self, analyzers: Analyzers) -> None:
        self._analyzers = analyzers

    async def chord_changes(self, model: str, score: Score) -> Answer[Floats]:
        """That a chord begins with each note of the score."""
        if score.num_notes > MAX_NOTES:
            raise InvalidInput(
                "score", f"expected at most {MAX_NOTES} notes, got {score.num_notes}. Send a part of it."
            )
        return await self._ask(model, lambda modules: modules.chord_changes(score))

    async def classify_chords(
        self, model: str, score: Score, spans: Sequence[Span], num_candidates: int
    ) -> Answer[list[list[Candidate[Chord]]]]:
        """The likeliest chords of each span."""
        count = _num_candidates(num_candidates, MAX_CANDIDATES)
        _check_count("spans", len(spans), MAX_SPANS)
        for index, (start, end) in enumerate(spans):
            if not 0 <= start < end <= start + MAX_SPAN_TICKS or start >= score.num_ticks:
                raise InvalidInput(
                    f"spans[{index}]",
                    f"expected a start from 0 to before {score.num_ticks} and an end above it, at most "
                    f"{MAX_SPAN_TICKS} ticks on, got {start} to {end}. Take the times of the score.",
                )
        loaded, modules = self._analyzers.find_modules(model)
        found: list[list[Candidate[Chord]]] = []
        with self._analyzers.admitted(loaded):
            for first in range(0, len(spans), SPANS_AT_ONCE):  # a turn for each few, so that nobody waits for all
                asked = spans[first : first + SPANS_AT_ONCE]
                classify = partial(modules.classify_chords, score, asked)
                probabilities = await self._analyzers.run(loaded, classify, is_first=first == 0)
                found += [_best_chords(row, count) for row in probabilities]
        return Answer(found, loaded.info)

    async def next_chords(
        self, model: str, score: Score, labels: Sequence[HarmonyLabel], num_candidates: int
    ) -> Answer[list[Candidate[Chord]]]:
        """The likeliest chords after some."""
        count = _num_candidates(num_candidates, MAX_CANDIDATES)
        _check_labels(labels, score)
        answer = await self._ask(model, lambda modules: _in_reach(lambda: modules.next_chords(score, labels)))
        return Answer(_best_chords(answer.value, count), answer.model)

    async def key_changes(self, model: str, score: Score, labels: Sequence[HarmonyLabel]) -> Answer[Floats]:
        """That the key changes with each label."""
        _check_labels(labels, score)
        return await self._ask(model, lambda modules: _in_reach(lambda: modules.key_changes(score, labels)))

    async def next_keys(
        self, model: str, score: Score, labels: Sequence[HarmonyLabel], num_candidates: int
    ) -> Answer[list[Candidate[Key]]]:
        """The likeliest keys with the last label."""
        count = _num_candidates(num_candidates, NUM_KEYS)
        _check_labels(labels, score, least=2)
        answer = await self._ask(model, lambda modules: _in_reach(lambda: modules.next_keys(score, labels)))
        best = [Candidate(key_of_index(index), float(answer.value[index])) for index in _best(answer.value, count)]
        return Answer(best, answer.model)

    async def initial_chords(self, model: str, key: Key, num_candidates: int) -> Answer[list[Candidate[Chord]]]:
        """The likeliest first chords of a piece in a key."""
        count = _num_candidates(num_candidates, MAX_CANDIDATES)
        answer = await self._ask(model, lambda modules: modules.initial_chords(key))
        return Answer(_best_chords(answer.value, count), answer.model)

    async def _ask(self, model: str, ask: Callable[[HarmonyModules], Floats]) -> Answer[Floats]:
        loaded, modules = self._analyzers.find_modules(model)
        with self._analyzers.admitted(loaded):
            return Answer(await self._analyzers.run(loaded, lambda: ask(modules)), loaded.info)


def _best(probabilities: Floats, count: int) -> list[int]:
    """The places of the highest, the first of equals first."""
    return [int(index) for index in np.argsort(-probabilities, kind="stable")[:count]]


def _best_chords(probabilities: Floats, count: int) -> list[Candidate[Chord]]:
    return [Candidate(chord_of_index(index), float(probabilities[index])) for index in _best(probabilities, count)]


def _num_candidates(asked: int, most: int) -> int:
    if not 0 <= asked <= most:
        raise InvalidInput("candidate_count", f"expected 0 to {most}, got {asked}. Ask for fewer.")
    return asked or DEFAULT_CANDIDATES


def _in_reach(ask: Callable[[], Floats]) -> Floats:
    """What a module says, whose ValueError is that a label is none that it knows."""
    try:
        return ask()
    except ValueError as error:
        raise InvalidInput("labels", f"expected chords that the modules know: {error}") from error


def _check_count(field: str, count: int, most: int, *, least: int = 1) -> None:
    if not least <= count <= most:
        raise InvalidInput(field, f"expected {least} to {most}, got {count}. Send some, in parts if there are more.")


def _check_labels(labels: Sequence[HarmonyLabel], score: Score, *, least: int = 1) -> None:
    _check_count("labels", len(labels), MAX_LABELS, least=least)
    if labels[-1].end > score.num_ticks:
        raise InvalidInput(
            f"labels[{len(labels) - 1}].end_ticks",
            f"expected at most {score.num_ticks}, where the score ends, got {labels[-1].end}. Send its whole metre.",
        )
