"""madmom's beat decoder as a peer: the beats that it finds in given activations, as one npz file.

    DIR/bin/python evals/peers/madmom_decoder.py ../shared/data/beats/ismir2019_beats.npz OUT.npz

in the environment that `madmom_beats.py` describes. `DBNBeatTrackingProcessor` as the published tracker of those
activations had it: 55 to 215 beats a minute, transition lambda 100. OUT.npz holds seconds, float64, as `SET/TRACK`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from madmom_beats import name_prebuilt

FPS, MIN_BPM, MAX_BPM, TRANSITION_LAMBDA = 100, 55, 215, 100


def decode(activations: Path, out: Path) -> None:
    """Write the beats of every activation of an archive."""
    name_prebuilt()
    from madmom.features.beats import DBNBeatTrackingProcessor

    track = DBNBeatTrackingProcessor(min_bpm=MIN_BPM, max_bpm=MAX_BPM, transition_lambda=TRANSITION_LAMBDA, fps=FPS)
    found = {}
    with np.load(activations) as archive:
        names = sorted(key.removesuffix("/activation") for key in archive.files if key.endswith("/activation"))
        for number, name in enumerate(names, 1):
            activation = np.clip(archive[f"{name}/activation"], 0.5, 254.5) / 255  # no path leads through 0 and 1
            found[name] = np.asarray(track(activation), np.float64)
            if number % 100 == 0:
                print(f"{number} of {len(names)}", file=sys.stderr, flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as file:
        np.savez(file, **found)


if __name__ == "__main__":
    decode(Path(sys.argv[1]), Path(sys.argv[2]))
