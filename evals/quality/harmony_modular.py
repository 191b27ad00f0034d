"""Whether the modular analyzer reads harmony as analysts did: module by module and whole, on the official split.

    python evals/quality/harmony_modular.py --data ../shared/data [--only modules|system|served|tenth|speed]
        [--split valid]
        [--beside runs/modular_published/export/modular_published]
        [--tenth runs/modular_loo/export/modular --corpus corpus/harmony --tenth-corpus dcml/mozart_piano_sonatas]

The data are McLeod and Rohrmeier's tensors of the Functional Harmony corpus (`harmony/functional_harmony_h5.tar.xz`):
20 pieces of test, from which notes, chords and keys are put together again (`functional_harmony.py`); so all 20 are
read, whether their scores are at hand or not. With `--tenth`, modules that were trained without one DCML corpus and
without the same works elsewhere read it from its scores. `served` reads the pieces of the tensors as a server does,
window by window of measures (`modular_windows.py`). With `--split valid`, the split by which things are chosen, nothing
is claimed. Needs h5py. Cost: some minutes of one core.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[2] / "services" / "harmony" / "recipes"))
from choose_modular_search import Listener
from functional_harmony import raw, read_pieces
from harmony_scoring import confusion_rows, differences
from harness import ROOT, Outcome, Row, Table, need, parser, publish
from modular_pieces import Piece, chord_rows, piece_of
from modular_scores import MEASURES, mean_of, score_of
from modular_windows import score_in_windows
from stretto_harmony.engine.windows import MeasureGrid
from stretto_harmony.loading import CONTEXT_MEASURES, WINDOW_MEASURES
from stretto_harmony.models.modular.analyzer import ModularAnalyzer
from stretto_harmony.models.modular.config import SEARCH_PRESETS, SearchConfig
from stretto_harmony.models.modular.weights import load_modular
from stretto_harmony.scores.labels import Analysis
from stretto_harmony.scores.packed import read_piece
from stretto_shared.metrics.bootstrap import bootstrap_mean
from train_modular import TASKS, Schedule

PUBLISHED = {
    "McLeod & Rohrmeier, CSM-T": (0.754, 0.678, 0.581, 0.694, 0.459),
    "McLeod & Rohrmeier, CSM": (0.733, 0.654, 0.556, 0.608, 0.405),
}
SERVED = f"modular, chosen, windows of {WINDOW_MEASURES} measures with {CONTEXT_MEASURES} on either side"
SPEED_TARGET_S = 10.0
SPEED_MINUTES = 10.0
PROTOCOL = (
    "Chord symbol recall as the paper counts it (modular_scores.py): at each onset, weighted by the time to the next, "
    "the spelled root, and the type of twelve, and the inversion; the key, in which applied chords stand; and all of "
    "it. Means over pieces, intervals by resampling pieces. Parameters of the search were chosen on the validation "
    "split. Modules: binary ones at .5, over the places that the published tensors ask about; the classifier on the "
    "spans of chords that have a note of their own. No published numbers of modules are at hand."
)


def unpacked(data: Path, folder: Path) -> Path:
    """The published tensors, unpacked into `folder`."""
    archive = need(data / "harmony" / "functional_harmony_h5.tar.xz", "The Functional Harmony tensors")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder if (folder / "harmonic-inference").exists() else next(folder.iterdir())


def layout(tensors: Path, pieces: Sequence[Piece]) -> dict[str, float]:
    """The share of the test tensors' chord vectors, and of those in the key before, that ours are not equal to."""
    own, keys = raw(tensors, "ChordSequence", "test"), raw(tensors, "KeyTransition", "test")
    rows = chord_rows(pieces, torch.device("cpu"))
    wrong = {"chords": 0, "chords in the key before": 0}
    total, place = 0, 0
    for number, piece in enumerate(pieces):
        length = int(rows.length[number])
        ours = rows.own[number, :length].numpy()
        wrong["chords"] += int((np.abs(ours - own["inputs"][number, :length].astype(np.float32)) > 0.01).any(1).sum())
        changes = np.flatnonzero(piece.chords.is_change)
        theirs = keys["key_change_replacements"][place : place + len(changes)]
        before = rows.before[number].numpy()[changes]
        wrong["chords in the key before"] += int((np.abs(before - theirs) > 0.01).any(1).sum())
        total, place = total + length, place + int(keys["piece_lengths"][number])
    return {name: count / total for name, count in wrong.items()}


