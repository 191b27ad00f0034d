"""The scores at hand, by source and split: unpacked once from the archives, read once per process."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stretto_shared.training.corpus import readers
from stretto_shared.training.corpus.scores import Piece
from stretto_shared.training.corpus.splits import split_of

_ARCHIVES = ("pop909", "schmubert_samples", "jsb_chorales", "piano_midi_de", "groove")
_FOLDERS = {
    "pop909": "pop909",
    "schmubert": "schmubert",
    "jsb": "jsb",
    "pianomidi": "pianomidi",
    "groove": "groove/groove",
}


@dataclass(frozen=True)
class ScoreLibrary:
    """Pieces by source, all of one split."""

    pieces: Mapping[str, Sequence[Piece]]

    def __post_init__(self) -> None:
        empty = [source for source, items in self.pieces.items() if not items]
        if empty:
            raise ValueError(f"No pieces of {', '.join(empty)} in this split. Give every source at least one piece.")


def unpack(data: Path, scores: Path) -> Path:
    """Unpack the score archives of `data/symbolic` into `scores`, if that has not been done."""
    done = scores / "UNPACKED"
    if not done.exists():
        scores.mkdir(parents=True, exist_ok=True)
        for name in _ARCHIVES:
            with tarfile.open(data / "symbolic" / f"{name}.tar.xz") as archive:
                archive.extractall(scores, filter="data")
        done.touch()
    return scores


def read_libraries(scores: Path) -> dict[str, ScoreLibrary]:
    """Read every source and split it by piece. SCHmUBERT's and the chorales' own held-out pieces stay held out.

    piano-midi.de is split by composer and title; a MAPS recording of the same title may be in training.
    """
    by_split: dict[str, dict[str, list[Piece]]] = {
        split: {source: [] for source in _FOLDERS} for split in ("train", "valid", "test")
    }
    for folder in sorted((scores / _FOLDERS["pop909"]).iterdir()):
        if folder.is_dir():
            _add(by_split, readers.read_pop909(folder))
    trios = scores / _FOLDERS["schmubert"] / "samples"
    known = set()
    for path in sorted((trios / "train" / "trio").glob("*.mid")):
        known.add(path.read_bytes())
        _add(by_split, readers.read_schmubert(path, path.stem), "train")
    for path in sorted((trios / "valid" / "trio").glob("*.mid")):
        piece = readers.read_schmubert(path, f"valid_{path.stem}")
        if piece is not None and path.read_bytes() in known:  # one trio is in both folders: it keeps its place, unused
            piece = replace(piece, bar_starts=np.zeros(0))
        _add(by_split, piece, "valid" if int(path.stem.split("_")[1]) % 2 else "test")
    for split, piece in readers.read_chorales(scores / _FOLDERS["jsb"] / "Jsb16thSeparated.json"):
        _add(by_split, piece, split)
    for path in sorted((scores / _FOLDERS["pianomidi"] / "midis").glob("*/*.mid")):
        _add(by_split, readers.read_piano_midi(path))
    for piece in readers.read_groove(scores / _FOLDERS["groove"]):
        _add(by_split, piece)
    return {split: ScoreLibrary(pieces) for split, pieces in by_split.items()}


def _add(by_split: dict[str, dict[str, list[Piece]]], piece: Piece | None, split: str | None = None) -> None:
    if piece is not None:
        by_split[split or split_of(piece.source, piece.name)][piece.source].append(piece)
