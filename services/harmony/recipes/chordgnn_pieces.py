"""Analysed pieces for `train_chordgnn.py`: packed in one file, as graphs, and on the device as stretches of them.

    python services/harmony/recipes/chordgnn_pieces.py --corpus corpus/harmony --out corpus/harmony/chordgnn.npz

packs what `prepare_harmony.py` wrote. A group is the folder a piece lies in, as in `augmentednet/training` or
`dcml/corelli`. The file has the scores and, for each onset, its label's parts; graphs are built again when it is read,
which takes seconds.

Legend: N notes, O onsets, E edges, B stretches.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stretto_harmony.models.chordgnn.batch import DIATONIC_CENTRE, UNKNOWN_SIGNATURE, GraphBatch
from stretto_harmony.models.chordgnn.graph import RELATIONS, ScoreGraph, build_graph
from stretto_harmony.models.chordgnn.parts import (
    NO_LABEL,
    TRANSPOSED,
    TRANSPOSED_KEYS,
    RelativeNumeral,
    onset_parts,
    relative_numeral,
)
from stretto_harmony.scores.packed import read_piece
from stretto_harmony.scores.pitch import NUM_SPELLINGS, transposition_semitones
from stretto_harmony.scores.score import MEASURE_ARRAYS, NOTE_ARRAYS, Score
from torch import Tensor

PARTS = (
    "key",
    "tonicised",
    "degree",
    "of_degree",
    "quality",
    "inversion",
    "root",
    "bass",
    "numeral",
    "chord",
    "rhythm",
)
MAX_SHIFT = 15


@dataclass(frozen=True)
class Piece:
    """A score as a graph, and the parts of its analysis at its onsets [O]; `numeral` is a place in the packed list.

    `held_out` is what AugmentedNet's list does with the work, in whatever edition: "test", "validation" or "".
    """

    name: str
    group: str
    held_out: str
    graph: ScoreGraph
    parts: dict[str, np.ndarray]
    num_ticks: int


def pack(corpus: Path, out: Path) -> None:
    """Write all pieces under `corpus` to one file."""
    columns: dict[str, list[Any]] = {name: [] for name in (*NOTE_ARRAYS, *MEASURE_ARRAYS, *PARTS)}
    names, groups, held_out, sizes = [], [], [], []
    read_pieces = {str(path.relative_to(corpus)): read_piece(path) for path in sorted(corpus.glob("*/**/*.npz"))}
    metas = {path: meta for path, (_, _, meta) in read_pieces.items()}
    numerals: dict[RelativeNumeral, int] = {}
    for path, (score, analysis, meta) in read_pieces.items():
        if not score.num_notes or not len(analysis):
            continue
        for label in analysis:
            numerals.setdefault(relative_numeral(label), len(numerals))
        times = np.unique(score.onset)
        for name, values in onset_parts(analysis, times, numerals).items():
            columns[name].append(values.astype(np.int16))
        for name in (*NOTE_ARRAYS, *MEASURE_ARRAYS):
            columns[name].append(getattr(score, name).astype(np.int32))
        columns["onset"][-1] = np.diff(columns["onset"][-1], prepend=0)
        columns["measure_start"][-1] = np.diff(columns["measure_start"][-1], prepend=0)
        names.append(Path(path).stem)
        groups.append(str(Path(path).parent))
        held_out.append(held_out_for(meta, metas))
        sizes.append((score.num_notes, score.num_measures, len(times)))
    fields = [(row.in_minor, row.of, row.of_minor, row.interval, row.quality) for row in numerals]
    arrays = {name: np.concatenate(values) for name, values in columns.items()}
    lists = {"names": names, "groups": groups, "held_out": held_out, "sizes": sizes, "numerals": fields}
    np.savez_compressed(out, **arrays, **{name: np.array(values) for name, values in lists.items()})
    print(f"{len(names)} pieces, {len(arrays['onset'])} notes, {out.stat().st_size / 1e6:.1f} MB in {out}")


def held_out_for(meta: dict[str, Any], metas: dict[str, dict[str, Any]]) -> str:
    """What the list holds a piece out for, "test", "validation" or "": by its name, or by that of its twin in notes."""
    if meta["may_train"]:
        return ""
    own = str(meta["augmentednet"])
    return own if own in ("test", "validation") else str(metas[meta["twin"]]["augmentednet"])


def read(path: Path) -> tuple[list[Piece], list[RelativeNumeral]]:
    """The packed pieces, and the numerals that their `numeral` parts count in."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    pieces = []
    at = np.zeros(3, np.int64)
    heads = zip(arrays["names"], arrays["groups"], arrays["held_out"], arrays["sizes"])
    for name, group, held_out, size in heads:
        notes, measures, onsets = (slice(start, start + count) for start, count in zip(at, size))
        at += size
        values = {each: arrays[each][notes].astype(np.int64) for each in NOTE_ARRAYS}
        values |= {each: arrays[each][measures].astype(np.int64) for each in MEASURE_ARRAYS}
        values["onset"], values["measure_start"] = np.cumsum(values["onset"]), np.cumsum(values["measure_start"])
        score = Score(**values, measure_number=("",) * int(size[1]))
        parts = {each: arrays[each][onsets].astype(np.int64) for each in PARTS}
        pieces.append(Piece(str(name), str(group), str(held_out), build_graph(score), parts, score.num_ticks))
    return pieces, [RelativeNumeral(*row) for row in arrays["numerals"].tolist()]


