"""Put trained modules together: `assemble_modular.py --config modular.toml --pieces FILE --run DIR [--search NAME]`.

Counts the initial chords of the training pieces, which is all the training that module needs, gathers the modules from
`RUN/MODULE.safetensors`, and writes `RUN/export/NAME` with the parameters of the search: a preset, or what
`choose_modular_search.py` wrote to `RUN/search.json`.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from modular_pieces import Piece
from safetensors.torch import load_file
from stretto_harmony.models.modular import vectors
from stretto_harmony.models.modular.config import ModularConfig, SearchConfig, search_of
from stretto_harmony.models.modular.networks import Modules
from stretto_harmony.models.modular.weights import ARCHITECTURE
from stretto_shared import weights
from train_modular import MODULES, Recipe, training_pieces

CHOSEN = "search.json"


def count_initial_chords(modules: Modules, pieces: Sequence[Piece]) -> None:
    """Fit the initial chord module to the first chords of `pieces`."""
    firsts = [piece.chords for piece in pieces if len(piece.chords.root)]
    chords = [vectors.relative_chord(c.root[:1], c.inverted[:1], c.tonic[:1])[0] for c in firsts]
    modules.icm.fit(torch.as_tensor(np.array(chords)), torch.as_tensor(np.array([c.is_minor[0] for c in firsts])))


def gathered(config: ModularConfig, run: Path, pieces: Sequence[Piece]) -> Modules:
    """The modules trained in `run`."""
    modules = Modules(config)
    for name in MODULES:
        tensors = load_file(run / f"{name}.safetensors")
        getattr(modules, name).load_state_dict({key: value.float() for key, value in tensors.items()})
    count_initial_chords(modules, pieces)
    return modules.eval().requires_grad_(False)


def search_of_run(run: Path, preset: str) -> SearchConfig:
    """What was chosen for this run, or the preset."""
    if preset:
        return search_of(preset)
    chosen = run / CHOSEN
    return SearchConfig(**json.loads(chosen.read_text("utf-8"))["search"]) if chosen.exists() else SearchConfig()


def main() -> None:
    """Gather and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--pieces", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--leave-out", default="")
    parser.add_argument("--search", default="", help="a preset instead of what was chosen for the run")
    parser.add_argument("--score", default="", help="what the config is to say that the weights achieve")
    args = parser.parse_args()
    with args.config.open("rb") as file:
        recipe = Recipe(**tomllib.load(file))
    pieces = training_pieces(recipe, args.pieces, args.leave_out)
    config = ModularConfig(**recipe.model)
    modules = gathered(config, args.run, pieces)
    weights.write(
        args.run / "export" / recipe.name,
        {key: value.half() if value.is_floating_point() else value for key, value in modules.state_dict().items()},
        name=recipe.name,
        architecture=ARCHITECTURE,
        config={"modules": asdict(config), "search": asdict(search_of_run(args.run, args.search))},
        licence=recipe.licence,
        score=args.score,
        training={"recipe": "train_modular.py", "pieces": len(pieces), "left_out": args.leave_out},
    )


if __name__ == "__main__":
    main()
