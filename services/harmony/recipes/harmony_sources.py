"""The pieces of the unpacked corpora: where each is, which work it is, and how it is read."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harmony_bps
from harmony_works import work_of_dcml, work_of_path
from stretto_harmony.alignment import align
from stretto_harmony.readers import dcml, humdrum, musicxml, romantext
from stretto_harmony.readers.dcml import ReadAnalysis
from stretto_harmony.scores.score import Score
from stretto_shared.errors import InvalidInput

GOOD_FIT = 0.85
"""A share of chord tones with which no other score of the work is tried."""


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
    score = read_dcml_score(corpus, name)
    harmonies = (corpus / "harmonies" / f"{name}.harmonies.tsv").read_text(encoding="utf-8")
    return score, dcml.read_analysis(harmonies, score)


def read_dcml_score(corpus: Path, name: str) -> Score:
    """A movement's notes and measures."""
    notes, measures = (
        (corpus / table / f"{name}.{table}.tsv").read_text(encoding="utf-8") for table in ("notes", "measures")
    )
    return dcml.read_score(notes, measures)


def listed_pieces(unpacked: Path, listed: list[Listed]) -> Iterator[Piece]:
    """The entries of AugmentedNet's list whose analysis is at hand; two analyses of one work are two entries there."""
    folders = {work: folder for folder, work in analysed(unpacked)}
    for entry in listed:
        folder = folders.get(entry.work)
        analysis = folder / entry.analysis if folder is not None else None
        if folder is None or analysis is None or not analysis.exists():
            continue
        meta = {"source": "augmentednet", "collection": entry.collection, "split": entry.split}
        yield Piece(
            Path("augmentednet", entry.split, f"{entry.name}.npz"),
            entry.work,
            lambda folder=folder, analysis=analysis, work=entry.work: read_best(unpacked, folder, analysis, work),
            meta,
        )


def other_pieces(unpacked: Path, listed: list[Listed]) -> Iterator[Piece]:
    """The analyses of When in Rome that the list has not."""
    works = {entry.work for entry in listed}
    for folder, work in analysed(unpacked):
        if work not in works and next(scores_of(unpacked, folder, work), None) is not None:
            yield Piece(
                Path("wir", f"{work.replace('/', '_')}.npz"),
                work,
                lambda folder=folder, work=work: read_best(unpacked, folder, folder / "analysis.txt", work),
                {"source": "wir", "collection": folder.parts[len(_corpus(unpacked).parts)], "split": ""},
            )


def analysed(unpacked: Path) -> Iterator[tuple[Path, str]]:
    """The folders of When in Rome that hold an analysis, with their works."""
    for analysis in sorted(_corpus(unpacked).rglob("analysis.txt")):
        yield analysis.parent, work_of_path(str(analysis.parent.relative_to(_corpus(unpacked))))


def scores_of(unpacked: Path, folder: Path, work: str) -> Iterator[Callable[[], Score]]:
    """Ways to the score of an analysis: beside it, in DCML, BPS-FH, the chorales in Humdrum, music21's own corpus."""
    beside, parts = folder / "score.mxl", work.split("/")
    if beside.exists():
        yield lambda: musicxml.read_score(beside.read_bytes())
    name, movement = "-".join(parts[1:-1]), parts[-1]
    if (quartet := quartet_of(unpacked, name, movement)) is not None:
        yield lambda: read_dcml_score(quartet.parent.parent, quartet.name.removesuffix(".notes.tsv"))
    if name.startswith("sonata-"):
        tables = unpacked / "dcml" / "dcml" / "beethoven_piano_sonatas"
        stem = f"{name.removeprefix('sonata-')}-{movement}"
        if (tables / "notes" / f"{stem}.notes.tsv").exists():
            yield lambda: read_dcml_score(tables, stem)
        notes = unpacked / "bps_fh" / "functional-harmony" / "BPS_FH_Dataset" / str(int(name.removeprefix("sonata-")))
        if movement == "1" and (notes / "dBeats.xlsx").exists():
            yield lambda: harmony_bps.read_score(notes)
    if name == "chorale":
        kern = unpacked / "bach_370_chorales" / "bach370" / "kern" / f"chor{int(movement):03}.krn"
        if kern.exists():
            yield lambda: humdrum.read_score(kern.read_bytes())
    remote = folder / "remote.json"
    own = json.loads(remote.read_text(encoding="utf-8")).get("remote_score_music21") if remote.exists() else None
    if isinstance(own, str) and own.endswith(".mxl") and (music21_corpus() / own).exists():
        yield lambda: musicxml.read_score((music21_corpus() / own).read_bytes())


def quartet_of(unpacked: Path, opus: str, movement: str) -> Path | None:
    """The notes of a Beethoven quartet's movement in DCML's ABC."""
    tables = unpacked / "dcml" / "dcml" / "ABC" / "notes"
    return next(tables.glob(f"n*{opus}_{int(movement):02}.notes.tsv"), None) if movement.isdigit() else None


def read_best(unpacked: Path, folder: Path, analysis: Path, work: str) -> tuple[Score, ReadAnalysis]:
    """The score at hand, and the numbering of its bars, that the analysis fits best.

    Raises:
        InvalidInput: When there is no score at hand, or none can be read.
    """
    text = analysis.read_text(encoding="utf-8", errors="replace")
    found: list[tuple[tuple[bool, float], Score, ReadAnalysis]] = []
    problem = InvalidInput("score", "expected a score of this analysis, found none at hand. Find one.")
    for read in scores_of(unpacked, folder, work):
        try:
            score = read()
        except InvalidInput as error:
            problem = error
            continue
        for lay in (romantext.read_analysis, romantext.read_analysis_by_count):
            laid = lay(text, score)
            lost = len(laid.left_out) / (len(laid.left_out) + len(laid.analysis) + 1)
            fit = align(score, laid.analysis)
            found.append(((fit.fault is None, fit.share - lost), score, laid))
            if fit.fault is None and fit.share - lost > GOOD_FIT:
                return found[-1][1:]
    if not found:
        raise problem
    return max(found, key=lambda fit: fit[0])[1:]


def music21_corpus() -> Path:
    """The folder of the corpus that music21's wheel carries; a folder that is not there without music21."""
    package = importlib.util.find_spec("music21")
    return Path(package.origin).parent / "corpus" if package is not None and package.origin else Path("music21")


def _corpus(unpacked: Path) -> Path:
    return unpacked / "when_in_rome" / "When-in-Rome" / "Corpus"


PIECES: dict[str, Callable[[Path, list[Listed]], Iterator[Piece]]] = {
    "dcml": dcml_pieces,
    "augmentednet": listed_pieces,
    "wir": other_pieces,
}
