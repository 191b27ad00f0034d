"""Analysed scores to learn from: `prepare_harmony.py --data DIR --out corpus/harmony`; what exists is not made again.

`DIR` holds `harmony/*.tar.xz` and `judges/augmentednet/dataset_gt.tsv`; the archives are unpacked to a temporary
folder, or read from `--unpacked DIR`. One `.npz` a piece (`stretto_harmony.scores.packed`):

- `dcml/<corpus>/`: the ten DCML corpora.
- `augmentednet/{training,validation,test}/`: AugmentedNet's list, as far as its scores are at hand.
- `wir/`: the other analyses of When in Rome whose scores are at hand.

A piece's meta names its `source`, `work` (`harmony_works.py`), `split`, and `augmentednet`, the list's split of the
same work or "". `may_train` is false for every work that the list tests or validates with, in whatever edition, by
name and by notes (`harmony_twins.py`). Misaligned pieces are left out; `report_<source>.json` names them and counts
the rest.
"""

from __future__ import annotations

import argparse
import collections
import json
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harmony_sources
from harmony_sources import Piece
from harmony_twins import held_out_twins
from stretto_harmony.alignment import align
from stretto_harmony.scores.packed import read_piece, write_piece
from stretto_shared.errors import InvalidInput

ARCHIVES = ("dcml", "when_in_rome", "bach_370_chorales", "bps_fh")
HELD_OUT = ("test", "validation")
SOURCES = ("dcml", "augmentednet", "wir")


def main() -> None:
    """Write the pieces of every source that is asked for, then the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--unpacked", type=Path, help="the archives of --data, each unpacked to a folder of its name")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        unpacked = given.unpacked or unpack(given.data / "harmony", Path(folder))
        listed = harmony_sources.read_list(given.data / "judges" / "augmentednet" / "dataset_gt.tsv")
        for source in given.sources:
            write_source(source, unpacked, listed, given.out)
    mark_twins(given.out)
    leaking = leaks(given.out)
    if leaking:
        raise SystemExit(f"Held-out works may train: {', '.join(leaking)}. Write these pieces anew.")


def unpack(archives: Path, folder: Path) -> Path:
    """Unpack what the sources read to folders of the archives' names."""
    for name in ARCHIVES:
        with tarfile.open(archives / f"{name}.tar.xz") as archive:
            archive.extractall(folder / name, filter="data")
    return folder


def write_source(source: str, unpacked: Path, listed: list[harmony_sources.Listed], out: Path) -> None:
    """Write the aligned pieces of one source, and `report_<source>.json` of what there was and why some are not."""
    report: dict[str, Any] = {"written": 0, "labels": 0, "labels_left_out": 0, "faults": {}}
    splits = {entry.work: entry.split for entry in listed}
    for piece in harmony_sources.PIECES[source](unpacked, listed):
        path = out / piece.path
        fault = write_aligned(piece, path, splits, report)
        if fault is not None:
            report["faults"][str(piece.path)] = fault
            path.unlink(missing_ok=True)
    (out / f"report_{source}.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(source, {key: value if key != "faults" else len(value) for key, value in report.items()}, flush=True)


def write_aligned(piece: Piece, path: Path, splits: dict[str, str], report: dict[str, Any]) -> str | None:
    """Write the piece unless it is there; the reason when it cannot be read or does not fit."""
    if path.exists():
        _, analysis, meta = read_piece(path)
        count(report, len(analysis), meta["labels_left_out"])
        return None
    try:
        score, read = piece.read()
    except (InvalidInput, OSError) as error:
        return str(error)
    alignment = align(score, read.analysis)
    if alignment.fault is not None:
        return alignment.fault
    split = splits.get(piece.work, "")
    meta = {
        **piece.meta,
        "name": path.stem,
        "work": piece.work,
        "augmentednet": split,
        "may_train": split not in HELD_OUT,
        "chord_tone_share": round(alignment.share, 4),
        "coverage": round(alignment.coverage, 4),
        "labels_left_out": len(read.left_out),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_piece(path, score, read.analysis, meta)
    count(report, len(read.analysis), len(read.left_out))
    return None


def count(report: dict[str, Any], num_labels: int, num_left_out: int) -> None:
    """Add one written piece to the report."""
    report["written"] += 1
    report["labels"] += num_labels
    report["labels_left_out"] += num_left_out


def pieces_in(out: Path) -> Iterator[Path]:
    """The packed pieces of a corpus, in order."""
    return (path for source in SOURCES for path in sorted((out / source).rglob("*.npz")))


def mark_twins(out: Path) -> None:
    """Forbid training on what shares its notes with a held-out work under another name."""
    pieces = {path: read_piece(path) for path in pieces_in(out)}
    held_out = {path for path, (_, _, meta) in pieces.items() if meta["augmentednet"] in HELD_OUT}
    twins = held_out_twins({path: score for path, (score, _, _) in pieces.items()}, held_out)
    found: dict[str, list[str]] = collections.defaultdict(list)
    for path, twin in twins.items():
        score, analysis, meta = pieces[path]
        if meta["may_train"]:
            write_piece(path, score, analysis, meta | {"may_train": False, "twin": str(twin.relative_to(out))})
            found[str(twin.relative_to(out))].append(str(path.relative_to(out)))
    (out / "report_twins.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print("twins", sum(map(len, found.values())))


def leaks(out: Path) -> list[str]:
    """The pieces that may train although a held-out one has their work, or shares its notes."""
    pieces = {path: read_piece(path) for path in pieces_in(out)}
    held_out = {path for path, (_, _, meta) in pieces.items() if meta["augmentednet"] in HELD_OUT}
    works = {pieces[path][2]["work"] for path in held_out}
    twins = held_out_twins({path: score for path, (score, _, _) in pieces.items()}, held_out)
    trained = (path for path, (_, _, meta) in pieces.items() if meta["may_train"])
    return [
        str(path.relative_to(out))
        for path in trained
        if path in held_out or path in twins or pieces[path][2]["work"] in works
    ]


if __name__ == "__main__":
    main()
