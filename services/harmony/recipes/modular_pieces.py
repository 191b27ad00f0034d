"""Analysed pieces as the modules learn from them: the published tensors, packed corpora, and batches of their notes.

A `NoteStore` holds the notes of all pieces as a few numbers each, on the device, and builds vectors from them there, so
that each row of a batch can be transposed on its own. `tests/services/harmony/test_modular_recipe.py` holds it to
`vectors.note_vectors` and `vectors.span_vectors`.

Legend: N notes of all pieces, B rows, T notes of a row, W spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_harmony.models.modular import vectors
from stretto_harmony.models.modular.vectors import ChordColumns, NoteTable, note_table
from stretto_harmony.scores import pitch
from stretto_harmony.scores.labels import VOCABULARY, Analysis, HarmonyLabel
from stretto_harmony.scores.packed import read_piece
from stretto_harmony.scores.score import TICKS_PER_WHOLE, Score
from torch import Tensor
from torch.nn import functional as F

Ints = NDArray[np.int64]
MAX_SHIFT = 7  # fifths, as published
MODES_OF_DEGREES = (
    (frozenset({2, 3, 4, 5}), frozenset({-5, -4, -3, -2, -1, 1})),
    (frozenset({-1, 1, 2}), frozenset({-5, -4, -3, -2, 5})),
)
"""Of major and of minor keys: fifths to the tonics of applied chords whose keys are minor, and major. Counted in the
published training split, where other intervals are rare."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One piece of the corpus.

    Args:
        name: `fh/NUMBER`, the number in the tensors.
        notes: In order; `duration` is all 0 where it is not known.
        chords: All chords [C].
        begin: The first note [A] of each chord that has one.
        which: Those chords [A].
    """

    name: str
    notes: NoteTable
    chords: ChordColumns
    begin: Ints
    which: Ints

    @property
    def has_durations(self) -> bool:
        return bool(self.notes.duration.any())


def packed_pieces(folder: Path) -> list[Piece]:
    """The pieces packed under `folder`, named by their paths from its parent."""
    pieces = []
    for path in sorted(folder.rglob("*.npz")):
        score, analysis, _ = read_piece(path)
        name = path.relative_to(folder.parent).with_suffix("").as_posix()
        if score.num_notes and len(analysis):
            pieces.append(piece_of(name, score, analysis))
    return [piece for piece in pieces if len(piece.which) > 1]


def published_mode(label: HarmonyLabel) -> int:
    """1 if the key in which a label stands is minor by the Functional Harmony corpus, whose splits judge.

    That corpus writes the degree to which a chord is applied without a case, so its mode is that of the triad which
    the key around has there: V/V of a minor key stands in the minor key of the dominant, V/iv of a major key in the
    major one of the subdominant. Other corpora say V/V and V/iv, and mean it.
    """
    key, applied = label.key, label.tonicised
    interval = applied.tonic - key.tonic
    if applied == key or not interval:
        return int(applied.is_minor)
    minor_degrees, major_degrees = MODES_OF_DEGREES[int(key.is_minor)]
    return int(interval in minor_degrees or (applied.is_minor and interval not in major_degrees))


def piece_of(name: str, score: Score, analysis: Analysis, *, as_published: bool = True) -> Piece:
    """A packed piece as the modules see it: an applied chord is in the key that it tonicises.

    A chord that has its root or bass more than 14 fifths from its tonic is left out.

    Args:
        name: Of the piece.
        score: Its notes.
        analysis: Its labels.
        as_published: Whether the modes of those keys are those of the Functional Harmony corpus (`published_mode`).
    """
    labels = list(analysis)
    root = np.array([label.root for label in labels])
    inverted = np.array([vectors.inverted_of(label.quality, label.inversion) for label in labels])
    tonic = np.array([label.tonicised.tonic for label in labels])
    kept = np.flatnonzero(vectors.within_reach(root, inverted, tonic))
    labels, root, inverted, tonic = [labels[n] for n in kept], root[kept], inverted[kept], tonic[kept]
    is_minor = np.array([published_mode(label) if as_published else int(label.tonicised.is_minor) for label in labels])
    start = np.array([label.start for label in labels])
    end = np.array([label.end for label in labels])
    old_tonic, old_minor = np.roll(tonic, 1), np.roll(is_minor, 1)
    is_change = (old_tonic != tonic) | (old_minor != is_minor)
    is_change[:1] = False
    chords = ChordColumns(
        root=root,
        inverted=inverted,
        tonic=tonic,
        is_minor=is_minor,
        onset_level=score.metrical_level(start),
        offset_level=score.metrical_level(end),
        duration=(end - start) / TICKS_PER_WHOLE,
        old_tonic=np.where(is_change, old_tonic, tonic),
        is_change=is_change,
    )
    begin = np.searchsorted(score.onset, start)
    after = np.append(begin[1:], score.num_notes)
    which = np.flatnonzero((begin < after) & (begin < score.num_notes))  # the others have no note of their own
    return Piece(name, note_table(score), chords, begin[which], which)


def label_fit(piece: Piece) -> float:
    """The share of notes that are tones of the chords under which they begin; low where labels are of other notes.

    Some published pieces are so: the labels of most of the sonatas repeat an exposition that the notes have once.
    """
    count = len(piece.notes.onset)
    chord = piece.which[np.clip(np.searchsorted(piece.begin, np.arange(count), side="right") - 1, 0, None)]
    tones = np.array([[*VOCABULARY[t].intervals, VOCABULARY[t].intervals[0]][:4] for t in vectors.TYPE_OF])
    interval = piece.notes.spelling + pitch.MIN_FIFTHS - piece.chords.root[chord]
    return float((interval[:, None] == tones[piece.chords.inverted[chord]]).any(1).mean())


@dataclass(frozen=True, eq=False)
class Spans:
    """The chords of all pieces as spans of notes; all [W].

    Args:
        low, high: The notes of the window, counted over all pieces.
        begin: The first note of the chord.
        length: Of the chord, whole notes.
        chord: The place among the 1,540.
        piece: Whose.
    """

    low: Tensor
    high: Tensor
    begin: Tensor
    length: Tensor
    chord: Tensor
    piece: Tensor


class NoteStore:
    """The notes of all pieces on one device."""

    def __init__(self, pieces: Sequence[Piece], device: torch.device) -> None:
        self.device = device
        tables = [piece.notes for piece in pieces]
        self.starts = np.cumsum([0] + [len(table.onset) for table in tables])
        for field in ("spelling", "height", "onset_level", "offset_level"):
            setattr(self, field, self._put(np.concatenate([getattr(table, field) for table in tables]), torch.long))
        gaps = [np.diff(table.onset) for table in tables]
        self.gap_before = self._put(np.concatenate([np.append(0.0, gap) for gap in gaps]))
        last = [np.append(gap, table.duration[-1]) for gap, table in zip(gaps, tables)]
        self.gap_after = self._put(np.concatenate(last))
        self.onset = self._put(np.concatenate([table.onset for table in tables]))
        self.duration = self._put(np.concatenate([table.duration for table in tables]))
        extremes = [_extremes(piece) for piece in pieces]
        self.min_shift = self._put(np.array([max(-MAX_SHIFT, -low) for low, _ in extremes]), torch.long)
        self.max_shift = self._put(np.array([min(MAX_SHIFT, 34 - high) for _, high in extremes]), torch.long)

    def _put(self, values: NDArray[Any], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.as_tensor(values, dtype=dtype, device=self.device)

    def shifts(self, piece: Tensor, random: torch.Generator) -> Tensor:
        """A transposition [B] in fifths for each row, within what the spellings of its piece [B] allow."""
        low, high = self.min_shift[piece], self.max_shift[piece]
        drawn = torch.rand(len(piece), generator=random, device=self.device)
        return low + (drawn * (high - low + 1)).long().clamp(max=14)

    def vectors(self, low: Tensor, high: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Notes `low` to before `high` [B], transposed by `shift` [B] fifths: [B, T, 71]; which are notes [B, T]."""
        index = low[:, None] + torch.arange(int((high - low).max()), device=self.device)
        is_note = index < high[:, None]
        index = index.clamp(max=len(self.onset) - 1)
        spelling = (self.spelling[index] + shift[:, None]).clamp(0, 34)
        height = self._height(index, shift)
        octave = self._octave(height, spelling)
        parts = [
            F.one_hot(spelling, 35),
            F.one_hot(octave, vectors.NUM_OCTAVES),
            F.one_hot(self.onset_level[index], vectors.NUM_LEVELS),
            F.one_hot(self.offset_level[index], vectors.NUM_LEVELS),
            index.new_zeros(*index.shape, 3),
            torch.stack([self.gap_before[index], self.gap_after[index]], -1),
            index.new_zeros(*index.shape, 11),
            (height / 127)[..., None],
            index.new_zeros(*index.shape, 1),
        ]
        return torch.cat([part.float() for part in parts], -1) * is_note[..., None], is_note

    def spans(self, spans: Spans, rows: Tensor, shift: Tensor, knows_duration: Tensor) -> tuple[Tensor, Tensor]:
        """The windows [B, T, 71] of those rows of `spans`, and their lengths [B]; durations are 0 where not known."""
        low, high = spans.low[rows], spans.high[rows]
        notes, is_note = self.vectors(low, high, shift)
        index = (low[:, None] + torch.arange(notes.shape[1], device=self.device)).clamp(max=len(self.onset) - 1)
        length = spans.length[rows][:, None].clamp(min=1e-6)
        onset = (self.onset[index] - self.onset[spans.begin[rows]][:, None]) / length
        duration = self.duration[index] / length
        timing = torch.stack([onset, onset + duration, duration], -1)
        timing[..., 1:] *= knows_duration[:, None, None]
        height = self._height(index, shift)
        octave = self._octave(height, (self.spelling[index] + shift[:, None]).clamp(0, 34))
        lowest = height.masked_fill(~is_note, 999).min(1)
        highest = height.masked_fill(~is_note, -999).max(1).values[:, None]
        octaves = (octave - octave.gather(1, lowest.indices[:, None])).clamp(0, vectors.NUM_OCTAVES - 1)
        bottom = lowest.values[:, None]
        notes[..., vectors.IN_SPAN : vectors.IN_SPAN + 3] = timing
        notes[..., vectors.IS_LOWEST] = (height == bottom).float()
        notes[..., vectors.RELATIVE_OCTAVE : vectors.HEIGHT] = F.one_hot(octaves, vectors.NUM_OCTAVES).float()
        notes[..., vectors.RELATIVE_HEIGHT] = (height - bottom) / (highest - bottom).clamp(min=1)
        return notes * is_note[..., None], high - low

    def _height(self, index: Tensor, shift: Tensor) -> Tensor:
        semitones = (7 * shift + 6) % 12 - 6
        return (self.height[index] + semitones[:, None]).clamp(0, 12 * vectors.NUM_OCTAVES - 5)

    @staticmethod
    def _octave(height: Tensor, spelling: Tensor) -> Tensor:
        accidentals = torch.div(spelling + pitch.MIN_FIFTHS + 1, 7, rounding_mode="floor")
        octave = torch.div(height - accidentals, 12, rounding_mode="floor")
        return octave.clamp(0, vectors.NUM_OCTAVES - 1)


