"""Choose the parameters of the joint search on the published validation split.

    python services/harmony/recipes/choose_modular_search.py --config modular.toml --pieces FILE --run runs/modular

From a published preset, or what other weights were chosen to have (`--from`), one parameter after another is moved, and
a move that raises the mean full recall is kept. The modules are asked for changes and chords of a piece once for each
set of spans. Writes `RUN/search.json` with every trial, after each.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from assemble_modular import CHOSEN, gathered
from modular_pieces import Piece
from modular_scores import mean_of, score_of
from pack_modular import load_pieces
from stretto_harmony.models.modular.analyzer import Heard, ModularAnalyzer
from stretto_harmony.models.modular.config import SEARCH_PRESETS, ModularConfig, SearchConfig
from train_modular import Recipe, training_pieces

MOVES: Mapping[str, Sequence[float]] = {
    "hash_length": (3, 2),
    "key_transition_exponent": (20.0, 8.0, 4.0, 60.0),
    "key_branches": (5.0,),
    "key_branch_mass": (0.9,),
    "key_sequence_exponent": (100.0, 20.0, 10.0, 200.0),
    "chord_sequence_exponent": (0.6, 0.35, 1.5),
    "max_no_key_change": (0.9, 0.97, 0.6),
    "min_key_change": (0.15, 0.02),
    "max_no_chord_change": (0.6, 0.75),
    "min_chord_change": (0.15, 0.35),
    "chord_branch_mass": (0.75, 0.9),
}


class Listener:
    """The validation pieces as an analyzer hears them; heard anew only where the spans change."""

    def __init__(self, analyzer: ModularAnalyzer, pieces: Sequence[Piece]) -> None:
        self.analyzer, self.pieces = analyzer, pieces
        self._spans: tuple[float, ...] = ()
        self._heard: list[Heard] = []

    def scores(self, config: SearchConfig) -> list[Mapping[str, float]]:
        """The recall of the reading of each piece with these parameters."""
        self.analyzer.config = config
        spans = (config.min_chord_change, config.max_no_chord_change, config.max_chord_length)
        if spans != self._spans:
            self._spans, self._heard = spans, [self.analyzer.hear(piece.notes) for piece in self.pieces]
        readings = [self.analyzer.search(heard) for heard in self._heard]
        return [score_of(reading, piece) for reading, piece in zip(readings, self.pieces)]


def choose(
    listener: Listener,
    start: SearchConfig,
    moves: Mapping[str, Sequence[float]],
    max_trials: int,
    keep: Callable[[SearchConfig, list[Any]], None],
) -> None:
    """Move one parameter after another; `keep` is told the best so far, and all trials, after each."""
    trials: list[dict[str, Any]] = []

    def tried(config: SearchConfig) -> float:
        known = next((trial for trial in trials if trial["search"] == asdict(config)), None)
        if known is None:
            known = {"search": asdict(config), **mean_of(listener.scores(config))}
            trials.append(known)
            print(json.dumps(known), flush=True)
        return float(known["full"])

    best = start
    tried(best)
    keep(best, trials)
    for name, values in moves.items():
        for value in values:
            if len(trials) >= max_trials:
                return
            try:
                moved = replace(best, **{name: value})
            except ValueError:
                continue  # a minimum above its maximum
            if tried(moved) > tried(best):
                best = moved
            keep(best, trials)


def main() -> None:
    """Choose and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--pieces", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--start", default="published", choices=SEARCH_PRESETS)
    parser.add_argument("--from", dest="weights", type=Path, help="weights whose parameters to start from instead")
    parser.add_argument("--moves", type=json.loads, default=MOVES, help="as JSON: values to try by parameter, in order")
    parser.add_argument("--max-trials", type=int, default=40)
    parser.add_argument("--limit", type=int, default=0, help="only the shortest so many pieces")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with args.config.open("rb") as file:
        recipe = Recipe(**tomllib.load(file))
    modules = gathered(ModularConfig(**recipe.model), args.run, training_pieces(recipe, args.pieces, ""))
    pieces = sorted(load_pieces(args.pieces, "valid"), key=lambda piece: len(piece.notes.onset))
    start = SEARCH_PRESETS[args.start]
    if args.weights:
        start = SearchConfig(**json.loads((args.weights / "config.json").read_text("utf-8"))["config"]["search"])
    pieces = pieces[: args.limit or None]

    def keep(best: SearchConfig, trials: list[Any]) -> None:
        record = {"search": asdict(best), "pieces": len(pieces), "trials": trials}
        (args.run / CHOSEN).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    choose(Listener(ModularAnalyzer(modules), pieces), start, args.moves, args.max_trials, keep)


if __name__ == "__main__":
    main()
