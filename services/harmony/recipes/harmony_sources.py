"""The pieces of the unpacked corpora: where each is, which work it is, and how it is read."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harmony_works import work_of_dcml, work_of_path
from stretto_harmony.readers import dcml
from stretto_harmony.readers.dcml import ReadAnalysis
from stretto_harmony.scores.score import Score


@dataclass(frozen=True)
class Listed:
    """An entry of AugmentedNet's list; `folder` is the analysis' below When in Rome's `Corpus`."""

    name: str
    collection: str
    split: str
    folder: str
    analysis: str
    work: str


@dataclass(frozen=True)
class Piece:
    """One analysed score: its place in the output, its work, and `read`, which raises `InvalidInput`."""

    path: Path
    work: str
    read: Callable[[], tuple[Score, ReadAnalysis]]
    meta: dict[str, Any] = field(default_factory=dict)


def read_list(path: Path) -> list[Listed]:
    """The entries of `dataset_gt.tsv`."""
    entries = []
    for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"):
        folder, _, analysis = row["annotation"].partition("/Corpus/")[2].rpartition("/")
        work = work_of_path(folder)
        entries.append(Listed(row["file"], row["collection"], row["split"], folder, analysis, work))
    return entries


def dcml_pieces(unpacked: Path, listed: list[Listed]) -> Iterator[Piece]:
    """Every movement of the ten corpora that has labels."""
    for harmonies in sorted((unpacked / "dcml" / "dcml").glob("*/harmonies/*.tsv")):
        corpus, name = harmonies.parent.parent, harmonies.name.removesuffix(".harmonies.tsv")
        meta = {"source": "dcml", "corpus": corpus.name, "split": corpus.name}
        yield Piece(
            Path("dcml", corpus.name, f"{name}.npz"),
            work_of_dcml(corpus.name, name),
            lambda corpus=corpus, name=name: read_dcml(corpus, name),
            meta,
        )


def read_dcml(corpus: Path, name: str) -> tuple[Score, ReadAnalysis]:
    """A movement's three tables."""
    notes, measures, harmonies = (
        (corpus / table / f"{name}.{table}.tsv").read_text(encoding="utf-8")
        for table in ("notes", "measures", "harmonies")
    )
    score = dcml.read_score(notes, measures)
    return score, dcml.read_analysis(harmonies, score)


PIECES: dict[str, Callable[[Path, list[Listed]], Iterator[Piece]]] = {"dcml": dcml_pieces}
