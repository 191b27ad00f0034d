"""Whether ChordGNN reads harmony as analysts did, beside AugmentedNet run from its authors' weights on the same scores.

    python evals/quality/harmony_chordgnn.py --data ../shared/data --corpus corpus/harmony [--left-out DIR]

The pieces are those of AugmentedNet's official test list whose scores are at hand. With `--left-out`, a network that
was trained on nine of the DCML corpora reads the tenth. Needs h5py for AugmentedNet's file. Cost: some minutes of one
core.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "peers"))
import augmentednet
from findings import Findings
from harmony_scoring import PARTS, confusion_rows, differences, hits
from harness import ROOT, Outcome, Row, Table, need, parser, publish, surely_above
from stretto_harmony.engine.windows import MeasureGrid, analyze_window
from stretto_harmony.models.chordgnn.analyzer import ChordGnnAnalyzer
from stretto_harmony.models.chordgnn.weights import load_chordgnn
from stretto_harmony.scores.labels import Analysis
from stretto_harmony.scores.packed import read_piece
from stretto_harmony.scores.score import Score
from stretto_shared.metrics.bootstrap import Interval, bootstrap_mean

PUBLISHED = {
    "ChordGNN, published": (0.813, 0.714, 0.784, 0.803, 0.849, 0.518),
    "AugmentedNet, published": (0.829, 0.670, 0.797, 0.788, 0.830, 0.464),
}
TARGET = 0.52
PROTOCOL = (
    "Both read at every 32nd note of the analyst's labels (evals/harmony_scoring.py): key, degree of chord and of "
    "tonicised key, quality of fifteen, inversion, spelled root, and all five, the numeral. ChordGNN as it is served, "
    "in windows of measures with context; AugmentedNet in its own. Pooled over frames as in the papers; intervals "
    "by resampling pieces. Published numbers: all 56 pieces, references reduced to AugmentedNet's vocabulary."
)

Analyze = Callable[[Score], Analysis]


@dataclass(frozen=True)
class Read:
    """One piece, its analyst's labels and a system's, and which parts are right at each frame [T, PARTS]."""

    name: str
    score: Score
    reference: Analysis
    found: Analysis
    right: NDArray[np.bool_]


def read_all(folder: Path, analyze: Analyze, limit: int) -> list[Read]:
    """Every packed piece of a folder, analysed."""
    rows = []
    for path in sorted(folder.glob("*.npz"))[: limit or None]:
        score, reference, _ = read_piece(path)
        found = analyze(score)
        rows.append(Read(path.stem, score, reference, found, hits(reference, found)))
    return rows


def pooled(reads: Sequence[Read], num_resamples: int = 2_000) -> dict[str, Interval]:
    """The share of frames at which each part is right, pieces drawn anew for the intervals."""
    return _pooled(reads, [read.right.sum(axis=0) for read in reads], num_resamples)


def pooled_gain(ours: Sequence[Read], theirs: Sequence[Read], num_resamples: int = 2_000) -> dict[str, Interval]:
    """By how much the pooled shares differ, the same pieces drawn for both."""
    return _pooled(ours, [a.right.sum(axis=0) - b.right.sum(axis=0) for a, b in zip(ours, theirs)], num_resamples)


def _pooled(reads: Sequence[Read], sums: Sequence[NDArray[np.int64]], num_resamples: int) -> dict[str, Interval]:
    frames, right = np.array([len(read.right) for read in reads]), np.array(sums)
    random = np.random.default_rng(0)
    draws = random.integers(len(reads), size=(num_resamples, len(reads)))
    means = right[draws].sum(axis=1) / frames[draws].sum(axis=1)[:, None]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    mean = right.sum(axis=0) / frames.sum()
    return {
        part: Interval(float(mean[n]), float(low[n]), float(high[n]), 0.95, len(reads)) for n, part in enumerate(PARTS)
    }


def as_served(analyze: Analyze) -> Analyze:
    """The analyzer on the service's grid of windows of measures, each with its context and nothing else."""
    grid = MeasureGrid(ChordGnnAnalyzer.window_measures, ChordGnnAnalyzer.context_measures)

    def analyze_windows(score: Score) -> Analysis:
        windows = [grid.window(n, score.num_measures) for n in range(grid.num_windows(score.num_measures))]
        return Analysis(tuple(label for each in windows for label in analyze_window(analyze, score, each).labels))

    return analyze_windows


def collection_of(name: str) -> str:
    """The collection of the list that a piece belongs to."""
    return name.split("-")[0]


