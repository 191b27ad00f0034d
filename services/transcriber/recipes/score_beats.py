"""Score a beat tracker on the validation excerpts, by their source.

`python services/transcriber/recipes/score_beats.py --weights services/transcriber/weights/beat_tracker --excerpts
corpus/beats_pitches`, where `prepare_beats.py` wrote the excerpts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from stretto_transcriber.models.beat_tracker.weights import load_beat_tracker
from train_beats import SCORES, Excerpts, excerpt_scores


def table(scores: np.ndarray, sources: Sequence[str]) -> str:
    """Means of scores [N, 4] over the excerpts of each source and over all, a line each."""
    lines = [" ".join(["source", "excerpts", *SCORES])]
    names = np.array(sources)
    for name in [*sorted(set(sources)), "all"]:
        chosen = scores if name == "all" else scores[names == name]
        lines.append(" ".join([name, str(len(chosen)), *(f"{mean:.3f}" for mean in chosen.mean(0))]))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder of an export")
    parser.add_argument("--excerpts", type=Path, required=True, help="folder of prepare_beats.py")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    excerpts = Excerpts(args.excerpts, "valid")
    print(table(excerpt_scores(load_beat_tracker(args.weights), excerpts), excerpts.sources))


if __name__ == "__main__":
    main()
