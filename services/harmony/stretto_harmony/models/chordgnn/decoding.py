"""From what the heads say at each onset to one consistent numeral at each, and to labels in time.

The paper takes each part by itself, which may name no chord at all. Here the parts vote: a numeral of the network's
vocabulary in one of the likeliest keys, with an inversion, is worth the weighted sum of the logarithms that its parts
have, and a search over the onsets (Viterbi) takes what it costs to change the chord or the key into account. The
weights were chosen on validation pieces.

Legend: O onsets, K keys tried, V numerals, S states kept at an onset. Knows no torch and no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stretto_harmony.models.chordgnn.parts import (
    NO_DEGREE,
    QUALITIES,
    TRANSPOSED,
    TRANSPOSED_KEYS,
    RelativeNumeral,
    chord_class,
    degree_class,
)
from stretto_harmony.scores.labels import NUM_KEYS, key_of_index
from stretto_harmony.scores.pitch import MIN_FIFTHS, NUM_SPELLINGS, in_range

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
NEVER = np.float32(-1e9)


@dataclass(frozen=True)
class DecodingOptions:
    """How the parts are weighed and what a change costs.

    Args:
        moves: The fifths by which the network hears the score moved; what it says of each is brought back, and the mean
            taken.
        post: The share of the post-processing network in what the parts' heads say; the rest is the first heads'.
        key, tonicised, degree, of_degree, quality, inversion, root, bass, numeral, chord: The weight of each part.
        change: What a new chord costs.
        key_change: What a new key costs beside.
        rhythm: The weight of the head that tells where chords begin.
        num_keys: Likeliest keys tried at each onset.
        num_chords: Best keys with numerals kept at each onset, before inversions.
        num_states: Best of those with inversions kept at each onset.
    """

    moves: tuple[int, ...] = (0, -1)
    post: float = 0.0
    key: float = 0.5
    tonicised: float = 0.5
    degree: float = 0.75
    of_degree: float = 0.75
    quality: float = 0.25
    inversion: float = 0.5
    root: float = 1.0
    bass: float = 3.0
    numeral: float = 0.25
    chord: float = 2.0
    change: float = 3.0
    key_change: float = 2.0
    rhythm: float = 0.0
    num_keys: int = 4
    num_chords: int = 8
    num_states: int = 12


@dataclass(frozen=True)
class States:
    """Keys, numerals and inversions [O, S], with what each is worth at its onset [O, S], best first."""

    key: Ints
    numeral: Ints
    inversion: Ints
    worth: Floats


@dataclass(frozen=True)
class Path:
    """The state of each onset [O], with the share of its onset's worth that it has, 0 to 1."""

    key: Ints
    numeral: Ints
    inversion: Ints
    confidence: Floats


@dataclass(frozen=True)
class KeyNumerals:
    """The numerals that one key has [V'], and the class of each in the parts that know the key."""

    numeral: Ints
    tonicised: Ints
    root: Ints
    chord: Ints


