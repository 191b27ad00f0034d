"""How much of validation pieces a ChordGNN reads right on each of some grids of windows of measures.

    python services/harmony/recipes/choose_chordgnn_windows.py --weights DIR
        --pieces corpus/harmony/augmentednet/validation [--grids 16,8 20,6 32,8]

A grid is the measures of a window and those of its context on each side; what is computed for each measure that is told
is its last column. Read at 32nd notes; pieces are pooled. Cost: some twenty seconds of one core for a grid.

Legend: T frames that the analyst tells.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from stretto_harmony.engine.windows import MeasureGrid, analyze_windows
from stretto_harmony.models.chordgnn.analyzer import ChordGnnAnalyzer
from stretto_harmony.models.chordgnn.weights import load_chordgnn
from stretto_harmony.scores.labels import Analysis, HarmonyLabel
from stretto_harmony.scores.packed import read_piece
from stretto_harmony.scores.score import TICKS_PER_WHOLE, Score

PARTS = ("key", "tonicised", "root", "quality", "inversion", "numeral")
GRIDS = ("16,8", "16,6", "20,8", "20,6", "32,8")
FRAME_TICKS = TICKS_PER_WHOLE // 32


def parts_of(label: HarmonyLabel) -> tuple[object, ...]:
    """What must be equal for the first five parts; the numeral is all of them."""
    return label.key, label.tonicised, label.root, label.quality, label.inversion


def right(wanted: Analysis, found: Analysis) -> NDArray[np.bool_]:
    """Whether each part is right at each frame [T, PARTS]."""
    times = np.arange(0, max((label.end for label in wanted), default=0), FRAME_TICKS)
    ours, theirs = wanted.at(times), found.at(times)
    rows = []
    for own, other in zip(ours[ours >= 0].tolist(), theirs[ours >= 0].tolist(), strict=True):
        pairs = zip(parts_of(wanted.labels[own]), parts_of(found.labels[other]), strict=True)
        same = [other >= 0 and a == b for a, b in pairs]
        rows.append((*same, all(same)))
    return np.array(rows, bool).reshape(-1, len(PARTS))


def analyze_on(analyzer: ChordGnnAnalyzer, grid: MeasureGrid, score: Score) -> Analysis:
    """The labels of a whole score, window by window."""
    windows = [grid.window(index, score.num_measures) for index in range(grid.num_windows(score.num_measures))]
    found = analyze_windows(analyzer.analyze_all, score, windows)
    return Analysis(tuple(label for each in found for label in each.labels))


def share_right(
    analyzer: ChordGnnAnalyzer, pieces: Sequence[tuple[Score, Analysis]], grid: MeasureGrid
) -> dict[str, float]:
    """The share of all frames at which each part is right."""
    rows = np.concatenate([right(wanted, analyze_on(analyzer, grid, score)) for score, wanted in pieces])
    return dict(zip(PARTS, rows.mean(axis=0).tolist(), strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pieces", type=Path, required=True, help="folder of prepare_harmony.py; not the test list's")
    parser.add_argument("--grids", nargs="+", default=GRIDS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    analyzer = ChordGnnAnalyzer(load_chordgnn(args.weights))
    pieces = [read_piece(path)[:2] for path in sorted(args.pieces.glob("*.npz"))]
    print("window context", *PARTS, "cost", sep="\t", flush=True)
    for words in args.grids:
        window, context = (int(word) for word in words.split(","))
        shares = share_right(analyzer, pieces, MeasureGrid(window, context))
        cells = [f"{share:.4f}" for share in shares.values()]
        print(f"{window} {context}", *cells, f"{(window + 2 * context) / window:.2f}", sep="\t", flush=True)


if __name__ == "__main__":
    main()