def module_scores(analyzer: ModularAnalyzer, pieces: list[Piece]) -> dict[str, dict[str, float]]:
    """What each module reaches on the pieces, which are asked as in training."""
    plan = Schedule(minutes=0.0, batch_size=1)
    scores = {}
    for name, make in TASKS.items():
        with torch.no_grad():
            scores[name] = make(analyzer.modules, pieces, pieces, plan, torch.device("cpu")).validate()
    return scores


def module_table(named: Mapping[str, dict[str, dict[str, float]]], split: str) -> Table:
    """Modules by row, weights by columns."""
    rows: list[Row] = [("module", "weights", "cross-entropy, nats", "accuracy", "F1 of changes")]
    for module in TASKS:
        for weights, scores in named.items():
            own = scores[module]
            rows.append((module, weights, own["valid_loss"], own["accuracy"], own.get("f1", "")))
    return Table(f"Modules on the official {split} tensors", rows)


def system_table(named: Mapping[str, list[Mapping[str, float]]], split: str) -> Table:
    """Systems by row, beside the published ones where the split is theirs."""
    rows: list[Row] = [("", "pieces", *MEASURES)]
    for name, scores in named.items():
        means = mean_of(list(scores))
        rows.append((name, len(scores), *(means[measure] for measure in MEASURES)))
    if split == "test":
        rows += [(f"{name}, published", 20, *values) for name, values in PUBLISHED.items()]
    return Table(f"Chord symbol recall on the official {split} split", rows)


def tenth(analyzer: ModularAnalyzer, folder: Path, limit: int) -> tuple[list[Table], dict[str, Any]]:
    """A corpus that did not train: recall, what its numerals are told as, and the most frequent errors."""
    pairs: list[tuple[Analysis, Analysis]] = []
    scores = []
    for path in sorted(need(folder, "The tenth corpus").glob("*.npz"))[: limit or None]:
        score, analysis, _ = read_piece(path)
        piece = piece_of(path.stem, score, analysis, as_published=False)
        reading, confidence = analyzer.read(piece.notes)
        scores.append(score_of(reading, piece))
        pairs.append((analysis, analyzer.labelled(score, reading, confidence)))
    means = mean_of(scores)
    counts = differences(pairs)
    total = sum(counts.values())
    errors: list[Row] = [("error", "share of the wrong time")]
    errors += [(name, count / total) for name, count in counts.most_common(10)]
    tables = [
        Table(f"{folder.name}, by modules trained without it", [("pieces", *MEASURES), (len(scores), *means.values())]),
        Table("Numerals where the key is right, in shares: analyst by row, told by column", confusion_rows(pairs)),
        Table("The ten most frequent errors", errors),
    ]
    return tables, {"corpus": folder.name, "pieces": len(scores), **means, "errors": dict(counts.most_common(10))}


def speed(analyzer: ModularAnalyzer, pieces: Sequence[Piece]) -> tuple[Table, float]:
    """Seconds of one core for ten minutes at 120 quarters a minute, from the longest test piece; best of two.

    Seconds of the processor, which other work on the machine changes less than those of the clock.
    """
    torch.set_num_threads(1)
    piece = max(pieces, key=lambda each: each.notes.end)
    minutes = piece.notes.end * 4 / 120
    taken_s = []
    for _ in range(2):
        started_s = time.process_time()
        analyzer.read(piece.notes)
        taken_s.append(time.process_time() - started_s)
    scaled_s = min(taken_s) * SPEED_MINUTES / minutes
    head: Row = ("piece", "notes", "minutes", "seconds of a core", f"for {SPEED_MINUTES:.0f} minutes")
    row: Row = (piece.name, len(piece.notes.onset), minutes, min(taken_s), scaled_s)
    return Table("Speed", [head, row]), scaled_s