class NumeralTable:
    """The classes that each part of each numeral has in each key."""

    def __init__(self, numerals: list[RelativeNumeral]) -> None:
        self.numerals = numerals
        self.in_minor = np.array([numeral.in_minor for numeral in numerals], bool)
        self.degree = np.array([degree_class(numeral.interval) for numeral in numerals])
        self.of_degree = np.array([degree_class(numeral.of) if numeral.of else NO_DEGREE for numeral in numerals])
        self.quality = np.array([numeral.quality for numeral in numerals])
        self.num_inversions = np.array([QUALITIES[numeral.quality].num_inversions for numeral in numerals])
        tones = [list(QUALITIES[numeral.quality].intervals) for numeral in numerals]
        self.tones = np.array([(row + row[:1])[:4] for row in tones])  # [V, 4]

    @cached_property
    def by_key(self) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
        """Tonicised keys, roots and chords [70, V], and which numerals a key has."""
        tonicised = np.zeros((NUM_KEYS, len(self.numerals)), np.int64)
        root, chord = np.zeros_like(tonicised), np.zeros_like(tonicised)
        there = np.zeros(tonicised.shape, bool)
        for key in map(key_of_index, range(NUM_KEYS)):
            for place, numeral in enumerate(self.numerals):
                tonic = key.tonic + numeral.of
                if key.is_minor != bool(numeral.in_minor) or not (
                    in_range(tonic) and in_range(tonic + numeral.interval)
                ):
                    continue
                at = key.index, place
                there[at] = True
                tonicised[at] = tonic - MIN_FIFTHS + NUM_SPELLINGS * numeral.of_minor
                root[at] = tonic + numeral.interval - MIN_FIFTHS
                chord[at] = chord_class(tonic + numeral.interval, numeral.quality)
        return tonicised, root, chord, there

    @cached_property
    def of_key(self) -> tuple[KeyNumerals, ...]:
        """The numerals of each of the 70 keys."""
        tonicised, root, chord, there = self.by_key
        found = [np.flatnonzero(row) for row in there]
        return tuple(KeyNumerals(of, tonicised[key, of], root[key, of], chord[key, of]) for key, of in enumerate(found))

    @cached_property
    def most_of_key(self) -> int:
        """The numerals of the key that has most, 1 at least."""
        return max(1, *(len(each.numeral) for each in self.of_key))