def compare(ours: Sequence[Read], theirs: Sequence[Read], findings: Findings) -> None:
    """Both systems on the test list: tables, numbers and claims."""
    found = {"ChordGNN": pooled(ours), "AugmentedNet": pooled(theirs)}
    rows: list[Row] = [("", *PARTS)]
    for name, intervals in found.items():
        rows.append((name, *(intervals[part].mean for part in PARTS)))
        rows.append(("", *(f"{intervals[part].low:.3f}-{intervals[part].high:.3f}" for part in PARTS)))
    rows += [(name, *values) for name, values in PUBLISHED.items()]
    findings.tables.append(Table(f"{len(ours)} pieces of the official test list, pooled over frames, 95 %", rows))
    for name, intervals in found.items():
        findings.numbers[name] = {part: [each.mean, each.low, each.high] for part, each in intervals.items()}
    gains = pooled_gain(ours, theirs)
    findings.add_intervals("gains", "Gain over AugmentedNet, pooled over frames, by resampled pieces", gains)
    by_piece = {
        part: bootstrap_mean([a.right[:, n].mean() - b.right[:, n].mean() for a, b in zip(ours, theirs)])
        for n, part in enumerate(PARTS)
    }
    findings.add_intervals("gains_by_piece", "Gain over AugmentedNet, each piece alike", by_piece)
    by_collection: list[Row] = [("collection", "pieces", "numeral", "AugmentedNet", "key", "AugmentedNet")]
    for collection in sorted({collection_of(read.name) for read in ours}):
        some = [n for n, read in enumerate(ours) if collection_of(read.name) == collection]
        rights = [np.concatenate([reads[n].right for n in some]).mean(axis=0) for reads in (ours, theirs)]
        cells = [right[PARTS.index(part)] for part in ("numeral", "key") for right in rights]
        by_collection.append((collection, len(some), *map(float, cells)))
    findings.tables.append(Table("By collection, pooled over frames", by_collection))
    numeral = found["ChordGNN"]["numeral"]
    findings.passed[f"numeral: {TARGET} or more of the frames"] = numeral.mean >= TARGET
    findings.passed[f"numeral: surely above {TARGET}"] = surely_above(numeral, TARGET)
    for part in PARTS:
        findings.claim_above(f"{part}: above AugmentedNet on the same scores", gains[part])


def show_errors(title: str, reads: Sequence[Read], findings: Findings) -> None:
    """The ten most frequent errors, and what numerals are told as."""
    pairs = [(read.reference, read.found) for read in reads]
    total = sum(len(read.right) for read in reads)
    errors = differences(pairs).most_common(10)
    rows: list[Row] = [("what is wrong", "share of frames"), *((words, count / total) for words, count in errors)]
    findings.tables.append(Table(f"{title}: the ten most frequent errors", rows))
    findings.tables.append(Table(f"{title}: numerals as they are told, where the key is right", confusion_rows(pairs)))
    findings.numbers[f"errors, {title}"] = {words: count / total for words, count in errors}


def measure_speed(analyze: Analyze, reads: Sequence[Read], findings: Findings) -> None:
    """How long the piece with most notes takes, the least of three runs."""
    longest = max(reads, key=lambda read: read.score.num_notes)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        analyze(longest.score)
        times.append(time.perf_counter() - started)
    rows: list[Row] = [
        ("piece", "notes", "threads", "seconds"),
        (longest.name, longest.score.num_notes, torch.get_num_threads(), min(times)),
    ]
    findings.tables.append(Table("Speed: the piece with most notes, least of three", rows))
    findings.numbers["seconds"] = {"notes": longest.score.num_notes, "least": min(times)}


def main() -> None:
    """Command line."""
    options = parser(__doc__)
    options.add_argument("--corpus", type=Path, default=ROOT / "corpus" / "harmony", help="of prepare_harmony.py")
    options.add_argument("--weights", type=Path, default=ROOT / "services" / "harmony" / "weights" / "chordgnn")
    options.add_argument("--left-out", type=Path, help="an export trained with --leave-out")
    options.add_argument("--left-out-corpus", default="dcml/mozart_piano_sonatas")
    args = options.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    folder = need(args.corpus / "augmentednet" / "test", "The harmony corpus")
    peer_file = need(args.data / "judges" / "augmentednet" / "AugmentedNet.hdf5", "AugmentedNet")
    analyzer, peer = ChordGnnAnalyzer(load_chordgnn(args.weights)), augmentednet.load(peer_file)
    findings = Findings()
    analyze = as_served(analyzer.analyze)
    ours = read_all(folder, analyze, args.limit)
    theirs = read_all(folder, lambda score: augmentednet.analyze(peer, score), args.limit)
    compare(ours, theirs, findings)
    show_errors("Test list", ours, findings)
    if args.left_out:
        left_out = ChordGnnAnalyzer(load_chordgnn(args.left_out))
        reads = read_all(args.corpus / args.left_out_corpus, as_served(left_out.analyze), args.limit)
        title = f"{args.left_out_corpus}, trained on the other nine"
        findings.add_intervals("left_out", f"{title}: pooled over frames", pooled(reads))
        show_errors(args.left_out_corpus, reads, findings)
    measure_speed(analyze, ours, findings)
    data = f"{len(ours)} of 56 pieces of AugmentedNet's official test list, {sum(len(r.right) for r in ours)} frames"
    publish(Outcome("harmony_chordgnn", PROTOCOL, data, findings.tables, findings.numbers, findings.passed), args)


if __name__ == "__main__":
    main()
