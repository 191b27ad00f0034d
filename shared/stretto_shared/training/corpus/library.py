"""The scores at hand, by source and split: unpacked once from the archives, read once per process."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stretto_shared.training.corpus import music21_scores, readers
from stretto_shared.training.corpus.quotations import Quotations
from stretto_shared.training.corpus.scores import Piece
from stretto_shared.training.corpus.splits import split_of

_log = logging.getLogger(__name__)

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


def read_libraries(scores: Path, *, with_music21: bool = False) -> dict[str, ScoreLibrary]:
    """Read every source and split it by piece. SCHmUBERT's and the chorales' own held-out pieces stay held out.

    A held-out piece that shares a tune with a training piece is left out, and so are the beats that every drummer of
    Groove played in an `eval_session`. piano-midi.de is split by composer and title; a MAPS recording of the same title
    may be in training. music21's corpus is read only where it is asked for, since its first reading takes minutes.
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
    _leave_out_known(by_split)
    if with_music21:
        _add_music21(by_split, music21_scores.read_music21(scores / "music21"))
    return {split: ScoreLibrary(pieces) for split, pieces in by_split.items()}


def _leave_out_known(by_split: Mapping[str, dict[str, list[Piece]]]) -> None:
    """Leave out of the held-out splits what training knows: tunes of its own pieces, and Groove's shared beats."""
    known = Quotations()
    for pieces in by_split["train"].values():
        for piece in pieces:
            known.add("train", piece)
    for split in ("valid", "test"):
        for source, pieces in by_split[split].items():
            kept = [p for p in pieces if "eval_session" not in p.name and not known.in_other_split(split, p)]
            _log.info(f"{split}: {len(pieces) - len(kept)} of {len(pieces)} pieces of {source} are known: left out")
            by_split[split][source] = kept


def _add_music21(by_split: dict[str, dict[str, list[Piece]]], pieces: Sequence[Piece]) -> None:
    """Split the pieces by work, the held-out ones first; leave out what shares a tune with a piece of another split.

    A source without a piece in some split is absent from that split.
    """
    known = Quotations()
    for split, sources in by_split.items():
        for piece in (piece for source in sources.values() for piece in source):
            known.add(split, piece)
    splits = [split_of("music21", music21_scores.work_of(piece.name)) for piece in pieces]
    left_out = 0
    for wanted in ("test", "valid", "train"):
        for piece in (piece for piece, split in zip(pieces, splits, strict=True) if split == wanted):
            if known.in_other_split(wanted, piece):
                left_out += 1
                continue
            known.add(wanted, piece)
            by_split[wanted].setdefault(piece.source, []).append(piece)
    _log.info(f"{left_out} of {len(pieces)} pieces of music21's corpus share a tune with another split: left out")


def _add(by_split: dict[str, dict[str, list[Piece]]], piece: Piece | None, split: str | None = None) -> None:
    if piece is not None:
        by_split[split or split_of(piece.source, piece.name)][piece.source].append(piece)