@dataclass(frozen=True)
class NumeralDecoder:
    """Finds the numerals of a piece from the logarithms of its parts' probabilities."""

    table: NumeralTable
    options: DecodingOptions = field(default_factory=DecodingOptions)

    def decode(self, logs: Mapping[str, Floats]) -> Path:
        """The best path through the states of `logs`, each part [O, classes]."""
        return self.search(self.states(logs), logs["rhythm"])

    def search(self, states: States, rhythm: Floats) -> Path:
        """The best path through the states, given when chords begin [O, classes]."""
        chosen = self._best_places(states, rhythm)
        rows = np.arange(len(chosen))
        shares = np.exp(states.worth - states.worth.max(axis=1, keepdims=True))
        shares = shares / shares.sum(axis=1, keepdims=True)
        return Path(
            states.key[rows, chosen], states.numeral[rows, chosen], states.inversion[rows, chosen], shares[rows, chosen]
        )

    def states(self, logs: Mapping[str, Floats]) -> States:
        """The best states of each onset by itself."""
        weight = self.options
        keys = _best(logs["key"], weight.num_keys)  # [O, K]
        numerals, worth = self._in_keys(keys, logs)  # [O, K, V']
        flat = worth.reshape(len(worth), -1)
        best = _best(flat, weight.num_chords)  # [O, C]
        key = np.take_along_axis(keys, best // worth.shape[2], 1)
        numeral = numerals[key, best % worth.shape[2]]
        return self._with_inversions(key, numeral, np.take_along_axis(flat, best, 1), logs)

    def _in_keys(self, keys: Ints, logs: Mapping[str, Floats]) -> tuple[Ints, Floats]:
        """The numerals [70, V'] of each key, and what each is worth in each key tried [O, K, V'].

        Key by key: a class is then one row of all onsets [classes, O], which is copied faster than it is looked up.
        """
        weight, table = self.options, self.table
        alone = weight.degree * logs["degree"].T[table.degree]
        alone += weight.of_degree * logs["of_degree"].T[table.of_degree]
        alone += weight.quality * logs["quality"].T[table.quality]
        alone += weight.numeral * logs["numeral"].T[: len(table.numerals)]
        weighed = [(name, getattr(weight, name)) for name in ("tonicised", "root", "chord")]
        parts = [(name, np.ascontiguousarray(logs[name].T) * share) for name, share in weighed if share]
        numerals = np.zeros((NUM_KEYS, table.most_of_key), np.int64)
        worth = np.full((*keys.shape, table.most_of_key), NEVER, np.float32)
        for key in np.unique(keys).tolist():
            of_key = table.of_key[key]
            total = alone[of_key.numeral] + weight.key * logs["key"][:, key]
            for name, values in parts:
                total += values[getattr(of_key, name)]
            onset, place = np.nonzero(keys == key)
            numerals[key, : len(total)] = of_key.numeral
            worth[onset, place, : len(total)] = total.T[onset]
        return numerals, worth

    def _with_inversions(self, key: Ints, numeral: Ints, worth: Floats, logs: Mapping[str, Floats]) -> States:
        weight, table = self.options, self.table
        root = table.by_key[1][key, numeral]
        bass = np.clip(root[:, :, None] + table.tones[numeral], 0, NUM_SPELLINGS - 1)  # [O, C, 4]
        worth = worth[:, :, None] + weight.bass * _taken(logs["bass"], bass)
        worth = worth + weight.inversion * logs["inversion"][:, None, :]
        worth = np.where(np.arange(4) < table.num_inversions[numeral][:, :, None], worth, NEVER)
        flat = worth.reshape(len(worth), -1)
        best = _best(flat, weight.num_states)
        chord = best // 4
        key, numeral = np.take_along_axis(key, chord, 1), np.take_along_axis(numeral, chord, 1)
        return States(key, numeral, best % 4, np.take_along_axis(flat, best, 1).astype(np.float32))

    def _best_places(self, states: States, rhythm: Floats) -> Ints:
        """The place [O] of the state that the best path has at each onset."""
        weight = self.options
        begins = np.minimum(rhythm[:, 0], -1e-4)
        stays = np.log1p(-np.exp(begins))
        key, numeral, inversion, worth = states.key, states.numeral, states.inversion, states.worth
        other_key = key[1:, None, :] != key[:-1, :, None]  # [O - 1, before, after]
        other = other_key | (numeral[1:, None, :] != numeral[:-1, :, None])
        other |= inversion[1:, None, :] != inversion[:-1, :, None]
        changed = weight.rhythm * begins[1:, None, None] - weight.change - weight.key_change * other_key
        steps = np.where(other, changed, weight.rhythm * stays[1:, None, None])
        best = worth[0]
        for step, own in zip(steps, worth[1:], strict=True):
            step += best[:, None]  # what each state is worth through each one before it
            best = np.maximum.reduce(step) + own
        came_from = steps.argmax(axis=1).tolist()
        chosen = [int(best.argmax())]
        for before in reversed(came_from):
            chosen.append(before[chosen[-1]])
        return np.array(chosen[::-1])


def moved_logs(logs: Mapping[str, Floats], fifths: int) -> dict[str, Floats]:
    """What `logs` would be of the score moved by so many fifths; what leaves the range comes in at its other end."""
    moved = dict(logs)
    if not fifths:
        return moved
    for name in TRANSPOSED:
        moved[name] = np.roll(logs[name], fifths, axis=1)
    for name in TRANSPOSED_KEYS:
        modes = logs[name].reshape(-1, 2, NUM_SPELLINGS)
        moved[name] = np.roll(modes, fifths, axis=2).reshape(logs[name].shape)
    chords = logs["chord"].reshape(-1, 12, len(QUALITIES))
    moved["chord"] = np.roll(chords, 7 * fifths, axis=1).reshape(logs["chord"].shape)
    return moved


def _best(worth: Floats, count: int) -> Ints:
    """The places [O, count] of the highest values of each row, highest first."""
    count = min(count, worth.shape[1])
    found = np.argpartition(-worth, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(worth, found, 1), axis=1, kind="stable")
    return np.take_along_axis(found, order, 1)


def _taken(logs: Floats, index: Ints) -> Floats:
    """Values of each row at [O, .., ..] places."""
    return np.take_along_axis(logs, index.reshape(len(index), -1), 1).reshape(index.shape)
