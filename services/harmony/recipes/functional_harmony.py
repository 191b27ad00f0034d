"""The published tensors of the Functional Harmony corpus as pieces: notes, chords and keys, by the official split.

McLeod and Rohrmeier's repository has the tensors that their modules were trained on (161 pieces, 20 for validation,
20 for the test), but not the chord classifier's of the training split. What is in them is put together again here:

- the notes of a piece from the chord transition module's (spelling, octave, levels, whole notes to the next note),
- chords and keys from the chord sequence module's, relative to a first tonic. That tonic is told by the chord
  classifier's targets of the validation and test pieces; of a training piece it is the one under which the most notes
  are chord tones,
- durations of notes from the chord classifier's spans. The training pieces have none: `duration` is 0 there.

Notes that begin together are put in order of pitch, as a `Score` has them: the tensors have them in the order of the
files. The height of B sharp and C flat is that which sounds: the tensors have them an octave off.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from modular_pieces import Piece
from numpy.typing import NDArray
from stretto_harmony.models.modular import vectors
from stretto_harmony.models.modular.vectors import ChordColumns, NoteTable
from stretto_harmony.scores import pitch
from stretto_harmony.scores.labels import NUM_CHORDS, VOCABULARY

FOLDER = "harmonic-inference/h5_data-fh"
SPLITS = ("train", "valid", "test")
MAX_LEFT_OUT = 8  # chords in a row without a note of their own
Ints = NDArray[np.int64]


def published_order(num_roots: int) -> Ints:
    """For each place in the tensors' order of chords, type by type, the place in ours, root by root."""
    counts = [type_.num_inversions for type_ in VOCABULARY]
    places = []
    for number, count in enumerate(counts):
        first = sum(counts[:number])
        places += [root * vectors.NUM_INVERTED + first + inv for root in range(num_roots) for inv in range(count)]
    return np.array(places)


def read_pieces(data: Path, split: str) -> list[Piece]:
    """The pieces of `train`, `valid` or `test`, in the tensors' order.

    Args:
        data: The unpacked `functional_harmony_h5`.
        split: One of `SPLITS`.
    """
    transition, sequence = _file(data, "ChordTransition", split), _file(data, "ChordSequence", split)
    spans = None if split == "train" else _Spans(_file(data, "ChordClassification", split))
    pieces = []
    for row, file_id in enumerate(transition["file_ids"]):
        notes = transition["inputs"][row][: transition["input_lengths"][row]].astype(np.float32)
        chords = sequence["inputs"][row][: sequence["input_lengths"][row]].astype(np.float32)
        changes = np.flatnonzero(transition["targets"][row][: len(notes)] == 1)
        pieces.append(_piece(f"fh/{file_id}", notes, changes, chords, spans))
    return pieces


def raw(data: Path, module: str, split: str) -> dict[str, Any]:
    """The arrays of a published file by name: `module` is `KeyTransition` and so on."""
    return _file(data, module, split)


def _file(data: Path, module: str, split: str) -> dict[str, Any]:
    import h5py  # only to read these files, and beside them this recipe does without

    folder = data / FOLDER if (data / FOLDER).exists() else data
    with h5py.File(folder / f"{module}Dataset_{split}_seed_0.h5") as file:
        return {name: file[name][:] for name in file}


