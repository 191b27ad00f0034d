"""Choose `DecodingOptions` for a ChordGNN on validation pieces, and print them.

    python services/harmony/recipes/choose_chordgnn_decoding.py --weights DIR --pieces corpus/harmony/chordgnn.npz

First the weights of the parts, at each onset by itself among the states that the defaults find likeliest; then what
changes cost, by whole searches; then the weights again, each a notch up or down, by whole searches. Each step takes the
value that reads more of the pieces' time as the analysts did. `--moves` tries the fifths by which the score is heard
moved; each costs a pass of the network. The defaults in `DecodingOptions` are what this printed for the committed
weights.

Legend: O onsets of all pieces, S states of each, W parts with a weight.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from chordgnn_pieces import Piece, read
from numpy.typing import NDArray
from stretto_harmony.models.chordgnn.analyzer import ChordGnnAnalyzer
from stretto_harmony.models.chordgnn.batch import centre_of
from stretto_harmony.models.chordgnn.decoding import DecodingOptions, NumeralDecoder, States
from stretto_harmony.models.chordgnn.decoding import Path as StatePath
from stretto_harmony.models.chordgnn.parts import NO_LABEL
from stretto_harmony.models.chordgnn.weights import load_chordgnn
from stretto_harmony.scores.pitch import NUM_SPELLINGS

WEIGHED = ("key", "tonicised", "degree", "of_degree", "quality", "inversion", "root", "bass", "numeral", "chord")
NOTCHES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
NUM_STATES = 24


@dataclasses.dataclass
class Told:
    """A piece as the network tells it, its states, and what is right."""

    piece: Piece
    shift: int
    logs: dict[str, NDArray[np.float32]]
    states: States
    worths: NDArray[np.float32]  # [O, S, W]
    right: NDArray[np.bool_]  # [O, S]
    ticks: NDArray[np.int64]  # [O], 0 in gaps


def tell(analyzer: ChordGnnAnalyzer, piece: Piece, options: DecodingOptions) -> Told:
    """All that is needed to try options on a piece."""
    shift = -centre_of(piece.graph)
    wide = dataclasses.replace(options, num_chords=NUM_STATES, num_states=NUM_STATES)
    (logs,) = analyzer.hear_graphs([piece.graph], [shift], wide)
    states = NumeralDecoder(analyzer.decoder.table, wide).states(logs)
    ticks = np.diff(piece.graph.onset_time, append=piece.num_ticks) * (piece.parts["key"] != NO_LABEL)
    classes = state_classes(analyzer, states)
    worths = np.stack([np.take_along_axis(logs[name], classes[name], 1) for name in WEIGHED], axis=2)
    return Told(piece, shift, logs, states, worths, are_right(piece, shift, classes), ticks)


def state_classes(analyzer: ChordGnnAnalyzer, states: States) -> dict[str, NDArray[np.int64]]:
    """The class [O, S] of each part that a state stands for."""
    table = analyzer.decoder.table
    tonicised, root, chord, _ = (array[states.key, states.numeral] for array in table.by_key)
    bass = np.clip(root + table.tones[states.numeral, states.inversion], 0, NUM_SPELLINGS - 1)
    alike = {name: getattr(table, name)[states.numeral] for name in ("degree", "of_degree", "quality")}
    there = {"key": states.key, "tonicised": tonicised, "root": root, "chord": chord, "bass": bass}
    return {**alike, **there, "inversion": states.inversion, "numeral": states.numeral}


def are_right(piece: Piece, shift: int, classes: dict[str, NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Whether a state says all parts of the numeral as the analyst does [O, S]."""
    right = np.ones(classes["key"].shape, bool)
    for name in ("key", "degree", "of_degree", "quality", "inversion", "root"):
        wanted = piece.parts[name] + (shift if name in ("key", "root") else 0)
        right &= classes[name] == wanted[:, None]
    return right


def share_right(told: Sequence[Told], chosen: Sequence[NDArray[np.int64]]) -> float:
    """The share of the pieces' time at which the chosen state [O] of each onset is right."""
    hit = sum(float(each.ticks[each.right[np.arange(len(at)), at]].sum()) for each, at in zip(told, chosen))
    return hit / sum(float(each.ticks.sum()) for each in told)