def _extremes(piece: Piece) -> tuple[int, int]:
    """The lowest and highest spelling among notes and roots."""
    roots = piece.chords.root[piece.which] - pitch.MIN_FIFTHS
    return (
        int(min(piece.notes.spelling.min(), roots.min(initial=34))),
        int(max(piece.notes.spelling.max(), roots.max(initial=0))),
    )


def spans_of(pieces: Sequence[Piece], store: NoteStore) -> Spans:
    """Every chord of every piece that has a note of its own."""
    rows: list[tuple[int, int, int, float, int, int]] = []
    for number, piece in enumerate(pieces):
        start, count = int(store.starts[number]), len(piece.notes.onset)
        ends = np.append(piece.begin[1:], count)
        for chord, begin, end in zip(piece.which, piece.begin, ends):
            root = int(piece.chords.root[chord]) - pitch.MIN_FIFTHS
            if not 0 <= root < pitch.NUM_SPELLINGS or end <= begin:
                continue
            low = max(0, vectors.first_sounding(piece.notes, int(begin)) - vectors.NUM_FLANKING)
            high = min(count, int(end) + vectors.NUM_FLANKING)
            index = root * vectors.NUM_INVERTED + int(piece.chords.inverted[chord])
            length = float(piece.chords.duration[chord])
            rows.append((start + low, start + high, start + int(begin), length, index, number))
    columns = [torch.tensor(column, device=store.device) for column in zip(*rows)]
    low_, high_, begin_, length_, chord_, piece_ = columns
    return Spans(low_, high_, begin_, length_.float(), chord_, piece_)