class _Spans:
    """The chord classifier's file, read chord after chord."""

    def __init__(self, file: dict[str, Any]) -> None:
        self.inputs, self.lengths = file["inputs"], file["input_lengths"]
        self.chords = published_order(NUM_CHORDS // vectors.NUM_INVERTED)[file["targets"].astype(int)]
        self.place = 0

    def take(self, count: int) -> tuple[list[NDArray[np.float32]], Ints]:
        """The spans and the chords of the next `count` chords."""
        places = range(self.place, self.place + count)
        self.place += count
        return [self.inputs[p][: self.lengths[p]].astype(np.float32) for p in places], self.chords[list(places)]


def _piece(name: str, rows: NDArray[np.float32], changes: Ints, chords: NDArray[np.float32], spans: Any) -> Piece:
    """Put together what the files have of one piece, in the order of the tensors; then in order of pitch."""
    notes = _notes(rows)
    begin, which = _aligned(notes.onset, changes, [_exact(length) for length in chords[:, 82].astype(float)])
    relative, inverted = chords[:, :29].argmax(1) - vectors.REACH, _inverted(chords)
    interval, is_minor = _keys(chords)
    if spans is None:
        tonic = _best_tonic(notes, begin, (relative + interval)[which], inverted[which])
    else:
        windows, absolute = spans.take(len(chords))
        tonic = int((absolute // vectors.NUM_INVERTED + pitch.MIN_FIFTHS - relative - interval)[0])
        notes = replace(notes, duration=_durations(notes, begin, [windows[n] for n in which]))
    order = np.lexsort((notes.height, notes.onset))
    notes = NoteTable(**{field: getattr(notes, field)[order] for field in NoteTable.__dataclass_fields__})
    tonics = tonic + interval
    is_change = chords[:, 115] > 0.5
    columns = ChordColumns(
        root=tonics + relative,
        inverted=inverted,
        tonic=tonics,
        is_minor=is_minor,
        onset_level=chords[:, 74:78].argmax(1),
        offset_level=chords[:, 78:82].argmax(1),
        duration=chords[:, 82].astype(np.float64),
        old_tonic=np.where(is_change, np.roll(tonics, 1), tonics),
        is_change=is_change,
    )
    return Piece(name, notes, columns, begin, which)


def _aligned(onset: NDArray[np.float64], changes: Ints, lengths: list[float]) -> tuple[Ints, Ints]:
    """The notes at which chords begin, and which chords these are.

    Some chords have no note of their own, and the labels of some sets of variations go on where the notes end: there
    are more chords than marked notes. Of all ways to leave chords out in order, this is the one in which the times
    between marked notes are nearest to the lengths of the chords between; what is left out at the end costs nothing.
    """
    begin = np.concatenate([[0], changes])[: len(lengths)]
    num_chords, most = len(lengths), max(0, len(lengths) - len(begin)) + 1  # chords left out so far: 0 to most - 1
    starts = np.concatenate([[0.0], np.cumsum(lengths)])
    best = np.full(most, np.inf)
    best[:MAX_LEFT_OUT] = 0.02 * np.arange(min(most, MAX_LEFT_OUT))
    came_from = np.zeros((len(begin), most), np.int64)
    for place in range(1, len(begin)):
        gap = onset[begin[place]] - onset[begin[place - 1]]
        now = starts[np.minimum(place + np.arange(most), num_chords)]
        ways = np.full((MAX_LEFT_OUT, most), np.inf)
        for more in range(min(MAX_LEFT_OUT, most)):
            before = starts[np.minimum(place - 1 + np.arange(most - more), num_chords)]
            ways[more, more:] = best[: most - more] + np.abs(gap - (now[more:] - before)) + 0.02 * more
        came_from[place], best = ways.argmin(0), ways.min(0)
    left_out = int(np.argmin(np.where(len(begin) + np.arange(most) <= num_chords, best, np.inf)))
    which = np.zeros(len(begin), np.int64)
    for place in range(len(begin) - 1, -1, -1):
        which[place] = place + left_out
        left_out -= int(came_from[place, left_out])
    return begin, which


def _notes(rows: NDArray[np.float32]) -> NoteTable:
    gaps = rows[:-1, vectors.GAPS + 1].astype(np.float64)
    gaps = np.array([_exact(gap) for gap in gaps])
    spelling = rows[:, : vectors.OCTAVE].argmax(1)
    octave = rows[:, vectors.OCTAVE : vectors.ONSET_LEVEL].argmax(1)
    accidentals = (spelling + pitch.MIN_FIFTHS + 1) // 7
    return NoteTable(
        spelling=spelling,
        height=12 * octave + (7 * (spelling + pitch.MIN_FIFTHS - 7 * accidentals)) % 12 + accidentals,
        octave=octave,
        onset=np.concatenate([[0.0], np.cumsum(gaps)]),
        duration=np.zeros(len(rows)),
        onset_level=rows[:, vectors.ONSET_LEVEL : vectors.OFFSET_LEVEL].argmax(1),
        offset_level=rows[:, vectors.OFFSET_LEVEL : vectors.IN_SPAN].argmax(1),
    )


def _exact(whole_notes: float) -> float:
    """The simplest nearby fraction, so that sums over a piece do not drift."""
    for denominator in (16, 24, 32, 48, 64, 96, 128, 160):
        nearest = round(whole_notes * denominator) / denominator
        if abs(nearest - whole_notes) <= 6e-4 * max(whole_notes, 0.01):
            return nearest
    return whole_notes


def _inverted(chords: NDArray[np.float32]) -> Ints:
    type_, inversion = chords[:, 29:41].argmax(1), chords[:, 70:74].argmax(1)
    place = {(int(t), int(i)): n for n, (t, i) in enumerate(zip(vectors.TYPE_OF, vectors.INVERSION_OF))}
    return np.array([place[int(t), int(i)] for t, i in zip(type_, inversion)])


def _keys(chords: NDArray[np.float32]) -> tuple[Ints, Ints]:
    """Fifths from the first tonic [C], and whether each key is minor."""
    moves = np.where(chords[:, 115] > 0.5, chords[:, 84:113].argmax(1) - vectors.REACH, 0)
    return np.cumsum(moves), (chords[:, 83] < 0.5).astype(np.int64)


def _best_tonic(notes: NoteTable, begin: Ints, root: Ints, inverted: Ints) -> int:
    """The first tonic under which the most notes are tones of their chords, whose roots are told from it."""
    chord = np.searchsorted(begin, np.arange(len(notes.onset)), side="right") - 1
    tones = np.array([[*VOCABULARY[t].intervals, VOCABULARY[t].intervals[0]][:4] for t in vectors.TYPE_OF])
    interval = notes.spelling + pitch.MIN_FIFTHS - root[chord]
    fits = [(interval[:, None] - tonic == tones[inverted[chord]]).any(1).sum() for tonic in range(-15, 20)]
    return int(np.argmax(fits)) - 15


def _durations(notes: NoteTable, begin: Ints, windows: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Whole notes [N] of the notes in the tensors' own order, from the spans [n, 71] of their chords.

    A span has notes that are held into it first, two notes on either side, and rows of zeros beyond the piece.
    """
    durations = np.zeros(len(notes.onset))
    ends = np.concatenate([begin[1:], [len(notes.onset)]])
    for first, end, window in zip(begin, ends, windows):
        inside = window[len(window) - vectors.NUM_FLANKING - (end - first) :][: end - first]
        gaps = notes.onset[first:end] - notes.onset[first]
        moved = inside[:, vectors.IN_SPAN]
        if len(inside) < end - first or (inside[:, : vectors.OCTAVE].argmax(1) != notes.spelling[first:end]).any():
            continue
        # The length of the span turns shares into whole notes; the last onset inside tells it best.
        last = int(moved.argmax())
        after = float(notes.onset[end] - notes.onset[first]) if end < len(notes.onset) else 0.25
        length = gaps[last] / moved[last] if moved[last] > 0 else after
        durations[first:end] = inside[:, vectors.IN_SPAN + 2] * length
    return np.array([_exact(duration) for duration in durations])