def searched(told: Sequence[Told], analyzer: ChordGnnAnalyzer, options: DecodingOptions) -> float:
    """The share that is right when whole paths are searched."""
    decoder, chosen = NumeralDecoder(analyzer.decoder.table, options), []
    for each in told:
        weights = np.array([getattr(options, name) for name in WEIGHED], np.float32)
        worth = each.worths @ weights
        order = np.argsort(-worth, axis=1, kind="stable")[:, : options.num_states]
        fields = (each.states.key, each.states.numeral, each.states.inversion, worth)
        states = States(*(np.take_along_axis(field, order, 1) for field in fields))
        path = decoder.search(states, each.logs["rhythm"])
        chosen.append(places_of(path, each.states))
    return share_right(told, chosen)


def places_of(path: StatePath, states: States) -> NDArray[np.int64]:
    """Where in `states` the path's states are [O]."""
    same = (states.key == path.key[:, None]) & (states.numeral == path.numeral[:, None])
    return (same & (states.inversion == path.inversion[:, None])).argmax(axis=1)


def choose_weights(told: Sequence[Told], options: DecodingOptions, rounds: int = 3) -> DecodingOptions:
    """The weights of the parts, one after another, each onset by itself."""

    def score(tried: DecodingOptions) -> float:
        weights = np.array([getattr(tried, name) for name in WEIGHED], np.float32)
        return share_right(told, [(each.worths @ weights).argmax(axis=1) for each in told])

    best = score(options)
    for _ in range(rounds):
        for name in WEIGHED:
            for value in NOTCHES:
                tried = dataclasses.replace(options, **{name: value})
                if (found := score(tried)) > best + 1e-5:
                    options, best = tried, found
        print(f"weights: {best:.4f} by single onsets", flush=True)
    return options


def choose_costs(told: Sequence[Told], analyzer: ChordGnnAnalyzer, options: DecodingOptions) -> DecodingOptions:
    """What changes cost, one after another, by whole searches."""
    grids = {
        "rhythm": (0.0, 0.5, 1.0, 2.0),
        "change": (0.0, 0.5, 1.0, 2.0, 3.0),
        "key_change": (0.0, 2.0, 4.0, 6.0, 9.0, 13.0),
    }
    best = searched(told, analyzer, options)
    for _ in range(2):
        for name, grid in grids.items():
            for value in grid:
                tried = dataclasses.replace(options, **{name: value})
                if (found := searched(told, analyzer, tried)) > best + 1e-5:
                    options, best = tried, found
        print(f"costs: {best:.4f} by whole searches", flush=True)
    return options


def refine_weights(told: Sequence[Told], analyzer: ChordGnnAnalyzer, options: DecodingOptions) -> DecodingOptions:
    """The weights of the parts a notch up or down, one after another, by whole searches."""
    best = searched(told, analyzer, options)
    for name in WEIGHED:
        place = NOTCHES.index(getattr(options, name))
        for value in NOTCHES[max(place - 1, 0) : place + 2]:
            tried = dataclasses.replace(options, **{name: value})
            if (found := searched(told, analyzer, tried)) > best + 1e-5:
                options, best = tried, found
    print(f"weights: {best:.4f} by whole searches", flush=True)
    return options


def fifths_of(text: str) -> tuple[int, ...]:
    """Moves in fifths as the command line has them, as `0,-1`."""
    return tuple(int(fifths) for fifths in text.split(","))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pieces", type=Path, required=True, help="file of chordgnn_pieces.py")
    parser.add_argument("--group", default="augmentednet/validation")
    parser.add_argument("--post", type=float, nargs="+", default=[0.0])
    parser.add_argument("--moves", type=fifths_of, nargs="+", default=[(0,)], help="as 0 0,-1 1,-1")
    args = parser.parse_args(arguments)
    analyzer = ChordGnnAnalyzer(load_chordgnn(args.weights))
    pieces = [piece for piece in read(args.pieces)[0] if piece.group == args.group]
    results = []
    for post, moves in itertools.product(args.post, args.moves):
        options = dataclasses.replace(analyzer.decoder.options, post=post, moves=moves)
        told = [tell(analyzer, piece, options) for piece in pieces]
        print(f"post {post}, moves {moves}: {searched(told, analyzer, options):.4f} with the defaults", flush=True)
        options = choose_costs(told, analyzer, choose_weights(told, options))
        options = refine_weights(told, analyzer, options)
        results.append((searched(told, analyzer, options), options))
    share, options = max(results, key=lambda result: result[0])
    print(json.dumps({"right": round(share, 4), "pieces": len(pieces), **dataclasses.asdict(options)}))


if __name__ == "__main__":
    main()
