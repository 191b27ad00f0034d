"""Gather what the modular analyzer trains and is chosen on into one file, so that a training machine needs no other.

    python services/harmony/recipes/pack_modular.py --data ../shared/data/harmony/functional_harmony_h5
        --corpus corpus/harmony --out corpus/harmony/modular.npz

The published training split comes first, with the durations of the same music in the corpora where it is there; then
the corpora's pieces (`prepare_harmony.py`), without those that are in the published validation or test split by their
notes; then the validation split. What was left out, and whose durations were found, is told.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from functional_harmony import read_pieces
from modular_pieces import Piece, packed_pieces
from modular_twins import twins, with_durations
from stretto_harmony.models.modular.vectors import ChordColumns, NoteTable

NOTE_FIELDS = tuple(NoteTable.__dataclass_fields__)
CHORD_FIELDS = tuple(ChordColumns.__dataclass_fields__)


def save_pieces(path: Path, splits: dict[str, Sequence[Piece]]) -> None:
    """Write the pieces of each split, all arrays end to end."""
    pieces = [piece for split in splits.values() for piece in split]
    arrays: dict[str, Any] = {
        "names": np.array([piece.name for piece in pieces]),
        "splits": np.array([name for name, split in splits.items() for _ in split]),
        "num_notes": np.array([len(piece.notes.onset) for piece in pieces]),
        "num_chords": np.array([len(piece.chords.root) for piece in pieces]),
        "num_begins": np.array([len(piece.begin) for piece in pieces]),
    }
    for name in NOTE_FIELDS:
        arrays[f"note_{name}"] = _small(np.concatenate([getattr(piece.notes, name) for piece in pieces]))
    for name in CHORD_FIELDS:
        arrays[f"chord_{name}"] = _small(np.concatenate([getattr(piece.chords, name) for piece in pieces]))
    for name in ("begin", "which"):
        arrays[name] = np.concatenate([getattr(piece, name) for piece in pieces]).astype(np.int32)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_pieces(path: Path, split: str) -> list[Piece]:
    """The pieces of one split that `save_pieces` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    edges = {name: np.cumsum(np.append(0, arrays[f"num_{name}"])) for name in ("notes", "chords", "begins")}
    pieces = []
    for number in np.flatnonzero(arrays["splits"] == split):
        cut = {name: slice(*edge[number : number + 2]) for name, edge in edges.items()}
        pieces.append(
            Piece(
                str(arrays["names"][number]),
                NoteTable(**{name: _wide(arrays[f"note_{name}"][cut["notes"]]) for name in NOTE_FIELDS}),
                ChordColumns(**{name: _wide(arrays[f"chord_{name}"][cut["chords"]]) for name in CHORD_FIELDS}),
                _wide(arrays["begin"][cut["begins"]]),
                _wide(arrays["which"][cut["begins"]]),
            )
        )
    return pieces


def _small(array: Any) -> Any:
    return array if array.dtype.kind == "b" else array.astype(np.float64 if array.dtype.kind == "f" else np.int16)


def _wide(array: Any) -> Any:
    return array.astype(np.int64) if array.dtype.kind == "i" else array


def main() -> None:
    """Read, tell twins, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the unpacked functional_harmony_h5")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    published = {split: read_pieces(args.data, split) for split in ("train", "valid", "test")}
    extra = [piece for folder in ("dcml", "augmentednet", "wir") for piece in packed_pieces(args.corpus / folder)]
    held_out = twins(extra, published["valid"] + published["test"])
    donors = {piece.name: piece for piece in extra}
    of_train = twins(published["train"], extra)
    train = [
        with_durations(piece, donors[of_train[piece.name]]) if piece.name in of_train else piece
        for piece in published["train"]
    ]
    kept = [piece for piece in extra if piece.name not in held_out]
    save_pieces(args.out, {"train": train, "extra": kept, "valid": published["valid"]})
    report = {
        "published_with_durations": sum(piece.has_durations for piece in train),
        "published": len(train),
        "extra": len(kept),
        "left_out": held_out,
        "twins_of_train": of_train,
    }
    args.out.with_suffix(".json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in report.items() if not isinstance(value, dict)}))


if __name__ == "__main__":
    main()