def choose_numerals(pieces: Iterable[Piece], numerals: Sequence[RelativeNumeral], size: int) -> list[RelativeNumeral]:
    """The `size` numerals that are held at most onsets, the most frequent first."""
    counts: Counter[int] = Counter()
    for piece in pieces:
        counts.update(piece.parts["numeral"][piece.parts["numeral"] != NO_LABEL].tolist())
    return [numerals[place] for place, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:size]]


def recount(pieces: Iterable[Piece], numerals: Sequence[RelativeNumeral], chosen: Sequence[RelativeNumeral]) -> None:
    """Let the `numeral` parts count in `chosen`, with its length for any other."""
    place = {numeral: index for index, numeral in enumerate(chosen)}
    table = np.array([place.get(numeral, len(chosen)) for numeral in numerals])
    for piece in pieces:
        known = piece.parts["numeral"]
        piece.parts["numeral"] = np.where(known == NO_LABEL, NO_LABEL, table[np.maximum(known, 0)])


def move_parts(parts: dict[str, Tensor], shift: Tensor, num_types: int) -> dict[str, Tensor]:
    """The parts [O] of pieces that were moved by `shift` [O] fifths; no label where a class leaves its range."""
    moved = dict(parts)
    for name in (*TRANSPOSED, *TRANSPOSED_KEYS):
        spelled = parts[name] % NUM_SPELLINGS + shift
        inside = (parts[name] != NO_LABEL) & (spelled >= 0) & (spelled < NUM_SPELLINGS)
        moved[name] = torch.where(inside, parts[name] + shift, NO_LABEL)
    chord = parts["chord"]
    pitch_class = (chord // num_types + 7 * shift) % 12
    moved["chord"] = torch.where(chord == NO_LABEL, NO_LABEL, pitch_class * num_types + chord % num_types)
    return moved


class Stretches:
    """All pieces of a split on a device, of which batches of stretches are cut there."""

    def __init__(self, pieces: Sequence[Piece], num_types: int, device: torch.device) -> None:
        self.num_types = num_types
        graphs = [piece.graph for piece in pieces]
        notes = np.cumsum([0] + [graph.num_notes for graph in graphs])
        onsets = np.cumsum([0] + [graph.num_onsets for graph in graphs])

        def put(arrays: list[np.ndarray], axis: int = 0) -> Tensor:
            return torch.from_numpy(np.concatenate(arrays, axis=axis)).to(device)

        self.device = device
        self.fifths = put([graph.fifths for graph in graphs])
        self.midi = put([graph.midi for graph in graphs])
        self.features = put([graph.features for graph in graphs])
        self.onset = put([graph.onset + at for graph, at in zip(graphs, onsets)])
        self.bass = put([graph.bass + at for graph, at in zip(graphs, notes)])
        self.span_bass = put([graph.span_bass + at for graph, at in zip(graphs, notes)], axis=1)
        self.onset_features = put([graph.onset_features for graph in graphs])
        self.key_signature = put([graph.key_signature for graph in graphs])
        self.parts = {name: put([piece.parts[name] for piece in pieces]) for name in PARTS}
        self.gap = put([np.diff(graph.onset_time, append=piece.num_ticks) for graph, piece in zip(graphs, pieces)])
        self.edges = [put([graph.edges[name] + at for graph, at in zip(graphs, notes)], axis=1) for name in RELATIONS]
        bases = [np.array([[at], [on]]) for at, on in zip(notes, onsets)]
        self.edges.append(put([graph.sounding + base for graph, base in zip(graphs, bases)], axis=1))
        size = torch.arange(int(notes[-1]) + 1, device=device)
        self.edge_starts = [torch.searchsorted(edge[0].contiguous(), size) for edge in self.edges]
        self.note_starts = torch.searchsorted(self.onset, torch.arange(int(onsets[-1]) + 1, device=device))
        self.fifths_sum = torch.cat([self.fifths.new_zeros(1), self.fifths.cumsum(0)])
        self.piece_starts = torch.from_numpy(onsets).to(device)
        self.num_onsets = int(onsets[-1])
        moves = [transposition_semitones(shift) for shift in range(-MAX_SHIFT, MAX_SHIFT + 1)]
        self.semitones = torch.tensor(moves, device=device)

    def draw(
        self, starts: Tensor, length: int, jitter: Tensor, unsigned: Tensor
    ) -> tuple[GraphBatch, dict[str, Tensor], Tensor]:
        """Stretches from onsets `starts` [B] or before, each centred and moved by its `jitter` [B] fifths.

        Where `unsigned` [B] the key signature is not told. Returns the batch, the parts and the ticks of onsets [O].
        """
        piece = torch.searchsorted(self.piece_starts, starts, right=True) - 1
        begin, end = self.piece_starts[piece], self.piece_starts[piece + 1]
        first = torch.maximum(torch.minimum(starts, end - length), begin)
        after = torch.minimum(first + length, end)
        note_first, note_after = self.note_starts[first], self.note_starts[after]
        mean = (self.fifths_sum[note_after] - self.fifths_sum[note_first]) / (note_after - note_first)
        shift = jitter - mean.round().long() + DIATONIC_CENTRE
        onset_at, onset_row = _ranges(first, after)
        note_at, note_row = _ranges(note_first, note_after)
        note_base = _bases(note_first, note_after)  # what makes a note of all pieces one of the batch
        onset_base = _bases(first, after)
        edges = []
        for edge, edge_starts in zip(self.edges, self.edge_starts):
            at, row = _ranges(edge_starts[note_first], edge_starts[note_after])
            source, target = edge[0][at], edge[1][at]
            is_sounding = edge is self.edges[-1]
            inside = target < (after if is_sounding else note_after)[row]
            base = onset_base if is_sounding else note_base
            edges.append(torch.stack([source + note_base[row], target + base[row]])[:, inside])
        bass = self.bass[onset_at]
        bass = torch.where(bass >= note_first[onset_row], bass, self.note_starts[onset_at])
        span_bass = self.span_bass[:, onset_at]
        span_inside = (span_bass >= note_first[onset_row]) & (span_bass < note_after[onset_row])
        semitones = self.semitones[shift.clamp(-MAX_SHIFT, MAX_SHIFT) + MAX_SHIFT]
        signature = self.key_signature[onset_at] + shift[onset_row]
        batch = GraphBatch(
            fifths=self.fifths[note_at] + shift[note_row],
            midi=self.midi[note_at] + semitones[note_row],
            features=self.features[note_at],
            edges=tuple(edges[:-1]),
            onset=self.onset[note_at] + onset_base[note_row],
            sounding=edges[-1],
            bass=bass + note_base[onset_row],
            span_bass=torch.where(span_inside, span_bass, bass) + note_base[onset_row],
            onset_features=self.onset_features[onset_at],
            key_signature=torch.where(unsigned[onset_row], UNKNOWN_SIGNATURE, signature),
            lengths=(after - first).cpu(),
        )
        parts = {name: values[onset_at] for name, values in self.parts.items()}
        return batch, move_parts(parts, shift[onset_row], self.num_types), self.gap[onset_at]


def _ranges(first: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Every place from first[b] to before after[b], in order of b, and its b."""
    counts = after - first
    row = torch.repeat_interleave(torch.arange(len(first), device=first.device), counts)
    base = first - (counts.cumsum(0) - counts)
    return torch.arange(len(row), device=first.device) + base[row], row


def _bases(first: Tensor, after: Tensor) -> Tensor:
    """What to add [B] to a place of all to have its place in the batch."""
    counts = after - first
    return counts.cumsum(0) - counts - first


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of prepare_harmony.py")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    if not any(args.corpus.rglob("*.npz")):
        sys.exit(f"No .npz in {args.corpus}. Run prepare_harmony.py first.")
    pack(args.corpus, args.out)


if __name__ == "__main__":
    main()
