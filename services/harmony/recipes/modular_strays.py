"""Chords in keys that are not always those of the analysis, so that the key modules learn to find back.

The key modules were published as trained on analyses alone: all chords so far in the right keys. In the search they
are asked after wrong ones too, of which they know nothing: a hypothesis that missed a change, or began in a wrong key,
stays there. Here a piece is read as by a reader who errs: it misses a change now and then, changes where nothing
changes, or begins elsewhere, and finds back sooner or later. Asked at each chord is whether its key is another than the
reader's, and which. A departure from the paper.

Legend: T chords, P pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from modular_pieces import Piece
from numpy.typing import NDArray
from stretto_harmony.models.modular import vectors
from stretto_harmony.models.modular.vectors import ChordColumns
from stretto_harmony.scores import pitch
from torch import Tensor

LONGEST = 128
"""Chords of a piece in one batch, at most."""
Ints = NDArray[np.int64]
NEAR_KEYS = ((1, 0), (-1, 0), (0, 1), (3, 1), (-3, 1), (2, 1), (4, 1), (-2, 1), (1, 1), (-1, 1), (2, 0), (-2, 0))
"""Where a reader strays to: fifths to the tonic, and whether the mode is the other one."""


@dataclass(frozen=True)
class Reader:
    """How a reader errs, as probabilities at each chord.

    Args:
        starts: That the piece begins in a wrong key.
        finds: That a wrong key is left for the right one; also at a true change.
        strays: That a right key is left.
    """

    starts: float = 0.0
    finds: float = 1.0
    strays: float = 0.0


@dataclass(frozen=True, eq=False)
class KeyRows:
    """What the key modules see and are asked, padded to the longest; P pieces of T chords.

    Args:
        wide: [P, T, 136], each chord in the reader's key.
        before: [P, T, 136], each chord in the reader's key before it.
        here: [P, T], chords at which is asked.
        is_wrong: [P, T], whether the reader's key before the chord is not that of the chord.
        to: [P, T], the place of the chord's key among the 58 where it is another and near enough, or -1.
    """

    wide: Tensor
    before: Tensor
    here: Tensor
    is_wrong: Tensor
    to: Tensor


def drawn_reader(random: np.random.Generator, share: float) -> Reader:
    """A reader; with probability 1 - `share` one that does not err."""
    if random.random() >= share:
        return Reader()
    return Reader(0.5 * random.random(), 0.1 + 0.8 * random.random(), 0.04 * random.random())


def read_keys(chords: ChordColumns, reader: Reader, random: np.random.Generator) -> tuple[Ints, Ints]:
    """The tonics and modes [T] in which a reader hears the chords, all within the wide reach."""
    count = len(chords.root)
    tonic, minor = chords.tonic.copy(), chords.is_minor.copy()
    draws = random.random((count, 2))
    for place in range(count):
        right = (int(chords.tonic[place]), int(chords.is_minor[place]))
        if place == 0:
            held, leaves = right, draws[0, 0] < reader.starts
        else:
            held = (int(tonic[place - 1]), int(minor[place - 1]))
            leaves = held == right and draws[place, 0] < reader.strays
        if leaves:
            held = _stray(right, draws[place, 1])
        elif held != right and draws[place, 0] < reader.finds:
            held = right
        fits = vectors.within_reach(chords.root[place], chords.inverted[place], np.int64(held[0]))
        tonic[place], minor[place] = held if fits else right
    return tonic, minor


def _stray(key: tuple[int, int], draw: float) -> tuple[int, int]:
    interval, other = NEAR_KEYS[int(draw * len(NEAR_KEYS))]
    return int(np.clip(key[0] + interval, pitch.MIN_FIFTHS, pitch.MIN_FIFTHS + pitch.NUM_SPELLINGS - 1)), key[1] ^ other


def key_rows(
    pieces: Sequence[Piece], share: float, random: np.random.Generator, device: torch.device, longest: int = LONGEST
) -> KeyRows:
    """The chords of `pieces`, or as many in a row as `longest` from anywhere, as readers drawn for them hear them."""
    rows = [_row(_excerpt(piece.chords, longest, random), share, random) for piece in pieces]
    count = max(len(row["to"]) for row in rows)

    def padded(name: str, filler: int) -> Tensor:
        whole = np.full((len(rows), count, *rows[0][name].shape[1:]), filler, rows[0][name].dtype)
        for number, row in enumerate(rows):
            whole[number, : len(row[name])] = row[name]
        return torch.as_tensor(whole, device=device)

    fillers = {"wide": 0, "before": 0, "here": 0, "is_wrong": 0, "to": -1}
    return KeyRows(**{name: padded(name, filler) for name, filler in fillers.items()})


def _excerpt(chords: ChordColumns, longest: int, random: np.random.Generator) -> ChordColumns:
    low = int(random.integers(max(1, len(chords.root) - longest + 1)))
    return _taken(chords, slice(low, low + longest))


def _taken(chords: ChordColumns, which: slice | Ints) -> ChordColumns:
    return ChordColumns(**{name: value[which] for name, value in vars(chords).items()})


def _row(chords: ChordColumns, share: float, random: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    tonic, minor = read_keys(chords, drawn_reader(random, share), random)
    old_tonic, old_minor = np.append(tonic[:1], tonic[:-1]), np.append(minor[:1], minor[:-1])
    changes = (tonic != old_tonic) | (minor != old_minor)
    heard = {**vars(chords), "tonic": tonic, "is_minor": minor, "old_tonic": old_tonic, "is_change": changes}
    wide = vectors.chord_vectors(ChordColumns(**heard), reach=vectors.WIDE_REACH)
    near = vectors.within_reach(chords.root, chords.inverted, old_tonic, vectors.WIDE_REACH)
    asked = np.flatnonzero(near & changes)
    stays = {**heard, "tonic": old_tonic, "is_minor": old_minor, "is_change": np.zeros_like(changes)}
    before = wide.copy()
    before[asked] = vectors.chord_vectors(_taken(ChordColumns(**stays), asked), reach=vectors.WIDE_REACH)
    is_wrong = (chords.tonic != old_tonic) | (chords.is_minor != old_minor)
    here = near.copy()
    here[:1] = False
    to = vectors.key_change(old_tonic, chords.tonic, chords.is_minor)
    return {
        "wide": wide,
        "before": before,
        "here": here,
        "is_wrong": is_wrong,
        "to": np.where(is_wrong & here, to, -1),
    }
