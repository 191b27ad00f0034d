"""Choose the parameters of the joint search on the published validation split.

    python services/harmony/recipes/choose_modular_search.py --config modular.toml --pieces FILE --run runs/modular

From a published preset one parameter after another is moved, and a move that raises the mean full recall is kept.
The modules are asked for changes and chords of a piece once for each set of spans. Writes `RUN/search.json` with
every trial.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Mapping, Sequence
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
    "key_transition_exponent": (20.0, 8.0, 5.0, 60.0),
    "key_branches": (5.0,),
    "key_branch_mass": (0.9,),
    "key_sequence_exponent": (100.0, 20.0, 200.0),
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


def choose(listener: Listener, preset: str, max_trials: int) -> tuple[SearchConfig, list[Any]]:
    """The best parameters found, and all trials."""
    trials: list[dict[str, Any]] = []

    def tried(config: SearchConfig) -> float:
        known = next((trial for trial in trials if trial["search"] == asdict(config)), None)
        if known is None:
            known = {"search": asdict(config), **mean_of(listener.scores(config))}
            trials.append(known)
            print(json.dumps(known), flush=True)
        return float(known["full"])

    best = SEARCH_PRESETS[preset]
    tried(best)
    for name, values in MOVES.items():
        for value in values:
            if len(trials) >= max_trials:
                return best, trials
            try:
                moved = replace(best, **{name: value})
            except ValueError:
                continue  # a minimum above its maximum
            if tried(moved) > tried(best):
                best = moved
    return best, trials


def main() -> None:
    """Choose and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--pieces", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--start", default="published", choices=SEARCH_PRESETS)
    parser.add_argument("--max-trials", type=int, default=40)
    parser.add_argument("--limit", type=int, default=0, help="only the shortest so many pieces")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with args.config.open("rb") as file:
        recipe = Recipe(**tomllib.load(file))
    modules = gathered(ModularConfig(**recipe.model), args.run, training_pieces(recipe, args.pieces, ""))
    pieces = sorted(load_pieces(args.pieces, "valid"), key=lambda piece: len(piece.notes.onset))
    best, trials = choose(Listener(ModularAnalyzer(modules), pieces[: args.limit or None]), args.start, args.max_trials)
    record = {"search": asdict(best), "pieces": len(pieces[: args.limit or None]), "trials": trials}
    (args.run / CHOSEN).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
