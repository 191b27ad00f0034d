"""Analysed pieces as the modules learn from them: the published tensors and packed corpora, and batches of their notes.

A `NoteStore` holds the notes of all pieces as a few numbers each, on the device, and builds vectors from them there, so
that each row of a batch can be transposed on its own. It is held to `vectors.note_vectors` and `vectors.span_vectors` by
`tests/services/harmony/test_modular_recipe.py`.

Legend: N notes of all pieces, B rows, T notes of a row, W spans.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from functional_harmony import Piece
from numpy.typing import NDArray
from stretto_harmony.models.modular import vectors
from stretto_harmony.models.modular.vectors import ChordColumns, note_table
from stretto_harmony.scores import pitch
from stretto_harmony.scores.labels import Analysis
from stretto_harmony.scores.packed import read_piece
from stretto_harmony.scores.score import TICKS_PER_WHOLE, Score
from torch import Tensor

Ints = NDArray[np.int64]
MAX_SHIFT = 7  # fifths, as published


def piece_of(name: str, score: Score, analysis: Analysis) -> Piece:
    """A packed piece as one of the modules': applied chords are in the key that they tonicise."""
    notes = note_table(score)
    labels = [label for label in analysis if vectors.within_reach(*_place(label.root, label.quality, label.inversion))]
    raise NotImplementedError(name, notes, labels, TICKS_PER_WHOLE)