def change_targets(pieces: Sequence[Piece], device: torch.device) -> Tensor:
    """Of every note of all pieces [N]: 1 where a chord begins, 0 at other first notes of an onset, -1 elsewhere."""
    parts = []
    for piece in pieces:
        targets = np.full(len(piece.notes.onset), -1)
        targets[piece.notes.first] = 0
        targets[piece.begin] = 1
        targets[0] = -1  # the first chord begins there; nothing is to be told
        parts.append(targets)
    return torch.as_tensor(np.concatenate(parts), device=device)


@dataclass(frozen=True, eq=False)
class ChordRows:
    """The chords of all pieces, padded to the longest; P pieces of T chords.

    Args:
        own: [P, T, 116], each chord in its key.
        wide: [P, T, 136], the same for the key modules.
        before: [P, T, 136], each first chord of a key in the key before; `wide` elsewhere.
        length: [P].
        is_change: [P, T].
        chord: [P, T], the place among the 1,276 relative chords.
    """

    own: Tensor
    wide: Tensor
    before: Tensor
    length: Tensor
    is_change: Tensor
    chord: Tensor


def chord_rows(pieces: Sequence[Piece], device: torch.device) -> ChordRows:
    """The chords of all pieces, those without a note of their own among them."""
    rows = [_chord_row(piece.chords) for piece in pieces]
    longest = max(len(row["chord"]) for row in rows)

    def padded(name: str) -> Tensor:
        shapes = [(longest - len(row[name]), *row[name].shape[1:]) for row in rows]
        parts = [np.concatenate([row[name], np.zeros(shape, row[name].dtype)]) for row, shape in zip(rows, shapes)]
        return torch.as_tensor(np.stack(parts), device=device)

    length = torch.tensor([len(row["chord"]) for row in rows], device=device)
    names = ("own", "wide", "before", "is_change", "chord")
    return ChordRows(**{name: padded(name) for name in names}, length=length)


def _chord_row(chords: ChordColumns) -> dict[str, NDArray[Any]]:
    wide = vectors.chord_vectors(chords, reach=vectors.WIDE_REACH)
    before = wide.copy()
    old_minor = np.roll(chords.is_minor, 1)
    in_old = ChordColumns(
        **{
            **{name: getattr(chords, name) for name in ChordColumns.__dataclass_fields__},
            "tonic": chords.old_tonic,
            "is_minor": np.where(chords.is_change, old_minor, chords.is_minor),
            "is_change": np.zeros_like(chords.is_change),
        }
    )
    near = vectors.within_reach(in_old.root, in_old.inverted, in_old.tonic, vectors.WIDE_REACH)
    change = np.flatnonzero(chords.is_change & near)
    taken = {name: getattr(in_old, name)[change] for name in ChordColumns.__dataclass_fields__}
    before[change] = vectors.chord_vectors(ChordColumns(**taken), reach=vectors.WIDE_REACH)
    return {
        "own": vectors.chord_vectors(chords),
        "wide": wide,
        "before": before,
        "is_change": chords.is_change,
        "chord": vectors.relative_chord(chords.root, chords.inverted, chords.tonic),
    }