def main() -> None:
    """Parse, measure, publish."""
    options = parser(__doc__)
    options.add_argument("--weights", type=Path, default=ROOT / "services/harmony/weights/modular")
    options.add_argument("--beside", type=Path, help="other weights, for the modules and the whole")
    options.add_argument("--only", default="modules,system,served,speed,tenth")
    options.add_argument("--split", default="test", choices=("valid", "test"))
    options.add_argument("--presets", default=",".join(SEARCH_PRESETS), help="of the search, beside what was chosen")
    options.add_argument("--tenth", type=Path, help="weights trained without the tenth corpus")
    options.add_argument("--tenth-corpus", default="dcml/mozart_piano_sonatas")
    options.add_argument("--corpus", type=Path, default=ROOT / "corpus" / "harmony")
    args = options.parse_args()
    torch.set_num_threads(args.threads or 1)
    analyzer = load_modular(need(args.weights, "The modular weights"))
    chosen = analyzer.config
    weights = {"modular": analyzer, **({args.beside.name: load_modular(args.beside)} if args.beside else {})}
    tables: list[Table] = []
    numbers: dict[str, Any] = {}
    passed: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        tensors = unpacked(args.data, Path(folder))
        pieces = read_pieces(tensors, args.split)[: args.limit or None]
        if not args.limit and args.split == "test":
            numbers["layout"] = layout(tensors, pieces)
            passed["chord vectors are those of the published tensors"] = not any(numbers["layout"].values())
    if "modules" in args.only:
        named = {name: module_scores(each, pieces) for name, each in weights.items()}
        tables.append(module_table(named, args.split))
        numbers["modules"] = named
    named_scores: dict[str, list[Mapping[str, float]]] = {}
    if "system" in args.only:
        named_scores = _system(weights, chosen, pieces, [name for name in args.presets.split(",") if name])
    if "served" in args.only:
        analyzer.config = chosen
        grid = MeasureGrid(WINDOW_MEASURES, CONTEXT_MEASURES)
        named_scores[SERVED] = [score_in_windows(analyzer, piece, grid) for piece in pieces]
    if named_scores:
        tables.append(system_table(named_scores, args.split))
        numbers["system"] = {name: _means(scores) for name, scores in named_scores.items()}
    if "system" in args.only and args.split == "test":
        passed |= claims(named_scores["modular, chosen"])
    if "speed" in args.only:
        analyzer.config = chosen
        table, taken_s = speed(analyzer, pieces)
        tables.append(table)
        numbers["seconds_for_ten_minutes"] = taken_s
        passed[f"ten minutes of music take under {SPEED_TARGET_S:.0f} s of one core"] = taken_s < SPEED_TARGET_S
    if args.tenth and "tenth" in args.only:
        more, numbers["tenth"] = tenth(load_modular(args.tenth), args.corpus / args.tenth_corpus, args.limit)
        tables += more
    data = f"Functional Harmony corpus, official {args.split} split, {len(pieces)} of 20 pieces"
    publish(Outcome("harmony_modular", PROTOCOL, data, tables, numbers, passed), args)


def _system(
    weights: Mapping[str, ModularAnalyzer], chosen: SearchConfig, pieces: Sequence[Piece], presets: Sequence[str]
) -> dict[str, list[Mapping[str, float]]]:
    """The whole, with the chosen parameters and the published ones: the recall of each piece."""
    named = {}
    for name, each in weights.items():
        listener = Listener(each, pieces)
        configs = {"chosen": chosen, **{preset: SEARCH_PRESETS[preset] for preset in presets}}
        for search, config in configs.items():
            if name == "modular" or search != "chosen":
                named[f"{name}, {search}"] = listener.scores(config)
    return named


def _means(scores: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Over pieces, and the interval of all of it."""
    return {**mean_of(list(scores)), "full_interval": vars(bootstrap_mean([score["full"] for score in scores]))}


def claims(scores: Sequence[Mapping[str, float]]) -> dict[str, bool]:
    """Whether the means reach the published ones."""
    means = mean_of(list(scores))
    return {
        f"{measure} recall is at or above the published {target}": means[measure] >= target
        for measure, target in zip(MEASURES, PUBLISHED["McLeod & Rohrmeier, CSM-T"])
    }


if __name__ == "__main__":
    main()
